//! The log against real databases: PostgreSQL servers that the tests start, and SQLite files.
//!
//! What both promise is tested on both by the same body; the macro below makes two tests of each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Makes a module of tests per database out of functions that take a [`common::Store`].
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[test] fn $name() { super::$name(&crate::common::Store::postgres()); })+
        }
        mod on_sqlite {
            $(#[test] fn $name() { super::$name(&crate::common::Store::sqlite()); })+
        }
    };
}
use on_both;

mod common;
// The old table's view.
mod compat;
// The reference.
mod documents;
// Empty, foreign and shared databases; several programs at once.
mod migrate;
// Commit order, open transactions, snapshots.
mod order;
// Restarts, lost connections, time limits, wake-ups.
mod outage;
// Namespaces whose events stay for longer or shorter.
mod namespaces;
// All or nothing, keys, limits.
mod publish;
// Cursors, channels, limits of a read.
mod read;
// Trimming, gaps, restored logs.
mod retention;
// Encryption.
mod tls;
// What each role may do.
mod roles;
