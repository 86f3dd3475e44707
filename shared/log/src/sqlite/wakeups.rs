//! Wake-ups by looking: `PRAGMA data_version` changes when another connection commits. It reads a number in memory that
//! all programs share, so a hundred times a second costs nothing that one could measure.
//!
//! When to look is told by the kernel, where it can: a commit begins with a write to the file beside the database that ends
//! in `-wal`, and inotify(7) reports that. It is a hint only. It comes before the commit has ended, and on some file systems,
//! of networks or containers, it does not come; then the looks at regular times find the commit.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::file::File;
use crate::{Heard, LogError, Options};

/// How often the number is looked at while nothing is written: also how late a wake-up may come without inotify.
const INTERVAL: Duration = Duration::from_millis(10);

/// The first pause between two looks while a commit is being written. Later ones are an eighth of the time since the write.
const FIRST_PAUSE: Duration = Duration::from_micros(200);

/// The shortest time between two wake-ups, so that a busy log is read in batches.
const BATCH: Duration = Duration::from_millis(2);

/// A connection that only looks.
#[derive(Debug)]
pub(crate) struct SqliteWakeups {
    path: PathBuf,
    options: Options,
    file: Option<File>,
    version: i64,
    writes: Option<Writes>,
    /// When a write was seen last.
    written: Option<Instant>,
    /// When a commit was seen last.
    news: Option<Instant>,
}

impl SqliteWakeups {
    pub(crate) fn new(path: PathBuf, options: Options) -> Self {
        Self { path, options, file: None, version: 0, writes: None, written: None, news: None }
    }

    pub(crate) fn listen(&mut self, limit: Duration) -> Result<Heard, LogError> {
        let start = Instant::now();
        if let Some(since) = self.news.map(|news| news.elapsed()) {
            std::thread::sleep(BATCH.saturating_sub(since));
        }
        loop {
            let Some(file) = self.file.take_if(|file| file.is_current(&self.path)) else {
                let file = File::open(&self.path, &self.options)?;
                self.version = self.look(&file)?;
                self.file = Some(file);
                self.writes = Writes::watch(&self.path);
                return Ok(Heard { connected: true, ..Heard::default() });
            };
            let version = self.look(&file)?;
            self.file = Some(file);
            if std::mem::replace(&mut self.version, version) != version {
                self.news = Some(Instant::now());
                return Ok(Heard { news: 1, ..Heard::default() });
            }
            let Some(left) = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(Heard::default());
            };
            self.pause(left);
        }
    }

    /// Waits until it is time for the next look, at most `limit`.
    fn pause(&mut self, limit: Duration) {
        let pause =
            self.written.map_or(INTERVAL, |written| (written.elapsed() / 8).clamp(FIRST_PAUSE, INTERVAL));
        let pause = pause.min(limit);
        match &self.writes {
            Some(writes) => {
                if writes.wait(pause) {
                    self.written = Some(Instant::now());
                }
            }
            None => std::thread::sleep(pause),
        }
    }

    fn look(&self, file: &File) -> Result<i64, LogError> {
        let version = file.connection.pragma_query_value(None, "data_version", |row| row.get(0));
        version.map_err(|error| super::Failure::from(error).into_error(&self.path))
    }
}

/// The kernel's reports of writes to the `-wal` file.
#[derive(Debug)]
struct Writes(OwnedFd);

impl Writes {
    /// None where the kernel cannot, or a limit of inotify is reached.
    fn watch(database: &Path) -> Option<Self> {
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        let reports = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).ok()?;
        inotify::add_watch(&reports, Path::new(&wal), inotify::WatchFlags::MODIFY).ok()?;
        Some(Self(reports))
    }

    /// Whether something was written, within `limit` or since the last call.
    fn wait(&self, limit: Duration) -> bool {
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec::try_from(limit).unwrap_or_default();
        if !matches!(poll(&mut ready, Some(&limit)), Ok(1..)) {
            return false;
        }
        // What was written is not asked, only that nothing is reported twice.
        let mut room = [MaybeUninit::uninit(); 1024];
        let mut reports = inotify::Reader::new(&self.0, &mut room);
        while reports.next().is_ok() {}
        true
    }
}
