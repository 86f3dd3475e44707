//! What all connections share.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, Guard};
use everpoll_protocol::{Cut, Limits, Network, Networks, PollRequest, Reconnect, Steering, Timestamp};
use everpoll_settings::Settings;
use tokio::sync::{Semaphore, watch};
use tracing::info;

use crate::catch_up::CatchUp;
use crate::front::GOODBYES;
use crate::health::Health;
use crate::hub::{Hub, Sleeper, Wake, lock};
use crate::metrics::{COUNTS, Limit, Way};
use crate::pages::Pages;
use crate::publish::Publishing;
use crate::replies::Replies;
use crate::seats::Seats;
use crate::tls::Tls;
use crate::transport::Streams;
use crate::visitors::Visit;
use crate::window::Window;

/// How long a client may take, and how many there may be.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// From a request head's first byte to its last.
    pub(crate) head: Duration,
    /// Between two pieces of a request's body.
    pub(crate) body: Duration,
    /// Between two requests of a connection.
    pub(crate) idle: Duration,
    /// Between two pieces of a reply that the client takes.
    pub(crate) write: Duration,
    /// Most connections at once.
    pub(crate) connections_max: usize,
    /// Most connections of one address, or requests that are held for it over those of a web server in front.
    pub(crate) per_address: usize,
    /// Most WebSockets of one `wait_id`.
    pub(crate) websockets_per_wait_id: usize,
    /// Most requests that are held at once, streams among them.
    pub(crate) holds_max: usize,
    /// Most bytes of replies that clients have not taken yet, all together.
    pub(crate) unsent_max: usize,
}

/// Pause of a body after which a client is given up. Old Internet Explorers repeat a POST without its body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

impl Patience {
    /// What the settings say, as far as the system allows it.
    pub(crate) fn of(settings: &Settings) -> Self {
        let connections_max = raise_file_limit(settings.connections_max as usize);
        Self {
            head: settings.head_timeout,
            body: BODY_PATIENCE,
            idle: settings.idle_timeout,
            write: settings.write_timeout,
            connections_max,
            // Nobody takes more than half.
            per_address: (settings.connections_per_address as usize).min(connections_max.div_ceil(2)),
            websockets_per_wait_id: settings.websockets_per_wait_id as usize,
            // Whoever is not held needs a connection as well.
            holds_max: (settings.holds_max as usize).min(connections_max - connections_max / 20),
            unsent_max: usize::try_from(settings.unsent_max).unwrap_or(usize::MAX),
        }
    }
}

/// How long after the start cuts are not believed, beside the time that the hold had lived.
const AFTER_START: Duration = Duration::from_secs(10);

/// What the settings say that may change while the daemon runs.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) patience: Patience,
}

/// What all connections share.
pub(crate) struct Server {
    rules: ArcSwap<Rules>,
    pub(crate) window: Arc<Mutex<Window>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) seats: Mutex<Seats>,
    pub(crate) catch_up: Arc<CatchUp>,
    pub(crate) publishing: Publishing,
    pub(crate) replies: Replies,
    pub(crate) streams: Streams,
    pub(crate) health: Arc<Health>,
    /// The self-test and the demo, as far as they are switched on.
    pub(crate) pages: Pages,
    /// Certificate and key, where TCP ports speak TLS.
    pub(crate) tls: Option<Arc<Tls>>,
    /// For those whom it takes a handshake to send away.
    pub(crate) goodbyes: Arc<Semaphore>,
    /// Open connections.
    pub(crate) connections: AtomicUsize,
    /// Requests that are read but not answered yet.
    pub(crate) busy: AtomicUsize,
    /// By [`Way`]: requests that are held, and open streams.
    pub(crate) held: [AtomicUsize; Way::ALL.len()],
    draining: AtomicBool,
    /// Whether another daemon serves those who leave this one.
    has_successor: AtomicBool,
    /// Ends accepting.
    pub(crate) closing: watch::Sender<bool>,
    /// Closes idle connections once the daemon stops.
    pub(crate) stop: watch::Sender<bool>,
    steering: Steering,
    networks: Mutex<Networks>,
    started: Instant,
    random: RandomState,
    random_state: AtomicUsize,
}

impl Server {
    pub(crate) fn new(
        limits: Limits,
        patience: Patience,
        window: Arc<Mutex<Window>>,
        hub: Arc<Hub>,
        catch_up: Arc<CatchUp>,
        publishing: Publishing,
        health: Arc<Health>,
    ) -> Self {
        let pages = Pages::new(false, false, patience.connections_max);
        Self {
            rules: ArcSwap::from_pointee(Rules { limits, patience }),
            window,
            hub,
            seats: Mutex::default(),
            catch_up,
            publishing,
            replies: Replies::default(),
            streams: Streams::default(),
            health,
            pages,
            tls: None,
            goodbyes: Arc::new(Semaphore::new(GOODBYES)),
            connections: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            held: Default::default(),
            draining: AtomicBool::new(false),
            has_successor: AtomicBool::new(false),
            closing: watch::Sender::new(false),
            stop: watch::Sender::new(false),
            steering: Steering::default(),
            networks: Mutex::default(),
            started: Instant::now(),
            random: RandomState::new(),
            random_state: AtomicUsize::new(0),
        }
    }

    /// The rules of this moment. What began under them may end under others.
    pub(crate) fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    /// Puts others in their place. Returns those who are to be woken, since rights were taken away.
    pub(crate) fn exchange(&self, rules: Rules) -> Vec<Sleeper> {
        let judged = rules.limits.judged;
        let before = self.rules.swap(Arc::new(rules));
        // In this order: whoever is held from now on sees that it was let in under other rules.
        if before.limits.judged == judged { Vec::new() } else { self.hub.everybody() }
    }

    /// Why one is woken that is held from now on: what came before is to be read, or it was let in under rules that are no more.
    pub(crate) fn first_wake(&self, judged: u32) -> Wake {
        if self.rules().limits.judged == judged { Wake::News } else { Wake::Judged }
    }

    /// Takes in what the client's last hold met with, and says how long this one may be held.
    pub(crate) fn longest_hold(&self, request: &PollRequest) -> Duration {
        if let Some(cut) = request.cut {
            self.learn_cut(request.network, cut);
        }
        self.rules().limits.longest_hold(request, self.learned_hold(request.network))
    }

    /// How long a poll without padding may be held next time, in whole seconds, as an envelope says it.
    pub(crate) fn hold_seconds(&self, request: &PollRequest) -> u32 {
        let longest = self.rules().limits.hold_max;
        let hold = self.learned_hold(request.network).map_or(longest, |learned| learned.min(longest));
        u32::try_from(hold.as_secs()).unwrap_or(u32::MAX)
    }

    fn learned_hold(&self, network: Network) -> Option<Duration> {
        lock(&self.networks).hold(network, Instant::now())
    }

    fn learn_cut(&self, network: Network, cut: Cut) {
        let now = Instant::now();
        // What was cut just before the start was cut by the end of the daemon before this one.
        if now.duration_since(self.started) > cut.after.min(self.rules().limits.hold_max) + AFTER_START {
            lock(&self.networks).report(network, cut, now);
        }
    }

    /// Whether there is room for one more request that is held.
    pub(crate) fn has_room(&self) -> bool {
        let held: usize = self.held.iter().map(|held| held.load(Ordering::Relaxed)).sum();
        held < self.rules().patience.holds_max
    }

    /// Whether one more request may be held, which is counted then; if not, it is to be answered at once.
    pub(crate) fn may_hold(&self, request: &PollRequest) -> Option<Visit> {
        if !self.has_room() {
            COUNTS.hit(Limit::Holds);
            return None;
        }
        let visit = Visit::begin(request.client, self.rules().patience.per_address);
        if visit.is_none() {
            COUNTS.hit(Limit::ConnectionsPerAddress);
        }
        visit
    }

    /// Whether nearly all connections are used, so that those who are answered had better leave: 19 of 20.
    pub(crate) fn is_crowded(&self) -> bool {
        self.connections.load(Ordering::Relaxed) * 20 > self.rules().patience.connections_max * 19
    }

    /// How long the daemon has run.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Turns a delay into seconds.
    pub(crate) fn reconnect_in(&self, reconnect: Reconnect) -> u32 {
        if reconnect == Reconnect::Drain {
            COUNTS.drained.one();
        }
        // They are answered one after the other then, so each may come at once: that is how nobody is late.
        if reconnect == Reconnect::Drain && self.has_successor.load(Ordering::Relaxed) {
            return 0;
        }
        // It is looked for only where it counts.
        let load = if reconnect == Reconnect::ShortPoll { self.load() } else { 0 };
        self.steering.reconnect_in(reconnect, load, || self.random())
    }

    /// The used share of the connections, or of the queue to the database where that is more; in thousandths.
    fn load(&self) -> u32 {
        let open = self.connections.load(Ordering::Relaxed);
        let open = u32::try_from(open * 1000 / self.rules().patience.connections_max.max(1)).unwrap_or(1000);
        open.max(self.catch_up.load())
    }

    /// Evenly spread, not secret: it only keeps clients apart.
    pub(crate) fn random(&self) -> u32 {
        self.random.hash_one(self.random_state.fetch_add(1, Ordering::Relaxed)) as u32
    }

    /// Whether the daemon is about to stop.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on nothing is held any more; all that is held is answered.
    pub(crate) fn drain(&self) {
        self.begin_drain();
        self.hub.wake_all(Wake::Drain);
    }

    /// From now on nothing is held any more, and clients that leave find another daemon at the same address. Returns all who
    /// are to be woken.
    pub(crate) fn hand_over(&self) -> Vec<Sleeper> {
        self.has_successor.store(true, Ordering::SeqCst);
        self.begin_drain();
        self.hub.everybody()
    }

    fn begin_drain(&self) {
        self.health.draining();
        self.draining.store(true, Ordering::SeqCst);
    }
}

/// Raises the limit of open files as far as the system allows, and returns how many connections fit.
fn raise_file_limit(wanted: usize) -> usize {
    // Besides connections: databases, the listener, tokio's own, and those that are sent away.
    const OTHER_FILES: u64 = 64 + GOODBYES as u64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(files) = files else { return wanted };
    let fit = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    if fit < wanted {
        info!(connections_max = fit, "the limit of open files is {files}: connections_max is lowered");
    }
    fit.min(wanted)
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The `Date` of a reply, made anew each second.
pub(crate) fn http_date() -> Arc<str> {
    static LAST: Mutex<Option<(u64, Arc<str>)>> = Mutex::new(None);
    let time = SystemTime::now();
    let second = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut last = lock(&LAST);
    match &*last {
        Some((known, date)) if *known == second => date.clone(),
        _ => {
            let date: Arc<str> = httpdate::fmt_http_date(time).into();
            *last = Some((second, date.clone()));
            date
        }
    }
}

/// Counts something for as long as it lives.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self::already(counter)
    }

    /// Takes over what was counted by somebody else.
    pub(crate) fn already(counter: &'a AtomicUsize) -> Self {
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
