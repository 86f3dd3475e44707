//! Which file the log lives in, and what follows when it is another one than before.
//!
//! A backup that is copied back has other numbers than the file it was taken from. One that is written over the old file
//! in place has the same; then a reader that saw more tells, see [`Log::declare_rift`](crate::Log::declare_rift).

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use everpoll_protocol::{Bounds, Rift};
use rusqlite::{Connection, Transaction};

use super::failure::failed;
use super::{read, write};
use crate::LogError;

/// Device and number of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity(String);

impl Identity {
    /// That of the file at `path`; `None` if there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self(format!("{}:{}", file.dev(), file.ino())))
    }
}

/// Compares the file with where the log has lived so far, and opens a rift when it is another one.
pub(super) fn adopt(connection: &mut Connection, path: &Path) -> Result<Identity, LogError> {
    let identity = Identity::of(path).ok_or_else(|| LogError::Unavailable {
        detail: format!("the log {} was removed while it was opened", path.display()),
    })?;
    let known = |connection: &Connection| {
        connection
            .query_row("select fingerprint from log", (), |row| row.get::<_, String>(0))
            .map_err(|error| failed(path, &error))
    };
    if known(connection)? == identity.0 {
        return Ok(identity);
    }
    write(connection, path, |transaction| {
        // Another process may have been faster.
        let known = known(transaction)?;
        if known == identity.0 {
            return Ok(());
        }
        // A new file has no past to differ from.
        if !known.is_empty() {
            open_rift(transaction, 0).map_err(|error| failed(path, &error))?;
        }
        transaction
            .execute("update log set fingerprint = ?1", [&identity.0])
            .map_err(|error| failed(path, &error))?;
        Ok(())
    })?;
    Ok(identity)
}

/// Goes on with ids that nobody has seen, `seen` being one that somebody has. They come from the time, so they lie above
/// all that a lost part, or an earlier restored copy of the same state, can have used.
pub(super) fn open_rift(transaction: &Transaction<'_>, seen: u64) -> rusqlite::Result<()> {
    let Bounds { newest, .. } = read::bounds(transaction)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let tenths_of_milliseconds = u64::try_from(now.as_micros() / 100).unwrap_or(0);
    let rift = Rift { after: newest, before: tenths_of_milliseconds.max(newest + 2).max(seen + 2) };
    transaction.execute(
        "insert into rifts (after, before, at) values (?1, ?2, ?3)",
        (rift.after.cast_signed(), rift.before.cast_signed(), i64::try_from(now.as_micros()).unwrap_or(i64::MAX)),
    )?;
    let last = (rift.before - 1).cast_signed();
    if transaction.execute("update sqlite_sequence set seq = ?1 where name = 'events'", [last])? == 0 {
        transaction.execute("insert into sqlite_sequence (name, seq) values ('events', ?1)", [last])?;
    }
    Ok(())
}
