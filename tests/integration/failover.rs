//! A thousand pages through nginx while daemon and fallback are killed: nobody sees an error, or misses an event.
//!
//! The crowd does as browsers do: each page keeps its connection to nginx, goes on from the cursor it was given, and comes
//! back when it was told to. Events are published all the time, in SQL and over HTTP through the same nginx.
//!
//! What a newcomer gets wrong: a *publisher* may see a 503. When the daemon dies with a publish in hand nobody knows
//! whether it was committed; the publisher sends it again with the same key, as the answer tells it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::pollers::{Poller, Pollers};
use everpoll_tests::{Daemon, Database, Fallback, TestDir, WebServer, wait};
use everpoll_verify::Ledger;

use crate::background::Background;
use crate::judge;
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
    publishers: Vec<Background<BTreeMap<u16, usize>>>,
    /// What they and the test itself have announced.
    ledger: Arc<Ledger>,
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
        let ledger = Arc::new(judge::ledger());
        let mut publishers: Vec<_> =
            (0..2).map(|n| over_http(nginx.address(), &ledger, random.fork(n))).collect();
        if let Store::Postgres(database) = &store {
            publishers.extend((2..4).map(|n| in_sql(database, &ledger, random.fork(n))));
        }
        Self { crowd, publishers, ledger, nginx, fallback, daemon, store, _sockets: sockets }
    }

    /// The daemon ends, is away for a while, and is started again.
    fn daemon_goes(&mut self, how: &str, end: impl FnOnce(&mut Daemon)) {
        let (began, before) = (Instant::now(), self.answers());
        end(&mut self.daemon);
        let gone = Instant::now();
        // Nobody is left waiting, however busy the machine is: those who had an answer first may be back by then.
        wait::until("the fallback has answered all", wait::PATIENCE, || {
            self.crowd.answered_since(gone) == self.crowd.count()
        });
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
        let mut told = BTreeMap::<u16, usize>::new();
        for publisher in std::mem::take(&mut self.publishers) {
            for (status, count) in publisher.stop() {
                *told.entry(status).or_default() += count;
            }
        }
        let newest = self.publish_to_all();
        self.crowd.wait_until_reached(newest, wait::PATIENCE);
        let events = judge::events(&self.store);
        // Each publish that was answered is in the log, once, however often it was sent.
        judge::find(&self.ledger, &events);
        let complete = || judge::are_complete(&self.ledger, &self.crowd.readings());
        // When it is not so in the end, the judge says what is missing.
        let _ = wait::try_until_some(wait::PATIENCE, || complete().then_some(()));
        self.assert_nobody_saw_an_error();
        let (readings, tally) = self.crowd.stop();
        let report = judge::judge(&self.ledger, &readings);
        assert!(report.kept, "{report}");
        assert_eq!((report.total.acknowledged, report.total.unknown), (events.len() as u64, 0), "{report}");
        assert!(readings.iter().all(|reading| reading.gaps == 0), "nothing was trimmed");
        eprintln!(
            "{} events; {} received, each exactly once, in {:?} answers; publishers over HTTP were told {told:?}",
            events.len(),
            report.total.delivered,
            tally.statuses,
        );
    }

    /// Publishes one event on each channel and returns the first id.
    fn publish_to_all(&mut self) -> u64 {
        let announced: Vec<_> =
            (0..CHANNELS).map(|number| announce(&self.ledger, &channel(number))).collect();
        let events: Vec<_> =
            announced.iter().zip(0..).map(|(n, number)| event(&channel(number), *n)).collect();
        let ids = self.daemon.publish(&format!("[{}]", events.join(",")));
        announced.iter().zip(&ids).for_each(|(n, id)| self.ledger.acknowledge(*n, *id));
        ids[0]
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

/// Publishes over HTTP, through nginx, with random pauses. What was not answered with 201 is sent again, as the answer says. Comes
/// to how often it was answered with what.
fn over_http(
    address: &Address,
    ledger: &Arc<Ledger>,
    mut random: Random,
) -> Background<BTreeMap<u16, usize>> {
    let (address, ledger) = (address.clone(), ledger.clone());
    Background::start(move |stopping| {
        let mut statuses = BTreeMap::new();
        while !stopping.load(Ordering::SeqCst) {
            let channel = random_channel(&mut random);
            let n = announce(&ledger, &channel);
            let publish = http::post_json("/publish", event(&channel, n));
            let id = wait::until_some("the publish is answered with 201", wait::PATIENCE, || {
                let reply = publish.send(&address);
                *statuses.entry(reply.status).or_default() += 1;
                assert!([201, 503].contains(&reply.status), "{reply:?}");
                random.pause(100);
                (reply.status == 201).then(|| reply.json()["ids"][0].as_u64().expect("an id"))
            });
            ledger.acknowledge(n, id);
            random.pause(400);
        }
        statuses
    })
}

/// Publishes in SQL, several events in a transaction.
fn in_sql(database: &Database, ledger: &Arc<Ledger>, mut random: Random) -> Background<BTreeMap<u16, usize>> {
    let (mut client, ledger) = (database.connect(), ledger.clone());
    Background::start(move |stopping| {
        while !stopping.load(Ordering::SeqCst) {
            let mut transaction = client.transaction().expect("the database runs");
            let announced: Vec<_> = (0..3)
                .map(|_| {
                    let channel = random_channel(&mut random);
                    let n = announce(&ledger, &channel);
                    Table::Log.insert(&mut transaction, &channel, n);
                    n
                })
                .collect();
            transaction.commit().expect("nothing stands against the commit");
            announced.into_iter().for_each(|n| ledger.acknowledge(n, None));
            random.pause(400);
        }
        BTreeMap::new()
    })
}

fn announce(ledger: &Ledger, channel: &str) -> usize {
    ledger.announce(ledger.channel(channel))
}

fn channel(number: usize) -> String {
    format!("c{}", number % CHANNELS)
}

fn random_channel(random: &mut Random) -> String {
    channel(random.below(CHANNELS as u64) as usize)
}

/// Sent again, it is the same event by its key.
fn event(channel: &str, n: usize) -> String {
    format!(r#"{{"channel":"{channel}","type":"made","data":{{"tag":"{n}"}},"key":"{n}"}}"#)
}
