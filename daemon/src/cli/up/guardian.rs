//! Takes down what `everpoll up` started when `up` itself is killed and cannot.
//!
//! A process of its own that reads the pids from a pipe, one a line: `+123` started, `-123` ended. The pipe's end is the
//! end of `up`, however it came. No other way is portable: a parent's death signal is Linux's alone, and nginx would
//! not watch a pipe.

use std::collections::BTreeSet;
use std::io::{BufRead as _, Result, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process, kill_process_group, test_kill_process_group};

use super::child::pid;

/// How long the programs may take to stop before they are killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// `up`'s end of the pipe.
pub(super) struct Guardian {
    process: std::process::Child,
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Starts the process.
    pub(super) fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("up-guardian").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C must not reach it: it would be gone when it is needed.
        let mut process = command.process_group(0).spawn()?;
        let pipe = process.stdin.take();
        Ok(Self { process, pipe })
    }

    pub(super) fn watch(&mut self, pid: u32) {
        self.tell('+', pid);
    }

    pub(super) fn forget(&mut self, pid: u32) {
        self.tell('-', pid);
    }

    /// Ends it. What is still watched, it takes down.
    pub(super) fn dismiss(&mut self) {
        drop(self.pipe.take());
        let _ = self.process.wait();
    }

    fn tell(&mut self, sign: char, pid: u32) {
        if let Some(pipe) = &mut self.pipe {
            // Without it everything still works, as long as nobody kills `up`.
            let _ = writeln!(pipe, "{sign}{pid}");
        }
    }
}

/// The process itself.
pub(in crate::cli) fn run() {
    let mut watched = BTreeSet::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Some((sign, Ok(number))) = line.split_at_checked(1).map(|(sign, pid)| (sign, pid.parse::<u32>()))
        else {
            continue;
        };
        match sign {
            "+" => watched.insert(number),
            _ => watched.remove(&number),
        };
    }
    let groups: Vec<_> = watched.into_iter().filter_map(pid).collect();
    for group in &groups {
        // To the leader: nginx's master stops its workers in its own way.
        let _ = kill_process(*group, Signal::TERM);
    }
    let deadline = Instant::now() + PATIENCE;
    let some_run = || groups.iter().any(|group| test_kill_process_group(*group).is_ok());
    while some_run() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    for group in &groups {
        let _ = kill_process_group(*group, Signal::KILL);
    }
}
