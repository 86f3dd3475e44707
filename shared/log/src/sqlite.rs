//! The log in an SQLite file.
//!
//! One writer at a time, so ids are in commit order by themselves. Any number of processes work on the same file: the
//! daemon, the fallback's workers, applications that insert with plain SQL. The file is created and migrated at first
//! use.

mod failure;
mod file;
mod mark;
mod namespaces;
mod publish;
mod read;
mod trim;
mod wakeups;

use std::path::PathBuf;

use failure::Failure;
use file::File;
pub(crate) use wakeups::SqliteWakeups;

use crate::{LogError, Migrated, Options};

/// The log in an SQLite file.
#[derive(Debug)]
pub struct SqliteLog {
    path: PathBuf,
    options: Options,
    file: Option<File>,
    /// What this connection has raised the mark to.
    marked: u64,
    /// The newest id that has to go by count, found once for many batches.
    surplus: Option<trim::Surplus>,
    /// The low-water marks of namespaces.
    known: Option<read::Known>,
}

impl SqliteLog {
    pub(crate) fn new(path: PathBuf, options: Options) -> Self {
        Self { path, options, file: None, marked: 0, surplus: None, known: None }
    }

    pub(crate) fn migrate(&mut self) -> Result<Migrated, LogError> {
        self.file = None;
        let file = File::open(&self.path, &self.options)?;
        let migrated = file.migrated;
        self.file = Some(file);
        Ok(migrated)
    }

    /// Notes that `newest` was given, so that an older copy in place of the file is noticed.
    fn mark(&mut self, newest: u64) {
        if newest > self.marked {
            mark::raise(&self.path, newest);
            self.marked = newest;
        }
    }

    /// Does `work` on the open file. Opens it when it is not, or when the path names another file by now: one that was
    /// put back from a backup.
    fn run<T>(
        &mut self,
        work: impl FnOnce(&mut rusqlite::Connection) -> Result<T, Failure>,
    ) -> Result<T, LogError> {
        self.file.take_if(|file| !file.is_current(&self.path));
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path, &self.options)?),
        };
        let done = work(&mut file.connection);
        done.map_err(|failure| {
            // After an error of the file itself, what SQLite keeps in memory is not trusted.
            if failure.needs_new_connection() {
                self.file = None;
            }
            failure.into_error(&self.path)
        })
    }
}

/// Ids are positive; SQLite's integers are signed.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use everpoll_protocol::NewEvent;

    use super::*;

    #[test]
    fn full_disk_is_said_and_publishes_nothing() {
        let directory = everpoll_tests::TestDir::new();
        let mut log = SqliteLog::new(directory.join("everpoll.db"), Options::default());
        log.migrate().unwrap();
        let event = NewEvent::parse("a", "t", &format!("\"{}\"", "x".repeat(100_000)), None, None).unwrap();
        let limit = |log: &mut SqliteLog, pages: i64| {
            log.run(|connection| Ok(connection.pragma_update(None, "max_page_count", pages)?)).unwrap();
        };

        limit(&mut log, 20);
        let error = log.publish(&[event.clone(), event.clone()]).unwrap_err();
        assert!(matches!(&error, LogError::Full { detail } if detail.contains("make room")), "{error:?}");
        assert_eq!(log.bounds().unwrap().newest, 0);
        limit(&mut log, 1_000_000);
        assert_eq!(log.publish(&[event]).unwrap(), [1]);
    }
}
