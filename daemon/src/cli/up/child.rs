//! One program that `everpoll up` runs.

use std::fs::File;
use std::io::{Read as _, Result, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::Happening;
use super::guardian::Guardian;

/// How much of what a program wrote is shown when it fails, bytes.
const LAST_WORDS: u64 = 2000;

/// How to start a program.
pub(super) struct Plan {
    /// What it is called.
    pub(super) name: &'static str,
    /// What its absence means, for people.
    pub(super) without: &'static str,
    /// The command; used again when the program died.
    pub(super) command: Command,
    /// Where what it writes goes.
    pub(super) log: PathBuf,
    /// How much earlier starts had written there, bytes.
    pub(super) written_before: u64,
    /// Whether it serves.
    pub(super) ready: Box<dyn Fn() -> bool>,
}

impl Plan {
    /// The end of what the program wrote since it was last started.
    pub(super) fn last_words(&self) -> String {
        let read = || -> Result<Vec<u8>> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS).max(self.written_before)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) if bytes.is_empty() => format!("({} has nothing new)", self.log.display()),
            Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(error) => format!("({} cannot be read: {error})", self.log.display()),
        }
    }
}

/// A process that was started, and leads a process group.
pub(super) struct Child {
    pid: u32,
}

impl Child {
    /// Starts a program; its end will be told as a [`Happening`].
    pub(super) fn start(plan: &mut Plan, guardian: &mut Guardian, happen: Sender<Happening>) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&plan.log)?;
        plan.written_before = log.metadata()?.len();
        plan.command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut process = plan.command.spawn()?;
        let pid = process.id();
        guardian.watch(pid);
        std::thread::Builder::new().name(format!("wait for {pid}")).spawn(move || {
            if let Ok(status) = process.wait() {
                // Nobody listens any more when everything is stopped.
                let _ = happen.send(Happening::Ended(pid, status));
            }
        })?;
        Ok(Self { pid })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks it to stop.
    pub(super) fn terminate(&self) {
        if let Some(pid) = pid(self.pid) {
            // Gone already: as wished.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Kills it with all that it started, such as nginx's workers.
    pub(super) fn kill(&self) {
        if let Some(pid) = pid(self.pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// A number as a pid. 0 and what is negative would mean groups or everybody.
pub(super) fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().filter(|number| *number > 1).and_then(Pid::from_raw)
}
