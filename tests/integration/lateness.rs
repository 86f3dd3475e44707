//! How late events come: an application that commits numbered events, and a page that notes when each arrives.

use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::{Database, EventStream, sse, wait};
use everpoll_verify::{Reader, Report};

use crate::background::Background;
use crate::judge;

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
    publisher: Option<Background<()>>,
    _control: Background<()>,
    _reader: Background<()>,
}

#[derive(Default)]
struct Shared {
    /// When each event was committed; the place is its number.
    published: Mutex<Vec<Instant>>,
    arrived: Mutex<Vec<Arrival>>,
    /// The longest that a trivial request took.
    trivial: Mutex<Duration>,
}

#[derive(Clone, Copy)]
struct Arrival {
    number: usize,
    id: u64,
    at: Instant,
}

/// What came, and how late.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) report: Report,
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
        let reader = Background::start(move |stopping| read(stream, &for_reader, stopping));
        let mut client = database.connect();
        let for_publisher = shared.clone();
        let publisher = Background::start(move |stopping| {
            let sql =
                "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', $1::text::json)";
            for number in 0.. {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                client.execute(sql, &[&usize::to_string(&number)]).expect("the database is there");
                lock(&for_publisher.published).push(Instant::now());
                tell();
                std::thread::sleep(PACE);
            }
        });
        let (mut client, daemon) = (database.connect(), daemon.clone());
        let for_control = shared.clone();
        let control = Background::start(move |stopping| {
            while !stopping.load(Ordering::Relaxed) {
                let start = Instant::now();
                let asked = client.simple_query("SELECT 1").is_ok()
                    && http::get("/healthz").try_send(&daemon).is_ok();
                let mut worst = lock(&for_control.trivial);
                *worst = worst.max(if asked { start.elapsed() } else { Duration::ZERO });
                drop(worst);
                std::thread::sleep(PACE);
            }
        });
        Self { shared, publisher: Some(publisher), _control: control, _reader: reader }
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
        self.publisher.take().expect("it publishes until it is stopped").stop();
        let published = lock(&self.shared.published).clone();
        let last = published.len().saturating_sub(1);
        // What is lost never comes: that is for the figures to say.
        let _ = wait::try_until_some(wait::PATIENCE, || {
            lock(&self.shared.arrived).last().is_some_and(|arrival| arrival.number >= last).then_some(())
        });
        let ledger = judge::ledger();
        let channel = ledger.channel("cheese");
        for _ in &published {
            ledger.acknowledge(ledger.announce(channel), None);
        }
        let (mut reader, mut late) = (Reader::new(0, vec![channel]), Vec::new());
        reader.place("0");
        for Arrival { number, id, at } in lock(&self.shared.arrived).clone() {
            ledger.deliver(&mut reader, Some(number), id, "cheese");
            // It may have come before the publisher had noted the time.
            late.extend(published.get(number).map(|committed| at.saturating_duration_since(*committed)));
        }
        late.sort_unstable();
        Figures { report: ledger.judge([reader]), late, trivial: *lock(&self.shared.trivial) }
    }
}

impl Figures {
    /// All came, once, in order, and none later than promised.
    #[track_caller]
    pub(crate) fn assert_promise(&self, what: &str) {
        println!("{what}: {self}");
        assert!(self.report.total.acknowledged > 20, "{what}: {self}");
        assert!(self.report.kept, "{what}: {}", self.report);
        assert!(*self.late.last().expect("some") <= PROMISE + self.trivial, "{what}: {self}");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, late, trivial } = self;
        let total = &report.total;
        let at = |percent: usize| {
            late.get((late.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
        };
        write!(
            f,
            "{} published, {} lost, {} doubled, {} reordered; late p50 {:?}, p99 {:?}, worst {:?} \
             (a trivial request: {trivial:?})",
            total.acknowledged,
            total.lost,
            total.doubled,
            total.reordered,
            at(50),
            at(99),
            at(100)
        )
    }
}

fn read(mut stream: EventStream, shared: &Shared, stopping: &AtomicBool) {
    let mut quiet_since = Instant::now();
    loop {
        match stream.try_next(Duration::from_millis(100)) {
            // The daemon says hello first.
            Ok(Some(message)) if message.kind != "made" => {}
            Ok(Some(message)) => {
                let (number, id) = (message.data.parse().expect("the data is a number"), message.id());
                lock(&shared.arrived).push(Arrival { number, id, at: Instant::now() });
                quiet_since = Instant::now();
            }
            // Whoever stopped waits for the last ones as long as for anything else.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let stopping = stopping.load(Ordering::Relaxed);
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
