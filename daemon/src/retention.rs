//! Removes what is older than retention allows, a little at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everpoll_log::{Log, Retention};
use everpoll_settings::Settings;
use tracing::{debug, warn};

/// How often there is a look for what is too old.
const EVERY: Duration = Duration::from_secs(30);

/// How many events one transaction removes: few enough that it is over in milliseconds.
const BATCH: u32 = 500;

/// How soon the thread sees that it is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// What the settings say about retention.
pub(crate) fn of(settings: &Settings) -> Retention {
    Retention { max_age: settings.retain_for, max_events: settings.retain_count }
}

/// Trims the log until `stopped`.
pub(crate) fn run(mut log: Log, keep: &Retention, stopped: &AtomicBool) {
    if keep.max_age.is_none() && keep.max_events.is_none() {
        return;
    }
    let mut next = Instant::now() + EVERY;
    while !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        if Instant::now() < next {
            continue;
        }
        match log.trim(keep, BATCH) {
            // There may be more: after the next pause, so that publishers come in between.
            Ok(removed) if removed > 0 => debug!(removed, "trimmed the log"),
            Ok(_) => next = Instant::now() + EVERY,
            Err(error) => {
                warn!("cannot trim the log: {error}; next try in {EVERY:?}");
                next = Instant::now() + EVERY;
            }
        }
    }
}
