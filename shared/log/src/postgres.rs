//! The log on PostgreSQL.
//!
//! One connection, driven by a small runtime of its own that only moves while a call runs. That is why calls can have a
//! time limit on this side, too: a server that is frozen, or behind a cut cable, would otherwise block its thread for
//! ever, since `statement_timeout` needs a server that runs.
//!
//! Statements are sent unnamed, with their types (`query_typed`): one round trip, and they work through pgbouncer, which
//! named prepared statements do not with several processes.

mod connection;
mod failure;
mod migrate;
mod publish;
mod read;
mod server;
mod tls;
mod trim;
mod wakeups;

use std::time::Duration;

use connection::Connection;
use failure::Failure;
pub(crate) use server::Server;
pub(crate) use wakeups::{PostgresCanary, PostgresWakeups};

use crate::{LogError, Options};

/// The newest migration that this version needs.
const LAYOUT: u32 = migrate::LAYOUT;

/// The log on PostgreSQL.
#[derive(Debug)]
pub struct PostgresLog {
    server: Server,
    options: Options,
    connection: Option<Connection>,
    /// The newest id that has to go by count, found once for many batches.
    surplus: Option<trim::Surplus>,
    /// The low-water marks of namespaces.
    known: Option<read::Known>,
}

impl PostgresLog {
    pub(crate) fn new(server: Server, options: Options) -> Self {
        Self { server, options, connection: None, surplus: None, known: None }
    }

    pub(crate) fn set_patience(&mut self, patience: Option<Duration>) {
        self.options.patience = patience;
        if let Some(connection) = &mut self.connection {
            connection.set_limit(&self.options);
        }
    }

    /// Does `work`, which changes nothing or can be done twice, on the connection; once more on a new one if the old
    /// one turns out to be lost, as after a restart of the database.
    fn run<T>(&mut self, work: impl Fn(&mut Connection) -> Result<T, Failure>) -> Result<T, LogError> {
        let mut old = self.connection.is_some();
        loop {
            let connection = self.connected()?;
            let failure = match work(connection) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            if failure.needs_new_connection() {
                self.connection = None;
                if std::mem::take(&mut old) && !failure.timed_out() {
                    continue;
                }
            }
            return Err(failure.into_error());
        }
    }

    /// The connection, made now if there is none that lives.
    fn connected(&mut self) -> Result<&mut Connection, LogError> {
        if self.connection.as_mut().is_some_and(|connection| !connection.is_alive()) {
            self.connection = None;
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => {
                let mut connection =
                    Connection::open(&self.server, &self.options).map_err(Failure::into_error)?;
                let layout = connection.adopt(&self.options).map_err(Failure::into_error)?;
                // A newer layout suits this version as well: migrations come before programs.
                if layout < LAYOUT {
                    return Err(LogError::NotMigrated { found: layout, needed: LAYOUT });
                }
                Ok(none.insert(connection))
            }
        }
    }
}
