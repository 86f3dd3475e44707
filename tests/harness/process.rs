//! One running program, with its log in a file, that does not outlive its test.
//!
//! Each program leads a process group of its own, and the whole group is killed on drop: nginx's workers and CGI
//! children go as well. A group of its own also means that Ctrl-C in the terminal does not reach the program; the
//! [`guardian`] ends it then, and whenever the test process dies without running its destructors.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait;

pub mod guardian;

/// A running program. On drop its process group is killed; if the test failed, its log is printed first.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with both outputs appended to `<directory>/<name>.log`, and no input unless it is set.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Self {
        let log = directory.join(format!("{name}.log"));
        let file = append(&log);
        command.stdout(file.try_clone().expect("another descriptor for the log")).stderr(file);
        Self::spawn(name, command, log)
    }

    /// Like [`start`](Self::start), with `listener` as descriptor 0, as web servers start FastCGI programs.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    pub fn start_with_input(
        name: &str,
        mut command: Command,
        directory: &Path,
        input: impl Into<Stdio>,
    ) -> Self {
        let log = directory.join(format!("{name}.log"));
        let file = append(&log);
        command.stdin(input).stdout(file.try_clone().expect("another descriptor for the log")).stderr(file);
        Self::launch(name, command, log)
    }

    /// Like [`start`](Self::start), with these as descriptors 0 and 1; only what it writes to the other output is logged.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[track_caller]
    pub fn start_with(
        name: &str,
        mut command: Command,
        directory: &Path,
        input: impl Into<Stdio>,
        output: impl Into<Stdio>,
    ) -> Self {
        let log = directory.join(format!("{name}.log"));
        command.stdin(input).stdout(output).stderr(append(&log));
        Self::launch(name, command, log)
    }

    #[track_caller]
    fn spawn(name: &str, mut command: Command, log: PathBuf) -> Self {
        command.stdin(Stdio::null());
        Self::launch(name, command, log)
    }

    #[track_caller]
    fn launch(name: &str, mut command: Command, log: PathBuf) -> Self {
        use std::os::unix::process::CommandExt;
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}; it was {command:?}"));
        guardian::watch_group(child.id());
        Self { name: name.to_owned(), child, log, ended: None }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, on both outputs.
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Waits until its log contains `text`.
    ///
    /// # Panics
    /// When that does not happen in time, or the program ends before; with the log.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let found = wait::try_until_some(wait::PATIENCE, || {
            // In this order: what it wrote last is there when it has ended.
            let running = self.is_running();
            let log = self.log();
            (log.contains(text) || !running).then_some(log)
        });
        match found {
            Some(log) if log.contains(text) => log,
            _ => panic!("{} never wrote {text:?}, but:\n{}", self.name, self.log()),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// Kills it at once (SIGKILL), without a chance to clean up, and waits until it is gone.
    pub fn kill_9(&mut self) {
        self.signal(Signal::KILL);
        self.wait(wait::PATIENCE);
    }

    /// Asks it to stop (SIGTERM), as a service manager does. Does not wait.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to stop (SIGINT), as Ctrl-C does. Does not wait.
    pub fn interrupt(&mut self) {
        self.signal(Signal::INT);
    }

    /// Sends it a signal; nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        // Only while it has not been waited for is the id surely still its own.
        if self.is_running() {
            let _ = kill_process(self.pid(), signal);
        }
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// With the log when it still runs after `deadline`.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        match wait::try_until_some(deadline, || self.poll()) {
            Some(status) => status,
            None => panic!("{} still runs after {deadline:?}; its log:\n{}", self.name, self.log()),
        }
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it is our child");
        }
        self.ended
    }

    fn pid(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        Pid::from_raw(id).expect("the id of a child is not zero")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group may live on when its leader has ended, so it is killed in any case. Its id cannot have become
        // someone else's while a member lives; when none does, this finds nothing.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        if self.ended.is_none() {
            let _ = self.child.wait();
        }
        guardian::forget_group(self.child.id());
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{}\n---- end ----", self.name, tail(&self.log(), 20_000));
        }
    }
}

/// Runs a command to its end with `input`, and returns its status and what it wrote to stdout and stderr.
///
/// # Panics
/// When it cannot be started or takes longer than a minute.
#[track_caller]
pub fn run(mut command: Command, input: &[u8]) -> (ExitStatus, String, String) {
    use std::io::{Read, Write};
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it was asked for");
    let mut stdout = child.stdout.take().expect("it was asked for");
    let mut stderr = child.stderr.take().expect("it was asked for");
    // A thread for each pipe: a program that fills one while we wait at another would wait for ever.
    std::thread::scope(|scope| {
        // A program that does not read its input is no failure.
        scope.spawn(move || drop(stdin.write_all(input)));
        let out = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
        });
        let err = scope.spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).map(|_| bytes).unwrap_or_default()
        });
        let status =
            wait::try_until_some(Duration::from_secs(60), || child.try_wait().expect("it is our child"));
        let Some(status) = status else {
            let _ = child.kill();
            panic!("{command:?} did not end within a minute");
        };
        let text = |thread: std::thread::ScopedJoinHandle<'_, Vec<u8>>| {
            String::from_utf8_lossy(&thread.join().expect("reading does not panic")).into_owned()
        };
        (status, text(out), text(err))
    })
}

/// How much memory a running process has, in KB (its resident set, as `ps` shows it).
///
/// # Panics
/// When there is no such process.
#[track_caller]
pub fn resident_kilobytes(id: u32) -> u64 {
    let mut ps = Command::new("ps");
    ps.args(["-o", "rss=", "-p", &id.to_string()]);
    let (_, shown, _) = run(ps, b"");
    shown.trim().parse().unwrap_or_else(|_| panic!("ps shows no process {id}"))
}

/// The same without starting another program, where there is a `/proc` as Linux has it; nothing elsewhere.
pub fn resident_kilobytes_now(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// Processor time that a running process has used; nothing where there is no `/proc` as Linux has it.
pub fn processor_time(id: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name, in parentheses, may have blanks. Behind it, the 12th and 13th field, in hundredths of a second.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Lets this process have as many open files as the system allows it, and what it starts from now on.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the usual limit may still do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()))
}

/// The last `limit` bytes or a few more, for logs that would drown the report.
fn tail(text: &str, limit: usize) -> &str {
    match text.len().checked_sub(limit) {
        None => text,
        Some(start) => &text[text.floor_char_boundary(start)..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TestDir;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn process_writes_its_log_and_ends_by_itself() {
        let directory = TestDir::new();
        let mut process = Process::start("talker", shell("echo out; echo err >&2; exit 3"), directory.path());
        assert_eq!(process.wait(wait::PATIENCE).code(), Some(3));
        assert_eq!(process.log(), "out\nerr\n");
        assert!(!process.is_running());
    }

    #[test]
    fn process_takes_its_children_with_it_on_drop() {
        let directory = TestDir::new();
        let mut process =
            Process::start("parent", shell("sleep 600 & echo child $!; sleep 600"), directory.path());
        let log = process.wait_for_log("\n");
        let child: i32 = log.trim().trim_start_matches("child ").parse().expect("the shell said it");
        let child = Pid::from_raw(child).expect("not zero");
        assert!(rustix::process::test_kill_process(child).is_ok());
        drop(process);
        // The child is not ours to wait for; init buries it a moment later.
        wait::until("the child is gone", wait::PATIENCE, || {
            rustix::process::test_kill_process(child).is_err()
        });
    }

    #[test]
    fn terminated_process_may_clean_up_and_a_killed_one_may_not() {
        let directory = TestDir::new();
        let script = "trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
        let mut gentle = Process::start("gentle", shell(script), directory.path());
        gentle.wait_for_log("ready");
        gentle.terminate();
        assert!(gentle.wait(wait::PATIENCE).success());
        assert!(gentle.log().contains("cleaned"));

        let mut rough = Process::start("rough", shell(script), directory.path());
        rough.wait_for_log("ready");
        rough.kill_9();
        assert!(!rough.log().contains("cleaned"));
    }

    #[test]
    fn run_returns_both_outputs_and_feeds_the_input() {
        let (status, out, err) = run(shell("cat; echo no >&2; exit 7"), b"yes");
        assert_eq!((status.code(), out.as_str(), err.as_str()), (Some(7), "yes", "no\n"));
    }
}
