//! How often something may be done: so many a second, and so many at once.
//!
//! A token bucket, kept as the one moment at which it will be full again (the "generic cell rate algorithm"): to take is to move
//! that moment on, and nothing has to be done while time passes. What a newcomer gets wrong: time is the wall clock's, which may be
//! set back; a bucket that would be full only in a future that cannot be is taken for an empty one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::{Client, Timestamp};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// How many are remembered in one place of a [`Rates`].
const WAYS: usize = 4;

/// How many places there are: as many clients as four times this are remembered.
const PLACES: usize = 16 * 1024;

/// How many locks share the places.
const SHARDS: usize = 16;

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many a second, 1–1,000,000.
    pub per_second: u32,
    /// How many at once, when there were none for a while, 1–100,000,000.
    pub burst: u32,
}

/// When a bucket will be full again, in nanoseconds since 1970. 0 is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket(u64);

impl Rate {
    fn time_for(self, count: u64) -> u64 {
        count.saturating_mul(SECOND) / u64::from(self.per_second.max(1))
    }
}

impl Bucket {
    /// Takes `count` at `now`, or says how long that is to wait. More than the burst can be taken from a full bucket; then nothing
    /// is left for so much longer.
    pub(crate) fn take(&mut self, rate: Rate, count: u64, now: Timestamp) -> Result<(), Duration> {
        let now = now.micros().saturating_mul(1000);
        let burst = rate.time_for(rate.burst.into());
        let possible = now.saturating_add(burst.max(rate.time_for(count.max(1000))));
        let full_at = if self.0 > possible { now + burst } else { self.0.max(now) };
        let room = burst - rate.time_for(count.min(rate.burst.into()));
        match (full_at - now).saturating_sub(room) {
            0 => {
                self.0 = full_at.saturating_add(rate.time_for(count));
                Ok(())
            }
            wait => {
                self.0 = full_at;
                Err(Duration::from_nanos(wait))
            }
        }
    }
}

/// What each client has left of a rate. Those who were quiet for the longest time are forgotten when there are too many, which only
/// gives them a full bucket; so the memory is 1 MiB at most. Clones share it.
#[derive(Clone, Debug)]
pub struct Rates(Option<Arc<Table>>);

#[derive(Debug)]
struct Table {
    rate: Rate,
    /// Without it, clients could choose addresses that push out others.
    seed: u64,
    /// In each place, [`WAYS`] times a client's number and its [`Bucket`]. Plain numbers, so that the system gives zeroed memory
    /// that is not there before it is used.
    shards: [Mutex<Box<[u64]>>; SHARDS],
}

impl Rates {
    /// So often for each client; `None` is without end. `seed` is any number that nobody else knows.
    #[must_use]
    pub fn new(rate: Option<Rate>, seed: u64) -> Self {
        let table = |rate| {
            let shard = |_| Mutex::new(vec![0; PLACES / SHARDS * WAYS * 2].into());
            Table { rate, seed, shards: std::array::from_fn(shard) }
        };
        Self(rate.map(|rate| table(rate).into()))
    }

    /// Counts one thing that `client` does, if that may be done.
    ///
    /// # Errors
    ///
    /// How long it must wait.
    pub fn take(&self, client: Option<Client>, now: Timestamp) -> Result<(), Duration> {
        match (&self.0, client) {
            (Some(table), Some(client)) => table.with(client, |bucket| bucket.take(table.rate, 1, now)),
            _ => Ok(()),
        }
    }

    /// Gives back what was [taken](Self::take) for nothing.
    pub fn give_back(&self, client: Option<Client>) {
        if let (Some(table), Some(client)) = (&self.0, client) {
            table.with(client, |bucket| bucket.0 = bucket.0.saturating_sub(table.rate.time_for(1)));
        }
    }
}

impl PartialEq for Rates {
    /// What they allow, not who has what left.
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(|table| table.rate) == other.0.as_ref().map(|table| table.rate)
    }
}

impl Eq for Rates {}

impl Table {
    /// Does something with the bucket of `client`, which is a full one if it is not known.
    fn with<T>(&self, client: Client, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut hasher = DefaultHasher::new();
        (self.seed, client).hash(&mut hasher);
        let hash = hasher.finish() as usize;
        let mut shard = self.shards[hash % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        let places = shard.len() / (WAYS * 2);
        let place = hash / SHARDS % places * WAYS * 2;
        let place = &mut shard[place..place + WAYS * 2];
        let (mut chosen, mut is_known) = (0, false);
        for way in (0..place.len()).step_by(2) {
            if place[way] == client.number() {
                (chosen, is_known) = (way, true);
                break;
            }
            // The one that is full, or will be first.
            if place[way + 1] < place[chosen + 1] {
                chosen = way;
            }
        }
        let mut bucket = Bucket(if is_known { place[chosen + 1] } else { 0 });
        let done = change(&mut bucket);
        place[chosen] = client.number();
        place[chosen + 1] = bucket.0;
        done
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + millis * 1000)
    }

    fn client(number: u32) -> Option<Client> {
        Some(Client::at(Ipv4Addr::from(number).into()))
    }

    /// How many may be done one after the other at this time.
    fn fits(rates: &Rates, who: Option<Client>, now: Timestamp) -> usize {
        (0..10_000).take_while(|_| rates.take(who, now).is_ok()).count()
    }

    #[test]
    fn burst_comes_at_once_and_the_rest_as_time_passes() {
        let rates = Rates::new(Some(Rate { per_second: 10, burst: 30 }), 7);
        assert_eq!(fits(&rates, client(1), at(0)), 30);
        assert_eq!(rates.take(client(1), at(0)), Err(Duration::from_millis(100)));
        assert_eq!(fits(&rates, client(1), at(1000)), 10);
        assert_eq!(fits(&rates, client(1), at(1000)), 0);
        // Others have their own.
        assert_eq!(fits(&rates, client(2), at(1000)), 30);
        assert_eq!(fits(&rates, client(1), at(1_000_000)), 30);
        rates.give_back(client(1));
        assert_eq!(fits(&rates, client(1), at(1_000_000)), 1);
    }

    #[test]
    fn nobody_and_no_rate_are_not_counted() {
        assert_eq!(fits(&Rates::new(Some(Rate { per_second: 1, burst: 1 }), 7), None, at(0)), 10_000);
        assert_eq!(fits(&Rates::new(None, 7), client(1), at(0)), 10_000);
    }

    #[test]
    fn more_than_the_burst_leaves_less_for_later() {
        let (rate, mut bucket) = (Rate { per_second: 100, burst: 50 }, Bucket::default());
        assert_eq!(bucket.take(rate, 1000, at(0)), Ok(()));
        assert_eq!(bucket.take(rate, 1, at(0)), Err(Duration::from_millis(9_510)));
        assert!(bucket.take(rate, 1, at(9_500)).is_err() && bucket.take(rate, 1, at(9_510)).is_ok());
        assert_eq!(bucket.take(rate, 50, at(9_510)), Err(Duration::from_millis(500)));
    }

    #[test]
    fn clock_that_is_set_back_locks_nobody_out() {
        let rates = Rates::new(Some(Rate { per_second: 10, burst: 30 }), 7);
        assert_eq!(fits(&rates, client(1), at(3_600_000)), 30);
        assert_eq!(rates.take(client(1), at(0)), Err(Duration::from_millis(100)));
        assert_eq!(fits(&rates, client(1), at(0)), 0);
        // Not told as empty again and again.
        assert_eq!(fits(&rates, client(1), at(3_000)), 30);
    }

    #[test]
    fn flood_of_clients_needs_no_more_memory_and_leaves_the_busy_ones_in_it() {
        let rates = Rates::new(Some(Rate { per_second: 1, burst: 100 }), 7);
        assert_eq!(fits(&rates, client(1), at(0)), 100);
        for number in 2..200_000 {
            assert_eq!(rates.take(client(number), at(0)), Ok(()), "{number}");
        }
        assert_eq!(fits(&rates, client(1), at(0)), 0);
    }
}
