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

/// The memory of a process, or of several, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Their own: neither shared nor backed by a file.
    pub(crate) own: u64,
    /// All of it, with a fair share of what several have.
    pub(crate) share: u64,
}

/// The memory of a process and all others of its group.
///
/// # Panics
///
/// Where there is no `/proc`.
pub(crate) fn group_memory(leader: u32) -> Memory {
    let mut all = Memory::default();
    for entry in fs::read_dir("/proc").expect("the benchmarks need Linux").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let group = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(2));
        if group.is_some_and(|group| group == leader.to_string()) {
            let one = Watched(id).all_memory();
            all = Memory { own: all.own + one.own, share: all.share + one.share };
        }
    }
    all
}

impl Watched {
    /// Its memory.
    ///
    /// # Panics
    ///
    /// Where there is no `/proc/<pid>/smaps_rollup`.
    pub(crate) fn all_memory(self) -> Memory {
        let text = self.read("smaps_rollup");
        let sum = |names: &[&str]| {
            let lines = text.lines().filter_map(|line| line.split_once(':'));
            let lines = lines.filter(|(name, _)| names.contains(name));
            lines
                .filter_map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<u64>().ok())
                .sum::<u64>()
                * 1024
        };
        // What a child has of its parent's without having changed it is theirs together.
        Memory { own: sum(&["Pss_Anon"]), share: sum(&["Pss"]) }
    }

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

    /// Processor time that its threads have used.
    ///
    /// # Panics
    ///
    /// Where there is no `/proc/<pid>/task/<tid>/schedstat`.
    pub(crate) fn processor_time(self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0)).expect("the program runs, on Linux");
        let nanoseconds = tasks.filter_map(|task| {
            // A thread may end in between.
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanoseconds.sum())
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
