//! When a client is to come back.
//!
//! Delays are whole seconds, since old clients read an integer. Randomness comes in as an argument: without it, all
//! clients that one restart threw out would come back together for ever.

use std::time::Duration;

use crate::Reconnect;

/// The delay for a request whose browser has another one held, in seconds.
pub const HOLDER_ELSEWHERE: u32 = 5;

/// The delay after an error of the client's own making, in seconds: it will not go away soon.
pub(crate) const AFTER_REQUEST_ERROR: u32 = 60;

/// The delay after a request that did not arrive whole, in seconds: the next one may.
pub(crate) const AFTER_LOST_REQUEST: u32 = 5;

/// Seconds until a client comes back for which the web server in front is soon to ask again: it counts in whole seconds.
pub const AFTER_STALE_ACCESS: u32 = 1;

/// Says when short-polling and thrown-out clients come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The shortest delay of a short-poll.
    pub base: Duration,
    /// How much is added at random when nothing else is to do.
    pub jitter: Duration,
    /// How much more is added at random under full load.
    pub jitter_loaded: Duration,
}

impl Default for Steering {
    /// 5 to 8 s, and up to 30 s under full load.
    fn default() -> Self {
        Self {
            base: Duration::from_secs(5),
            jitter: Duration::from_secs(3),
            jitter_loaded: Duration::from_secs(22),
        }
    }
}

impl Steering {
    /// Seconds until a client comes back. `load` and `random` are those of [`Steering::short_poll`].
    #[must_use]
    pub fn reconnect_in(&self, reconnect: Reconnect, load: u32, random: impl FnOnce() -> u32) -> u32 {
        match reconnect {
            Reconnect::Now => 0,
            Reconnect::HolderElsewhere => HOLDER_ELSEWHERE,
            Reconnect::ShortPoll => self.short_poll(load, random()),
            Reconnect::Drain => self.drain(random()),
        }
    }

    /// Seconds until a client comes back that is not held.
    ///
    /// `load` is the used share of the server's capacity in thousandths, 0 to 1000 (higher counts as 1000); `random`
    /// is any number, evenly spread.
    #[must_use]
    pub fn short_poll(&self, load: u32, random: u32) -> u32 {
        let loaded = self.jitter_loaded.as_secs() * u64::from(load.min(1000)) / 1000;
        let spread = self.jitter.as_secs() + loaded + 1;
        let seconds = self.base.as_secs() + u64::from(random) % spread;
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    /// Seconds until a client comes back whose held request ends because the server stops: 1 to `base`.
    #[must_use]
    pub fn drain(&self, random: u32) -> u32 {
        1 + random % u32::try_from(self.base.as_secs()).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_spread_over_whole_seconds_and_rises_with_load() {
        let steering = Steering::default();
        let delays = |load| {
            let all: Vec<_> = (0..1000).map(|random| steering.short_poll(load, random)).collect();
            (*all.iter().min().unwrap(), *all.iter().max().unwrap())
        };
        assert_eq!(delays(0), (5, 8));
        assert_eq!(delays(500), (5, 19));
        assert_eq!(delays(1000), (5, 30));
        assert_eq!(delays(5000), (5, 30));
    }

    #[test]
    fn drained_clients_come_back_within_the_base_delay() {
        let delays: Vec<_> = (0..10).map(|random| Steering::default().drain(random)).collect();
        assert_eq!(delays, [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]);
    }
}
