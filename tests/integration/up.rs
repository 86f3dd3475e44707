//! `everpoll up` as a newcomer meets it: one program in an empty folder, and lines to paste.
//!
//! The program is copied away from the sources, so that nothing of them is needed. The lines are run by a shell, as they
//! are printed, with the real curl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::process::{self, Process};
use everpoll_tests::{TestDir, everpoll, ports, wait};

/// Refusing takes no longer than noticing.
const AT_ONCE: Duration = Duration::from_secs(5);

/// `everpoll up`, running in a folder that was empty.
struct Up {
    process: Process,
    ports: [u16; 2],
    program: PathBuf,
    folder: TestDir,
}

impl Up {
    fn start() -> Self {
        let folder = TestDir::new();
        let program = folder.join("everpoll");
        fs::copy(everpoll::binary("everpoll"), &program).expect("it was built, and there is room");
        let ports = [ports::free(), ports::free()];
        let process = Process::start("up", command(&folder, &program, ports), folder.path());
        let mut up = Self { process, ports, program, folder };
        up.process.wait_for_log("kill -9");
        up
    }

    /// The printed lines with this text, to be pasted, in order.
    fn lines(&self, text: &str) -> Vec<String> {
        let log = self.process.log();
        let indented = log.lines().filter(|line| line.starts_with("    ") && line.contains(text));
        indented.map(|line| line.trim().to_owned()).collect()
    }

    /// Begins a line in a shell of its own.
    fn paste(&self, name: &str, line: &str) -> Process {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir("/");
        Process::start(name, shell, self.folder.path())
    }

    /// Runs a line to its end and returns what it printed.
    #[track_caller]
    fn run(&self, line: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir("/");
        let (status, out, err) = process::run(shell, b"");
        assert!(status.success(), "{line}: {err}");
        out
    }

    /// The processes that are listed with the parts' process groups or this folder in their command.
    fn processes(&self) -> Vec<String> {
        let log = self.process.log();
        let groups = log.split("PID ").skip(1);
        let groups: Vec<_> =
            groups.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()).collect();
        assert!(groups.len() >= 3, "{log}");
        let folder = self.folder.path().display().to_string();
        let (_, listed, _) = process::run(ps(), b"");
        let ours = |line: &&str| {
            let mut words = line.split_whitespace();
            let (group, state) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            // What has ended is listed until its parent looks.
            !state.starts_with('Z') && (groups.contains(&group) || line.contains(&folder))
        };
        listed.lines().filter(ours).map(str::to_owned).collect()
    }
}

fn command(folder: &TestDir, program: &Path, [daemon, nginx]: [u16; 2]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVERPOLL_") {
            command.env_remove(name);
        }
    }
    command.args(["up", "--port", &daemon.to_string(), "--nginx-port", &nginx.to_string()]);
    // The daemon stays dead.
    command.args(["--restart-after", "600"]).current_dir(folder.path());
    command
}

fn ps() -> Command {
    let mut ps = Command::new("ps");
    ps.args(["-eo", "pgid=,state=,args="]);
    ps
}

#[test]
fn lines_that_up_prints_work_and_nothing_is_left_behind() {
    let mut up = Up::start();
    let [daemon, nginx] = up.ports.map(Address::local);
    let [direct, through_nginx, from_fallback] = up.lines("curl -i").try_into().expect("three are printed");
    let [publish] = up.lines("publish cheese").try_into().expect("one is printed");
    let [kill] = up.lines("kill -9").try_into().expect("one is printed");

    for (name, line, address) in [("direct", &direct, &daemon), ("nginx", &through_nginx, &nginx)] {
        let mut curl = up.paste(name, line);
        // Both lines have the same browser's key: a second request is answered at once while the first is held.
        wait::until("the pasted curl is held", wait::PATIENCE, || {
            if !curl.is_running() {
                // It came while the probe was held, and was sent away.
                curl = up.paste(name, line);
            }
            http::get("/e/cheese/tab-1?hold=0.001").send(address).reconnect_in() == 5
        });
        let id = up.run(&publish);
        assert!(curl.wait(wait::PATIENCE).success());
        let log = curl.log();
        assert!(
            log.contains("HTTP/1.1 200 OK") && log.contains(&format!(r#"[{{"id":{},"#, id.trim())),
            "{log}"
        );
        assert!(log.contains("Gouda") && log.contains("x-ps-reconnect-in: 0"), "{log}");
    }

    let began = Instant::now();
    let (status, _, error) = process::run(command(&up.folder, &up.program, up.ports), b"");
    assert!(status.code() == Some(1) && error.contains("another `everpoll up`"), "{error}");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());

    up.run(&kill);
    up.process.wait_for_log("daemon (PID");
    up.run(&publish);
    let log = up.run(&from_fallback);
    assert!(log.contains("HTTP/1.1 200 OK") && log.matches("Gouda").count() == 3, "{log}");
    let pause = log.lines().find_map(|line| line.strip_prefix("x-ps-reconnect-in: "));
    assert!(pause.is_some_and(|pause| (5..=8).contains(&pause.trim().parse().unwrap_or(0))), "{log}");

    assert!(up.processes().len() >= 4, "up, fallback, nginx and its workers: {:?}", up.processes());
    up.process.interrupt();
    assert_eq!(up.process.wait(wait::PATIENCE).code(), Some(0));
    assert_eq!(up.processes(), Vec::<String>::new());
}
