//! A client: asks, takes what comes, goes on from the cursor it was given, comes back when it was told to.

mod http;
mod poll;
mod socket;
mod stream;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Transport;
use crate::clock::Random;
use crate::ledger::{Ledger, Reader};
use crate::record::{Label, Record};
use crate::target::Target;

pub(crate) use http::{Connection, Reply};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How long an answer may take beyond the hold.
const GRACE: Duration = Duration::from_secs(10);

/// The beat that is asked of streams and padded holds, seconds; streams that are silent for 2.5 of them are dead.
const BEAT: u64 = 4;

/// Longest time on one stream where the transport is chosen anew each time, ms.
const STEP: u64 = 15_000;

/// Longest delay that is obeyed.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// What all clients share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ledger: Ledger,
    pub(crate) label: Label,
    pub(crate) targets: Vec<Target>,
    pub(crate) hold: Duration,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    world: Arc<World>,
    /// Also looked at by whoever waits for it.
    reader: Arc<Mutex<Reader>>,
    random: Random,
    transport: Transport,
    wait_id: String,
    requests: u64,
    target: usize,
    connection: Option<Connection>,
}

/// Why a request failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In words that are counted.
    what: String,
    /// When to come back, if the server said it.
    delay: Option<Duration>,
    /// Whether the server may have seen the request.
    pub(crate) sent: bool,
}

impl Failure {
    fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), delay: None, sent: true }
    }

    /// No connection came about.
    fn unsent(why: impl std::fmt::Display) -> Self {
        Self { sent: false, ..Self::new(format!("cannot connect: {why}")) }
    }

    /// An answer with another status than was hoped for.
    fn status(status: u16, delay: Option<Duration>) -> Self {
        Self { delay, ..Self::new(format!("status {status}")) }
    }
}

/// What one request came to: when to come back.
type Asked = Result<Duration, Failure>;

impl Client {
    pub(crate) fn new(
        world: &Arc<World>,
        reader: &Arc<Mutex<Reader>>,
        transport: Transport,
        random: Random,
    ) -> Self {
        let number = lock(reader).number;
        Self {
            world: world.clone(),
            reader: reader.clone(),
            random,
            transport,
            wait_id: format!("v{number}"),
            requests: 0,
            target: number as usize % world.targets.len(),
            connection: None,
        }
    }

    /// Asks until its task is ended.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        loop {
            // Where it begins has to be known before the first event, so the first answer must not take long.
            let begins = !lock(&self.reader).has_place();
            let transport = match self.transport {
                _ if begins => Transport::ShortPoll,
                Transport::Random => self.random.one_of(&Transport::ALL),
                transport => transport,
            };
            self.world.ledger.asked();
            let asked = match transport {
                Transport::EventSource => stream::follow(&mut self).await,
                Transport::WebSocket => socket::follow(&mut self).await,
                _ => poll::ask(&mut self, transport).await,
            };
            let pause = match asked {
                Ok(delay) => {
                    failures = 0;
                    if begins { Duration::ZERO } else { delay }
                }
                Err(failure) => {
                    failures += 1;
                    self.world.ledger.failed(&failure.what);
                    self.connection = None;
                    self.target = (self.target + 1) % self.world.targets.len();
                    failure.delay.unwrap_or_else(|| self.random.backoff(failures))
                }
            };
            tokio::time::sleep(pause.min(DELAY_MAX)).await;
        }
    }

    fn target(&self) -> &Target {
        &self.world.targets[self.target]
    }

    /// The path and query of the next request.
    fn path(&mut self, parameters: &str) -> String {
        self.requests += 1;
        let reader = lock(&self.reader);
        let channels: Vec<_> = reader
            .channels
            .iter()
            .map(|number| {
                utf8_percent_encode(&self.world.label.channel(*number), NON_ALPHANUMERIC).to_string()
            })
            .collect();
        let Self { wait_id, requests, .. } = &*self;
        // The last makes each URL a new one, so that no cache knows it.
        self.target().path(&format!(
            "/e/{}/{wait_id}?last_event_id={}&envelope=1&tab=1&n={requests}&{parameters}",
            channels.join(","),
            reader.cursor,
        ))
    }

    fn deliver(&self, record: &Record) {
        self.world.label.deliver(&self.world.ledger, &mut lock(&self.reader), record);
    }

    fn place(&self, cursor: &str) {
        lock(&self.reader).place(cursor);
    }

    /// How long to stay on a stream: for good, or a while where transports change.
    fn stay(&mut self) -> Duration {
        match self.transport {
            Transport::Random => Duration::from_millis(self.random.below(STEP)),
            _ => Duration::MAX,
        }
    }
}

pub(crate) fn lock(reader: &Mutex<Reader>) -> MutexGuard<'_, Reader> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}
