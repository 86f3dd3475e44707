//! What is counted, for `/metrics` and for the diagnostics.
//!
//! The counters are the process's own and reached from everywhere: a count is one relaxed addition, which costs next to
//! nothing beside what is counted. What can be asked when somebody wants to know (connections, the window) is not counted
//! again; [`page`] asks.

pub(crate) mod page;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use everpoll_protocol::{Failure, Flavor, PollRequest};
use tracing::warn;

use crate::hub::lock;

/// Everything that is counted.
pub(crate) static COUNTS: Counts = Counts::new();

/// A limit that is hit is told once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Something that happens again and again.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Once more.
    pub(crate) fn one(&self) {
        self.add(1);
    }

    /// So often more.
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// How often it has happened.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
pub(crate) struct Counts {
    /// Connections that were accepted.
    pub(crate) accepted: Count,
    /// Handshakes of TLS that came to an end.
    pub(crate) handshakes: Count,
    /// Those that did not.
    pub(crate) handshakes_failed: Count,
    /// By [`Way`]: requests that came.
    pub(crate) requests: [Count; Way::ALL.len()],
    /// By [`Way`]: events that were written to clients.
    pub(crate) deliveries: [Count; Way::ALL.len()],
    /// Questions that the window could not answer.
    pub(crate) questions: Count,
    /// Statements that told where channels stand.
    pub(crate) looks: Count,
    /// Statements that read events for those who are behind.
    pub(crate) reads: Count,
    /// Events that were published over HTTP.
    pub(crate) published: Count,
    /// Connections that the system ended because their client had vanished.
    pub(crate) ghosts: Count,
    /// Requests that were answered because the daemon stops.
    pub(crate) drained: Count,
    /// By [`Limit`].
    limits: [Count; Limit::ALL.len()],
    told: Mutex<[Option<(Instant, u64)>; Limit::ALL.len()]>,
    errors: Mutex<BTreeMap<&'static str, u64>>,
}

/// A way to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ShortPoll,
    LongPoll,
    Padded,
    EventSource,
    WebSocket,
}

impl Way {
    /// All of them; the place of each is its number.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::ShortPoll, "short_poll"),
        (Self::LongPoll, "long_poll"),
        (Self::Padded, "padded"),
        (Self::EventSource, "eventsource"),
        (Self::WebSocket, "websocket"),
    ];

    /// The way that a request asks for.
    pub(crate) fn of(request: &PollRequest) -> Self {
        match request.flavor {
            Flavor::EventSource => Self::EventSource,
            Flavor::WebSocket => Self::WebSocket,
            _ if request.pad.is_some() => Self::Padded,
            Flavor::LongPoll => Self::LongPoll,
            Flavor::ShortPoll => Self::ShortPoll,
        }
    }
}

/// What has an end, each by the name of its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections,
    ConnectionsPerAddress,
    RequestsPerAddress,
    Holds,
    WebSocketsPerWaitId,
    CatchUp,
    PublishQueue,
    PublishRate,
    Unsent,
    HeadTime,
    WriteTime,
    Head,
    PollBody,
    PublishBody,
    Channels,
    EventData,
    Batch,
}

impl Limit {
    /// All of them with their names and what happens; the place of each is its number.
    pub(crate) const ALL: [(Self, &'static str, &'static str); 17] = [
        (Self::Connections, "connections_max", "new connections are sent away with 503"),
        (
            Self::ConnectionsPerAddress,
            "connections_per_address",
            "further connections from an address are sent away with 429, and its polls through a web server are answered at once",
        ),
        (Self::RequestsPerAddress, "requests_per_address", "requests from an address are answered with 429"),
        (Self::Holds, "holds_max", "further polls are answered at once instead of held"),
        (Self::WebSocketsPerWaitId, "websockets_per_wait_id", "further WebSockets of a browser are closed"),
        (Self::CatchUp, "catch_up_max", "clients that are behind are answered with 503"),
        (Self::PublishQueue, "publish_queue", "publishes are answered with 503: the database is too slow"),
        (Self::PublishRate, "publish_rate", "publishes with a key are answered with 429"),
        (Self::Unsent, "unsent_max", "slow clients with large replies are cut off"),
        (Self::HeadTime, "head_timeout", "clients that do not send their request are answered with 408"),
        (Self::WriteTime, "write_timeout", "clients that do not take their reply are cut off"),
        (Self::Head, "head_max", "requests with larger heads are answered with 431"),
        (Self::PollBody, "poll_body_max", "polls with larger bodies are answered with 413"),
        (Self::PublishBody, "body_max", "publishes with larger bodies are answered with 413"),
        (Self::Channels, "channels_max", "polls for more channels are answered with 400"),
        (Self::EventData, "event_max", "publishes with larger data are answered with 413"),
        (Self::Batch, "batch_max", "publishes with more events are answered with 400"),
    ];
}

impl Limit {
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(limit, ..)| *limit)
    }
}

impl Counts {
    const fn new() -> Self {
        Self {
            accepted: Count::new(),
            handshakes: Count::new(),
            handshakes_failed: Count::new(),
            requests: [const { Count::new() }; Way::ALL.len()],
            deliveries: [const { Count::new() }; Way::ALL.len()],
            questions: Count::new(),
            looks: Count::new(),
            reads: Count::new(),
            published: Count::new(),
            ghosts: Count::new(),
            drained: Count::new(),
            limits: [const { Count::new() }; Limit::ALL.len()],
            told: Mutex::new([None; Limit::ALL.len()]),
            errors: Mutex::new(BTreeMap::new()),
        }
    }

    /// A limit was hit: counted each time, and told now and then.
    pub(crate) fn hit(&self, limit: Limit) {
        let count = &self.limits[limit as usize];
        count.one();
        let total = count.get();
        let (now, mut told) = (Instant::now(), lock(&self.told));
        let last = &mut told[limit as usize];
        if last.is_some_and(|(at, _)| now.duration_since(at) < TOLD_EVERY) {
            return;
        }
        let times = total - last.map_or(0, |(_, total)| total);
        *last = Some((now, total));
        let (_, name, what) = Limit::ALL[limit as usize];
        warn!(limit = name, times, total, "the limit {name} is hit: {what}");
    }

    /// Something was done with a client's connection: counts when that found out that the client had vanished, as
    /// `ghost_timeout` lets the system do. It tells that once, as an error, and an end afterwards.
    pub(crate) fn watch<T>(&self, done: io::Result<T>) -> io::Result<T> {
        use rustix::io::Errno;
        // The others are what a router on the way last said of it.
        const VANISHED: [Errno; 3] = [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH];
        if let Err(error) = &done
            && VANISHED.iter().any(|vanished| error.raw_os_error() == Some(vanished.raw_os_error()))
        {
            self.ghosts.one();
        }
        done
    }

    /// An error was answered.
    pub(crate) fn error(&self, code: &'static str) {
        *lock(&self.errors).entry(code).or_default() += 1;
    }

    /// A request was not taken in.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.error(failure.code());
        if let Some(limit) = failure.limit().and_then(Limit::named) {
            self.hit(limit);
        }
    }

    /// How often each limit was hit.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Limit::ALL.iter().map(|(limit, name, _)| (*name, self.limits[*limit as usize].get()))
    }

    /// How often each error was answered.
    pub(crate) fn errors(&self) -> Vec<(&'static str, u64)> {
        lock(&self.errors).iter().map(|(code, count)| (*code, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_in_its_place() {
        for (number, (way, _)) in Way::ALL.iter().enumerate() {
            assert_eq!(*way as usize, number);
        }
        for (number, (limit, _, _)) in Limit::ALL.iter().enumerate() {
            assert_eq!(*limit as usize, number);
        }
    }

    #[test]
    fn limit_is_counted_each_time() {
        let counts = Counts::new();
        for _ in 0..3 {
            counts.hit(Limit::Unsent);
        }
        assert!(counts.limits().any(|(name, count)| (name, count) == ("unsent_max", 3)));
        counts.error("overloaded");
        counts.error("overloaded");
        assert_eq!(counts.errors(), [("overloaded", 2)]);
    }
}
