//! Databases for tests: PostgreSQL servers that may be stopped, databases on a shared one, SQLite files.
//!
//! A new server takes about a second. Tests that do not stop it share one: [`Database::shared`] is a database of
//! the test's own on it, dropped with the value. The schema is not there yet: the daemon or [`migrate`](Database::migrate)
//! makes it.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::{TestDir, everpoll, process};

mod postgres;

pub(crate) use postgres::server_user;
pub use postgres::{Postgres, hand_over, tool};

/// One database on a PostgreSQL server, dropped with the value.
#[derive(Debug)]
pub struct Database {
    postgres: Postgres,
    name: String,
}

/// A file that holds a database's schema and data, as `pg_dump` wrote it.
#[derive(Debug)]
pub struct Dump {
    directory: TestDir,
}

/// A place for an SQLite log, in a directory of its own.
#[derive(Debug)]
pub struct Sqlite {
    directory: TestDir,
}

impl Database {
    fn on(postgres: Postgres, name: String) -> Self {
        Self { postgres, name }
    }

    /// A database of the test's own on a server that all tests of this process share. Such a test must not stop the
    /// server.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn shared() -> Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Postgres::start).create_database()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server it is on.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Its address, as superuser.
    pub fn url(&self) -> String {
        self.url_as("postgres")
    }

    /// Its address, as another role. No password is asked for.
    pub fn url_as(&self, role: &str) -> String {
        self.postgres.url(role, &self.name)
    }

    /// Makes Everpoll's schema in it, with `everpoll migrate`.
    ///
    /// # Panics
    /// When that fails.
    pub fn migrate(&self) -> &Self {
        let output = everpoll::command_line(&self.url(), &["migrate"], b"");
        assert!(output.status.success(), "everpoll migrate failed:\n{}{}", output.stdout, output.stderr);
        self
    }

    /// Runs SQL as superuser, each statement a transaction of its own unless it says BEGIN, up to the first error.
    /// Returns the rows, columns joined by `|`.
    ///
    /// # Panics
    /// When a statement fails.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        match self.try_psql(sql) {
            Ok(rows) => rows,
            Err(error) => panic!("psql failed: {error}; it ran:\n{sql}"),
        }
    }

    /// Like [`psql`](Self::psql), for statements that may fail.
    ///
    /// # Errors
    /// What psql wrote to stderr.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        run_psql(&self.url(), sql)
    }

    /// Like [`try_psql`](Self::try_psql), as another role.
    ///
    /// # Errors
    /// What psql wrote to stderr.
    pub fn try_psql_as(&self, role: &str, sql: &str) -> Result<String, String> {
        run_psql(&self.url_as(role), sql)
    }

    /// A connection, as superuser.
    ///
    /// # Panics
    /// When the server does not run.
    #[track_caller]
    pub fn connect(&self) -> ::postgres::Client {
        match ::postgres::Client::connect(&self.url(), ::postgres::NoTls) {
            Ok(client) => client,
            Err(error) => panic!("cannot connect to {}: {error}", self.url()),
        }
    }

    /// Writes all that is in it to a file, with `pg_dump`.
    ///
    /// # Panics
    /// When that fails.
    pub fn dump(&self) -> Dump {
        let dump = Dump { directory: TestDir::new() };
        let mut command = tool("pg_dump");
        command.args(["--format=custom", "--file"]).arg(dump.path()).arg(self.url());
        let (status, out, err) = process::run(command, b"");
        assert!(status.success(), "pg_dump failed:\n{out}{err}");
        dump
    }

    /// Replaces it by what was dumped, as an administrator does after a loss: whoever is connected is thrown out, the
    /// database dropped and made again under the same name, and the dump loaded with `pg_restore`.
    ///
    /// # Panics
    /// When that fails.
    pub fn restore(&self, dump: &Dump) {
        let Self { postgres, name } = self;
        postgres.psql(&format!("DROP DATABASE {name} WITH (FORCE); CREATE DATABASE {name};"));
        let mut command = tool("pg_restore");
        command.args(["--exit-on-error", "--dbname"]).arg(self.url()).arg(dump.path());
        let (status, out, err) = process::run(command, b"");
        assert!(status.success(), "pg_restore failed:\n{out}{err}");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be stopped, and then goes away as a whole.
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let _ = run_psql(&self.postgres.url("postgres", "postgres"), &sql);
    }
}

impl Dump {
    /// The file, in pg_dump's custom format.
    pub fn path(&self) -> PathBuf {
        self.directory.join("everpoll.dump")
    }
}

impl Sqlite {
    /// A path where there is nothing yet.
    #[expect(clippy::new_without_default, reason = "a default value should not write to the disk")]
    pub fn new() -> Self {
        Self { directory: TestDir::new() }
    }

    /// The file; made by whoever opens it first.
    pub fn path(&self) -> PathBuf {
        self.directory.join("everpoll.db")
    }

    /// Its address for `EVERPOLL_DATABASE_URL`.
    pub fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }
}

fn run_psql(url: &str, sql: &str) -> Result<String, String> {
    let mut command = tool("psql");
    command.args([
        "-X",
        "-A",
        "-t",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-v",
        "VERBOSITY=verbose",
        "-f",
        "-",
        url,
    ]);
    let (status, out, err) = process::run(command, sql.as_bytes());
    if status.success() { Ok(out) } else { Err(err) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_on_the_shared_server_are_apart() {
        let (one, two) = (Database::shared(), Database::shared());
        one.psql("CREATE TABLE here (n int); INSERT INTO here VALUES (1), (2);");
        assert_eq!(one.psql("SELECT n, n + 1 FROM here ORDER BY n"), "1|2\n2|3\n");
        let error = two.try_psql("SELECT * FROM here").unwrap_err();
        assert!(error.contains("42P01"), "{error}");
    }

    #[test]
    fn restored_database_is_as_it_was_at_the_dump() {
        let database = Database::shared();
        database.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1);");
        let dump = database.dump();
        database.psql("INSERT INTO kept VALUES (2)");
        let _connected = database.connect();
        database.restore(&dump);
        assert_eq!(database.psql("SELECT n FROM kept"), "1\n");
    }
}
