//! What is to be done, and what is asked too much.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::{Fault, Target};

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// A poll that is held.
    LongPoll,
    /// A held poll that is padded.
    Padded,
    /// A poll that is answered at once.
    ShortPoll,
    /// An event stream.
    EventSource,
    /// A WebSocket.
    WebSocket,
    /// Any of these, chosen anew for each request.
    Random,
}

impl Transport {
    /// All that are one way to ask.
    pub const ALL: [Self; 5] =
        [Self::LongPoll, Self::Padded, Self::ShortPoll, Self::EventSource, Self::WebSocket];

    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LongPoll => "long-poll",
            Self::Padded => "padded",
            Self::ShortPoll => "short-poll",
            Self::EventSource => "eventsource",
            Self::WebSocket => "websocket",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().chain([Self::Random]);
        known.into_iter().find(|transport| transport.name() == text).ok_or_else(|| {
            format!(
                "{text:?} is no transport; known are long-poll, padded, short-poll, eventsource, websocket and random"
            )
        })
    }
}

/// How events get into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `POST /publish`.
    Http,
    /// A transaction of the database.
    Sql,
}

/// What is to be done.
pub struct Plan {
    /// Where clients ask and HTTP publishers publish; a client goes on to the next one when one fails. At least one.
    pub targets: Vec<Target>,
    /// The database of [`Cause::Sql`].
    pub database: Option<String>,
    /// A Redis that SQL publishers tell of each event, as `channels:<channel>`; `redis://host:port`.
    pub redis: Option<String>,
    /// How events are published; in turn when there are both.
    pub causes: Vec<Cause>,
    /// Presented when publishing over HTTP.
    pub publish_key: Option<String>,
    /// Events a second, all together; 0.1 to 100,000.
    pub rate: f64,
    /// How many channels there are; 1 to 100,000.
    pub channels: u32,
    /// How many of them each client asks for; 1 to 64.
    pub channels_per_client: u32,
    /// How many clients there are; 1 to 60,000.
    pub clients: u32,
    /// How they ask, in turn. At least one.
    pub transports: Vec<Transport>,
    /// How long events are published.
    pub duration: Duration,
    /// How long clients may take afterwards to get the last event.
    pub settle: Duration,
    /// The hold that clients ask for, 1 s or more.
    pub hold: Duration,
    /// How late an event may be while nothing was broken on purpose.
    pub late_max: Duration,
    /// What is broken and mended, in random order, again and again.
    pub faults: Vec<Fault>,
    /// How long nothing is broken between two faults.
    pub calm: Duration,
    /// Whether a request that fails breaks a promise, as in a restart that nobody is to notice.
    pub failures_count: bool,
    /// Chance, to be repeated.
    pub seed: u64,
}

/// Why a plan cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The plan itself is wrong; the text says what to change.
    #[error("{0}")]
    Wrong(String),
    /// The server or the database refuses for good; the text says why.
    #[error("{0}")]
    Refused(String),
    /// Nothing could be begun: nobody answers.
    #[error("{0}")]
    Unreachable(String),
}

impl Plan {
    /// A plan of 100 clients and 50 events a second on 10 channels for a minute, over HTTP.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            targets: vec![target],
            database: None,
            redis: None,
            causes: vec![Cause::Http],
            publish_key: None,
            rate: 50.0,
            channels: 10,
            channels_per_client: 2,
            clients: 100,
            transports: vec![Transport::Random],
            duration: Duration::from_secs(60),
            settle: Duration::from_secs(30),
            hold: Duration::from_secs(25),
            late_max: Duration::from_secs(15),
            faults: Vec::new(),
            calm: Duration::from_secs(5),
            failures_count: false,
            seed: 1,
        }
    }

    /// Whether it can be carried out.
    ///
    /// # Errors
    ///
    /// [`PlanError::Wrong`].
    pub fn check(&self) -> Result<(), PlanError> {
        let wrong = |text: &str| Err(PlanError::Wrong(text.to_owned()));
        if self.targets.is_empty() || self.transports.is_empty() || self.causes.is_empty() {
            return wrong("nowhere to ask, no transport or no way to publish: give at least one of each");
        }
        if self.causes.contains(&Cause::Sql) && self.database.is_none() {
            return wrong("publishing by sql needs a database; give --database");
        }
        if !(0.1..=100_000.0).contains(&self.rate) {
            return wrong("the rate must lie between 0.1 and 100000 events a second");
        }
        if !(1..=100_000).contains(&self.channels) {
            return wrong("the number of channels must lie between 1 and 100000");
        }
        if !(1..=self.channels.min(64)).contains(&self.channels_per_client) {
            return wrong(
                "a client asks for at least one channel, at most 64, and not for more than there are",
            );
        }
        if !(1..=60_000).contains(&self.clients) {
            return wrong(
                "the number of clients must lie between 1 and 60000; one process has no more ports",
            );
        }
        if self.hold < Duration::from_secs(1) {
            return wrong("the hold must be at least a second");
        }
        Ok(())
    }
}
