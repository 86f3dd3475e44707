//! The real program, as web servers and people start it: FastCGI at an address, FastCGI on descriptor 0, plain CGI.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use support::{Client, PATIENCE, Response, wait_until};

/// A directory of this test's own, removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("everpoll-fallback-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The program with a SQLite file here, and no other setting.
    fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_everpoll-fallback"));
        let inherited: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
        for name in inherited {
            if name.to_string_lossy().starts_with("EVERPOLL_") || name == "GATEWAY_INTERFACE" {
                command.env_remove(name);
            }
        }
        command
            .current_dir(&self.0)
            .env("EVERPOLL_DATABASE_URL", format!("sqlite:{}", self.join("db").display()));
        command
    }

    /// The program as CGI.
    fn cgi(&self, variables: &[(&str, &str)]) -> Command {
        let mut command = self.program();
        command.env("GATEWAY_INTERFACE", "CGI/1.1").env("REMOTE_ADDR", "127.0.0.1");
        command.envs(variables.iter().copied());
        command
    }

    fn get(&self, uri: &str) -> Response {
        cgi_response(self.cgi(&[("REQUEST_METHOD", "GET"), ("REQUEST_URI", uri)]), b"")
    }

    fn serve(&self, change: impl FnOnce(&mut Command)) -> Served {
        let socket = self.join("socket");
        let mut command = self.program();
        command.arg("--listen").arg(format!("unix:{}", socket.display())).stdin(Stdio::null());
        change(&mut command);
        Served::start(command, self.join("log"), socket)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program as FastCGI.
struct Served {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Served {
    fn start(mut command: Command, log: PathBuf, socket: PathBuf) -> Self {
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        let served = Self { child, socket, log };
        wait_until("it listens", || UnixStream::connect(&served.socket).is_ok());
        served
    }

    fn connect(&self) -> Client {
        Client::connect(&self.socket)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("it ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("its log:\n{}", self.log());
        }
    }
}

fn output(mut command: Command, stdin: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It stays open behind the body, as web servers keep it, until the program has ended.
    let mut pipe = child.stdin.take().unwrap();
    let _ = pipe.write_all(stdin);
    let output = child.wait_with_output().unwrap();
    drop(pipe);
    output
}

fn cgi_response(command: Command, stdin: &[u8]) -> Response {
    let output = output(command, stdin);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    Response { request_id: 0, stdout: output.stdout, protocol_status: 0 }
}

fn json(response: &Response) -> serde_json::Value {
    serde_json::from_slice(response.body()).unwrap()
}

const EVENT: &str = r#"{"channel":"cheese","type":"cheese_created","data":{"name":"Gouda"}}"#;

/// Variables as nginx sends them.
fn publish(length: &str) -> [(&'static str, &str); 5] {
    [
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/publish"),
        ("CONTENT_TYPE", "application/json"),
        ("CONTENT_LENGTH", length),
        ("REMOTE_ADDR", "127.0.0.1"),
    ]
}

fn poll(uri: &str) -> [(&'static str, &str); 3] {
    [("REQUEST_METHOD", "GET"), ("REQUEST_URI", uri), ("REMOTE_ADDR", "192.0.2.1")]
}

fn reconnect_in(response: &Response) -> u32 {
    response.header("x-ps-reconnect-in").unwrap().parse().unwrap()
}

#[test]
fn event_published_by_fastcgi_is_read_by_fastcgi_and_by_cgi() {
    let directory = Directory::new();
    let served = directory.serve(|_| {});
    let mut client = served.connect();
    let length = EVENT.len().to_string();
    let response = client.ask(&publish(&length), EVENT.as_bytes());
    assert_eq!((response.status(), json(&response)["ids"][0].as_u64()), (201, Some(1)));

    let polled = client.ask(&poll("/e/cheese/tab?last_event_id=0"), b"");
    assert_eq!(polled.status(), 200);
    assert_eq!(json(&polled)[0]["data"]["data"]["name"], "Gouda");
    assert_eq!(polled.header("x-ps-cursor").as_deref(), Some("1"));
    assert_eq!(polled.header("x-shortpoll-info").as_deref(), Some("true"));
    assert!((5..=8).contains(&reconnect_in(&polled)));

    let by_cgi = directory.get("/e/cheese/tab?last_event_id=0");
    let without_delay = |response: &Response| {
        let text = response.text();
        let kept: Vec<_> = text.lines().filter(|line| !line.starts_with("x-ps-reconnect-in")).collect();
        kept.join("\n")
    };
    assert_eq!(without_delay(&by_cgi), without_delay(&polled));
    let empty = client.ask(&poll("/e/cheese/tab?last_event_id=1&flavor=short-poll"), b"");
    assert_eq!((empty.status(), empty.body()), (200, &b"[]"[..]));
}

#[test]
fn errors_are_the_protocols_and_leave_the_connection_usable() {
    let directory = Directory::new();
    let served = directory.serve(|_| {});
    let mut client = served.connect();
    let long = format!("/e/{}", "x".repeat(9000));
    for (variables, status, code) in [
        (poll("/nowhere"), 404, "not_found"),
        (poll("/e/cheese?last_event_id=x"), 400, "cursor_malformed"),
        (poll("/e/cheese?flavor=carrier-pigeon"), 400, "flavor_unknown"),
        (poll(&long), 414, "target_too_long"),
        ([("REQUEST_METHOD", "PUT"), ("REQUEST_URI", "/e/cheese"), ("A", "")], 405, "method_not_allowed"),
        // From another machine, without a key.
        (
            [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/publish"), ("REMOTE_ADDR", "192.0.2.1")],
            403,
            "publish_not_local",
        ),
        ([("", ""), ("", ""), ("", "")], 404, "not_found"),
    ] {
        let response = client.ask(&variables, b"");
        assert_eq!(
            (response.status(), json(&response)["code"].as_str()),
            (status, Some(code)),
            "{variables:?}"
        );
        assert_eq!(reconnect_in(&response), 60);
    }
    let response = client.ask(&publish("1"), &vec![b' '; (8 << 20) + 1]);
    assert_eq!((response.status(), json(&response)["code"].as_str()), (413, Some("body_too_large")));
    let response = client.ask(&[("HTTP_COOKIE", &"x".repeat(70_000))], b"");
    assert_eq!((response.status(), json(&response)["code"].as_str()), (431, Some("head_too_large")));
    assert_eq!(client.ask(&poll("/e/cheese"), b"").status(), 200);
}

#[test]
fn database_that_is_down_is_told_once_and_answered_at_once() {
    let directory = Directory::new();
    // Nobody listens on a port that was just free.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let served = directory.serve(|command| {
        command.env("EVERPOLL_DATABASE_URL", format!("postgres://nobody@127.0.0.1:{port}/x"));
        command.env("EVERPOLL_ACCESS", "open");
    });
    let mut client = served.connect();
    let mut delays = Vec::new();
    for _ in 0..200 {
        let response = client.ask(&poll("/e/cheese"), b"");
        assert_eq!((response.status(), json(&response)["code"].as_str()), (503, Some("log_unavailable")));
        delays.push(reconnect_in(&response));
    }
    delays.sort_unstable();
    delays.dedup();
    // Longer than while all is well: a database that starts again is not to be met by everybody at once.
    assert!(delays.iter().all(|seconds| (5..=20).contains(seconds)), "{delays:?}");
    assert!(delays.last() > Some(&12), "{delays:?}");
    let log = served.log();
    assert_eq!(log.matches("lost the database").count(), 1, "{log}");
    assert!(log.lines().count() <= 3, "{log}");
    assert!(!log.contains('\u{1b}'), "there are colours in a file");
}

#[test]
fn termination_ends_with_success_and_removes_the_socket() {
    for signal in [Signal::TERM, Signal::INT] {
        let directory = Directory::new();
        let mut served = directory.serve(|command| {
            command.args(["--socket-mode", "0600", "--workers", "1"]);
        });
        let mut client = served.connect();
        client.ask(&poll("/e/cheese"), b"");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&served.socket).unwrap().permissions().mode() & 0o777, 0o600);
        served.signal(signal);
        assert_eq!(served.wait().code(), Some(0));
        client.wait_for_the_end();
        assert!(!served.socket.exists());
    }
}

#[test]
fn address_that_is_taken_is_an_error_and_one_left_by_a_crash_is_not() {
    let directory = Directory::new();
    let mut first = directory.serve(|_| {});
    let mut second = directory.program();
    second.arg("--listen").arg(format!("unix:{}", first.socket.display()));
    let refused = output(second, b"");
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("another process is listening there"), "{text}");
    assert_eq!(first.connect().ask(&poll("/e/cheese"), b"").status(), 200);
    first.signal(Signal::KILL);
    first.wait();
    assert!(first.socket.exists());
    let third = directory.serve(|_| {});
    assert_eq!(third.connect().ask(&poll("/e/cheese"), b"").status(), 200);
}

#[test]
fn listening_socket_as_descriptor_0_means_fastcgi() {
    let directory = Directory::new();
    let socket = directory.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = directory.program();
    // Apache and lighttpd leave some of these in the environment.
    command.env("GATEWAY_INTERFACE", "CGI/1.1").stdin(OwnedFd::from(listener.try_clone().unwrap()));
    let mut served = Served::start(command, directory.join("log"), socket);
    assert_eq!(served.connect().ask(&poll("/e/cheese"), b"").status(), 200);
    served.signal(Signal::TERM);
    assert_eq!(served.wait().code(), Some(0));
    assert!(served.socket.exists(), "the socket is the web server's");
}

#[test]
fn connected_socket_as_descriptor_0_means_cgi() {
    let directory = Directory::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let length = EVENT.len().to_string();
    let mut command = directory.cgi(&publish(&length));
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    (&ours).write_all(EVENT.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("Status: 201"));
}

#[test]
fn cgi_answers_what_any_host_passes() {
    let directory = Directory::new();
    let length = EVENT.len().to_string();
    let response = cgi_response(directory.cgi(&publish(&length)), format!("{EVENT} and more").as_bytes());
    assert_eq!(response.status(), 201);
    // As lighttpd, as Python's http.server, and with only a script's name.
    for variables in [
        &[("REQUEST_URI", "/e/cheese?last_event_id=0"), ("SCRIPT_NAME", "/e")][..],
        &[
            ("SCRIPT_NAME", "/cgi-bin/everpoll"),
            ("PATH_INFO", "/e/cheese"),
            ("QUERY_STRING", "last_event_id=0"),
        ],
        &[("SCRIPT_NAME", "/e.php"), ("PATH_INFO", "/cheese"), ("QUERY_STRING", "last_event_id=0")],
        &[("REQUEST_URI", "/e/cheese"), ("HTTP_LAST_EVENT_ID", "0")],
    ] {
        let mut command = directory.cgi(variables);
        command.env("REQUEST_METHOD", "GET");
        let response = cgi_response(command, b"");
        assert_eq!((response.status(), json(&response)[0]["id"].as_u64()), (200, Some(1)), "{variables:?}");
    }
    let head = cgi_response(directory.cgi(&[("REQUEST_METHOD", "HEAD"), ("REQUEST_URI", "/e/cheese")]), b"");
    assert_eq!((head.header("content-length").as_deref(), head.body()), (Some("2"), &b""[..]));
    let form = b"last_event_id=0&envelope=1";
    let mut command = directory.cgi(&[("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/e/cheese")]);
    command
        .env("CONTENT_TYPE", "application/x-www-form-urlencoded")
        .env("CONTENT_LENGTH", form.len().to_string());
    assert_eq!(json(&cgi_response(command, form))["cursor"], "1");
}

#[test]
fn nothing_that_a_client_sends_becomes_a_setting() {
    let directory = Directory::new();
    let mut command = directory.cgi(&poll("/e/cheese?EVERPOLL_DATABASE_URL=sqlite:/nowhere/db"));
    command.env("HTTP_EVERPOLL_DATABASE_URL", "sqlite:/nowhere/db").env("HTTP_EVERPOLL_ACCESS", "token");
    assert_eq!(cgi_response(command, b"").status(), 200);
    let served = directory.serve(|_| {});
    let variables = [
        ("EVERPOLL_DATABASE_URL", "sqlite:/nowhere/db"),
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/e/cheese"),
    ];
    assert_eq!(served.connect().ask(&variables, b"").status(), 200);
}

#[test]
fn wrong_settings_are_told_to_the_operator_and_not_to_the_client() {
    let directory = Directory::new();
    let wrong: [(&[(&str, &str)], &str); 4] = [
        (&[("EVERPOLL_HOLD_MAX", "25s")], "EVERPOLL_HOLD_MAX"),
        (&[("EVERPOLL_DATABASE_URL", "mysql:x")], "EVERPOLL_DATABASE_URL"),
        (&[("EVERPOLL_DATABASE_URL", "postgres://x@127.0.0.1:1/x")], "access"),
        (&[("SERVER_ADDR", "192.0.2.1")], "access"),
    ];
    for (variables, named) in wrong {
        let mut command = directory.cgi(&poll("/e/cheese"));
        command.envs(variables.iter().copied());
        let output = output(command, b"");
        assert_eq!(output.status.code(), Some(2), "{variables:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{variables:?}");
        let response = Response { request_id: 0, stdout: output.stdout, protocol_status: 0 };
        assert_eq!(response.status(), 500);
        assert!(!response.text().contains(variables[0].1), "{}", response.text());
    }
    let mut command = directory.program();
    command.args(["--listen", "unix:/nowhere/socket"]).env("EVERPOLL_DATABASE_URL", "postgres://x@h/x");
    let output = output(command, b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("access"));
}

#[test]
fn program_started_by_hand_says_how_to_start_it() {
    let directory = Directory::new();
    let started = output(directory.program(), b"");
    assert_eq!(started.status.code(), Some(2));
    let text = String::from_utf8(started.stderr).unwrap();
    assert!(text.contains("--listen") && text.contains("--help"), "{text}");
    let mut help = directory.program();
    help.arg("--help");
    let help = output(help, b"");
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().contains("--socket-mode"));
    let mut version = directory.program();
    version.arg("--version");
    let version = output(version, b"");
    assert!(version.stdout.starts_with(b"everpoll-fallback "));
}

#[test]
fn tcp_address_of_this_machine_is_served_and_a_public_one_needs_access() {
    let directory = Directory::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = directory.program();
    command.args(["--listen", &format!("0.0.0.0:{port}")]);
    let refused = output(command, b"");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("access"));
    // Handed over, it is as public.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut command = directory.program();
    command.stdin(OwnedFd::from(listener)).stderr(Stdio::piped());
    let refused = command.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let mut command = directory.program();
    command.args(["--listen", &format!("127.0.0.1:{port}")]).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    wait_until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut tcp = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(&support::request(1, false, &poll("/e/cheese"), b"")).unwrap();
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut tcp, &mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("Status: 200 OK"));
}

#[test]
fn idle_connections_cost_little_memory() {
    let directory = Directory::new();
    let served = directory.serve(|_| {});
    // Each worker opens its database first, which costs more than all of the connections. They are called in turn, and polls that
    // come together would share one.
    let mut warm: Vec<_> = (0..100).map(|_| served.connect()).collect();
    warm.iter_mut().for_each(|client| drop(client.ask(&poll("/e/cheese"), b"")));
    drop(warm);
    let Some(before) = memory(served.child.id()) else { return };
    let mut idle: Vec<_> = (0..500).map(|_| served.connect()).collect();
    for client in &mut idle {
        client.ask(&poll("/e/cheese"), b"");
    }
    let after = memory(served.child.id()).unwrap();
    let each = after.saturating_sub(before) / 500;
    println!("{before} bytes before, {after} with 500 idle connections, {each} for each");
    assert!(each < 2048, "{each} bytes for each");
}

/// Resident memory in bytes; `None` where the system does not tell.
fn memory(process: u32) -> Option<usize> {
    let status = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}
