//! The newest id that was ever given, kept in a small file beside the log: `everpoll.db-mark`.
//!
//! A backup that is copied over the log in place (`cp`) leaves the file's number and the time of its creation as they
//! were, and nothing inside a file can tell that it is an older state of itself. The mark can: it is ahead then.
//!
//! It is not worth an error. Where it is missing or cannot be written, all is as it would be without it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The newest id that is known to have been given; 0 when nothing is known.
pub(super) fn read(log: &Path) -> u64 {
    let text = fs::read_to_string(path(log)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Raises the mark to `newest`. To be called after the commit: a mark that is ahead of the log says that it went back.
///
/// Two programs that raise it at once may leave the lower of two numbers that are next to each other, until the next
/// event: a restore at just that moment could stay unnoticed.
pub(super) fn raise(log: &Path, newest: u64) {
    if newest <= read(log) {
        return;
    }
    let path = path(log);
    let is_new = !path.exists();
    // Always as long as before, so that nobody reads half a number, and never emptied first.
    let line = format!("{newest:020}\n");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if written.is_ok()
        && is_new
        && let Ok(metadata) = fs::metadata(log)
    {
        // Whoever may write the log must be able to write this, too. SQLite does the same with its own files.
        let _ = fs::set_permissions(&path, metadata.permissions());
    }
}

fn path(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push("-mark");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_rises_and_never_falls_and_rubbish_is_nothing() {
        let directory = std::env::temp_dir().join(format!("everpoll-mark-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let log = directory.join("log.db");
        assert_eq!(read(&log), 0);
        for (newest, expected) in [(7, 7), (3, 7), (10_000_000_000, 10_000_000_000)] {
            raise(&log, newest);
            assert_eq!(read(&log), expected);
        }
        fs::write(path(&log), "rubbish").unwrap();
        assert_eq!(read(&log), 0);
        fs::remove_dir_all(&directory).unwrap();
        // Nowhere to write is no error.
        raise(&log, 1);
    }
}
