//! LISTEN that stops delivering without an error: it is noticed, told once, shown, made anew; and events come meanwhile.

use std::process::Command;

use everpoll_tests::http::{self, Address};
use everpoll_tests::process::{self, Process};
use everpoll_tests::{Daemon, Database, Link, Postgres, Sqlite, TestDir, database, ports, wait};
use serde_json::Value;

use crate::lateness::Traffic;

/// What the daemon's listening connection calls itself.
pub(crate) const LISTENER: &str = "everpoll wake-up";

const AGAIN: &str = "wake-ups over postgres come again";

/// How `/readyz` shows a path of wake-ups.
#[track_caller]
pub(crate) fn path(daemon: &Daemon, name: &str) -> Value {
    http::get("/readyz").send(daemon.address()).json()["wakeups"][name].clone()
}

/// Waits until the daemon shows a path in this state, and returns how it shows it.
#[track_caller]
pub(crate) fn wait_for(daemon: &Daemon, name: &str, state: &str) -> Value {
    wait::until_some(&format!("{name} is shown as {state}"), wait::PATIENCE, || {
        let path = path(daemon, name);
        (path["state"] == state).then_some(path)
    })
}

/// How many lines of the daemon's log have this text.
pub(crate) fn told(daemon: &Daemon, text: &str) -> usize {
    daemon.log().lines().filter(|line| line.contains(text)).count()
}

/// A database behind a cable, and a daemon that is at its other end.
struct Scene {
    daemon: Daemon,
    link: Link,
    database: Database,
}

impl Scene {
    fn new(settings: &[(&str, &str)]) -> Self {
        let database = Database::shared();
        database.migrate();
        let link = Link::to(&Address::local(database.postgres().port()));
        let url = url_through(link.port(), &database);
        let start = Daemon::on(url).setting("EVERPOLL_CANARY_INTERVAL", "1s");
        let daemon = settings.iter().fold(start, |start, (name, value)| start.setting(name, value)).start();
        Self { daemon, link, database }
    }

    /// The process of the server that the daemon listens at.
    fn listening_backend(&self) -> String {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND application_name = '{LISTENER}'",
            self.database.name()
        );
        let pid = wait::until_some("the daemon listens", wait::PATIENCE, || {
            let rows = self.database.psql(&sql);
            rows.lines().next().map(str::to_owned)
        });
        pid.trim().to_owned()
    }
}

fn url_through(port: u16, database: &Database) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{}", database.name())
}

/// What breaks the path; a frozen process thaws with the value.
type Break<'a> = &'a dyn Fn() -> Option<Frozen>;

/// Lets a frozen process go on, also when the test fails: its server could not be taken down.
struct Frozen(String);

impl Frozen {
    fn freeze(pid: String) -> Self {
        signal("STOP", &pid);
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("CONT", &self.0);
    }
}

fn signal(name: &str, pid: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), pid]);
    // It may have ended.
    let _ = process::run(kill, b"");
}

#[test]
fn dead_listener_is_noticed_told_once_and_replaced_while_events_come_with_the_sweep() {
    let scene = Scene::new(&[]);
    let Scene { daemon, link, database } = &scene;
    wait_for(daemon, "postgres", "works");
    let traffic = Traffic::start(database, daemon.address(), || {});
    traffic.wait_for_more(10);

    let break_it: [(&str, &str, Break<'_>); 3] = [
        ("the server ends the session", "terminating connection", &|| {
            database.psql(&format!("SELECT pg_terminate_backend({})", scene.listening_backend()));
            None
        }),
        ("the server's process is frozen", "does not answer: its server process is frozen", &|| {
            Some(Frozen::freeze(scene.listening_backend()))
        }),
        ("the network swallows everything", "the network swallows what is sent", &|| {
            link.black_hole_only(LISTENER);
            None
        }),
    ];
    for (number, (what, cause, break_it)) in (1..).zip(break_it) {
        let frozen = break_it();
        wait::until(&format!("{what}: it is told"), wait::PATIENCE, || {
            told(daemon, "no wake-ups over postgres") == number
        });
        let line = daemon.log().lines().rfind(|line| line.contains("no wake-ups over")).map(str::to_owned);
        let line = line.expect("it was just there");
        assert!(line.contains("WARN") && line.contains(cause), "{what}: {line}");
        assert!(line.contains("events are found by the sweep, at most 1s late"), "{line}");
        traffic.wait_for_more(10);
        assert!(daemon.is_ready(), "{what}: a silent path makes nobody unready");
        link.mend();
        let shown = wait_for(daemon, "postgres", "works");
        assert_eq!(shown["losses"], number, "{what}: {shown}");
        // The line is written a moment later than the state is shown.
        wait::until(&format!("{what}: its end is told"), wait::PATIENCE, || told(daemon, AGAIN) == number);
        drop(frozen);
    }
    assert_eq!(told(daemon, "no wake-ups over postgres"), 3, "{}", daemon.log());
    traffic.stop().assert_promise("LISTEN ended, frozen, black-holed");
}

#[test]
fn silent_path_is_shown_with_its_cause_as_long_as_it_is_silent() {
    let scene = Scene::new(&[]);
    wait_for(&scene.daemon, "postgres", "works");
    scene.link.black_hole_only(LISTENER);
    let shown = wait_for(&scene.daemon, "postgres", "silent");
    assert!(shown["cause"].as_str().is_some_and(|cause| cause.len() > 20), "{shown}");
    let silent_for = shown["silent_for_ms"].as_u64().expect("a number");
    wait::until("time passes", wait::PATIENCE, || {
        path(&scene.daemon, "postgres")["silent_for_ms"].as_u64().is_some_and(|now| now > silent_for + 1000)
    });
    // However often it is tried again.
    assert_eq!(told(&scene.daemon, "no wake-ups over postgres"), 1);
    assert_eq!(path(&scene.daemon, "postgres")["losses"], 1);
    assert!(scene.daemon.is_ready());
    scene.link.mend();
    wait_for(&scene.daemon, "postgres", "works");
}

#[test]
fn canaries_wake_nobody_and_leave_nothing_in_the_log() {
    let scene = Scene::new(&[("EVERPOLL_SWEEP_INTERVAL", "1h")]);
    wait_for(&scene.daemon, "postgres", "works");
    // When each daemon last read the log.
    let reads = || {
        let name = scene.database.name();
        scene.database.psql(&format!(
            "SELECT query_start FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'everpoll tail' \
             ORDER BY pid"
        ))
    };
    // Another daemon on the same log hears them as well.
    let other = Daemon::on(scene.database.url())
        .setting("EVERPOLL_CANARY_INTERVAL", "1s")
        .setting("EVERPOLL_SWEEP_INTERVAL", "1h")
        .start();
    wait_for(&other, "postgres", "works");
    let canaries = |daemon: &Daemon| path(daemon, "postgres")["canaries"].as_u64().expect("a number");
    let before = reads();
    assert_eq!(before.lines().count(), 2);
    let heard = canaries(&scene.daemon);
    wait::until("more canaries have come", wait::PATIENCE, || canaries(&scene.daemon) >= heard + 3);
    assert_eq!(reads(), before, "a canary is no reason to read the log");
    let rows = scene.database.psql("SELECT count(*) FROM everpoll.events");
    assert_eq!(rows.trim(), "0");
    // And what is published still wakes both, in spite of the sweep.
    for daemon in [&scene.daemon, &other] {
        let held = http::get("/e/cheese?last_event_id=0&hold=20").begin(daemon.address());
        scene
            .database
            .psql("INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '1')");
        assert!(!held.reply().events().is_empty());
    }
}

#[test]
fn pooler_that_forgets_listen_is_named_and_heals_when_it_keeps_sessions() {
    let database = Database::shared();
    database.migrate();
    let mut pooler = Pooler::start(&database);
    let daemon = Daemon::on(pooler.url(&database)).setting("EVERPOLL_CANARY_INTERVAL", "1s").start();
    let shown = wait_for(&daemon, "postgres", "silent");
    let cause = shown["cause"].as_str().expect("a cause");
    assert!(cause.contains("pgbouncer") && cause.contains("database_url"), "{shown}");
    let traffic = Traffic::start(&database, daemon.address(), || {});
    traffic.wait_for_more(60);
    assert_eq!(told(&daemon, "no wake-ups over postgres"), 1, "{}", daemon.log());
    traffic.stop().assert_promise("LISTEN through pgbouncer in transaction mode");
    pooler.keep_sessions();
    wait_for(&daemon, "postgres", "works");
    wait::until("it is told", wait::PATIENCE, || told(&daemon, AGAIN) == 1);
}

#[test]
fn standby_that_refuses_listen_is_named() {
    let primary = Postgres::start();
    let database = primary.create_database();
    database.migrate();
    let standby = primary.standby();
    let daemon = Daemon::on(standby.url("postgres", database.name()))
        .setting("EVERPOLL_CANARY_INTERVAL", "1s")
        .start();
    let shown = wait_for(&daemon, "postgres", "silent");
    let cause = shown["cause"].as_str().expect("a cause");
    assert!(cause.contains("during recovery") && cause.contains("target_session_attrs"), "{shown}");
    let traffic = Traffic::start(&database, daemon.address(), || {});
    traffic.wait_for_more(60);
    assert_eq!(told(&daemon, "no wake-ups over postgres"), 1, "{}", daemon.log());
    assert!(daemon.is_ready());
    traffic.stop().assert_promise("the log on a standby");
}

#[test]
fn embedded_log_has_no_canary_and_shows_its_path_all_the_same() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    assert_eq!(wait_for(&daemon, "sqlite", "works")["losses"], 0);
    assert_eq!(path(&daemon, "postgres"), Value::Null);
}

/// pgbouncer before a server, in transaction mode.
struct Pooler {
    process: Process,
    port: u16,
    directory: TestDir,
}

impl Pooler {
    fn start(database: &Database) -> Self {
        let (directory, port) = (TestDir::new(), ports::free());
        let this_mode = |mode| configuration(database.postgres(), &directory, port, mode);
        let file = directory.file("pgbouncer.ini", this_mode("transaction"));
        directory.file("session.ini", this_mode("session"));
        let mut command = database::hand_over(directory.path(), "/usr/sbin/pgbouncer".into());
        command.arg(file);
        let mut process = Process::start("pgbouncer", command, directory.path());
        wait::until("pgbouncer listens", wait::PATIENCE, || {
            assert!(process.is_running(), "{}", process.log());
            Address::local(port).connect().is_ok()
        });
        Self { process, port, directory }
    }

    fn url(&self, database: &Database) -> String {
        url_through(self.port, database)
    }

    /// Changes to session mode, as an administrator would.
    fn keep_sessions(&mut self) {
        std::fs::rename(self.directory.join("session.ini"), self.directory.join("pgbouncer.ini"))
            .expect("both are there");
        self.process.signal(rustix::process::Signal::HUP);
    }
}

fn configuration(postgres: &Postgres, directory: &TestDir, port: u16, mode: &str) -> String {
    format!(
        "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = {mode}\nignore_startup_parameters = extra_float_digits\n\
         max_client_conn = 100\ndefault_pool_size = 20\nlogfile = {}\n",
        postgres.port(),
        directory.join("own.log").display()
    )
}
