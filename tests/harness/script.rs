//! Test scripts in other languages, above all node's, with a browser in their hands.
//!
//! The Rust test owns the programs; the script owns the client. What the script needs to know stands as JSON in the
//! environment variable `SITE`. When it wants something done to the programs it writes a line `@restart daemon`, the
//! test does it and answers one line. All other lines are the script's log. Exit code 0 means that it passed.
//!
//! ```no_run
//! use everpoll_tests::script::Script;
//!
//! Script::node("browser/reload.mjs").with("url", "http://127.0.0.1:16001").run(|command| match command {
//!     "restart daemon" => "done".to_owned(),
//!     other => panic!("the script wants {other:?}"),
//! });
//! ```
//!
//! What a newcomer gets wrong:
//! - A browser must stay in the script's process group (never `detached`), or it outlives a failed test.
//! - The script's HOME and TMPDIR are a directory of its own: profiles and crash reports of browsers go with it.
//! - Two browsers at once starve each other on a small machine: [`Script::browser`] lets one script at a time run.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};

use crate::TestDir;
use crate::process::guardian;

/// How long a script may take if its test says nothing else.
const USUAL: Duration = Duration::from_secs(120);

/// The same for one with a browser, whose start alone takes half a minute on a machine that is busy with other tests.
const WITH_BROWSER: Duration = Duration::from_secs(300);

/// How often the end of the script is looked for while it writes nothing.
const STEP: Duration = Duration::from_millis(50);

/// How long what it wrote last may take to arrive after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How many characters of an answer stand in the log.
const SHOWN: usize = 200;

/// Held by whoever runs a browser.
static BROWSER: Mutex<()> = Mutex::new(());

/// A script to run.
#[derive(Debug)]
pub struct Script {
    name: String,
    command: Command,
    values: Map<String, Value>,
    within: Duration,
    browser: bool,
}

impl Script {
    /// A script of node, by its path below `tests/js`.
    ///
    /// # Panics
    /// When it does not exist, or the packages that it may need are not installed.
    #[track_caller]
    pub fn node(path: &str) -> Self {
        let folder = folder();
        let script = folder.join(path);
        assert!(script.exists(), "there is no script {}", script.display());
        assert!(
            folder.join("node_modules").exists(),
            "the packages of {} are not installed; run tests/run, or npm ci there",
            folder.display()
        );
        let mut command = Command::new("node");
        command.arg(&script).current_dir(&folder);
        Self::command(path, command)
    }

    /// Like [`node`](Self::node), for a script that starts a browser: waits until no other one runs.
    ///
    /// # Panics
    /// See [`node`](Self::node).
    #[track_caller]
    pub fn browser(path: &str) -> Self {
        Self { browser: true, within: WITH_BROWSER, ..Self::node(path) }
    }

    /// Any other program that keeps to the same rules, under this name in the log.
    pub fn command(name: &str, command: Command) -> Self {
        Self { name: name.to_owned(), command, values: Map::new(), within: USUAL, browser: false }
    }

    /// Tells the script a value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.command.env(name, value.to_string());
        self
    }

    /// How many seconds it may take. The default is 120, and 300 with a browser; waiting for its turn does not count.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Self {
        self.within = Duration::from_secs(seconds);
        self
    }

    /// Runs it to its end, doing what it asks for with `answer`, and returns its log.
    ///
    /// # Panics
    /// With the log when it fails, or takes too long.
    #[track_caller]
    pub fn run(self, mut answer: impl FnMut(&str) -> String) -> String {
        let _turn = self.browser.then(turn);
        let (name, within) = (self.name.clone(), self.within);
        let mut running = Running::start(self);
        let ended = running.follow(within, &mut answer);
        let log = std::mem::take(&mut running.log);
        drop(running);
        match ended {
            Ok(()) => log,
            Err(why) => panic!("{name} {why}; its log:\n{log}"),
        }
    }
}

/// Waits until no other test of this process runs a browser.
fn turn() -> MutexGuard<'static, ()> {
    // A test that failed with a browser in hand has closed it by now.
    BROWSER.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Where the scripts are.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("js")
}

/// A script that runs. Its process group is killed on drop.
struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    log: String,
    began: Instant,
    // Last, so that it goes after those who write into it.
    _directory: TestDir,
}

impl Running {
    #[track_caller]
    fn start(script: Script) -> Self {
        use std::os::unix::process::CommandExt;
        let Script { name, mut command, values, .. } = script;
        let directory = TestDir::new();
        // A proxy of whoever runs the tests must not come in between; a test that wants one sets it in the script.
        for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            if !command.get_envs().any(|(name, _)| name == variable) {
                command.env_remove(variable);
            }
        }
        command
            .env("SITE", Value::Object(values).to_string())
            .env("HOME", directory.path())
            .env("TMPDIR", directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}; it was {command:?}"));
        guardian::watch_group(child.id());
        let input = child.stdin.take().expect("it was asked for");
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take().expect("it was asked for"), sender.clone());
        read_lines(child.stderr.take().expect("it was asked for"), sender);
        Self { child, input, lines, log: String::new(), began: Instant::now(), _directory: directory }
    }

    /// Follows it to its end; an error says what was wrong with that.
    fn follow(&mut self, within: Duration, answer: &mut impl FnMut(&str) -> String) -> Result<(), String> {
        loop {
            match self.lines.recv_timeout(STEP) {
                Ok(line) => self.take(&line, answer),
                Err(RecvTimeoutError::Timeout) => {}
                // It has closed both outputs and may still run.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(STEP),
            }
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.hear_last_words(answer);
                return if status.success() { Ok(()) } else { Err(format!("failed ({status})")) };
            }
            if self.began.elapsed() > within {
                return Err(format!("did not end within {} s", within.as_secs()));
            }
        }
    }

    /// What is still in the pipes. A browser that the script forgot would keep them open, so it goes first.
    fn hear_last_words(&mut self, answer: &mut impl FnMut(&str) -> String) {
        self.kill_group();
        let end = Instant::now() + LAST_WORDS;
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.take(&line, answer);
        }
    }

    fn take(&mut self, line: &str, answer: &mut impl FnMut(&str) -> String) {
        let _ = writeln!(self.log, "{:7.2} {line}", self.began.elapsed().as_secs_f64());
        if let Some(command) = line.strip_prefix('@') {
            let mut text = answer(command);
            assert!(!text.contains('\n'), "the answer to {command:?} must be one line, not {text:?}");
            let shown: String = text.chars().take(SHOWN).collect();
            let _ = writeln!(self.log, "{:7.2} > {shown}", self.began.elapsed().as_secs_f64());
            text.push('\n');
            // A script that has ended does not need it any more; its end says more.
            let _ = self.input.write_all(text.as_bytes());
        }
    }

    fn kill_group(&self) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("the id of a child");
        let _ = kill_process_group(id, Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill_group();
        let _ = self.child.wait();
        guardian::forget_group(self.child.id());
        // Not taken: it panics somewhere else, in what it was asked to do.
        if std::thread::panicking() && !self.log.is_empty() {
            eprintln!("---- log of the script ----\n{}---- end ----", self.log);
        }
    }
}

/// Sends each line that comes, until the other end is closed.
fn read_lines(pipe: impl Read + Send + 'static, sender: Sender<String>) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(pipe).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    fn shell(text: &str) -> Script {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        Script::command("shell", command)
    }

    fn nothing(command: &str) -> String {
        panic!("nobody asked for {command:?}")
    }

    #[test]
    fn script_is_told_values_and_gets_answers() {
        let mut asked = Vec::new();
        let log = shell(r#"echo "$SITE"; echo @restart daemon; read -r answer; echo "it is $answer" >&2"#)
            .with("url", "http://here")
            .with("tabs", 20)
            .run(|command| {
                asked.push(command.to_owned());
                "ready".to_owned()
            });
        assert_eq!(asked, ["restart daemon"]);
        assert!(log.contains(r#"{"tabs":20,"url":"http://here"}"#), "{log}");
        assert!(log.contains("it is ready"), "{log}");
    }

    #[test]
    fn script_of_node_asks_and_ends() {
        let log = Script::node("example.mjs").with("name", "cheese").run(|command| command.to_uppercase());
        assert!(log.contains("cheese: MAKE SOME CHEESE, AND MORE"), "{log}");
    }

    #[test]
    #[should_panic(expected = "failed (exit status: 3)")]
    fn script_that_fails_fails_its_test() {
        shell("exit 3").run(nothing);
    }

    #[test]
    #[should_panic(expected = "did not end within 1 s")]
    fn script_that_hangs_fails_its_test() {
        shell("sleep 600").within(1).run(nothing);
    }

    #[test]
    #[should_panic(expected = "the last words")]
    fn script_that_fails_shows_its_log() {
        shell("echo the last words; exit 1").run(nothing);
    }

    #[test]
    fn script_takes_its_children_with_it() {
        let began = Instant::now();
        let log = shell("sleep 600 & echo $!; echo done").run(nothing);
        assert!(log.contains("done") && began.elapsed() < wait::PATIENCE);
        let id = log.split_whitespace().nth(1).and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        let child = id.expect("the shell said it");
        wait::until("the child is gone", wait::PATIENCE, || {
            rustix::process::test_kill_process(child).is_err()
        });
    }
}
