//! Migrations: numbered files, each applied once, in a transaction of its own, under a lock.
//!
//! A file that was released never changes. The next one must suit the programs that still run, since they are restarted
//! after it, not before.

use super::{Connection, Failure, PostgresLog};
use crate::{LogError, Migrated};

const MIGRATIONS: [&str; 4] = [
    include_str!("../../migrations/postgres/0001_event_log.sql"),
    include_str!("../../migrations/postgres/0002_trim.sql"),
    include_str!("../../migrations/postgres/0003_concurrent_commits.sql"),
    include_str!("../../migrations/postgres/0004_namespaces.sql"),
];

/// The newest migration.
#[expect(clippy::cast_possible_truncation, reason = "there are not 2^32 files")]
pub(super) const LAYOUT: u32 = MIGRATIONS.len() as u32;

/// One less than this is the commit lock's, see the migration.
const LOCK: &str = "select pg_advisory_xact_lock(x'45766572706f6c6e'::bigint)";

impl PostgresLog {
    pub(crate) fn migrate(&mut self) -> Result<Migrated, LogError> {
        // A connection that was opened before may have been adopted under the old layout.
        self.connection = None;
        let mut connection = Connection::open(&self.server, &self.options).map_err(Failure::into_error)?;
        apply(&mut connection).map_err(Failure::into_error)
    }
}

fn apply(connection: &mut Connection) -> Result<Migrated, Failure> {
    let from = layout(connection)?;
    let mut to = from;
    while to < LAYOUT {
        // Several programs may come here at once: each looks again behind the lock, and finds the work done.
        connection.execute(&format!("begin; set local statement_timeout = 0; {LOCK}"))?;
        to = layout(connection)?;
        if let Some(migration) = MIGRATIONS.get(to as usize) {
            if to == 0 {
                create_schema(connection)?;
            }
            connection.execute(migration)?;
            to += 1;
            connection.execute(&format!("insert into everpoll.migrations (number) values ({to})"))?;
        }
        connection.execute("commit")?;
    }
    Ok(Migrated { from, to })
}

/// The newest migration that the database has.
fn layout(connection: &mut Connection) -> Result<u32, Failure> {
    // Not to_regclass: it remembers what was not there, also behind the lock.
    let tables = "select 1 from pg_tables where schemaname = 'everpoll' and tablename = 'migrations'";
    if connection.query(tables, &[])?.is_empty() {
        return Ok(0);
    }
    let rows = connection.query("select max(number) from everpoll.migrations", &[])?;
    Ok(rows.first().and_then(|row| row.get::<_, Option<i32>>(0)).map_or(0, i32::cast_unsigned))
}

/// An operator who gives this role no right to create schemas creates it beforehand.
fn create_schema(connection: &mut Connection) -> Result<(), Failure> {
    if connection.query("select 1 from pg_namespace where nspname = 'everpoll'", &[])?.is_empty() {
        connection.execute("create schema everpoll")?;
    }
    connection.execute(
        "create table everpoll.migrations (
            number integer primary key,
            at timestamptz not null default clock_timestamp()
        )",
    )
}
