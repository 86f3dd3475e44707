//! Memory and processor time of another process, as Linux tells them.
//!
//! The one part that other systems lack: there the benchmarks end with a sentence. Memory is what is the process' own
//! and not backed by a file: code and libraries are shared, and the kernel's buffers of a socket are not in it.

use std::fs;
use std::time::{Duration, Instant};

/// How long a process must do next to nothing to count as quiet.
const QUIET: Duration = Duration::from_millis(250);

/// A hundredth of a second each: what a process may use while it is quiet, since timers and wake-ups go on.
const TICKS_WHILE_QUIET: u64 = 2;

/// How long a process may take to become quiet.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Watched(pub(crate) u32);

impl Watched {
    /// Its own memory, in bytes.
    ///
    /// # Panics
    ///
    /// Where there is no `/proc/<pid>/smaps_rollup`.
    pub(crate) fn memory(self) -> u64 {
        let text = self.read("smaps_rollup");
        let kilobytes = text.lines().find_map(|line| {
            line.strip_prefix("Anonymous:")?.trim().trim_end_matches(" kB").parse::<u64>().ok()
        });
        kilobytes.expect("Linux 4.14 and later say it") * 1024
    }

    /// Waits until it has nothing to do: what it was sent is read, and what it was asked is held.
    ///
    /// # Panics
    ///
    /// When it still works after a minute.
    pub(crate) fn wait_until_quiet(self) {
        let end = Instant::now() + PATIENCE;
        let mut before = self.ticks();
        while Instant::now() < end {
            std::thread::sleep(QUIET);
            let now = self.ticks();
            if now - before <= TICKS_WHILE_QUIET {
                return;
            }
            before = now;
        }
        panic!("process {} still works after {PATIENCE:?}", self.0);
    }

    /// Processor time it has used, in hundredths of a second.
    fn ticks(self) -> u64 {
        let text = self.read("stat");
        // The name, in parentheses, may have blanks.
        let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
        fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or_default()).sum()
    }

    fn read(self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{path}: {error}; the benchmarks need Linux and a running program")
        })
    }
}
