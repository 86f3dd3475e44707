//! A thousand pages through nginx while daemon and fallback are killed: nobody sees an error, or misses an event.
//!
//! The crowd does as browsers do: each page keeps its connection to nginx, goes on from the cursor it was given, and comes
//! back when it was told to. Events are published all the time, in SQL and over HTTP through the same nginx.
//!
//! What a newcomer gets wrong: a *publisher* may see a 503. When the daemon dies with a publish in hand nobody knows
//! whether it was committed; the publisher sends it again with the same key, as the answer tells it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::ledger::Ledger;
use everpoll_tests::pollers::{Poller, Pollers};
use everpoll_tests::{Daemon, Database, Fallback, TestDir, WebServer, wait};

use crate::site::Store;
use crate::writers::{Random, Table};

/// Each client asks for one of these, each publisher writes to all.
const CHANNELS: usize = 50;

/// How long the daemon stays dead.
const AWAY: Duration = Duration::from_secs(5);

/// Whoever the fallback answered is told to come back after 5 to 8 s, and after 30 s at most the more wait for it.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// What clients and daemon may be late, on a machine where other tests run.
const LATE: Duration = Duration::from_secs(5);

/// A request that is out for so long is held; an answer takes far less.
const HELD: Duration = Duration::from_millis(500);

/// Most database connections of the fallback: one for each worker.
const FALLBACK_CONNECTIONS: u32 = 8;

#[test]
fn nobody_notices_on_postgres_that_programs_die() {
    let clients = if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { 4_000 } else { 1_000 };
    let mut stage = Stage::new(Store::postgres(), clients);
    stage.daemon_goes("killed", Daemon::kill_9);
    stage.daemon_goes("killed", Daemon::kill_9);
    stage.fallback_goes();
    // By the fallback that was started just now.
    stage.daemon_goes("killed", Daemon::kill_9);
    stage.daemon_goes("asked to stop", stop);
    stage.finish();
}

#[test]
fn nobody_notices_on_sqlite_that_programs_die() {
    let mut stage = Stage::new(Store::sqlite(), 200);
    stage.daemon_goes("killed", Daemon::kill_9);
    stage.fallback_goes();
    stage.daemon_goes("asked to stop", stop);
    stage.finish();
}

fn stop(daemon: &mut Daemon) {
    assert_eq!(daemon.stop().code(), Some(0));
}

/// All that runs. Fields are dropped from top to bottom.
struct Stage {
    crowd: Pollers,
    publishers: Vec<Publisher>,
    /// How many events went to all channels at once.
    for_all: usize,
    nginx: WebServer,
    fallback: Fallback,
    daemon: Daemon,
    store: Store,
    _sockets: TestDir,
}

impl Stage {
    /// Starts everything and waits until all clients are held.
    fn new(store: Store, clients: usize) -> Self {
        let (random, sockets) = (Random::seeded(), TestDir::new());
        // As the shipped configuration has it. TCP has too few ports for many thousands.
        let daemon = Daemon::on(store.url()).at(&Address::Unix(sockets.join("daemon.sock"))).start();
        let fallback = Fallback::on(store.url()).start();
        let nginx = WebServer::nginx(daemon.address(), fallback.address());
        let crowd = Pollers::start((0..clients).map(|number| {
            Poller::new(nginx.address(), &channel(number), 0).wait_id(format!("browser-{number}"))
        }));
        crowd.wait_until_held(HELD, wait::PATIENCE);
        let mut publishers: Vec<_> =
            (0..2).map(|n| Publisher::over_http(nginx.address(), n, random.fork(n))).collect();
        if let Store::Postgres(database) = &store {
            publishers.extend((2..4).map(|n| Publisher::in_sql(database, random.fork(n))));
        }
        Self { crowd, publishers, for_all: 0, nginx, fallback, daemon, store, _sockets: sockets }
    }

    /// The daemon ends, is away for a while, and is started again.
    fn daemon_goes(&mut self, how: &str, end: impl FnOnce(&mut Daemon)) {
        let (began, before) = (Instant::now(), self.answers());
        end(&mut self.daemon);
        // Nobody is left waiting: in this moment everybody keeps the pause that he was told.
        wait::until("the fallback has answered all", AWAY, || self.crowd.held_for(Duration::ZERO) == 0);
        let answered = began.elapsed();
        wait::until("the daemon was away for long enough", AWAY * 2, || began.elapsed() >= AWAY);
        self.daemon.start_again();
        let (ready, count) = (Instant::now(), self.crowd.count());
        let told = format!(
            "daemon {how}: {count} clients had an answer after {answered:.1?}; ready again after {:.1?}, {} answers \
             later",
            ready - began,
            self.answers() - before,
        );
        let held = || (self.crowd.held_since(ready, HELD) == count).then(|| ready.elapsed());
        let Some(held) = wait::try_until_some(BACK_WITHIN + LATE, held) else {
            let held = self.crowd.held_since(ready, HELD);
            panic!("{told}; {:?} later only {held} are held; {:?}", BACK_WITHIN + LATE, self.crowd.tally());
        };
        let connections = self.connections_of_the_fallback();
        eprintln!("{told}; all held after {held:.1?}; the fallback has {connections} database connections");
        assert!(connections <= FALLBACK_CONNECTIONS);
        self.assert_nobody_saw_an_error();
    }

    /// The fallback dies and is started again while the daemon runs.
    fn fallback_goes(&mut self) {
        let began = Instant::now();
        self.fallback.kill_9();
        let newest = self.publish_to_all();
        self.crowd.wait_until_reached(newest, wait::PATIENCE);
        eprintln!("fallback killed: an event for everybody was there after {:.1?}", began.elapsed());
        self.fallback.start_again();
        self.assert_nobody_saw_an_error();
    }

    /// Ends all and judges.
    fn finish(mut self) {
        let mut sent = Sent::default();
        for publisher in std::mem::take(&mut self.publishers) {
            sent.add(publisher.stop());
        }
        let newest = self.publish_to_all();
        self.crowd.wait_until_reached(newest, wait::PATIENCE);
        let events = events(&self.store);
        let ledger = Ledger::new(events.clone());
        let readings = || self.crowd.readings();
        let complete = || readings().iter().all(|reading| ledger.check(reading).lost.is_empty());
        // When it is not so in the end, the judge says what is missing.
        let _ = wait::try_until_some(wait::PATIENCE, || complete().then_some(()));
        self.assert_nobody_saw_an_error();
        let (readings, tally) = self.crowd.stop();
        ledger.assert_exact(&readings);
        assert!(readings.iter().all(|reading| reading.gaps == 0), "nothing was trimmed");
        eprintln!(
            "{} events, {} of them in SQL; {} received, each exactly once, in {:?} answers; publishers were told {:?}",
            ledger.len(),
            sent.in_sql,
            readings.iter().map(|reading| reading.events.len()).sum::<usize>(),
            tally.statuses,
            sent.statuses,
        );
        // Each publish that was answered is in the log, once, however often it was sent.
        let events: BTreeMap<_, _> = events.into_iter().collect();
        assert!(sent.ids.iter().all(|(id, channel)| events.get(id) == Some(channel)));
        assert_eq!(sent.ids.len(), sent.statuses[&201], "no two publishes have one id");
        assert_eq!(events.len(), sent.in_sql + sent.ids.len() + self.for_all);
    }

    /// Publishes one event on each channel and returns the first id.
    fn publish_to_all(&mut self) -> u64 {
        let events: Vec<_> = (0..CHANNELS).map(|number| event(&channel(number), "all")).collect();
        self.for_all += events.len();
        self.daemon.publish(&format!("[{}]", events.join(",")))[0]
    }

    /// How many answers the clients have had.
    fn answers(&self) -> u64 {
        self.crowd.tally().statuses.values().sum()
    }

    #[track_caller]
    fn assert_nobody_saw_an_error(&self) {
        let tally = self.crowd.tally();
        assert_eq!(
            tally.statuses.keys().copied().collect::<Vec<_>>(),
            [200],
            "{tally:?}\n{}",
            self.nginx.log()
        );
        assert!(tally.errors.is_empty(), "{tally:?}\n{}", self.nginx.log());
    }

    fn connections_of_the_fallback(&self) -> u32 {
        let Store::Postgres(database) = &self.store else { return 0 };
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE application_name = 'everpoll-fallback' AND datname = current_database()";
        database.psql(sql).trim().parse().expect("a number")
    }
}

/// Publishes until it is stopped, with random pauses.
struct Publisher {
    /// `None` once it was waited for.
    thread: Option<JoinHandle<Sent>>,
    stopping: Arc<AtomicBool>,
}

/// What a publisher has done.
#[derive(Default)]
struct Sent {
    /// How many events it committed in SQL.
    in_sql: usize,
    /// The ids that it was told, with their channels.
    ids: BTreeMap<u64, String>,
    /// What it was answered.
    statuses: BTreeMap<u16, usize>,
}

impl Publisher {
    fn start(mut random: Random, mut publish: impl FnMut(&mut Sent, &mut Random) + Send + 'static) -> Self {
        let stopping = Arc::<AtomicBool>::default();
        let stop = stopping.clone();
        let thread = std::thread::spawn(move || {
            let mut sent = Sent::default();
            while !stop.load(Ordering::SeqCst) {
                publish(&mut sent, &mut random);
                random.pause(400);
            }
            sent
        });
        Self { thread: Some(thread), stopping }
    }

    /// Over HTTP, through nginx. What was not answered with 201 is sent again, as the answer says.
    fn over_http(address: &Address, name: u64, random: Random) -> Self {
        let (address, mut number) = (address.clone(), 0);
        Self::start(random, move |sent, random| {
            number += 1;
            let channel = random_channel(random);
            let publish = http::post_json("/publish", event(&channel, &format!("http-{name}-{number}")));
            let id = wait::until_some("the publish is answered with 201", wait::PATIENCE, || {
                let reply = publish.send(&address);
                *sent.statuses.entry(reply.status).or_default() += 1;
                assert!([201, 503].contains(&reply.status), "{reply:?}");
                random.pause(100);
                (reply.status == 201).then(|| reply.json()["ids"][0].as_u64().expect("an id"))
            });
            sent.ids.insert(id, channel);
        })
    }

    /// In SQL, several events in a transaction.
    fn in_sql(database: &Database, random: Random) -> Self {
        let mut client = database.connect();
        Self::start(random, move |sent, random| {
            let mut transaction = client.transaction().expect("the database runs");
            for _ in 0..3 {
                Table::Log.insert(&mut transaction, &random_channel(random), "in-sql");
            }
            transaction.commit().expect("nothing stands against the commit");
            sent.in_sql += 3;
        })
    }

    fn stop(mut self) -> Sent {
        self.stopping.store(true, Ordering::SeqCst);
        self.thread.take().expect("only this takes it").join().expect("it does not panic")
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // When the test fails: it must not go on while what it publishes to is taken down.
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sent {
    fn add(&mut self, other: Self) {
        self.in_sql += other.in_sql;
        self.ids.extend(other.ids);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
    }
}

fn channel(number: usize) -> String {
    format!("c{}", number % CHANNELS)
}

fn random_channel(random: &mut Random) -> String {
    channel(random.below(CHANNELS as u64) as usize)
}

fn event(channel: &str, key: &str) -> String {
    // What goes to all needs no key: it is not sent twice.
    let key = if key == "all" { String::new() } else { format!(r#","key":"{key}""#) };
    format!(r#"{{"channel":"{channel}","type":"made","data":{{}}{key}}}"#)
}

/// All that is in the log, in order.
fn events(store: &Store) -> Vec<(u64, String)> {
    let number = |id: i64| u64::try_from(id).expect("ids are positive");
    match store {
        Store::Postgres(database) => {
            let rows = database.connect().query("SELECT id, channel FROM everpoll.positions", &[]);
            rows.expect("the log is there").iter().map(|row| (number(row.get(0)), row.get(1))).collect()
        }
        Store::Sqlite(sqlite) => {
            let connection = rusqlite::Connection::open(sqlite.path()).expect("the log is there");
            let mut select = connection.prepare("SELECT id, channel FROM events").expect("it has this table");
            let rows = select.query_map([], |row| Ok((number(row.get(0)?), row.get(1)?)));
            rows.and_then(Iterator::collect).expect("it can be read")
        }
    }
}
