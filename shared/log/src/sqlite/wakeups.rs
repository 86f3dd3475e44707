//! Wake-ups by looking: `PRAGMA data_version` changes when another connection commits. It reads a number in memory that
//! all programs share, so a hundred times a second costs nothing that one could measure.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::file::File;
use crate::{Heard, LogError, Options};

/// How often the number is looked at: also how late a wake-up may come.
const INTERVAL: Duration = Duration::from_millis(10);

/// A connection that only looks.
#[derive(Debug)]
pub(crate) struct SqliteWakeups {
    path: PathBuf,
    options: Options,
    file: Option<File>,
    version: i64,
}

impl SqliteWakeups {
    pub(crate) fn new(path: PathBuf, options: Options) -> Self {
        Self { path, options, file: None, version: 0 }
    }

    pub(crate) fn listen(&mut self, limit: Duration) -> Result<Heard, LogError> {
        let start = Instant::now();
        loop {
            let Some(file) = self.file.take_if(|file| file.is_current(&self.path)) else {
                let file = File::open(&self.path, &self.options)?;
                self.version = self.look(&file)?;
                self.file = Some(file);
                return Ok(Heard { connected: true, ..Heard::default() });
            };
            let version = self.look(&file)?;
            self.file = Some(file);
            if std::mem::replace(&mut self.version, version) != version {
                return Ok(Heard { news: 1, ..Heard::default() });
            }
            let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(Heard::default());
            };
            std::thread::sleep(left.min(INTERVAL));
        }
    }

    fn look(&self, file: &File) -> Result<i64, LogError> {
        let version = file.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        version.map_err(|error| super::Failure::from(error).into_error(&self.path))
    }
}
