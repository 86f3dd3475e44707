//! Thousands of held polls whose daemon dies and does not come back: nginx hands all of them to the fallback at once.
//!
//! What is looked at is that nobody is left out, how long it takes, what it costs, and that the fallback does not invite
//! them all to come back in one moment.

use std::path::Path;
use std::time::{Duration, Instant};

use everpoll_tests::http::Address;
use everpoll_tests::pollers::clock;
use everpoll_tests::process::{processor_time, resident_kilobytes};
use everpoll_tests::{Crowd, Daemon, Fallback, TestDir, WebServer, wait};

use crate::site::Store;

/// A request that is out for so long is held; an answer takes far less.
const HELD: Duration = Duration::from_millis(500);

/// How soon all must have an answer: 10 s, and half of that again for a machine that is busy with other tests.
const ANSWERED: Duration = Duration::from_secs(15);

/// Most connections to the database.
const CONNECTIONS: u32 = 16;

/// The shortest delay.
const BASE: u64 = 5;

/// How much is done.
struct Scale {
    clients: usize,
    channels: usize,
    /// How many seconds the longest delay is above the shortest at least. It is 3 for a few requests.
    spread: u64,
}

const SHORT: Scale = Scale { clients: 1_500, channels: 100, spread: 3 };

const LONG: Scale = Scale { clients: 15_000, channels: 1_000, spread: BASE };

#[test]
fn fallback_answers_all_who_lose_their_daemon_at_once_and_spreads_their_return() {
    let long = std::env::var_os("EVERPOLL_TEST_LONG").is_some();
    let Scale { clients, channels, spread } = if long { LONG } else { SHORT };
    let (store, sockets) = (Store::postgres(), TestDir::new());
    let mut daemon = Daemon::on(store.url()).at(&Address::Unix(sockets.join("daemon.sock"))).start();
    let mut fallback = Fallback::on(store.url()).setting("EVERPOLL_FALLBACK_WORKERS", CONNECTIONS).start();
    // A process of nginx has two files for each client, and may have 20,000 here. `reuseport` gives each as many clients.
    let nginx = WebServer::nginx_edited(daemon.address(), fallback.address(), str::to_owned, |example| {
        let example = example.replace("worker_processes auto;", "worker_processes 4;");
        let example = example.replace("worker_rlimit_nofile 65536;", "worker_rlimit_nofile 20000;");
        let example = example.replace("worker_connections 20000;", "worker_connections 19000;");
        example.replace("backlog=4096;", "backlog=4096 reuseport;")
    });
    let program = Path::new(env!("CARGO_BIN_EXE_crowd"));
    let mut crowd = Crowd::start(program, nginx.address(), clients, channels, 0);
    crowd.wait_until_held(0, HELD, wait::PATIENCE * 2);
    let before = crowd.tally();
    assert!(
        before.errors.is_empty() && before.statuses.keys().all(|status| status == "200"),
        "{before:?}\n{}",
        nginx.log()
    );
    let (memory, time) =
        (resident_kilobytes(fallback.process().id()), processor_time(fallback.process().id()));

    let (killed, began) = (clock(), Instant::now());
    daemon.kill_9();
    let (mut connections, mut most_memory) = (0, memory);
    let answered = wait::try_until_some(ANSWERED, || {
        connections = connections.max(connections_of_the_fallback(&store));
        most_memory = most_memory.max(resident_kilobytes(fallback.process().id()));
        (crowd.answered_since(killed) == clients).then(|| began.elapsed())
    });
    let tally = crowd.tally();
    let mut delays = tally.delays.clone();
    for (seconds, count) in &before.delays {
        if let Some(now) = delays.get_mut(seconds) {
            *now -= count;
        }
    }
    // Come back at once: the daemon had just answered them when it was killed.
    delays.retain(|seconds, count| *seconds > 0 && *count > 0);
    let answers = crowd.answers(killed, Duration::from_millis(500));
    let took = processor_time(fallback.process().id()).saturating_sub(time);
    eprintln!(
        "{clients} clients: all had an answer of the fallback after {answered:.1?}; answers in each half second {answers:?}; \
         {connections} connections to the database; the fallback used {took:.2?} of processor time and {most_memory} kB, \
         {memory} kB before; answers by the seconds to stay away: {delays:?}",
    );
    assert_eq!(tally.statuses.keys().collect::<Vec<_>>(), ["200"], "{tally:?}\n{}", nginx.log());
    assert!(tally.errors.is_empty(), "{tally:?}\n{}", nginx.log());
    assert!(answered.is_some(), "{} of {clients} have an answer", crowd.answered_since(killed));
    assert!((1..=CONNECTIONS).contains(&connections), "{connections}");
    let (shortest, longest) = (delays.keys().min().copied(), delays.keys().max().copied());
    assert!(shortest >= Some(BASE) && longest >= Some(BASE + spread), "{delays:?}");
    // None of the seconds has more than its part, and a half on top.
    let (seconds, most) = (delays.len() as u64, delays.values().max().copied().unwrap_or(0));
    assert!(most * seconds < clients as u64 * 5, "{delays:?}");
}

fn connections_of_the_fallback(store: &Store) -> u32 {
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE application_name = 'everpoll-fallback' AND datname = current_database()";
    store.database().psql(sql).trim().parse().expect("a number")
}
