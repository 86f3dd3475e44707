//! Daemons that take each other's place while hundreds of clients poll and events are published all the time: nobody sees a
//! failed request, nobody is sent away, and nobody misses an event.
//!
//! Half of the clients come through nginx to a unix socket, half ask a TCP port themselves. On each, a new daemon begins
//! while the old one still serves; the old one is told to stop once the new one listens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use everpoll_tests::everpoll::command;
use everpoll_tests::http::{self, Address};
use everpoll_tests::pollers::{Poller, Pollers, clock};
use everpoll_tests::{
    Daemon, Database, EventStream, Fallback, Process, Sqlite, TestDir, WebServer, WebSocket,
};
use everpoll_tests::{ports, sse, wait};

use crate::background::Background;
use crate::judge;

/// Each client asks for one of these.
const CHANNELS: usize = 20;

/// A request that is out for so long is held; an answer takes far less.
const HELD: Duration = Duration::from_millis(300);

/// How much is done.
struct Scale {
    clients: usize,
    replacements: usize,
    /// Between two events.
    pause: Duration,
}

const SHORT: Scale = Scale { clients: 200, replacements: 3, pause: Duration::from_millis(20) };

const LONG: Scale = Scale { clients: 1000, replacements: 20, pause: Duration::from_millis(10) };

#[test]
fn daemon_is_replaced_under_load_and_no_client_notices() {
    let scale = if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { LONG } else { SHORT };
    let database = Database::shared();
    database.migrate();
    let sockets = TestDir::new();
    let mut behind_nginx = Line::start(&database, Address::Unix(sockets.join("daemon.sock")));
    let mut direct = Line::start(&database, Address::local(ports::free()));
    let fallback = Fallback::on(database.url()).start();
    let nginx = WebServer::nginx(&behind_nginx.address, fallback.address());
    let client = |address: &Address, number| {
        Poller::new(address, &channel(number), 0).wait_id(format!("browser-{number}"))
    };
    let half = scale.clients / 2;
    let through_nginx = Pollers::start((0..half).map(|number| client(nginx.address(), number)));
    let by_themselves = Pollers::start((0..half).map(|number| client(&direct.address, number)));
    for crowd in [&through_nginx, &by_themselves] {
        crowd.wait_until_held(HELD, wait::PATIENCE);
    }
    let publisher = publish(&database, scale.pause);
    for _ in 0..scale.replacements {
        std::thread::scope(|scope| {
            scope.spawn(|| behind_nginx.replace());
            direct.replace();
        });
    }
    let last = publisher.stop();
    for crowd in [&through_nginx, &by_themselves] {
        crowd.wait_until_reached(last, wait::PATIENCE);
    }
    let published = judge::events_of(&database);
    let ledger = judge::ledger_of(&published);
    for (name, crowd) in [("through nginx", through_nginx), ("directly", by_themselves)] {
        let lateness = crowd.lateness().expect("events were published");
        let (readings, tally) = crowd.stop();
        eprintln!(
            "{name}: {} clients, daemon replaced {} times, {} events; late p50 {:?}, p99 {:?}, at most {:?}; answers {:?}, come \
             back in {:?} s",
            readings.len(),
            scale.replacements,
            published.len(),
            lateness.p50,
            lateness.p99,
            lateness.max,
            tally.statuses,
            tally.delays,
        );
        assert_eq!(tally.statuses.keys().copied().collect::<Vec<_>>(), [200], "{tally:?}\n{}", nginx.log());
        assert!(tally.errors.is_empty(), "{name}: {tally:?}");
        assert!(readings.iter().all(|reading| reading.gaps == 0), "{name}: nothing was trimmed");
        judge::assert_kept(&ledger, &readings);
        if name == "directly" {
            // Behind nginx, one that came over a kept connection in the last moment may get the fallback.
            assert_eq!(
                tally.delays.keys().copied().collect::<Vec<_>>(),
                [0],
                "{name}: somebody was sent away"
            );
        }
    }
}

#[test]
fn new_connections_are_let_in_while_daemons_change() {
    let database = Database::shared();
    database.migrate();
    let sockets = TestDir::new();
    for address in [Address::local(ports::free()), Address::Unix(sockets.join("daemon.sock"))] {
        let mut line = Line::start(&database, address.clone());
        let stopping = AtomicBool::new(false);
        let asked = std::thread::scope(|scope| {
            // Each request over a connection of its own, as fast as it goes.
            let ask = || {
                let mut asked = 0;
                while !stopping.load(Ordering::SeqCst) {
                    let reply = http::get("/e/cheese?hold=0").try_send(&address);
                    let status = reply.map(|reply| reply.status).map_err(|error| error.to_string());
                    if status != Ok(200) {
                        return Err(format!("request {asked} at {address}: {status:?}"));
                    }
                    asked += 1;
                }
                Ok(asked)
            };
            let askers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            for _ in 0..3 {
                line.replace();
            }
            stopping.store(true, Ordering::SeqCst);
            let asked = askers.into_iter().map(|asker| asker.join().expect("it does not panic"));
            asked.collect::<Result<Vec<u64>, String>>()
        });
        eprintln!(
            "{address}: {asked:?} requests, each over a new connection, while the daemon was replaced three times"
        );
        assert!(asked.is_ok(), "{asked:?}");
    }
}

#[test]
fn second_daemon_at_an_address_is_an_error_unless_both_share_it() {
    let (log, directory) = (Sqlite::new(), TestDir::new());
    for address in [Address::local(ports::free()), Address::Unix(directory.join("daemon.sock"))] {
        let first = Daemon::on(log.url()).at(&address).start();
        for reuse in ["false", "true"] {
            // On TCP the first one has a say as well: who did not ask for company gets none.
            let may = reuse == "true" && matches!(address, Address::Unix(_));
            let mut command = command("everpoll");
            command.arg("serve").env("EVERPOLL_LISTEN", address.to_string());
            command.env("EVERPOLL_DATABASE_URL", log.url()).env("EVERPOLL_REUSE_PORT", reuse);
            let mut second = Process::start(&format!("second-{reuse}"), command, directory.path());
            if may {
                second.wait_for_log(" listening");
                second.terminate();
                assert_eq!(second.wait(wait::PATIENCE).code(), Some(0), "{}", second.log());
            } else {
                assert_eq!(second.wait(wait::PATIENCE).code(), Some(1), "{}", second.log());
                assert!(second.log().contains("cannot listen at"), "{}", second.log());
                assert!(first.is_ready());
            }
        }
    }
}

#[test]
fn socket_file_of_the_new_daemon_outlives_the_old_one() {
    let (log, directory) = (Sqlite::new(), TestDir::new());
    let path = directory.join("daemon.sock");
    let start = || {
        let start = Daemon::on(log.url()).at(&Address::Unix(path.clone()));
        start.setting("EVERPOLL_REUSE_PORT", true).setting("EVERPOLL_DRAIN_TIMEOUT", 2)
    };
    let mut old = start().start();
    // A stream and a WebSocket are handed over as well.
    let mut stream = EventStream::open(old.address(), &sse::get("/e/cheese/one"));
    let mut socket = WebSocket::open(old.address(), "/e/cheese/two");
    stream.expect("everpoll:hello");
    socket.expect("everpoll:hello");
    let mut new = start().start_unready();
    new.process().wait_for_log(" listening");
    assert_eq!(old.stop().code(), Some(0), "{}", old.log());
    assert!(old.log().contains("handing over"), "{}", old.log());
    assert_eq!(stream.expect("everpoll:end").0["reconnect_in"], 0);
    assert_eq!(socket.closed(), (1001, "reconnect_in=0".to_owned()));
    assert!(path.exists() && new.is_ready(), "{}", new.log());
    assert_eq!(new.stop().code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("it is ours").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn socket_of_a_service_manager_stays_open_while_the_daemon_restarts() {
    let (log, directory) = (Sqlite::new(), TestDir::new());
    let tcp = std::net::TcpListener::bind(("127.0.0.1", ports::free())).expect("the port is free");
    let path = directory.join("manager.sock");
    let unix = std::os::unix::net::UnixListener::bind(&path).expect("the folder is ours");
    let addresses = [Address::Tcp(tcp.local_addr().expect("it is bound")), Address::Unix(path.clone())];
    // As systemd does it: descriptors from 3 on, and the process they are meant for.
    let start = |name: &str| {
        let mut shell = std::process::Command::new("sh");
        let script = "exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_FDS=2 LISTEN_PID=$$ exec \"$0\" serve";
        shell.args(["-c", script]).arg(everpoll_tests::everpoll::binary("everpoll"));
        shell.env("EVERPOLL_DATABASE_URL", log.url());
        let output = std::os::fd::OwnedFd::from(unix.try_clone().expect("another descriptor"));
        let input = std::os::fd::OwnedFd::from(tcp.try_clone().expect("another descriptor"));
        Process::start_with(name, shell, directory.path(), input, output)
    };
    let ready = |process: &mut Process| {
        process.wait_for_log("the window is filled");
        for address in &addresses {
            wait::until("it is ready at each address", wait::PATIENCE, || {
                http::get("/readyz").send(address).status == 200
            });
        }
    };
    let mut first = start("first");
    ready(&mut first);
    let held: Vec<_> = addresses.iter().map(|address| http::get("/e/cheese").begin(address)).collect();
    // What is not accepted yet would wait for the second one.
    wait::until("both are held", wait::PATIENCE, || {
        http::get("/metrics")
            .send(&addresses[0])
            .text()
            .contains("everpoll_held{transport=\"long_poll\"} 2\n")
    });
    first.terminate();
    assert_eq!(first.wait(wait::PATIENCE).code(), Some(0), "{}", first.log());
    for held in held {
        let reply = held.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!((1..=5).contains(&reply.reconnect_in()), "nobody is there yet: {reply:?}");
    }
    // Nobody serves, and nobody is refused.
    let early: Vec<_> =
        addresses.iter().map(|address| http::get("/e/cheese?hold=0").begin(address)).collect();
    let mut second = start("second");
    ready(&mut second);
    for early in early {
        assert_eq!(early.reply().status, 200);
    }
    second.terminate();
    assert_eq!(second.wait(wait::PATIENCE).code(), Some(0), "{}", second.log());
    assert!(path.exists(), "the file is the manager's");
}

/// Daemons at one address, one after the other.
struct Line {
    database_url: String,
    address: Address,
    current: Daemon,
}

impl Line {
    fn start(database: &Database, address: Address) -> Self {
        let database_url = database.url();
        let current = Self::daemon(&database_url, &address);
        Self { database_url, address, current }
    }

    fn daemon(database_url: &str, address: &Address) -> Daemon {
        let start = Daemon::on(database_url).at(address).setting("EVERPOLL_REUSE_PORT", true);
        // Half of it is taken for handing over.
        let mut daemon = start.setting("EVERPOLL_DRAIN_TIMEOUT", 4).start_unready();
        // Not whether somebody is ready there: that may be the one before.
        daemon.process().wait_for_log(" listening");
        daemon
    }

    fn replace(&mut self) {
        let new = Self::daemon(&self.database_url, &self.address);
        let mut old = std::mem::replace(&mut self.current, new);
        let status = old.stop();
        assert_eq!(status.code(), Some(0), "{}", old.log());
        assert!(old.log().contains("all requests are answered"), "{}", old.log());
    }
}

/// Publishes in SQL until it is stopped; comes to the newest id.
fn publish(database: &Database, pause: Duration) -> Background<u64> {
    let mut client = database.connect();
    Background::start(move |stopping| {
        let insert = "INSERT INTO everpoll.events (channel, type, data) VALUES ($1, 'made', $2::text::json)";
        for number in 0.. {
            let data = format!(r#"{{"sent":{}}}"#, clock());
            client.execute(insert, &[&channel(number), &data]).expect("the database runs");
            if stopping.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(pause);
        }
        let newest =
            client.query_one("SELECT max(id) FROM everpoll.positions", &[]).expect("the database runs");
        u64::try_from(newest.get::<_, i64>(0)).expect("ids are positive")
    })
}

fn channel(number: usize) -> String {
    format!("c{}", number % CHANNELS)
}
