//! The log's own wake-ups, on two threads: one listens, one sends canaries over another connection.
//!
//! Both may be stuck in a database that answers nothing, so neither waits for the other: they meet in a [`Pulse`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use everpoll_log::{Canary, Heard, LogError, Wakeups};

use super::{Path, patience};
use crate::hub::lock;
use crate::tailer::Bell;

/// How long one wait lasts, so that the thread sees that it is to stop.
const WAIT: Duration = Duration::from_millis(500);

/// Listens on a connection of its own.
pub(crate) struct Listener {
    wakeups: Wakeups,
    path: Arc<Path>,
    bell: Arc<Bell>,
    /// Where canaries are awaited; `None` where there are none.
    pulse: Option<Arc<Pulse>>,
    stopped: Arc<AtomicBool>,
}

/// Sends canaries to a [`Listener`].
pub(crate) struct Sender {
    canary: Canary,
    interval: Duration,
    pulse: Arc<Pulse>,
    stopped: Arc<AtomicBool>,
}

/// Where the two meet.
#[derive(Default)]
struct Pulse {
    beat: Mutex<Beat>,
    changed: Condvar,
}

#[derive(Default)]
struct Beat {
    /// The connection that listens, by its number; `None` while there is none.
    listening: Option<u64>,
    connections: u64,
    /// The newest canary that arrived.
    heard: u64,
    missed: Option<Missed>,
}

/// A canary that did not arrive.
enum Missed {
    /// It was sent, or so it seemed.
    Unheard(u64),
    /// It could not be sent, which says nothing about the connection that listens.
    Unsent(String),
}

/// A listener, and what sends its canaries, if it needs any.
pub(super) fn pair(
    wakeups: Wakeups,
    canary: Option<Canary>,
    interval: Duration,
    path: Arc<Path>,
    bell: Arc<Bell>,
    stopped: Arc<AtomicBool>,
) -> (Listener, Option<Sender>) {
    let sender =
        canary.map(|canary| Sender { canary, interval, pulse: Arc::default(), stopped: stopped.clone() });
    let pulse = sender.as_ref().map(|sender| sender.pulse.clone());
    (Listener { wakeups, path, bell, pulse, stopped }, sender)
}

impl Listener {
    /// Listens until stopped.
    pub(crate) fn run(mut self) {
        while !self.stopped.load(Ordering::Relaxed) {
            match self.wakeups.listen(WAIT) {
                Ok(heard) => self.take(heard),
                Err(error) => self.lost(&error),
            }
            match self.pulse.as_ref().and_then(|pulse| pulse.take_missed()) {
                Some(Missed::Unheard(number)) => self.unheard(number),
                Some(Missed::Unsent(why)) => {
                    self.path.silent(&format!("no canary can be sent: {why}"));
                }
                None => {}
            }
        }
    }

    fn take(&self, heard: Heard) {
        if heard.connected || heard.news > 0 {
            self.bell.ring();
        }
        self.path.messages.fetch_add(heard.news, Ordering::Relaxed);
        match &self.pulse {
            // Whoever looks by itself works as long as it can look.
            None => self.path.works(),
            Some(pulse) if heard.connected => pulse.begin(),
            Some(pulse) => {
                if let Some(number) = heard.canary {
                    pulse.hear(number);
                    self.path.canaries.fetch_add(1, Ordering::Relaxed);
                    self.path.works();
                }
            }
        }
    }

    fn lost(&self, error: &LogError) {
        if let Some(pulse) = &self.pulse {
            pulse.end();
        }
        self.path.silent(&error.to_string());
        std::thread::sleep(WAIT);
    }

    fn unheard(&mut self, number: u64) {
        let why = self.wakeups.ask_why_silent();
        // It was only late, and has come while the server was asked.
        if let Ok(heard) = self.wakeups.listen(Duration::ZERO) {
            self.take(heard);
            if heard.canary.is_some_and(|heard| heard >= number) {
                return;
            }
        }
        if let Some(pulse) = &self.pulse {
            pulse.end();
        }
        self.wakeups.forget();
        self.path.silent(&why);
    }
}

impl Sender {
    /// Sends until stopped.
    pub(crate) fn run(mut self) {
        let (mut number, mut misses) = (0, 0);
        while !self.stopped.load(Ordering::Relaxed) {
            let connection = self.pulse.wait_until_listening();
            number += 1;
            let missed = match self.canary.send(number) {
                Err(error) => Some(Missed::Unsent(error.to_string())),
                Ok(()) => {
                    let came = self.pulse.wait_for(number, connection, patience(self.interval));
                    (!came).then_some(Missed::Unheard(number))
                }
            };
            misses = if missed.is_some() { misses + 1 } else { 0 };
            if let Some(missed) = missed {
                self.pulse.miss(missed, connection);
            }
            // A new connection is tested at once; but where each of them fails, none is made more often than that.
            self.pulse.wait_for_next(connection, self.interval, misses < 2);
        }
    }
}

impl Pulse {
    /// A new connection listens.
    fn begin(&self) {
        let mut beat = lock(&self.beat);
        beat.connections += 1;
        beat.listening = Some(beat.connections);
        beat.missed = None;
        self.changed.notify_all();
    }

    /// The connection is gone.
    fn end(&self) {
        lock(&self.beat).listening = None;
        self.changed.notify_all();
    }

    fn hear(&self, number: u64) {
        let mut beat = lock(&self.beat);
        beat.heard = beat.heard.max(number);
        self.changed.notify_all();
    }

    fn take_missed(&self) -> Option<Missed> {
        lock(&self.beat).missed.take()
    }

    /// Reports that a canary to this connection did not arrive; one that is gone is reported already.
    fn miss(&self, missed: Missed, connection: u64) {
        let mut beat = lock(&self.beat);
        if beat.listening == Some(connection) {
            beat.missed = Some(missed);
        }
    }

    /// Waits until there is a connection that listens, and returns its number.
    fn wait_until_listening(&self) -> u64 {
        let beat = self.wait_while(lock(&self.beat), Duration::MAX, |beat| beat.listening.is_none());
        beat.listening.unwrap_or_default()
    }

    /// Waits until this canary arrives; `false` when it does not in time, or the connection is gone.
    fn wait_for(&self, number: u64, connection: u64, limit: Duration) -> bool {
        let awaited = |beat: &Beat| beat.heard < number && beat.listening == Some(connection);
        self.wait_while(lock(&self.beat), limit, awaited).heard >= number
    }

    /// Waits so long, or, when `soon`, until another connection listens.
    fn wait_for_next(&self, connection: u64, interval: Duration, soon: bool) {
        let waits = |beat: &Beat| !soon || beat.listening.is_none_or(|number| number == connection);
        drop(self.wait_while(lock(&self.beat), interval, waits));
    }

    fn wait_while<'a>(
        &self,
        beat: MutexGuard<'a, Beat>,
        limit: Duration,
        mut waits: impl FnMut(&Beat) -> bool,
    ) -> MutexGuard<'a, Beat> {
        match self.changed.wait_timeout_while(beat, limit, |beat| waits(beat)) {
            Ok((beat, _)) => beat,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}
