//! How late events come: an application that commits numbered events, and a page that notes when each arrives.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::{Database, EventStream, sse, wait};

/// What is promised while wake-ups are lost: the sweep (1 s), and half a second for all the rest.
///
/// A machine that is busy with other things adds to it what it adds to everything: how long a trivial request took
/// meanwhile, at worst. That is measured beside the events, and printed with them.
const PROMISE: Duration = Duration::from_millis(1500);

/// Between two events.
const PACE: Duration = Duration::from_millis(40);

/// An application and a page, until it is dropped or asked for what came.
pub(crate) struct Traffic {
    shared: Arc<Shared>,
    publisher: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    published: Mutex<BTreeMap<u64, Instant>>,
    arrived: Mutex<Vec<(u64, Instant)>>,
    /// The longest that a trivial request took.
    trivial: Mutex<Duration>,
}

/// What came, and how late.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) published: usize,
    pub(crate) lost: Vec<u64>,
    pub(crate) doubled: Vec<u64>,
    pub(crate) reordered: Vec<u64>,
    /// From commit to arrival, sorted.
    pub(crate) late: Vec<Duration>,
    /// The longest that a trivial request took meanwhile, to the database and to the daemon.
    pub(crate) trivial: Duration,
}

impl Traffic {
    /// Begins to publish on the channel `cheese` of this database and to read it there. After each commit `tell` is called,
    /// as an old publisher would tell Redis; the event is published already, whatever comes of that.
    pub(crate) fn start(database: &Database, daemon: &Address, tell: impl Fn() + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let request = sse::get("/e/cheese?last_event_id=0");
        let stream = EventStream::open(daemon, &request);
        let for_reader = shared.clone();
        let reader = std::thread::spawn(move || read(stream, &for_reader));
        let mut client = database.connect();
        let for_publisher = shared.clone();
        let publisher = std::thread::spawn(move || {
            let sql =
                "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', $1::text::json)";
            for number in 1.. {
                if for_publisher.stopping.load(Ordering::Relaxed) {
                    return;
                }
                client.execute(sql, &[&number.to_string()]).expect("the database is there");
                lock(&for_publisher.published).insert(number, Instant::now());
                tell();
                std::thread::sleep(PACE);
            }
        });
        let (mut client, daemon) = (database.connect(), daemon.clone());
        let for_control = shared.clone();
        let control = std::thread::spawn(move || {
            while !for_control.stopping.load(Ordering::Relaxed) {
                let start = Instant::now();
                let asked = client.simple_query("SELECT 1").is_ok()
                    && http::get("/healthz").try_send(&daemon).is_ok();
                let mut worst = lock(&for_control.trivial);
                *worst = worst.max(if asked { start.elapsed() } else { Duration::ZERO });
                drop(worst);
                std::thread::sleep(PACE);
            }
        });
        Self { shared, publisher: Some(publisher), reader: Some(reader), control: Some(control) }
    }

    /// Waits until so many more events have been published and come.
    #[track_caller]
    pub(crate) fn wait_for_more(&self, count: usize) {
        let (published, arrived) =
            (lock(&self.shared.published).len() + count, lock(&self.shared.arrived).len() + count);
        wait::until(&format!("{count} more events have come"), wait::PATIENCE, || {
            lock(&self.shared.published).len() >= published && lock(&self.shared.arrived).len() >= arrived
        });
    }

    /// Ends publishing, waits until all has come, and says how it came.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Figures {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if let Some(publisher) = self.publisher.take() {
            publisher.join().expect("it publishes without an error");
        }
        let published = lock(&self.shared.published).clone();
        let last = published.last_key_value().map_or(0, |(number, _)| *number);
        // What is lost never comes: that is for the figures to say.
        let _ = wait::try_until_some(wait::PATIENCE, || {
            lock(&self.shared.arrived).last().is_some_and(|(number, _)| *number >= last).then_some(())
        });
        let arrived = lock(&self.shared.arrived).clone();
        let mut figures = Figures {
            published: published.len(),
            lost: Vec::new(),
            doubled: Vec::new(),
            reordered: Vec::new(),
            late: Vec::new(),
            trivial: *lock(&self.shared.trivial),
        };
        let mut first = BTreeMap::new();
        let mut highest = 0;
        for (number, at) in arrived {
            if first.insert(number, at).is_some() {
                figures.doubled.push(number);
            } else if number < highest {
                figures.reordered.push(number);
            }
            highest = highest.max(number);
        }
        for (number, committed) in published {
            match first.get(&number) {
                // It may have come before the publisher had noted the time.
                Some(at) => figures.late.push(at.saturating_duration_since(committed)),
                None => figures.lost.push(number),
            }
        }
        figures.late.sort_unstable();
        figures
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        for thread in [self.publisher.take(), self.reader.take(), self.control.take()].into_iter().flatten() {
            // A test that fails already must not fail twice.
            let _ = thread.join();
        }
    }
}

impl Figures {
    /// All came, once, in order, and none later than promised.
    #[track_caller]
    pub(crate) fn assert_promise(&self, what: &str) {
        println!("{what}: {self}");
        assert!(self.published > 20, "{what}: {self}");
        assert!(
            self.lost.is_empty() && self.doubled.is_empty() && self.reordered.is_empty(),
            "{what}: {self:?}"
        );
        assert!(*self.late.last().expect("some") <= PROMISE + self.trivial, "{what}: {self}");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, lost, doubled, reordered, late, trivial } = self;
        let at = |percent: usize| {
            late.get((late.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
        };
        write!(
            f,
            "{published} published, {} lost, {} doubled, {} reordered; late p50 {:?}, p99 {:?}, worst {:?} \
             (a trivial request: {trivial:?})",
            lost.len(),
            doubled.len(),
            reordered.len(),
            at(50),
            at(99),
            at(100)
        )
    }
}

fn read(mut stream: EventStream, shared: &Shared) {
    let mut quiet_since = Instant::now();
    loop {
        match stream.try_next(Duration::from_millis(100)) {
            // The daemon says hello first.
            Ok(Some(message)) if message.kind != "made" => {}
            Ok(Some(message)) => {
                let number = message.data.parse().expect("the data is a number");
                lock(&shared.arrived).push((number, Instant::now()));
                quiet_since = Instant::now();
            }
            // Whoever stopped waits for the last ones as long as for anything else.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let stopping = shared.stopping.load(Ordering::Relaxed);
                let all = lock(&shared.arrived).len() >= lock(&shared.published).len();
                if stopping && (all || quiet_since.elapsed() > wait::PATIENCE) {
                    return;
                }
            }
            // The daemon is gone: the test is over, or will say so.
            Ok(None) | Err(_) => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
