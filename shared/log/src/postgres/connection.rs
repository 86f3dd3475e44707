//! One connection, with a limit on how long anything may take.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, NoTls, Row};

use super::{Failure, Server, tls};
use crate::signal::{Key, Signal};
use crate::{Heard, Options};

/// How much later than the server this side gives up: its own error tells more.
const GRACE: Duration = Duration::from_secs(2);

/// Parameters of a statement with their types.
pub(super) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// An open connection.
pub(super) struct Connection {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    client: Client,
    shared: Arc<Shared>,
    limit: Duration,
    number: u64,
}

/// What the task that moves the bytes leaves for the callers.
#[derive(Default)]
struct Shared {
    heard: Mutex<Heard>,
    hint: Notify,
    /// Whose canaries are heard.
    key: OnceLock<Key>,
    /// Why the connection ended.
    ended: Mutex<Option<String>>,
}

impl Connection {
    /// Connects to the first host that takes it.
    pub(super) fn open(server: &Server, options: &Options) -> Result<Self, Failure> {
        let mut config = server.config.clone();
        let connect_timeout = config.get_connect_timeout().copied().unwrap_or_else(|| {
            options.patience.map_or(options.connect_timeout, |limit| options.connect_timeout.min(limit / 2))
        });
        config.connect_timeout(connect_timeout);
        if config.get_application_name().is_none() {
            config.application_name(&options.application_name);
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
            Failure::Refused(crate::LogError::Other {
                detail: format!("no runtime for the database connection: {error}"),
            })
        })?;
        let shared = Arc::new(Shared::default());
        // The driver's limit covers one TCP connect; a server that takes the connection and then says nothing needs
        // this one.
        let hosts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
        let limit = connect_timeout * hosts * 2;
        let connect = async {
            if server.wants_tls() {
                let tls = tls::connector(server).map_err(Failure::Refused)?;
                let (client, connection) =
                    config.connect(tls).await.map_err(|error| Failure::connecting(&error, server))?;
                tokio::spawn(drive(connection, Arc::clone(&shared)));
                Ok(client)
            } else {
                let (client, connection) =
                    config.connect(NoTls).await.map_err(|error| Failure::connecting(&error, server))?;
                tokio::spawn(drive(connection, Arc::clone(&shared)));
                Ok(client)
            }
        };
        let connected = runtime.block_on(async { timeout(limit, connect).await });
        let silent = || Failure::unreachable(server, &format!("no answer within {} s", limit.as_secs()));
        let client = match connected.unwrap_or_else(|_| Err(silent())) {
            Ok(client) => client,
            Err(failure) => {
                runtime.shutdown_background();
                return Err(failure);
            }
        };
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (limit, number) = (answer_limit(options), NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { runtime: Some(runtime), client, shared, limit, number })
    }

    /// Differs between all connections of this process.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Waits for answers as long as `options` say from now on. The server's own limit stays: whoever gives up makes a new
    /// connection, and the server ends what it still does.
    pub(super) fn set_limit(&mut self, options: &Options) {
        self.limit = answer_limit(options);
    }

    /// Sets the session's limits, lets the log notice that it was restored, and returns its layout; 0 when there is no
    /// log. One round trip. Compiling (`jit`) would take longer than any statement of these.
    pub(super) fn adopt(&mut self, options: &Options) -> Result<u32, Failure> {
        let millis = options.statement_timeout.as_millis().to_string();
        let adopted = self.query(
            "select everpoll.adopt() from set_config('statement_timeout', $1, false) a, set_config('jit', 'off', false) b",
            &[(&millis, Type::TEXT)],
        );
        match adopted {
            Ok(rows) => {
                Ok(rows.first().and_then(|row| row.get::<_, Option<i32>>(0)).map_or(0, i32::cast_unsigned))
            }
            Err(Failure::NoLog) => Ok(0),
            Err(failure) => Err(failure),
        }
    }

    /// Runs one statement, unnamed: one round trip.
    pub(super) fn query(&mut self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Failure> {
        let limit = self.limit;
        self.call(Some(limit), |client| client.query_typed(sql, parameters))
    }

    /// Runs several statements without parameters, however long they take.
    pub(super) fn execute(&mut self, sql: &str) -> Result<(), Failure> {
        self.call(None, |client| client.batch_execute(sql))
    }

    fn call<'a, T, F>(
        &'a mut self,
        limit: Option<Duration>,
        work: impl FnOnce(&'a Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let runtime = self.runtime.as_ref().expect("it is only taken by drop");
        let work = work(&self.client);
        let done = runtime.block_on(async {
            match limit {
                Some(limit) => timeout(limit, work).await.map_err(|_| Failure::Lost {
                    detail: format!("no answer within {} s", limit.as_secs()),
                    timed_out: true,
                }),
                None => Ok(work.await),
            }
        })?;
        done.map_err(|error| Failure::answered(&error, self.shared.ended()))
    }

    /// Whether the connection is open as far as can be told without asking the server: what has arrived is looked at,
    /// such as the goodbye of a server that was stopped. Costs no round trip.
    pub(super) fn is_alive(&mut self) -> bool {
        let runtime = self.runtime.as_ref().expect("it is only taken by drop");
        runtime.block_on(async {
            // Once to ask the system, once for the task that is woken by it, once for what it finds behind that.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
        !self.client.is_closed()
    }

    /// Listens from now on; canaries with this key are heard as such.
    pub(super) fn listen(&mut self, key: &Key) -> Result<(), Failure> {
        self.shared.key.get_or_init(|| key.clone());
        let limit = self.limit;
        self.call(Some(limit), |client| client.batch_execute("listen everpoll"))
    }

    /// Whether the server answers on this connection.
    pub(super) fn answers_within(&mut self, limit: Duration) -> Result<(), Failure> {
        self.call(Some(limit), |client| client.batch_execute(""))
    }

    /// Waits for a NOTIFY, at most `limit`. Those that came before count, all as one.
    pub(super) fn wait_for_hint(&mut self, limit: Duration) -> Result<Heard, Failure> {
        let shared = Arc::clone(&self.shared);
        let runtime = self.runtime.as_ref().expect("it is only taken by drop");
        runtime.block_on(async {
            // Whoever is woken for nothing looks again: what was heard alone counts.
            let something = async {
                loop {
                    let heard = shared.take_heard();
                    if heard != Heard::default() || shared.ended().is_some() {
                        return heard;
                    }
                    shared.hint.notified().await;
                }
            };
            // A limit of zero, too, must let the task look at what has arrived.
            tokio::task::yield_now().await;
            let heard = timeout(limit, something).await.unwrap_or_default();
            match shared.ended() {
                Some(detail) => Err(Failure::Lost { detail, timed_out: false }),
                None => Ok(heard),
            }
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The usual way waits, and panics where a caller is async code; nothing here is worth waiting for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("closed", &self.client.is_closed()).finish_non_exhaustive()
    }
}

impl Shared {
    fn take_heard(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a wake-up with this text.
    fn hear(&self, text: &str) {
        let signal = self.key.get().map_or(Signal::News, |key| key.read(text));
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match signal {
            Signal::News => heard.news += 1,
            Signal::Canary(number) => heard.canary = Some(number),
            Signal::Other => return,
        }
        self.hint.notify_one();
    }

    fn ended(&self) -> Option<String> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long to wait for an answer.
fn answer_limit(options: &Options) -> Duration {
    options.patience.unwrap_or(options.statement_timeout + GRACE)
}

/// Moves the bytes of one connection until it ends.
async fn drive<S, T>(mut connection: tokio_postgres::Connection<S, T>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let ended = loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => shared.hear(notification.payload()),
            Some(Ok(_)) => {}
            Some(Err(error)) => break super::failure::describe(&error),
            None => break "the connection was closed".to_owned(),
        }
    };
    *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
    shared.hint.notify_one();
}
