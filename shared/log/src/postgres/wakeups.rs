//! Wake-ups by LISTEN.
//!
//! Needs a connection of its own to the server itself: through pgbouncer in transaction mode LISTEN is accepted and
//! delivers nothing, and a standby refuses it.

use std::time::Duration;

use super::{Connection, Failure, Server};
use crate::{LogError, Options};

/// A connection that listens.
#[derive(Debug)]
pub(crate) struct PostgresWakeups {
    server: Server,
    options: Options,
    connection: Option<Connection>,
}

impl PostgresWakeups {
    pub(crate) fn new(server: Server, options: Options) -> Self {
        Self { server, options, connection: None }
    }

    pub(crate) fn wait(&mut self, limit: Duration) -> Result<bool, LogError> {
        let Some(connection) = &mut self.connection else {
            let mut connection =
                Connection::open(&self.server, &self.options).map_err(Failure::into_error)?;
            connection.execute("listen everpoll").map_err(Failure::into_error)?;
            self.connection = Some(connection);
            // What came before LISTEN was not heard.
            return Ok(true);
        };
        connection.wait_for_hint(limit).map_err(|failure| {
            self.connection = None;
            failure.into_error()
        })
    }
}
