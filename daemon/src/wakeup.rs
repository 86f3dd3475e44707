//! Turns the log's wake-ups into rings of the tailer's bell.
//!
//! They are hints: one that is lost costs at most the second until the tailer's sweep. So trouble here is told once and
//! does no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use everpoll_log::Wakeups;
use tracing::{info, warn};

use crate::tailer::Bell;

/// How long one wait lasts, so that the thread sees that it is to stop.
const WAIT: Duration = Duration::from_millis(500);

/// Listens for wake-ups on a connection of its own until `stopped`.
pub(crate) fn run(mut wakeups: Wakeups, bell: &Arc<Bell>, stopped: &AtomicBool) {
    let mut lost = false;
    while !stopped.load(Ordering::Relaxed) {
        match wakeups.wait(WAIT) {
            Ok(hint) => {
                if lost {
                    info!("wake-ups come again");
                    lost = false;
                }
                if hint {
                    bell.ring();
                }
            }
            Err(error) => {
                if !lost {
                    warn!(
                        "no wake-ups from the log: {error}; events are found by the sweep, at most 1 s late"
                    );
                    lost = true;
                }
                std::thread::sleep(WAIT);
            }
        }
    }
}
