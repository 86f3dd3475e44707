//! Ordinary clients beside an attack: all that is theirs comes, and how long they wait for it is printed, before and
//! meanwhile, with the memory of the programs.
//!
//! At each door some polls are held, to which an event comes every 50 ms, and one client asks something new all the time. What
//! a newcomer gets wrong: nothing here asserts a time. A machine that runs other tests is late for its own reasons; what is
//! asserted is that everybody was served, lost nothing, got nothing twice, and that memory stays below a bound.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::{self, Address};
use crate::pollers::{Poller, Pollers, clock};
use crate::{process, wait};

/// The channel that they read.
pub const CHANNEL: &str = "bystanders";

/// Pause between two events, and between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Held polls at each door.
const POLLS: usize = 5;

/// How many events and answers a phase has at least.
const LEAST: usize = 10;

/// Where they come from, and what is watched.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// By their names, where clients ask.
    pub doors: &'a [(&'static str, &'a Address)],
    /// Where an application publishes, without a key.
    pub publish: &'a Address,
    /// Further parameters of each poll, such as a token.
    pub query: String,
    /// Programs by name, with their process ids.
    pub watched: &'a [(&'static str, u32)],
}

/// Clients that run until they are [finished](Bystanders::finish).
#[derive(Debug)]
pub struct Bystanders {
    doors: Vec<(&'static str, Pollers)>,
    watched: Vec<&'static str>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    calm: Option<Phase>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    /// By door, how long each answer took.
    asked: Mutex<Vec<Vec<Duration>>>,
    published: Mutex<Vec<u64>>,
    /// What went wrong.
    failures: Mutex<Vec<String>>,
    /// By program, the most of this phase, in KB.
    memory: Mutex<Vec<u64>>,
}

/// What a phase was like.
#[derive(Debug)]
struct Phase {
    /// By door, in milliseconds: events, answers.
    doors: Vec<(Vec<u32>, Vec<Duration>)>,
    memory: Vec<u64>,
}

impl Bystanders {
    /// Starts them, and looks at them for a moment while nothing else goes on.
    ///
    /// # Panics
    /// When they are not served even then.
    #[track_caller]
    pub fn start(start: &Start<'_>) -> Self {
        let shared = Arc::new(Shared {
            asked: Mutex::new(vec![Vec::new(); start.doors.len()]),
            memory: Mutex::new(vec![0; start.watched.len()]),
            ..Shared::default()
        });
        let pollers = |address: &Address| {
            // A page that the fallback answers is told to come back after seconds; events come faster here.
            let poller = Poller::new(address, CHANNEL, 0)
                .query(&start.query)
                .reconnect_cap(Duration::from_millis(100));
            Pollers::start((0..POLLS).map(|n| poller.clone().wait_id(format!("bystander-{n}"))))
        };
        let doors = start.doors.iter().map(|(name, address)| (*name, pollers(address))).collect();
        let mut this = Self {
            doors,
            watched: start.watched.iter().map(|(name, _)| *name).collect(),
            shared,
            threads: Vec::new(),
            calm: None,
        };
        let publish = start.publish.clone();
        this.go_on(move |shared| publish_one(&publish, shared));
        for (door, (name, address)) in start.doors.iter().enumerate() {
            let (name, address) = (*name, Address::clone(address));
            let target = format!("/e/nobody-publishes-here?flavor=short-poll&{}", start.query);
            this.go_on(move |shared| ask_one(door, name, &address, &target, shared));
        }
        let programs: Vec<_> = start.watched.iter().map(|(_, id)| *id).collect();
        this.go_on(move |shared| watch(&programs, shared));
        this.calm = Some(this.phase(|| {}));
        this
    }

    /// Attacks, again and again until the bystanders have been looked at for long enough, at least once; prints how they
    /// fared.
    ///
    /// # Panics
    /// When somebody was not served, or a program takes more than `memory_max` KB.
    #[track_caller]
    pub fn during(&mut self, what: &str, memory_max: u64, attack: impl FnMut()) {
        let phase = self.phase(attack);
        let calm = self.calm.as_ref().expect("the first phase is that of the start");
        println!("{what}:\n{}", compare(calm, &phase, &self.doors, &self.watched));
        self.assert_served(what);
        for (name, kilobytes) in self.watched.iter().zip(&phase.memory) {
            assert!(*kilobytes < memory_max, "{what}: the {name} takes {kilobytes} KB");
        }
    }

    /// Ends them.
    ///
    /// # Panics
    /// When one of them has lost an event, got one twice, or was not served.
    #[track_caller]
    pub fn finish(mut self) {
        self.stop();
        self.assert_served("the end");
        let published = lock(&self.shared.published).clone();
        let last = published.last().copied().unwrap_or(0);
        for (name, pollers) in std::mem::take(&mut self.doors) {
            pollers.wait_until_reached(last, wait::PATIENCE);
            let (readings, tally) = pollers.stop();
            for reading in readings {
                let ids: Vec<_> = reading.events.iter().map(|(id, _)| *id).collect();
                assert!(ids == published, "at the {name}: {ids:?} and not {published:?}");
            }
            assert!(tally.errors.is_empty() && tally.statuses.keys().eq([&200]), "at the {name}: {tally:?}");
        }
    }

    fn go_on(&mut self, step: impl Fn(&Shared) + Send + 'static) {
        let shared = self.shared.clone();
        self.threads.push(std::thread::spawn(move || {
            while !shared.stopping.load(Ordering::SeqCst) {
                step(&shared);
                std::thread::sleep(PAUSE);
            }
        }));
    }

    #[track_caller]
    fn phase(&self, mut attack: impl FnMut()) -> Phase {
        // What is left of the phase before.
        drop(self.take());
        let mut phase = Phase { doors: vec![Default::default(); self.doors.len()], memory: Vec::new() };
        let (began, mut attacked) = (Instant::now(), false);
        loop {
            if !attacked || began.elapsed() < wait::PATIENCE {
                attack();
                attacked = true;
            }
            std::thread::sleep(Duration::from_millis(5));
            for ((events, answers), (more_events, more_answers)) in phase.doors.iter_mut().zip(self.take()) {
                events.extend(more_events);
                answers.extend(more_answers);
            }
            let enough = |(events, answers): &(Vec<u32>, Vec<Duration>)| {
                events.len() >= LEAST * POLLS && answers.len() >= LEAST
            };
            if phase.doors.iter().all(enough) {
                phase.memory = lock(&self.shared.memory).iter_mut().map(std::mem::take).collect();
                return phase;
            }
            self.assert_served("this phase");
            assert!(began.elapsed() < wait::PATIENCE * 2, "they are not served: {:?}", phase.doors);
        }
    }

    fn take(&self) -> Vec<(Vec<u32>, Vec<Duration>)> {
        let asked: Vec<_> = lock(&self.shared.asked).iter_mut().map(std::mem::take).collect();
        self.doors.iter().map(|(_, pollers)| pollers.take_lateness()).zip(asked).collect()
    }

    #[track_caller]
    fn assert_served(&self, what: &str) {
        let failures = lock(&self.shared.failures);
        assert!(failures.is_empty(), "{what}: {failures:?}");
    }

    fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // None of them panics; and where the test does, this must not once more.
            let _ = thread.join();
        }
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        self.stop();
    }
}

fn publish_one(address: &Address, shared: &Shared) {
    let event = format!(r#"{{"channel":"{CHANNEL}","type":"made","data":{{"sent":{}}}}}"#, clock());
    match http::post_json("/publish", event).try_send(address) {
        Ok(reply) if reply.status == 201 => {
            let id = reply.json()["ids"][0].as_u64().unwrap_or(0);
            lock(&shared.published).push(id);
        }
        other => fail(shared, format!("a publish came to {other:?}")),
    }
}

fn ask_one(door: usize, name: &str, address: &Address, target: &str, shared: &Shared) {
    let start = Instant::now();
    match http::get(target).try_send(address) {
        Ok(reply) if reply.status == 200 => lock(&shared.asked)[door].push(start.elapsed()),
        other => fail(shared, format!("at the {name}, a poll came to {other:?}")),
    }
}

fn watch(programs: &[u32], shared: &Shared) {
    for (most, id) in lock(&shared.memory).iter_mut().zip(programs) {
        *most = process::resident_kilobytes_now(*id).unwrap_or(0).max(*most);
    }
}

fn fail(shared: &Shared, what: String) {
    let mut failures = lock(&shared.failures);
    // The first ones tell.
    if failures.len() < 5 {
        failures.push(what);
    }
}

/// Two phases, a line for each door and each program.
fn compare(before: &Phase, during: &Phase, doors: &[(&'static str, Pollers)], watched: &[&str]) -> String {
    let mut text = String::new();
    for ((name, _), (before, during)) in doors.iter().zip(before.doors.iter().zip(&during.doors)) {
        let events = |phase: &(Vec<u32>, _)| {
            let all = phase.0.iter().map(|late| Duration::from_millis((*late).into())).collect();
            shown(all)
        };
        let answers = |phase: &(_, Vec<Duration>)| shown(phase.1.clone());
        let _ = writeln!(
            text,
            "  at the {name}, p50/p99 before and during: an answer {} and {}, an event {} and {}",
            answers(before),
            answers(during),
            events(before),
            events(during)
        );
    }
    for (name, (before, during)) in watched.iter().zip(before.memory.iter().zip(&during.memory)) {
        let _ = writeln!(text, "  memory of the {name}: {before} KB before, {during} KB at most during");
    }
    text
}

/// Half of them, and 99 of 100, are not longer than this.
fn shown(mut all: Vec<Duration>) -> String {
    all.sort_unstable();
    let at = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)].as_secs_f64() * 1000.0;
    if all.is_empty() { "none".to_owned() } else { format!("{:.1}/{:.1} ms", at(50), at(99)) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
