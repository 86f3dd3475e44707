//! Wake-ups by LISTEN, and the canaries that test it.
//!
//! Needs a connection of its own to the server itself: through pgbouncer in transaction mode LISTEN is accepted and
//! delivers nothing, and a standby refuses it. The canary goes over another connection, since a server may deliver to a
//! session what it said itself without ever looking at what others say.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::{Connection, Failure, Server};
use crate::signal::Key;
use crate::{Heard, LogError, Options};

/// How long a connection that should listen may take to answer a question.
const PROBE: Duration = Duration::from_secs(1);

/// A connection that listens.
#[derive(Debug)]
pub(crate) struct PostgresWakeups {
    server: Server,
    options: Options,
    key: Key,
    connection: Option<Connection>,
}

impl PostgresWakeups {
    pub(crate) fn new(server: Server, options: Options, key: Key) -> Self {
        Self { server, options, key, connection: None }
    }

    pub(crate) fn listen(&mut self, limit: Duration) -> Result<Heard, LogError> {
        let Some(connection) = &mut self.connection else {
            let mut connection =
                Connection::open(&self.server, &self.options).map_err(Failure::into_error)?;
            connection.listen(&self.key).map_err(Failure::into_error)?;
            self.connection = Some(connection);
            // What came before LISTEN was not heard.
            return Ok(Heard { connected: true, ..Heard::default() });
        };
        connection.wait_for_hint(limit).map_err(|failure| {
            self.connection = None;
            failure.into_error()
        })
    }

    /// Why no canary arrives, as far as the connection that listens can tell.
    pub(crate) fn ask_why_silent(&mut self) -> String {
        let Some(connection) = &mut self.connection else { return "there is no connection".to_owned() };
        match connection.answers_within(PROBE) {
            Ok(()) => "LISTEN was accepted and NOTIFY is not delivered, as through a pooler in transaction mode \
                       (pgbouncer); give the server's own address in database_url"
                .to_owned(),
            Err(Failure::Lost { timed_out: true, .. }) => {
                "the connection that listens is open and does not answer: its server process is frozen, or the \
                 network swallows what is sent"
                    .to_owned()
            }
            Err(failure) => failure.into_error().to_string(),
        }
    }

    pub(crate) fn forget(&mut self) {
        self.connection = None;
    }

    pub(crate) fn canary(&self, options: Options) -> PostgresCanary {
        PostgresCanary { server: self.server.clone(), options, key: self.key.clone(), connection: None }
    }
}

/// A connection that sends canaries.
#[derive(Debug)]
pub(crate) struct PostgresCanary {
    server: Server,
    options: Options,
    key: Key,
    connection: Option<Connection>,
}

impl PostgresCanary {
    pub(crate) fn send(&mut self, number: u64) -> Result<(), LogError> {
        // One that was lost since the last canary says nothing about the path: it is made anew at once.
        if self.connection.as_mut().is_some_and(|connection| !connection.is_alive()) {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.server, &self.options).map_err(Failure::into_error)?),
        };
        // Nobody misses a canary that a crash swallows, so its commit waits neither for the disk nor for a standby. Only in
        // this transaction: behind a pooler the session is somebody else's in a moment.
        let sent = connection.query(
            "select pg_notify('everpoll', $1) from set_config('synchronous_commit', 'off', true)",
            &[(&self.key.canary(number), Type::TEXT)],
        );
        sent.map(|_| ()).map_err(|failure| {
            self.connection = None;
            failure.into_error()
        })
    }
}
