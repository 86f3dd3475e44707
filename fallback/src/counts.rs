//! What is counted, for the diagnostics and for [`status`](crate::status).
//!
//! The counts are the process's own and reached from all of its threads: a count is one relaxed addition, and only what is refused
//! takes a lock. A plain CGI program counts a single request; so it tells each limit that is hit, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use everpoll_protocol::Failure;
use tracing::warn;

/// Everything that is counted.
pub(crate) static COUNTS: Counts = Counts::new();

/// A limit that is hit is told once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A number that others change.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// So many more.
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// From now on so many.
    pub(crate) fn set(&self, now: usize) {
        self.0.store(now as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Open connections of web servers.
    pub(crate) connections: Count,
    /// Most of them at once.
    pub(crate) connections_max: Count,
    /// Requests that are complete and not answered yet.
    pub(crate) in_hand: Count,
    /// Polls that were taken in.
    pub(crate) polls: Count,
    /// Publishing requests that were taken in.
    pub(crate) publishes: Count,
    /// Other requests that were taken in: questions which methods are allowed, and for the browser client.
    pub(crate) others: Count,
    /// Events that were published.
    pub(crate) published: Count,
    limits: Mutex<BTreeMap<&'static str, Hits>>,
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

/// How often a limit was hit.
#[derive(Debug, Default)]
struct Hits {
    total: u64,
    /// When that was told last, and how often it was until then.
    told: Option<(Instant, u64)>,
}

impl Hits {
    /// Once more; how often it was since it was told last, if it is to be told now.
    fn one(&mut self, now: Instant) -> Option<u64> {
        self.total += 1;
        let before = match self.told {
            Some((at, _)) if now.duration_since(at) < TOLD_EVERY => return None,
            Some((_, before)) => before,
            None => 0,
        };
        self.told = Some((now, self.total));
        Some(self.total - before)
    }
}

impl Counts {
    const fn new() -> Self {
        Self {
            connections: Count::new(),
            connections_max: Count::new(),
            in_hand: Count::new(),
            polls: Count::new(),
            publishes: Count::new(),
            others: Count::new(),
            published: Count::new(),
            limits: Mutex::new(BTreeMap::new()),
            errors: Mutex::new(BTreeMap::new()),
        }
    }

    /// A limit was hit: counted each time, and told now and then.
    pub(crate) fn hit(&self, limit: &'static str) {
        let (times, total) = {
            let mut limits = lock(&self.limits);
            let hits = limits.entry(limit).or_default();
            (hits.one(Instant::now()), hits.total)
        };
        if let Some(times) = times {
            warn!(limit, times, total, "the limit {limit} is hit: {}", what_happens(limit));
        }
    }

    /// A request was not served, or not taken in.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.error(failure.code());
        if let Some(limit) = failure.limit() {
            self.hit(limit);
        }
    }

    /// An error was answered.
    pub(crate) fn error(&self, code: &'static str) {
        *lock(&self.errors).entry(code).or_default() += 1;
    }

    /// How often each limit was hit that was.
    pub(crate) fn limits(&self) -> Vec<(&'static str, u64)> {
        lock(&self.limits).iter().map(|(limit, hits)| (*limit, hits.total)).collect()
    }

    /// How often each error was answered that was.
    pub(crate) fn errors(&self) -> Vec<(&'static str, u64)> {
        lock(&self.errors).iter().map(|(code, count)| (*code, *count)).collect()
    }
}

fn what_happens(limit: &str) -> &'static str {
    match limit {
        "batch_max" => "publishes with more events are answered with 400",
        "body_max" => "publishes with larger bodies are answered with 413",
        "channels_max" => "polls for more channels are answered with 400",
        "connections_max" => "further connections of the web server wait",
        "event_max" => "publishes with larger data are answered with 413",
        "head_max" => "requests with larger heads are answered with 431",
        "head_timeout" => "a web server that does not send its request is answered with 408",
        "poll_body_max" => "polls with larger bodies are answered with 413",
        "publish_rate" => "publishes with a key are answered with 429",
        "requests_memory" => "requests are answered with 503: those that wait need too much memory",
        "requests_per_address" => "requests from an address are answered with 429",
        "requests_waiting" => "requests are answered with 503: the database is too slow",
        "write_timeout" => "connections on which a reply is not taken are closed",
        "FCGI_WEB_SERVER_ADDRS" => "connections from an address that is not listed there are closed",
        _ => "requests are refused",
    }
}

/// Locks; what a panicking thread left behind is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_counted_each_time_and_told_now_and_then() {
        let (mut hits, start) = (Hits::default(), Instant::now());
        assert_eq!(hits.one(start), Some(1));
        assert_eq!([1, 5, 9].map(|seconds| hits.one(start + Duration::from_secs(seconds))), [None; 3]);
        assert_eq!(hits.one(start + TOLD_EVERY), Some(4));
        assert_eq!(hits.one(start + TOLD_EVERY), None);
        assert_eq!(hits.total, 6);
    }
}
