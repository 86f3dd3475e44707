//! Whether the database answers.
//!
//! Without this, each of thousands of polls would wait for the connect timeout of a database that is gone, one after
//! the other, and nobody would get an answer. So while it is down, one request at a time tries it, and the others are told
//! at once when to come back.
//!
//! It also says so on stderr: once when it is lost, once when it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use everpoll_log::LogError;
use tracing::{error, info, warn};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// A try that has lasted so long will not come to an end any more.
const TRY_MAX: Duration = Duration::from_secs(60);

/// The same complaint is not repeated sooner.
const SILENCE: Duration = Duration::from_secs(60);

/// What is known of the database.
#[derive(Debug)]
pub struct Outage(Mutex<State>);

#[derive(Debug)]
struct State {
    down: Option<Down>,
    /// The end of the last request that the database served.
    worked: Option<Instant>,
    complaint: Option<(String, Instant)>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    next_try: Instant,
}

impl Default for Outage {
    fn default() -> Self {
        Self(Mutex::new(State { down: None, worked: None, complaint: None }))
    }
}

impl Outage {
    /// Whether a request that comes at `now` may ask the database. Whoever may, tells with [`worked`](Self::worked) or
    /// [`failed`](Self::failed) what came of it.
    pub fn may_try(&self, now: Instant) -> bool {
        match &mut self.lock().down {
            None => true,
            Some(down) if now >= down.next_try => {
                down.next_try = now + TRY_MAX;
                true
            }
            Some(_) => false,
        }
    }

    /// Whether the database is known to be down.
    pub fn is_known(&self) -> bool {
        self.lock().down.is_some()
    }

    /// The database answered.
    pub fn worked(&self, now: Instant) {
        let mut state = self.lock();
        state.worked = Some(now);
        if let Some(down) = state.down.take() {
            let seconds = now.duration_since(down.since).as_secs_f32();
            info!("the database answers again, after {seconds:.1} s");
        }
    }

    /// The database did not do what a request that began at `began` asked for.
    pub fn failed(&self, error: &LogError, began: Instant, now: Instant) {
        let mut state = self.lock();
        let lost = matches!(error, LogError::Unavailable { .. } | LogError::OutcomeUnknown { .. });
        if !lost {
            // Something else than before is wrong with it now.
            state.down = None;
            state.complain(error, now);
            return;
        }
        // If it has served another one meanwhile: a slow statement, or a single connection that was cut.
        let served_others = state.worked.is_some_and(|worked| worked > began);
        match &mut state.down {
            Some(down) => down.next_try = now + PAUSE,
            None if served_others => state.complain(error, now),
            None => {
                warn!("lost the database, clients are told to come back: {error}");
                state.down = Some(Down { since: now, next_try: now + PAUSE });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn complain(&mut self, error: &LogError, now: Instant) {
        let text = error.to_string();
        let known = |(said, at): &(String, Instant)| *said == text && now.duration_since(*at) < SILENCE;
        if self.complaint.as_ref().is_some_and(known) {
            return;
        }
        error!("a request could not be served: {error}");
        self.complaint = Some((text, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> LogError {
        LogError::Unavailable { detail: "gone".to_owned() }
    }

    #[test]
    fn one_request_at_a_time_tries_a_database_that_is_down() {
        let (outage, start) = (Outage::default(), Instant::now());
        assert!(outage.may_try(start) && outage.may_try(start));
        outage.failed(&unavailable(), start, start);
        assert!(!outage.may_try(start));
        let later = start + PAUSE;
        assert!(outage.may_try(later));
        assert!(!outage.may_try(later + 10 * PAUSE), "another one tries");
        outage.failed(&unavailable(), later, later);
        assert!(!outage.may_try(later) && outage.may_try(later + PAUSE));
        outage.worked(later + PAUSE);
        assert!(outage.may_try(later + PAUSE) && outage.may_try(later + PAUSE));
    }

    #[test]
    fn failure_of_one_request_is_no_outage_while_others_are_served() {
        let (outage, start) = (Outage::default(), Instant::now());
        outage.worked(start + PAUSE);
        outage.failed(&unavailable(), start, start + 2 * PAUSE);
        assert!(outage.may_try(start + 2 * PAUSE));
        outage.failed(&unavailable(), start + 2 * PAUSE, start + 3 * PAUSE);
        assert!(!outage.may_try(start + 3 * PAUSE));
    }

    #[test]
    fn fault_of_another_kind_does_not_stop_others() {
        let (outage, start) = (Outage::default(), Instant::now());
        let other = LogError::Other { detail: "no right to read".to_owned() };
        outage.failed(&other, start, start);
        assert!(outage.may_try(start));
        outage.failed(&unavailable(), start, start);
        assert!(outage.may_try(start + PAUSE));
        outage.failed(&other, start + PAUSE, start + PAUSE);
        assert!(outage.may_try(start + PAUSE));
    }
}
