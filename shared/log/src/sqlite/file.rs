//! The file: opening it, bringing it to this version's layout, and noticing that it is a copy.
//!
//! A copy has another inode or was created at another time; one that is written over the file in place is behind the
//! [mark](super::mark). The device is not looked at: its number may change when the
//! machine starts, and a rift for nothing would be recorded each time.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{Failure, mark, signed};
use crate::{LogError, Migrated, Options};

const MIGRATIONS: [&str; 3] = [
    include_str!("../../migrations/sqlite/0001_event_log.sql"),
    include_str!("../../migrations/sqlite/0002_cursor.sql"),
    include_str!("../../migrations/sqlite/0003_namespaces.sql"),
];

/// "Evpo" in the file's header, so that `file` and this program tell it from other databases.
const APPLICATION: i32 = 0x4576_706f;

/// The longest wait for another program's transaction.
const BUSY: Duration = Duration::from_secs(5);

/// An open, migrated file.
pub(super) struct File {
    pub(super) connection: Connection,
    pub(super) migrated: Migrated,
    inode: (u64, u64),
}

impl File {
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, LogError> {
        Self::try_open(path, options).map_err(|failure| failure.into_error(path))
    }

    fn try_open(path: &Path, options: &Options) -> Result<Self, Failure> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        // SQLite goes on with reading then, and all of this process would, also when the file can be written again.
        if connection.is_readonly("main")? {
            return Err(Failure::Refused(super::failure::read_only(path, "it was opened for reading")));
        }
        let busy = BUSY.min(options.statement_timeout);
        connection.busy_timeout(busy)?;
        check_owner(&connection, path)?;
        use_wal(&connection, busy)?;
        // Each commit is on disk before it is answered; NORMAL would lose the last ones with the power.
        connection.pragma_update(None, "synchronous", "full")?;
        let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        let fingerprint = fingerprint(&metadata);
        let migrated = migrate(&mut connection, &fingerprint)?;
        adopt(&mut connection, &fingerprint, mark::read(path))?;
        Ok(Self { connection, migrated, inode: inode(&metadata) })
    }

    /// Whether `path` still names this file.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| inode(&metadata) == self.inode)
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("inode", &self.inode).finish_non_exhaustive()
    }
}

/// Goes on with ids that nobody has seen. `seen` is one that somebody has, or 0. Within the caller's transaction.
pub(super) fn open_rift(connection: &Connection, newest: u64, seen: u64) -> rusqlite::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // By the time, at 10,000 ids a second, so that it lies above all that any earlier copy can have given.
    let born = u64::try_from(now.as_millis() * 10).unwrap_or(0);
    let before = born.max(newest + 2).max(seen + 2);
    connection.execute(
        "insert into rifts (after, before, at) values (?1, ?2, ?3)",
        (signed(newest), signed(before), signed(now.as_secs())),
    )?;
    let last = signed(before - 1);
    if connection.execute("update sqlite_sequence set seq = ?1 where name = 'events'", [last])? == 0 {
        connection.execute("insert into sqlite_sequence (name, seq) values ('events', ?1)", [last])?;
    }
    Ok(())
}

/// A file of another program is left alone.
fn check_owner(connection: &Connection, path: &Path) -> Result<(), Failure> {
    // In one snapshot: between two, one of ours may finish making the file, which then has tables and no owner.
    let snapshot = connection.unchecked_transaction()?;
    let application: i32 = snapshot.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = snapshot.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    drop(snapshot);
    if application == APPLICATION || (application == 0 && tables == 0) {
        return Ok(());
    }
    let detail = format!(
        "{} is the database of another program; name a file of its own in database_url",
        path.display()
    );
    Err(Failure::Refused(LogError::Settings { detail }))
}

/// Readers and the writer do not wait for each other in this mode. Changing it needs the file alone, and does not wait
/// for that by itself when two programs create the file at once.
fn use_wal(connection: &Connection, limit: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0));
        match mode {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && start.elapsed() < limit =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            // A file system that cannot do it stays in the old mode, which is right, only slower.
            other => return Ok(other.map(drop)?),
        }
    }
}

fn layout(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(connection: &mut Connection, fingerprint: &str) -> Result<Migrated, Failure> {
    let from = layout(connection)?;
    let mut to = from;
    while (to as usize) < MIGRATIONS.len() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Several programs may come here at once: each looks again behind the lock, and finds the work done.
        to = layout(&transaction)?;
        if let Some(migration) = MIGRATIONS.get(to as usize) {
            transaction.execute_batch(migration)?;
            if to == 0 {
                transaction.execute("insert into log (one, fingerprint) values (1, ?1)", [fingerprint])?;
                transaction.pragma_update(None, "application_id", APPLICATION)?;
            }
            to += 1;
            transaction.pragma_update(None, "user_version", to)?;
        }
        transaction.commit()?;
    }
    Ok(Migrated { from, to })
}

/// Opens a rift when the file is a copy, or an older state of itself: it has not given `marked` yet, which was read
/// before it.
fn adopt(connection: &mut Connection, fingerprint: &str, marked: u64) -> Result<(), Failure> {
    // Browsers count exactly to 2^53 only. Nothing near it was ever an id.
    let marked = if marked <= 1 << 52 { marked } else { 0 };
    let known = |connection: &Connection| {
        let same = |row: &rusqlite::Row<'_>| row.get::<_, bool>(0);
        let same = connection.query_row("select fingerprint = ?1 from log", [fingerprint], same)?;
        Ok::<_, rusqlite::Error>(same && super::read::bounds(connection)?.newest >= marked)
    };
    if known(connection)? {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if !known(&transaction)? {
        open_rift(&transaction, super::read::bounds(&transaction)?.newest, marked)?;
        transaction.execute("update log set fingerprint = ?1", [fingerprint])?;
    }
    transaction.commit()?;
    Ok(())
}

fn fingerprint(metadata: &Metadata) -> String {
    let created = metadata.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("{}/{}", metadata.ino(), created.unwrap_or_default().as_nanos())
}

fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Refused(LogError::Unavailable {
        detail: format!("{} cannot be looked at: {error}", path.display()),
    })
}
