//! How much the database is strained, as far as its answers tell.
//!
//! Clients that come back every few seconds are a load of their own. When the database takes its time, or does not answer, they
//! are told to stay away for longer; so a database that starts again is not met by all of them at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Answers that take no longer than this are as good as any.
const EASY: Duration = Duration::from_millis(50);

/// When answers take so long, the database has all the load that it can bear.
const FULL: Duration = Duration::from_millis(500);

/// The load while the database is down, in thousandths. Not all: it costs nobody anything to be told so.
const DOWN: u32 = 500;

/// An answer counts for so much of the average: an eighth.
const SHARE: u32 = 8;

/// How long the database takes for an answer, on average of the last few.
#[derive(Debug, Default)]
pub(crate) struct Strain {
    /// Microseconds.
    average: AtomicU32,
}

impl Strain {
    /// Takes in how long an answer took. Of two threads at once, one may be left out, which changes nothing.
    pub(crate) fn note(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let average = self.average.load(Ordering::Relaxed);
        self.average.store(average - average / SHARE + took / SHARE, Ordering::Relaxed);
    }

    /// The load, in thousandths.
    pub(crate) fn load(&self, is_down: bool) -> u32 {
        if is_down {
            return DOWN;
        }
        let average = Duration::from_micros(self.average.load(Ordering::Relaxed).into());
        let over = average.saturating_sub(EASY).as_micros() * 1000 / (FULL - EASY).as_micros();
        u32::try_from(over).unwrap_or(1000).min(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_follows_the_time_that_answers_take() {
        let strain = Strain::default();
        let after = |millis, count| {
            for _ in 0..count {
                strain.note(Duration::from_millis(millis));
            }
            strain.load(false)
        };
        assert_eq!(after(20, 50), 0);
        // One slow answer is none, many are.
        assert_eq!(after(200, 1), 0);
        assert!((300..=340).contains(&after(200, 50)), "{}", strain.load(false));
        assert_eq!(after(5_000, 50), 1000);
        assert_eq!(after(10, 100), 0);
        assert_eq!(strain.load(true), 500);
    }
}
