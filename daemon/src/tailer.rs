//! Follows the log and feeds the window.
//!
//! One thread with one connection reads what is new, for all clients. Wake-ups ([`crate::wakeup`], the daemon's own
//! publishing) only say when to look; without any, the thread looks once a second (`sweep_interval`), the *sweep*. A
//! wake-up is a flag and not a queue: however many come while it reads, it reads once more. With PostgreSQL, publishers
//! leave out their wake-ups for some milliseconds after one; the log says so, and the thread looks again by itself until that
//! is over.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use everpoll_log::{Limit, Log, LogError};
use everpoll_protocol::{Bounds, LowMarks, Record};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::health::Health;
use crate::hub::{Hub, Wake, lock};
use crate::publish::Unseen;
use crate::window::Window;

/// How soon a log that could not be read is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// How long the tail may be silent, once the window is filled. A firewall that forgot the connection tells nobody, and delays
/// events by as much. The reads are small; that the disk stands still for a few seconds must not look like an outage.
const SILENCE: Duration = Duration::from_secs(4);

/// How soon the log is read again while publishers leave out their wake-ups.
const AGAIN: Duration = Duration::from_millis(2);

/// One read of the tail.
const TAIL: Limit = Limit { events: 1000, bytes: 4 * 1024 * 1024 };

/// How often it is told how far a large window is filled.
const PROGRESS: Duration = Duration::from_secs(1);

/// Says that the log may have news. Cheap, and never waits.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<Ring>,
    changed: Condvar,
    announcement: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    rung: bool,
    stopped: bool,
}

impl Bell {
    /// There may be news.
    pub(crate) fn ring(&self) {
        lock(&self.state).rung = true;
        self.changed.notify_one();
    }

    /// There is news that this daemon itself committed: other daemons may want to know.
    pub(crate) fn ring_and_announce(&self) {
        self.ring();
        self.announcement.notify_one();
    }

    /// Waits until there is something to announce, however much. Cancel safe.
    pub(crate) async fn announced(&self) {
        self.announcement.notified().await;
    }

    /// Ends [`Tailer::run`].
    pub(crate) fn stop(&self) {
        lock(&self.state).stopped = true;
        self.changed.notify_one();
    }

    /// Waits for a ring, or until `most` is over, but not less than `least`; `false` when stopped.
    fn wait(&self, least: Duration, most: Duration) -> bool {
        let ring = self.wait_while(lock(&self.state), least, |ring| !ring.stopped);
        let mut ring = self.wait_while(ring, most.saturating_sub(least), |ring| !ring.rung && !ring.stopped);
        ring.rung = false;
        !ring.stopped
    }

    fn wait_while<'a>(
        &self,
        ring: MutexGuard<'a, Ring>,
        limit: Duration,
        waits: impl Fn(&Ring) -> bool,
    ) -> MutexGuard<'a, Ring> {
        match self.changed.wait_timeout_while(ring, limit, |ring| waits(ring)) {
            Ok((ring, _)) => ring,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

/// Keeps hints for nothing from becoming reads for nothing: a Redis that others use as well may send thousands a second.
#[derive(Debug, Default)]
struct Pace {
    /// Reads in a row that found nothing, each soon after the one before.
    idle: u32,
    last: Option<Instant>,
}

impl Pace {
    /// So many reads in a row may find nothing before they are slowed down: each event is told more than once.
    const PATIENCE: u32 = 16;

    /// Then there is at least this long between two.
    const REST: Duration = Duration::from_millis(5);

    /// What counts as soon.
    const SOON: Duration = Duration::from_millis(50);

    /// A read has ended `now`, and found something or not: how long to rest before the next.
    fn after(&mut self, found: bool, now: Instant) -> Duration {
        let soon = self.last.is_some_and(|last| now.saturating_duration_since(last) < Self::SOON);
        self.idle = if found || !soon { 0 } else { self.idle + 1 };
        self.last = Some(now);
        if self.idle < Self::PATIENCE { Duration::ZERO } else { Self::REST }
    }
}

/// How far the window is filled, told now and then.
#[derive(Debug)]
struct Filling {
    floor: u64,
    told: Instant,
}

impl Filling {
    /// Read up to `last` of a log that ends with `newest`: the percentage, when it is time to tell it.
    fn progress(&mut self, last: u64, newest: u64, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.told) < PROGRESS || last >= newest {
            return None;
        }
        self.told = now;
        Some((last - self.floor) * 100 / (newest - self.floor))
    }
}

/// What following the log has come to.
struct Followed {
    /// Whether there was anything new.
    found: bool,
    /// Whether there may be more soon without a wake-up.
    again: bool,
}

/// The thread that follows the log.
pub(crate) struct Tailer {
    /// A connection of its own.
    pub(crate) log: Log,
    /// What it fills.
    pub(crate) window: Arc<Mutex<Window>>,
    /// Whom it wakes.
    pub(crate) hub: Arc<Hub>,
    /// Where it says how it goes.
    pub(crate) health: Arc<Health>,
    /// What wakes it.
    pub(crate) bell: Arc<Bell>,
    /// How often the log is read without a ring.
    pub(crate) sweep_interval: Duration,
    /// The size of the window, in bytes.
    pub(crate) window_bytes: usize,
    /// Where it says up to which id it has read.
    pub(crate) unseen: Arc<Unseen>,
}

impl Tailer {
    /// Follows the log until the bell is stopped.
    pub(crate) fn run(mut self) {
        let mut started = false;
        let mut lost_at: Option<Instant> = None;
        let mut failures = 0;
        let mut pace = Pace::default();
        loop {
            let began = Instant::now();
            let result = if started { self.follow(None) } else { self.start() };
            let (least, most) = match result {
                Ok(Followed { found, again }) => {
                    started = true;
                    if let Some(at) = lost_at.take() {
                        info!(lost_for_ms = at.elapsed().as_millis(), "the log can be read again");
                    }
                    self.health.log_is_read();
                    failures = 0;
                    self.log.set_patience(Some(SILENCE));
                    let now = Instant::now();
                    let rest = pace.after(found || again, now);
                    // A database that takes its time is not asked all the time.
                    let most = if again { AGAIN.max(now - began) } else { self.sweep_interval };
                    (rest, most.min(self.sweep_interval))
                }
                Err(error) => {
                    // Once, and not four times a second.
                    if lost_at.is_none() {
                        warn!("cannot read the log: {error}; held polls stay held, next try in {RETRY:?}");
                        lost_at = Some(Instant::now());
                    }
                    self.health.log_is_lost(&error.to_string());
                    failures += 1;
                    if failures > 1 {
                        // A database that is only slow needs to be waited for, or nothing would come at all.
                        self.log.set_patience(None);
                    }
                    // However many hints come meanwhile.
                    (RETRY, RETRY)
                }
            };
            if !self.bell.wait(least, most) {
                return;
            }
        }
    }

    /// Fills the window with the newest events.
    fn start(&mut self) -> Result<Followed, LogError> {
        let room = u64::try_from(self.window_bytes).unwrap_or(u64::MAX);
        let floor = self.log.tail_start(Limit { events: 500_000, bytes: room })?;
        lock(&self.window).reset(floor);
        let followed = self.follow(Some(Filling { floor, told: Instant::now() }))?;
        lock(&self.window).filled();
        self.tell();
        let (events, bytes) = lock(&self.window).size();
        info!(events, bytes, newest = lock(&self.window).newest(), "the window is filled");
        Ok(followed)
    }

    fn tell(&self) {
        let newest = lock(&self.window).newest();
        self.unseen.seen(newest);
    }

    /// Reads until there is nothing new.
    fn follow(&mut self, mut filling: Option<Filling>) -> Result<Followed, LogError> {
        let mut found = false;
        loop {
            let last = lock(&self.window).newest();
            let read = self.log.tail(last, TAIL)?;
            if self.begin_again(last, &read.bounds)? {
                continue;
            }
            lock(&self.window).bound(&read.bounds, &read.low_marks);
            let again = read.again;
            if read.events.is_empty() {
                return Ok(Followed { found, again });
            }
            found = true;
            let records: Vec<_> = read.events.iter().map(|event| Arc::new(Record::from(event))).collect();
            let mut channels: Vec<_> = records.iter().map(|record| record.channel.clone()).collect();
            channels.sort_unstable();
            channels.dedup();
            lock(&self.window).append(records, read.next);
            // In this order: the events are what is waited for longest.
            self.hub.wake(&channels);
            self.tell();
            let progress =
                |filling: &mut Filling| filling.progress(read.next, read.bounds.newest, Instant::now());
            if let Some(percent) = filling.as_mut().and_then(progress) {
                let (events, bytes) = lock(&self.window).size();
                info!(events, bytes, "filling the window: {percent} % of what it will hold is read");
            }
            if !read.more {
                return Ok(Followed { found, again });
            }
        }
    }

    /// Starts a new window where the old one does not join the log any more: while the log was away, it was restored
    /// from an older copy, or trimmed beyond what was seen. Held polls are woken, and get their gap from the database.
    fn begin_again(&mut self, last: u64, bounds: &Bounds) -> Result<bool, LogError> {
        if bounds.newest < last {
            warn!(
                seen = last,
                newest = bounds.newest,
                "the log went back: it was restored from an older copy"
            );
            self.log.declare_rift(last)?;
        } else if bounds.origin.max(bounds.low) <= last {
            return Ok(false);
        }
        let bounds = self.log.bounds()?;
        {
            let mut window = lock(&self.window);
            window.reset(bounds.newest);
            // Until the next read tells those of the namespaces.
            window.bound(&bounds, &LowMarks::of_all(bounds.low));
        }
        self.tell();
        self.hub.wake_all(Wake::News);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_for_nothing_are_slowed_down_and_news_never() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        // Each event is told twice: the second read finds nothing.
        assert!((0..100).all(|n| pace.after(n % 2 == 0, at(n)).is_zero()));
        let rests = (100..150).filter(|n| !pace.after(false, at(*n)).is_zero()).count();
        assert!((30..40).contains(&rests), "{rests} of 50 reads for nothing were followed by a rest");
        assert!(pace.after(true, at(150)).is_zero() && pace.after(false, at(151)).is_zero());
        // Once a second is no flood.
        assert!((1..50).all(|n| pace.after(false, at(n * 1000)).is_zero()));
    }

    #[test]
    fn progress_of_filling_is_told_once_a_second_and_never_for_a_small_window() {
        let start = Instant::now();
        let mut filling = Filling { floor: 1000, told: start };
        let mut at = |millis, last| filling.progress(last, 3000, start + Duration::from_millis(millis));
        assert_eq!((at(900, 1500), at(1000, 2000), at(1500, 2500)), (None, Some(50), None));
        assert_eq!((at(2000, 2900), at(4000, 3000)), (Some(95), None));
    }

    #[test]
    fn ring_ends_the_wait_but_not_the_rest() {
        let bell = Bell::default();
        let (rest, long) = (Duration::from_millis(50), Duration::from_secs(60));
        bell.ring();
        let start = Instant::now();
        assert!(bell.wait(rest, long));
        assert!(start.elapsed() >= rest && start.elapsed() < long);
        bell.stop();
        assert!(!bell.wait(long, long));
        assert!(start.elapsed() < long);
    }
}
