//! One path of wake-ups: whether it works, and what whoever runs the daemon is told about it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use everpoll_protocol::WakeupPath;
use tracing::{info, warn};

use crate::hub::lock;

/// One path of wake-ups. Its numbers only grow.
#[derive(Debug)]
pub(crate) struct Path {
    name: &'static str,
    sweep: Duration,
    state: Mutex<State>,
    /// Wake-ups that came over it.
    pub(crate) messages: AtomicU64,
    /// Canaries that came over it.
    pub(crate) canaries: AtomicU64,
    /// How often it became silent.
    pub(crate) losses: AtomicU64,
}

#[derive(Debug)]
enum State {
    /// Nothing has come yet, and nothing has failed.
    Starting,
    Works,
    Silent {
        since: Instant,
        cause: String,
    },
}

impl Path {
    pub(crate) fn new(name: &'static str, sweep: Duration) -> Self {
        Self {
            name,
            sweep,
            state: Mutex::new(State::Starting),
            messages: AtomicU64::new(0),
            canaries: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        }
    }

    /// A canary came, or whatever else shows that it works.
    pub(crate) fn works(&self) {
        let before = std::mem::replace(&mut *lock(&self.state), State::Works);
        if let State::Silent { since, .. } = before {
            let silent_for_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(path = self.name, silent_for_ms, "wake-ups over {} come again", self.name);
        }
    }

    /// It delivers nothing. Told once, until it works again; the newest cause is shown in `/readyz`.
    pub(crate) fn silent(&self, cause: &str) {
        let mut state = lock(&self.state);
        if let State::Silent { cause: known, .. } = &mut *state {
            cause.clone_into(known);
            return;
        }
        *state = State::Silent { since: Instant::now(), cause: cause.to_owned() };
        self.losses.fetch_add(1, Ordering::Relaxed);
        warn!(
            path = self.name,
            "no wake-ups over {}: {cause}; events are found by the sweep, at most {:?} late",
            self.name,
            self.sweep
        );
    }

    /// Whether it is known to deliver: what a metric shows.
    pub(crate) fn is_working(&self) -> bool {
        matches!(*lock(&self.state), State::Works)
    }

    /// What it is called: `postgres`, `sqlite` or `redis`.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What `/readyz` shows.
    pub(crate) fn status(&self) -> WakeupPath {
        let (state, silent_for, cause) = match &*lock(&self.state) {
            State::Starting => ("starting", None, None),
            State::Works => ("works", None, None),
            State::Silent { since, cause } => ("silent", Some(since.elapsed()), Some(cause.clone())),
        };
        let [losses, messages, canaries] =
            [&self.losses, &self.messages, &self.canaries].map(|number| number.load(Ordering::Relaxed));
        WakeupPath { name: self.name, state, silent_for, cause, losses, messages, canaries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_once_however_often_it_is_told() {
        let path = Path::new("redis", Duration::from_secs(1));
        assert_eq!(path.status().state, "starting");
        path.silent("one");
        path.silent("two");
        let status = path.status();
        assert_eq!((status.state, status.cause.as_deref(), status.losses), ("silent", Some("two"), 1));
        assert!(!path.is_working());
        path.works();
        path.works();
        let status = path.status();
        assert_eq!((status.state, status.cause, status.silent_for), ("works", None, None));
        path.silent("three");
        assert_eq!(path.status().losses, 2);
    }
}
