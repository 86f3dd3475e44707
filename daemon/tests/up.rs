//! `everpoll up`: what a person pastes works, and nothing is left behind.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use everpoll_tests::process::{self, Process};
use everpoll_tests::{TestDir, http, ports, wait};
use http::Address;

/// Stopping may have to wait for three programs.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

struct Up {
    process: Process,
    port: u16,
    nginx_port: u16,
    place: TestDir,
}

fn command(place: &TestDir, port: u16, nginx_port: u16, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_everpoll"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVERPOLL_") {
            command.env_remove(name);
        }
    }
    // A name that a shell, a URL and nginx's configuration could stumble over.
    let dir = place.join("try it");
    command
        .args(["up", "--port", &port.to_string(), "--nginx-port", &nginx_port.to_string(), "--dir"])
        .arg(dir);
    command.args(more);
    command
}

impl Up {
    fn start(more: &[&str]) -> Self {
        let place = TestDir::new();
        let (port, nginx_port) = (ports::free(), ports::free());
        let mut process = Process::start("up", command(&place, port, nginx_port, more), place.path());
        process.wait_for_log("publish cheese");
        Self { process, port, nginx_port, place }
    }

    fn daemon(&self) -> Address {
        Address::local(self.port)
    }

    fn nginx(&self) -> Address {
        Address::local(self.nginx_port)
    }

    /// The line with this text in it, as one would paste it.
    fn line(&self, text: &str) -> String {
        let log = self.process.log();
        log.lines()
            .find(|line| line.starts_with("    ") && line.contains(text))
            .expect("it is printed")
            .trim()
            .to_owned()
    }

    /// Pastes a line into a shell somewhere else, and returns what it printed.
    #[track_caller]
    fn paste(&self, line: &str) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir("/");
        let (status, out, err) = process::run(shell, b"");
        assert!(status.success(), "{line}: {err}");
        out
    }

    fn fallback_socket(&self) -> std::path::PathBuf {
        self.place.join("try it").join("fallback.sock")
    }

    /// Whether nothing answers any more.
    fn is_gone(&self) -> bool {
        let closed = |port| TcpStream::connect(("127.0.0.1", port)).is_err();
        closed(self.port)
            && closed(self.nginx_port)
            && Address::Unix(self.fallback_socket()).connect().is_err()
    }
}

#[test]
fn pasted_curl_is_held_until_the_pasted_publish() {
    let mut up = Up::start(&["--no-nginx"]);
    // As the printed curl asks, but from 0: then it does not matter which of the two comes first.
    let target = up.line("curl -i").rsplit_once(&up.port.to_string()).map(|(_, target)| target.to_owned());
    let target = format!("{}?last_event_id=0", target.expect("the curl asks the daemon"));
    let mut held = http::get(&target).begin(&up.daemon());
    assert!(held.is_waiting());
    let id = up.paste(&up.line("publish cheese"));
    let events = held.reply().events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].id.to_string(), id.trim());

    up.process.interrupt();
    assert_eq!(up.process.wait(STOPPED_WITHIN).code(), Some(0));
    assert!(up.is_gone(), "something still answers");
}

#[test]
fn events_go_on_through_nginx_while_the_daemon_is_dead_and_it_comes_back() {
    let mut up = Up::start(&["--restart-after", "3"]);
    let held = http::get("/e/cheese/tab-1?last_event_id=0").begin(&up.nginx());
    let first = up.paste(&up.line("publish cheese"));
    assert_eq!(held.reply().events()[0].id.to_string(), first.trim());

    up.paste(&up.line("kill -9"));
    up.process.wait_for_log("daemon (PID");
    let second = up.paste(&up.line("publish cheese"));
    let reply = http::get(&format!("/e/cheese/tab-1?last_event_id={}", first.trim())).send(&up.nginx());
    assert_eq!(reply.status, 200);
    assert_eq!(reply.events()[0].id.to_string(), second.trim());

    up.process.wait_for_log("daemon runs again");
    let held = http::get(&format!("/e/cheese/tab-1?last_event_id={}", second.trim())).begin(&up.nginx());
    let third = up.paste(&up.line("publish cheese"));
    assert_eq!(held.reply().events()[0].id.to_string(), third.trim());
    up.process.terminate();
    assert_eq!(up.process.wait(STOPPED_WITHIN).code(), Some(0));
    assert!(up.is_gone(), "something still answers");
}

#[test]
fn nothing_is_left_when_up_itself_is_killed() {
    let mut up = Up::start(&[]);
    assert!(!up.is_gone());
    up.process.kill_9();
    // Whether their processes are still listed is another matter: that depends on who inherited them.
    wait::until("all parts have let go of their addresses", STOPPED_WITHIN, || up.is_gone());
}

#[test]
fn second_up_says_what_is_taken() {
    let up = Up::start(&["--no-nginx"]);
    let run = |command: Command| {
        let (status, _, err) = process::run(command, b"");
        assert_eq!(status.code(), Some(1), "{err}");
        err
    };
    let same_directory = run(command(&up.place, ports::free(), up.nginx_port, &["--no-nginx"]));
    assert!(
        same_directory.contains("try it") && same_directory.contains(&up.process.id().to_string()),
        "{same_directory}"
    );
    let same_port = run(command(&TestDir::new(), up.port, up.nginx_port, &["--no-nginx"]));
    assert!(
        same_port.contains(&format!("127.0.0.1:{}", up.port)) && same_port.contains("--port"),
        "{same_port}"
    );
    // The first one has not noticed anything.
    assert_eq!(http::get("/readyz").send(&up.daemon()).status, 200);
}

#[test]
fn part_that_cannot_start_is_named_with_its_reason() {
    let place = TestDir::new();
    let mut command = command(&place, ports::free(), ports::free(), &["--no-nginx"]);
    command.env("EVERPOLL_HOLD_MAX", "soon");
    let (status, out, err) = process::run(command, b"");
    assert_eq!(status.code(), Some(1));
    assert!(err.contains("daemon ended before it served"), "{err}");
    assert!(err.contains("EVERPOLL_HOLD_MAX=\"soon\" is not a number"), "{err}");
    assert!(!out.contains("curl"), "{out}");
}

#[test]
fn events_are_still_there_the_next_time() {
    let mut up = Up::start(&["--no-nginx"]);
    let id = up.paste(&up.line("publish cheese"));
    up.process.interrupt();
    up.process.wait(STOPPED_WITHIN);
    let again = command(&up.place, up.port, up.nginx_port, &["--no-nginx"]);
    let mut again = Process::start("again", again, up.place.path());
    again.wait_for_log("publish cheese");
    let reply = http::get("/e/cheese?last_event_id=0&flavor=short-poll").send(&up.daemon());
    assert_eq!(reply.events()[0].id.to_string(), id.trim());
}
