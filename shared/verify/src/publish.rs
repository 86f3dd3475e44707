//! Publishers: each publishes one event after the other at its share of the rate, and writes down what it was told.
//!
//! When nobody knows whether an event is in the log, every other publisher does as a careful application: it publishes the
//! event again with the same key until it is told. The others give up, so that such events are tested as well: they come to
//! all or to none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use everpoll_log::{Log, LogError, Options};
use everpoll_protocol::NewEvent;
use http_body_util::Full;
use hyper::Request;
use serde::Deserialize;
use tokio::sync::watch;

use crate::PlanError;
use crate::client::{Connection, Reply, World};
use crate::ledger::Told;
use crate::record::KIND;

/// How long a publish may take: commits wait for one another, and a database may be gone for a moment.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long Redis may take to be told, and how long it is left alone when it took longer.
const HINT_PATIENCE: Duration = Duration::from_millis(500);
const HINT_PAUSE: Duration = Duration::from_secs(2);

/// Pause before an event that was not taken is published again.
const AGAIN: Duration = Duration::from_millis(250);

/// Where a publisher says that it is refused for good.
pub(crate) type Refusals = watch::Sender<Option<PlanError>>;

/// When the next event is due.
#[derive(Debug)]
pub(crate) struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    /// A share of the rate, and a first event within one interval.
    pub(crate) fn new(rate: f64, publishers: u32, number: u32) -> Self {
        let interval = Duration::from_secs_f64(f64::from(publishers) / rate);
        Self { interval, due: Instant::now() + interval * number / publishers }
    }

    /// How long to wait for the next event. What could not be published in time is not made up for: that would be another
    /// rate.
    fn next(&mut self) -> Duration {
        let now = Instant::now();
        let wait = self.due.saturating_duration_since(now);
        self.due = self.due.max(now) + self.interval;
        wait
    }
}

/// What came of one try.
enum Try {
    Taken(u64),
    /// It is not in the log.
    NotTaken,
    /// It may be.
    Unknown,
    /// It never will be.
    Refused(String),
}

/// Publishes over HTTP.
#[derive(Debug)]
pub(crate) struct HttpPublisher {
    pub(crate) world: Arc<World>,
    pub(crate) key: Option<String>,
    pub(crate) careful: bool,
    pub(crate) target: usize,
    pub(crate) connection: Option<Connection>,
}

impl HttpPublisher {
    /// Publishes until `stopped`.
    pub(crate) async fn run(
        mut self,
        mut pace: Pace,
        channels: impl Fn() -> u32,
        stopped: Arc<AtomicBool>,
        refusals: Refusals,
    ) {
        while !stopped.load(Ordering::Relaxed) {
            tokio::time::sleep(pace.next()).await;
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let n = self.world.ledger.announce(channels());
            let end = Instant::now() + PATIENCE * 4;
            if let Err(refused) = self.publish(n, end).await {
                refusals.send_replace(Some(refused));
                return;
            }
        }
    }

    /// Publishes one event, until it is taken, given up, or `end`.
    pub(crate) async fn publish(&mut self, n: usize, end: Instant) -> Result<Told, PlanError> {
        while Instant::now() < end {
            match self.try_once(n).await {
                Try::Taken(id) => {
                    self.world.ledger.acknowledge(n, id);
                    return Ok(Told::Acknowledged);
                }
                Try::Refused(why) => return Err(PlanError::Refused(why)),
                Try::Unknown if !self.careful => return Ok(Told::Unknown),
                Try::Unknown | Try::NotTaken => {
                    self.connection = None;
                    self.target = (self.target + 1) % self.world.targets.len();
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        Ok(Told::Unknown)
    }

    async fn try_once(&mut self, n: usize) -> Try {
        let World { ledger, label, .. } = &*self.world;
        let body: Bytes = format!(
            r#"{{"channel":"{}","type":"{KIND}","data":{},"key":"{}"}}"#,
            label.channel(ledger.channel_of(n)),
            label.payload(n),
            label.key(n)
        )
        .into();
        let target = self.world.targets[self.target].clone();
        let request = || {
            let request = Request::post(target.path("/publish"))
                .header("host", target.authority())
                .header("content-type", "application/json");
            let request = match &self.key {
                Some(key) => request.header("authorization", format!("Bearer {key}")),
                None => request,
            };
            request.body(Full::new(body.clone())).expect("the key was checked with the settings")
        };
        let sent = Connection::send(&mut self.connection, &target, request, PATIENCE).await;
        let reply = match sent {
            Ok(response) => Reply::read(response, PATIENCE).await,
            Err(failure) => Err(failure),
        };
        match reply {
            Ok(reply) => judge(&reply),
            Err(failure) if !failure.sent => Try::NotTaken,
            Err(_) => Try::Unknown,
        }
    }
}

#[derive(Deserialize)]
struct Taken {
    ids: Vec<u64>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: String,
}

fn judge(reply: &Reply) -> Try {
    if reply.status == 201 {
        let taken: Option<Taken> = serde_json::from_slice(&reply.body).ok();
        return taken.and_then(|taken| taken.ids.first().copied()).map_or(Try::Unknown, Try::Taken);
    }
    let problem: Option<Problem> = serde_json::from_slice(&reply.body).ok();
    match (reply.status, problem) {
        (_, Some(problem)) if problem.code == "outcome_unknown" => Try::Unknown,
        (400..408 | 410..429, Some(problem)) => {
            Try::Refused(format!("publishing is refused ({}): {}", problem.code, problem.detail))
        }
        // Everpoll's own word that it is not in the log, or somebody's in between, who does not know.
        (_, Some(_)) => Try::NotTaken,
        (429, None) => Try::NotTaken,
        _ => Try::Unknown,
    }
}

/// Publishes in transactions of the database.
pub(crate) struct SqlPublisher {
    world: Arc<World>,
    careful: bool,
    log: Log,
    hints: Option<Hints>,
}

impl SqlPublisher {
    /// Checks the URL.
    pub(crate) fn new(
        world: &Arc<World>,
        url: &str,
        redis: Option<&str>,
        careful: bool,
    ) -> Result<Self, PlanError> {
        let options = Options {
            application_name: "everpoll verify".to_owned(),
            statement_timeout: PATIENCE,
            ..Options::default()
        };
        let log = Log::new(url, options).map_err(|error| PlanError::Wrong(error.to_string()))?;
        let hints = redis.map(Hints::new).transpose()?;
        Ok(Self { world: world.clone(), careful, log, hints })
    }

    /// Publishes until `stopped`.
    pub(crate) fn run(
        mut self,
        mut pace: Pace,
        channels: impl Fn() -> u32,
        stopped: &AtomicBool,
        refusals: &Refusals,
    ) {
        while !stopped.load(Ordering::Relaxed) {
            std::thread::sleep(pace.next());
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            let n = self.world.ledger.announce(channels());
            if let Err(refused) = self.publish(n, || stopped.load(Ordering::Relaxed)) {
                refusals.send_replace(Some(refused));
                return;
            }
        }
    }

    /// Publishes one event, until it is taken, given up, or `given_up` says so.
    pub(crate) fn publish(&mut self, n: usize, given_up: impl Fn() -> bool) -> Result<Told, PlanError> {
        let World { ledger, label, .. } = &*self.world;
        let channel = label.channel(ledger.channel_of(n));
        let event = NewEvent::parse(&channel, KIND, &label.payload(n), Some(&label.key(n)), None)
            .map_err(|error| PlanError::Wrong(error.to_string()))?;
        loop {
            let unknown = match self.log.publish(std::slice::from_ref(&event)) {
                Ok(ids) => {
                    if let Some(id) = ids.first() {
                        ledger.acknowledge(n, *id);
                    }
                    if let Some(hints) = &mut self.hints {
                        hints.tell(&channel);
                    }
                    return Ok(Told::Acknowledged);
                }
                Err(LogError::OutcomeUnknown { .. }) => true,
                Err(LogError::Unavailable { .. } | LogError::Full { .. }) => false,
                Err(error) => return Err(PlanError::Refused(format!("publishing is refused: {error}"))),
            };
            if unknown && !self.careful || given_up() {
                return Ok(Told::Unknown);
            }
            std::thread::sleep(AGAIN);
        }
    }
}

/// Tells Redis of each event, as applications do that published there before. One that does not arrive does no harm.
struct Hints {
    client: redis::Client,
    connection: Option<redis::Connection>,
    /// Not tried before, so that a Redis that is away does not slow publishing down.
    not_before: Instant,
}

impl Hints {
    fn new(url: &str) -> Result<Self, PlanError> {
        let wrong = |_| PlanError::Wrong("the address of Redis is none; give redis://host:port".to_owned());
        let client = redis::Client::open(url).map_err(wrong)?;
        Ok(Self { client, connection: None, not_before: Instant::now() })
    }

    fn tell(&mut self, channel: &str) {
        if Instant::now() < self.not_before {
            return;
        }
        if self.try_to_tell(channel).is_err() {
            self.connection = None;
            self.not_before = Instant::now() + HINT_PAUSE;
        }
    }

    fn try_to_tell(&mut self, channel: &str) -> redis::RedisResult<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let connection = self.client.get_connection_with_timeout(HINT_PATIENCE)?;
                connection.set_read_timeout(Some(HINT_PATIENCE))?;
                connection.set_write_timeout(Some(HINT_PATIENCE))?;
                none.insert(connection)
            }
        };
        redis::cmd("PUBLISH").arg(format!("channels:{channel}")).arg("{}").exec(connection)
    }
}
