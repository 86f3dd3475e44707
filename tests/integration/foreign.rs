//! Clients that others wrote, for EventSource and WebSocket: they come back by their own rules, and miss nothing.
//!
//! Each runs as a script (`tests/js/foreign/`, `tests/python/`) while the daemon is killed, stopped, and away, and while
//! the stream is cut on its way. In the end the script hands over the ids that it got, and they must be those that were
//! published, each once, in order.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use everpoll_tests::cutter::Mode;
use everpoll_tests::tls::Authority;
use everpoll_tests::{Cutter, Daemon, Script, Sqlite, everpoll, wait};
use serde_json::json;

/// How many events are published in each act.
const EVENTS: usize = 20;

#[test]
fn eventsource_of_npm_misses_nothing() {
    play(Script::node("foreign/eventsource.mjs"));
}

#[test]
fn event_source_polyfill_of_npm_misses_nothing() {
    play(Script::node("foreign/polyfill.mjs"));
}

#[test]
fn sseclient_py_of_pypi_misses_nothing() {
    play(python("sseclient_py.py"));
}

#[test]
fn httpx_sse_of_pypi_misses_nothing() {
    play(python("httpx_sse_client.py"));
}

#[test]
fn ws_of_npm_misses_nothing() {
    play(Script::node("foreign/websocket.mjs"));
}

#[test]
fn websockets_of_pypi_misses_nothing() {
    play(python("websockets_client.py"));
}

#[test]
fn websockets_of_pypi_misses_nothing_over_tls() {
    play_over_tls(python("websockets_client.py"));
}

#[test]
fn httpx_sse_of_pypi_misses_nothing_over_tls() {
    play_over_tls(python("httpx_sse_client.py"));
}

/// Python with the packages that `tests/run` installed.
#[track_caller]
pub(crate) fn interpreter() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| tests.join("../target"), PathBuf::from);
    let program = target.join("python/bin/python");
    assert!(
        program.exists(),
        "there is no {}: run tests/run, or: python3 -m venv {target}/python && {target}/python/bin/pip install -r \
         tests/python/requirements.txt",
        program.display(),
        target = target.display()
    );
    program
}

/// A script of `tests/python`.
#[track_caller]
fn python(name: &str) -> Script {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name);
    assert!(script.exists(), "there is no script {}", script.display());
    let mut command = Command::new(interpreter());
    command.arg(script).env("PYTHONDONTWRITEBYTECODE", "1");
    Script::command(name, command)
}

/// What happens to one client.
struct Scene {
    log: Sqlite,
    daemon: Daemon,
    network: Cutter,
    published: Vec<u64>,
}

#[track_caller]
fn play(script: Script) {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    play_on(log, daemon, "http", script);
}

/// The same where the daemon faces the client itself.
#[track_caller]
fn play_over_tls(script: Script) {
    let (log, authority) = (Sqlite::new(), Authority::new());
    let daemon = Daemon::on(log.url()).tls(&authority.sign("server")).start();
    // What Python's clients take for the roots of the world.
    play_on(log, daemon, "https", script.env("SSL_CERT_FILE", authority.root().display()));
}

#[track_caller]
fn play_on(log: Sqlite, daemon: Daemon, scheme: &str, script: Script) {
    let network = Cutter::before(daemon.address(), Mode::Pass);
    let url = format!("{scheme}://{}/e/cheese/foreign", network.address());
    let mut scene = Scene { log, daemon, network, published: Vec::new() };
    let mut received = None;
    script.with("url", url).run(|command| match command.split_once(' ') {
        None if command == "play" => {
            scene.play();
            scene.published[scene.published.len() - 1].to_string()
        }
        Some(("received", ids)) => {
            received = Some(serde_json::from_str::<Vec<u64>>(ids).expect("a list of ids"));
            "thanks".to_owned()
        }
        _ => panic!("the script wants {command:?}"),
    });
    assert_eq!(received.as_deref(), Some(&scene.published[..]), "what was received, and what was published");
}

impl Scene {
    fn play(&mut self) {
        self.wait_until_back(0);
        self.publish(EVENTS);
        // The daemon dies in the middle, and somebody publishes while it is away.
        let before = self.connections();
        self.publish(EVENTS);
        self.daemon.kill_9();
        for _ in 0..3 {
            self.publish_to_the_log();
        }
        self.daemon.start_again();
        self.wait_until_back(before);
        self.publish(EVENTS);
        // Somebody on the way resets the connection.
        let before = self.connections();
        let cut = self.network.counters().ended;
        self.network.set(Mode::Rst(Duration::from_millis(10)));
        wait::until("the stream is cut", wait::PATIENCE, || self.network.counters().ended > cut);
        self.network.set(Mode::Pass);
        self.publish(EVENTS);
        self.wait_until_back(before);
        // It is stopped, and says so.
        let before = self.connections();
        assert_eq!(self.daemon.stop().code(), Some(0));
        self.publish_to_the_log();
        self.daemon.start_again();
        self.wait_until_back(before);
        self.publish(EVENTS);
    }

    fn connections(&self) -> usize {
        self.network.counters().connections
    }

    /// Waits until the client has a connection again, later than the first `before`.
    fn wait_until_back(&self, before: usize) {
        wait::until("the client is back", wait::PATIENCE, || {
            let counters = self.network.counters();
            counters.connections > before && counters.open > 0
        });
    }

    fn publish(&mut self, count: usize) {
        for _ in 0..count {
            let event = json!({"channel": "cheese", "type": "made", "data": data()});
            self.published.extend(self.daemon.publish(&event.to_string()));
        }
    }

    /// Past the daemon, as an application does.
    fn publish_to_the_log(&mut self) {
        let data = data().to_string();
        let output = everpoll::command_line(&self.log.url(), &["publish", "cheese", "made", &data], b"");
        assert!(output.status.success(), "{output:?}");
        self.published.push(output.stdout.trim().parse().expect("it prints the id"));
    }
}

/// What a client that mistakes a line end or a character would not get right.
fn data() -> serde_json::Value {
    json!({"name": "K\u{e4}se \u{1f9c0}\nand wine"})
}
