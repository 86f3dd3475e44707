//! Removes what is older than retention allows, a little at a time.
//!
//! What a newcomer gets wrong: a log that was never trimmed may have millions of events to lose, and publishers must not
//! notice. So a batch is as large as fits into a few milliseconds, and the pause behind it is longer than it took: whatever
//! the machine, trimming has a share of it and no more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everpoll_log::{Log, LogError, Part, Retention, Trimmed};
use everpoll_protocol::Live;
use everpoll_settings::Settings;
use tracing::{info, warn};

/// How long one transaction should take. With SQLite, publishers wait for it.
const AIM: Duration = Duration::from_millis(20);

/// A pause is so many times as long as the transaction before it took.
const PAUSES: u32 = 3;

/// The fewest events of a transaction, and of the first one: with less, its commit costs more than its events.
const BATCH_MIN: u32 = 500;

/// A larger batch pays when it removes so many times as many events a second.
const PAYS: f64 = 1.3;

/// How soon the thread sees that it is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Trims a log in batches that fit the machine.
#[derive(Debug)]
pub(crate) struct Trimmer {
    /// What to look at, one after the other.
    parts: Vec<Part>,
    at: usize,
    /// How many events the next transaction looks at.
    batch: u32,
    batch_max: u32,
    /// The last one's events, and how many that were a second.
    last: Option<(u32, f64)>,
}

/// What the settings say about retention: the parts of the log that do not keep everything.
pub(crate) fn parts(settings: &Settings) -> Vec<Part> {
    let rest = Retention { max_age: settings.retain_for, max_events: settings.retain_count };
    let namespaces = settings.retained_apart().map(|(prefix, max_age, max_events)| {
        let keep = Retention { max_age, max_events };
        (prefix.into(), keep)
    });
    Part::split(rest, namespaces)
}

/// Trims the log as the settings say, also when they change, until `stopped`.
pub(crate) fn run(mut log: Log, settings: &Live<Settings>, stopped: &AtomicBool) {
    let stopped = || stopped.load(Ordering::Relaxed);
    let mut trimmer = Trimmer::new(Vec::new(), 0);
    while sleep(|| settings.get().trim_interval, stopped) {
        let now = settings.get();
        let interval = now.trim_interval;
        trimmer.begin(parts(&now), now.trim_batch);
        let (mut removed, start) = (0, Instant::now());
        let failed = loop {
            match trimmer.batch(&mut log) {
                Ok((batch, pause)) => {
                    removed += batch;
                    let Some(pause) = pause else { break None };
                    if !sleep(|| pause, stopped) {
                        return;
                    }
                }
                Err(error) => break Some(error),
            }
        };
        if removed > 0 {
            info!(removed, took_ms = start.elapsed().as_millis(), "trimmed the log");
        }
        if let Some(error) = failed {
            warn!("cannot trim the log: {error}; next try in {interval:?}");
        }
    }
}

/// `false` when it is to stop. The pause may change meanwhile.
fn sleep(pause: impl Fn() -> Duration, stopped: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !stopped() {
        let left = pause().saturating_sub(start.elapsed());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK));
    }
    false
}

impl Trimmer {
    /// Removes what these parts of the log do not keep, at most `batch_max` events in a transaction.
    pub(crate) fn new(parts: Vec<Part>, batch_max: u32) -> Self {
        Self { parts, at: 0, batch: BATCH_MIN.min(batch_max), batch_max, last: None }
    }

    /// Begins anew, with these parts; what was learned of the machine still holds.
    fn begin(&mut self, parts: Vec<Part>, batch_max: u32) {
        self.parts = parts;
        self.at = 0;
        self.batch_max = batch_max;
        self.batch = self.batch.max(BATCH_MIN).min(batch_max);
    }

    /// Removes one batch. Returns how many events that were, and how long to leave the log alone before the next; `None`
    /// when there is nothing left to remove.
    ///
    /// # Errors
    ///
    /// As [`Log::trim`].
    pub(crate) fn batch(&mut self, log: &mut Log) -> Result<(u64, Option<Duration>), LogError> {
        let Some(part) = self.parts.get(self.at) else { return Ok((0, None)) };
        let start = Instant::now();
        let Trimmed { removed, more } = log.trim(part, self.batch)?;
        let took = start.elapsed();
        self.adapt(took);
        // A few that have come since are left for the next time: they would come for ever.
        if !more {
            self.at += 1;
        }
        let has_more = self.at < self.parts.len();
        Ok((removed, has_more.then_some(if removed > 0 { took * PAUSES } else { took })))
    }

    /// Towards batches that take as long as they should. Where each transaction takes long whatever its size, as on a slow
    /// disk, small ones only make it last: then they grow as long as that pays.
    fn adapt(&mut self, took: Duration) {
        let pace = f64::from(self.batch) / took.as_secs_f64().max(1e-6);
        let large_pays = self.last.is_some_and(|(batch, pace_before)| match batch.cmp(&self.batch) {
            std::cmp::Ordering::Less => pace > pace_before * PAYS,
            std::cmp::Ordering::Equal => false,
            std::cmp::Ordering::Greater => pace_before > pace * PAYS,
        });
        self.last = Some((self.batch, pace));
        let least = BATCH_MIN.min(self.batch_max);
        let is_slow = took > AIM * 2;
        // The smallest is slow, too: perhaps a larger one is no slower.
        if took * 2 < AIM || large_pays || is_slow && self.batch == least {
            self.batch = self.batch.saturating_mul(2).min(self.batch_max);
        } else if is_slow {
            self.batch = (self.batch / 2).max(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The batches of a log in which a transaction takes `fixed` and, for each event, `each` microseconds.
    fn batches(fixed: u64, each: u64, batch_max: u32) -> Vec<u32> {
        let mut trimmer = Trimmer::new(Vec::new(), batch_max);
        let mut step = |_| {
            let batch = trimmer.batch;
            trimmer.adapt(Duration::from_micros(fixed + each * u64::from(batch)));
            batch
        };
        (0..10).map(&mut step).collect()
    }

    #[test]
    fn batch_grows_until_it_takes_as_long_as_it_should() {
        assert_eq!(batches(500, 1, 5000)[..6], [500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(batches(1000, 10, 5000)[..4], [500, 1000, 1000, 1000]);
        assert!(batches(500, 1, 50).iter().all(|batch| *batch == 50), "what the settings say is a limit");
    }

    #[test]
    fn batch_of_large_events_stays_small() {
        assert!(batches(1000, 200, 5000).iter().all(|batch| *batch <= 1000));
    }

    #[test]
    fn batch_on_a_slow_disk_is_large() {
        assert!(batches(100_000, 2, 5000)[5..].iter().all(|batch| *batch >= 2500));
    }
}
