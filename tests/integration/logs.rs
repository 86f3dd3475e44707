//! The two databases, for promises that hold on both.

use everpoll_tests::{Database, Sqlite};

/// A log of the test's own, with Everpoll's tables.
pub(crate) enum AnyLog {
    /// A database on the shared PostgreSQL server.
    Postgres(Database),
    /// A file.
    Sqlite(Sqlite),
}

impl AnyLog {
    /// A log in PostgreSQL.
    pub(crate) fn postgres() -> Self {
        let database = Database::shared();
        database.migrate();
        Self::Postgres(database)
    }

    /// A log in a file, which the first program that opens it makes.
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(Sqlite::new())
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(database) => database.url(),
            Self::Sqlite(file) => file.url(),
        }
    }
}

/// Runs a test on one database and then on the other.
pub(crate) fn on_both(test: impl Fn(&AnyLog)) {
    for (name, log) in [("SQLite", AnyLog::sqlite()), ("PostgreSQL", AnyLog::postgres())] {
        // Shown when the test fails.
        eprintln!("on {name}:");
        test(&log);
    }
}
