//! A connection to an SQLite file as an application has it, as durable as Everpoll's own.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

/// Opens the file; several may do so at once.
///
/// # Panics
///
/// When that fails.
pub(crate) fn open(path: &Path) -> Connection {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        // One writes at a time; the others wait.
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        Ok(connection)
    };
    open().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
