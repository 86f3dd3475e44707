//! Follows the log and feeds the window.
//!
//! One thread with one connection reads what is new, for all clients. Wake-ups ([`crate::wakeup`], the daemon's own
//! publishing) only say when to look; without any, the thread looks once a second (`sweep_interval`), the *sweep*. A
//! wake-up is a flag and not a queue: however many come while it reads, it reads once more.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use everpoll_log::{Limit, Log, LogError};
use everpoll_protocol::{Bounds, Record};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::health::Health;
use crate::hub::{Hub, Wake, lock};
use crate::window::Window;

/// How soon a log that could not be read is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// One read of the tail.
const TAIL: Limit = Limit { events: 1000, bytes: 4 * 1024 * 1024 };

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

    /// Waits for a ring, or until `timeout` is over; `false` when stopped.
    fn wait(&self, timeout: Duration) -> bool {
        let ring = lock(&self.state);
        let silent = |ring: &mut Ring| !ring.rung && !ring.stopped;
        let (mut ring, _) = match self.changed.wait_timeout_while(ring, timeout, silent) {
            Ok(result) => result,
            Err(poisoned) => poisoned.into_inner(),
        };
        ring.rung = false;
        !ring.stopped
    }
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
    pub(crate) newest: watch::Sender<u64>,
}

impl Tailer {
    /// Follows the log until the bell is stopped.
    pub(crate) fn run(mut self) {
        let mut started = false;
        let mut lost_at: Option<Instant> = None;
        loop {
            let result = if started { self.follow() } else { self.start() };
            let pause = match result {
                Ok(()) => {
                    started = true;
                    if let Some(at) = lost_at.take() {
                        info!(lost_for_ms = at.elapsed().as_millis(), "the log can be read again");
                    }
                    self.health.log_is_read();
                    self.sweep_interval
                }
                Err(error) => {
                    // Once, and not four times a second.
                    if lost_at.is_none() {
                        warn!("cannot read the log: {error}; held polls stay held, next try in {RETRY:?}");
                        lost_at = Some(Instant::now());
                    }
                    self.health.log_is_lost(&error.to_string());
                    RETRY
                }
            };
            if !self.bell.wait(pause) {
                return;
            }
        }
    }

    /// Fills the window with the newest events.
    fn start(&mut self) -> Result<(), LogError> {
        let room = u64::try_from(self.window_bytes).unwrap_or(u64::MAX);
        let floor = self.log.tail_start(Limit { events: 500_000, bytes: room })?;
        lock(&self.window).reset(floor);
        self.follow()?;
        lock(&self.window).filled();
        self.tell();
        let (events, bytes) = lock(&self.window).size();
        info!(events, bytes, newest = lock(&self.window).newest(), "the window is filled");
        Ok(())
    }

    fn tell(&self) {
        self.newest.send_replace(lock(&self.window).newest());
    }

    /// Reads until there is nothing new.
    fn follow(&mut self) -> Result<(), LogError> {
        loop {
            let last = lock(&self.window).newest();
            let read = self.log.tail(last, TAIL)?;
            if self.begin_again(last, &read.bounds)? {
                continue;
            }
            lock(&self.window).bound(&read.bounds);
            if read.events.is_empty() {
                return Ok(());
            }
            let records: Vec<_> = read.events.iter().map(|event| Arc::new(Record::from(event))).collect();
            let mut channels: Vec<_> = records.iter().map(|record| record.channel.clone()).collect();
            channels.sort_unstable();
            channels.dedup();
            lock(&self.window).append(records, read.next);
            self.tell();
            self.hub.wake(&channels);
            if !read.more {
                return Ok(());
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
            window.bound(&bounds);
        }
        self.tell();
        self.hub.wake_all(Wake::News);
        Ok(true)
    }
}
