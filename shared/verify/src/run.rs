//! Carries out a plan: clients first, then publishers, then faults; then the end of each channel, and the judgement.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Client, World, lock};
use crate::clock::Random;
use crate::faults::Fault;
use crate::ledger::{Ledger, Reader, Told};
use crate::publish::{HttpPublisher, Pace, Refusals, SqlPublisher};
use crate::record::Label;
use crate::report::{Progress, Report};
use crate::{Cause, Plan, PlanError};

/// How often progress is told and conditions are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long clients may take to find where they begin.
const BEGIN: Duration = Duration::from_secs(20);

/// How many publish over HTTP at once, and how many in SQL.
const PUBLISHERS: u32 = 8;

/// Most clients that connect in one tenth of a second, so that the run does not begin with a storm of its own.
const AT_ONCE: usize = 200;

/// Ends a run early from another thread; what was published until then is judged.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Publishes nothing more.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the thread that breaks things says.
#[derive(Debug, Default)]
struct Struck {
    /// One more than the place of the fault under way; 0 for none.
    now: AtomicUsize,
    errors: Mutex<Vec<String>>,
}

impl Struck {
    fn errors(&self) -> MutexGuard<'_, Vec<String>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out `plan` and judges. `progress` is called ten times a second.
///
/// # Errors
///
/// When the plan is wrong, nobody answers at all, or publishing is refused.
pub fn run(mut plan: Plan, stop: &Stop, progress: impl FnMut(&Progress)) -> Result<Report, PlanError> {
    plan.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| PlanError::Unreachable(format!("cannot start threads: {error}")))?;
    let faults = std::mem::take(&mut plan.faults);
    let report = runtime.block_on(carry_out(&plan, faults, stop, progress));
    // A publisher may wait for a database that never answers.
    runtime.shutdown_background();
    report
}

async fn carry_out(
    plan: &Plan,
    faults: Vec<Fault>,
    stop: &Stop,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, PlanError> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Of each run its own, so that two at once on one server do not meet.
    let name = format!("{:x}{:x}", since_1970.as_micros() & 0xffff_ffff_ffff, std::process::id());
    let (ledger, label) = (Ledger::new(plan.late_max), Label::new(name));
    for number in 0..plan.channels {
        ledger.channel(&label.channel(number));
    }
    let world = Arc::new(World { ledger, label, targets: plan.targets.clone(), hold: plan.hold });
    let readers = readers(plan);
    let mut clients = start_clients(plan, &world, &readers).await;
    wait_for_places(&world, &readers, stop).await?;

    let began = Instant::now();
    let done = Arc::new(AtomicBool::new(false));
    let (refusals, mut refused) = watch::channel(None);
    let struck = Arc::new(Struck::default());
    let publishers = start_publishers(plan, &world, &done, &refusals)?;
    let breaking = start_faults(plan, faults, &world, &done, &struck);
    let mut tell = || {
        let [acknowledged, unknown, delivered, broken] = world.ledger.progress();
        let fault = struck.now.load(Ordering::Relaxed).checked_sub(1);
        progress(&Progress { elapsed: began.elapsed(), acknowledged, unknown, delivered, broken, fault });
    };
    while began.elapsed() < plan.duration && !stop.is_stopped() && refused.borrow().is_none() {
        tokio::time::sleep(LOOK).await;
        tell();
    }
    let seconds = began.elapsed().as_secs();
    done.store(true, Ordering::SeqCst);
    // What is broken is mended first.
    let broke =
        tokio::task::spawn_blocking(move || breaking.is_none_or(|thread| thread.join().is_ok())).await;
    if !broke.unwrap_or(false) {
        struck.errors().push("the thread that breaks things panicked".to_owned());
    }
    world.ledger.enter(None);
    let refusal = refused.borrow_and_update().clone();
    if let Some(refusal) = refusal {
        return Err(refusal);
    }
    let settled = Instant::now() + plan.settle;
    finish(publishers, settled).await;
    end_channels(plan, &world, settled).await?;
    let all_done = || readers.iter().all(|reader| lock(reader).is_done());
    while Instant::now() < settled && !all_done() {
        tokio::time::sleep(LOOK).await;
        tell();
    }
    // What comes twice comes soon, if it does.
    tokio::time::sleep(LOOK * 5).await;
    tell();
    for client in &clients {
        client.abort();
    }
    for client in clients.drain(..) {
        let _ = client.await;
    }
    let readers =
        readers.into_iter().map(|reader| std::mem::replace(&mut *lock(&reader), Reader::new(0, Vec::new())));
    let errors = struck.errors().clone();
    let mut report = Report::new(world.ledger.judgement(readers), plan.failures_count, errors);
    (report.seed, report.clients, report.seconds) = (plan.seed, plan.clients, seconds);
    Ok(report)
}

/// All clients' channels: in turn, so that each has as many readers as any other.
fn readers(plan: &Plan) -> Vec<Arc<Mutex<Reader>>> {
    let channels = |client: u32| {
        let first = u64::from(client) * u64::from(plan.channels_per_client);
        let channel = |offset| ((first + u64::from(offset)) % u64::from(plan.channels)) as u32;
        (0..plan.channels_per_client).map(channel).collect()
    };
    (0..plan.clients).map(|number| Arc::new(Mutex::new(Reader::new(number, channels(number))))).collect()
}

async fn start_clients(
    plan: &Plan,
    world: &Arc<World>,
    readers: &[Arc<Mutex<Reader>>],
) -> Vec<JoinHandle<()>> {
    let mut clients = Vec::with_capacity(readers.len());
    for (number, reader) in readers.iter().enumerate() {
        let transport = plan.transports[number % plan.transports.len()];
        let random = Random::new(plan.seed, number as u64);
        clients.push(tokio::spawn(Client::new(world, reader, transport, random).run()));
        if number % AT_ONCE == AT_ONCE - 1 {
            tokio::time::sleep(LOOK).await;
        }
    }
    clients
}

async fn wait_for_places(
    world: &World,
    readers: &[Arc<Mutex<Reader>>],
    stop: &Stop,
) -> Result<(), PlanError> {
    let end = Instant::now() + BEGIN;
    loop {
        let waiting = readers.iter().filter(|reader| !lock(reader).has_place()).count();
        if waiting == 0 {
            return Ok(());
        }
        if Instant::now() >= end || stop.is_stopped() {
            let failures = world.ledger.judgement([]).failures;
            return Err(PlanError::Unreachable(format!(
                "{waiting} of {} clients got no answer: {failures:?}; is {} right, and does the daemon or the fallback run?",
                readers.len(),
                world.targets[0]
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn start_publishers(
    plan: &Plan,
    world: &Arc<World>,
    done: &Arc<AtomicBool>,
    refusals: &Refusals,
) -> Result<Vec<JoinHandle<()>>, PlanError> {
    let publishers = PUBLISHERS * plan.causes.len() as u32;
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for number in 0..publishers {
        let pace = Pace::new(plan.rate, publishers, number);
        let (next, channels) = (next.clone(), u64::from(plan.channels));
        // In turn: each channel gets its share.
        let channel = move || (next.fetch_add(1, Ordering::Relaxed) % channels) as u32;
        let careful = (number / plan.causes.len() as u32).is_multiple_of(2);
        let (done, refusals) = (done.clone(), refusals.clone());
        tasks.push(match (plan.causes[number as usize % plan.causes.len()], &plan.database) {
            (Cause::Sql, Some(url)) => {
                let publisher = SqlPublisher::new(world, url, plan.redis.as_deref(), careful)?;
                tokio::task::spawn_blocking(move || publisher.run(pace, channel, &done, &refusals))
            }
            _ => tokio::spawn(http(plan, world, careful, number).run(pace, channel, done, refusals)),
        });
    }
    Ok(tasks)
}

fn http(plan: &Plan, world: &Arc<World>, careful: bool, number: u32) -> HttpPublisher {
    HttpPublisher {
        world: world.clone(),
        key: plan.publish_key.clone(),
        careful,
        target: number as usize % plan.targets.len(),
        connection: None,
    }
}

/// Breaks and mends in random order until `done`, on a thread of its own.
fn start_faults(
    plan: &Plan,
    mut faults: Vec<Fault>,
    world: &Arc<World>,
    done: &Arc<AtomicBool>,
    struck: &Arc<Struck>,
) -> Option<std::thread::JoinHandle<()>> {
    if faults.is_empty() {
        return None;
    }
    let (world, done, struck, calm) = (world.clone(), done.clone(), struck.clone(), plan.calm);
    let mut random = Random::new(plan.seed, u64::MAX);
    Some(std::thread::spawn(move || {
        let pause = |time: Duration| {
            let end = Instant::now() + time;
            while Instant::now() < end && !done.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
            }
        };
        let run = |what: &str, action: &mut crate::Action| {
            if let Err(error) = action() {
                struck.errors().push(format!("{what}: {error}"));
            }
        };
        let mut order: Vec<usize> = Vec::new();
        pause(calm);
        while !done.load(Ordering::Relaxed) {
            // Each once before any comes again.
            let Some(place) = order.pop() else {
                order = (0..faults.len()).collect();
                random.shuffle(&mut order);
                continue;
            };
            let fault = &mut faults[place];
            world.ledger.enter(Some(&fault.name));
            struck.now.store(place + 1, Ordering::Relaxed);
            run(&fault.name, &mut fault.strike);
            pause(fault.lasts);
            if let Some(mend) = &mut fault.mend {
                run(&fault.name, mend);
            }
            struck.now.store(0, Ordering::Relaxed);
            // What is published while things come back still belongs to it.
            pause(calm / 2);
            world.ledger.enter(None);
            pause(calm / 2);
        }
    }))
}

async fn finish(publishers: Vec<JoinHandle<()>>, end: Instant) {
    for publisher in publishers {
        let left = end.saturating_duration_since(Instant::now());
        // One that waits for a database is left alone; its event stays unknown.
        let _ = tokio::time::timeout(left, publisher).await;
    }
}

/// Publishes a last event on each channel: who has got those of all its channels has got everything before.
async fn end_channels(plan: &Plan, world: &Arc<World>, end: Instant) -> Result<(), PlanError> {
    let announced: Vec<_> = (0..plan.channels).map(|channel| world.ledger.announce_last(channel)).collect();
    let told = match &plan.database {
        Some(url) if !plan.causes.contains(&Cause::Http) => {
            let mut publisher = SqlPublisher::new(world, url, plan.redis.as_deref(), true)?;
            let publish = move || {
                let mut each = announced.into_iter().map(|n| publisher.publish(n, || Instant::now() >= end));
                each.try_fold(Told::Acknowledged, |all, told| Ok(all.min(told?)))
            };
            tokio::task::spawn_blocking(publish).await.unwrap_or(Ok(Told::Unknown))?
        }
        _ => {
            let mut publisher = http(plan, world, true, 0);
            let mut all = Told::Acknowledged;
            for n in announced {
                all = all.min(publisher.publish(n, end).await?);
            }
            all
        }
    };
    if told == Told::Unknown {
        let text =
            "nobody takes the last events, so it cannot be judged what is missing; is everything mended?";
        return Err(PlanError::Unreachable(text.to_owned()));
    }
    Ok(())
}
