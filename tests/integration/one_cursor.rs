//! One cursor everywhere: a client that takes another transport for each step, from another program, gets each event once.
//!
//! Six clients with several channels each choose by a seeded chance how they ask next: long-poll, padded, short-poll, POST,
//! JSONP, EventSource, WebSocket; from the daemon, through nginx, from the fallback as FastCGI and as CGI. They leave in the
//! middle of streams. All the while events are published, and the daemon is killed and stopped. [`ways`] is how one step is
//! done, and what of it counts as received.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::pollers::Reading;
use everpoll_tests::web::Places;
use everpoll_tests::{Daemon, TestDir, WebServer, wait};
use serde_json::json;

use crate::background::Background;
use crate::judge;
use crate::site::{Site, Store};
use crate::writers::Random;
use ways::{Doors, Way};

mod ways;

/// How many events are published, and on how many channels.
const EVENTS: usize = 2000;
const CHANNELS: u64 = 5;

const CLIENTS: u64 = 6;

/// How long the clients may take to get the last event.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn client_that_changes_its_transport_each_time_gets_each_event_once_on_postgres() {
    run(Store::postgres());
}

#[test]
fn client_that_changes_its_transport_each_time_gets_each_event_once_on_sqlite() {
    run(Store::sqlite());
}

/// What one client did: how often it went each way, and how many events came on it.
type Tally = BTreeMap<Way, (u32, usize)>;

fn run(store: Store) {
    let random = Random::seeded();
    let settings =
        [("EVERPOLL_JSONP", "true"), ("EVERPOLL_HEARTBEAT", "1"), ("EVERPOLL_WINDOW_BYTES", "256KiB")];
    let site = Site::with(store, &settings);
    let directory = TestDir::new();
    let socket = Address::Unix(directory.join("daemon.sock"));
    // Beside the site's own daemon, which is never killed: this is the one behind nginx.
    let restarted = Daemon::on(site.store.url()).at(&socket);
    let mut restarted =
        settings.iter().fold(restarted, |start, (name, value)| start.setting(name, value)).start();
    let nginx = WebServer::nginx(restarted.address(), site.fallback.address());
    let cgi = WebServer::lighttpd("As CGI", Places::new(site.store.url()));
    let doors = Doors {
        daemon: site.daemon.address().clone(),
        nginx: nginx.address().clone(),
        fallback: site.doors()[1].1.clone(),
        cgi: cgi.address().clone(),
    };

    let newest = Arc::new(AtomicU64::new(u64::MAX));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (doors, newest, random) = (doors.clone(), newest.clone(), random.fork(100 + number));
            std::thread::spawn(move || follow(number, &doors, random, &newest))
        })
        .collect();
    let publisher = Publisher::start(&site.store, nginx.address(), random.fork(1));
    wait::until("a third is published", PATIENCE, || publisher.sent() > EVENTS / 3);
    restarted.kill_9();
    wait::until("some more is published", PATIENCE, || publisher.sent() > EVENTS * 4 / 10);
    restarted.start_again();
    wait::until("two thirds are published", PATIENCE, || publisher.sent() > EVENTS * 2 / 3);
    assert_eq!(restarted.stop().code(), Some(0));
    restarted.start_again();
    publisher.finish();
    let published = judge::events(&site.store);
    assert_eq!(published.len(), EVENTS);
    newest.store(published[EVENTS - 1].0, Ordering::SeqCst);

    let (mut readings, mut total) = (Vec::new(), Tally::new());
    for client in clients {
        let (reading, tally) = client.join().expect("a client does not panic");
        for (way, (steps, events)) in tally {
            let sum = total.entry(way).or_default();
            *sum = (sum.0 + steps, sum.1 + events);
        }
        readings.push(reading);
    }
    let shown: Vec<_> =
        total.iter().map(|(way, (steps, events))| format!("{way:?} {steps}/{events}")).collect();
    eprintln!("steps and events on each way: {}", shown.join(", "));
    judge::assert_kept(&judge::ledger_of(&published), &readings);
    assert!(readings.iter().all(|reading| reading.gaps == 0), "nothing was trimmed");
    for way in ways::ALL {
        let (steps, events) = total.get(&way).copied().unwrap_or_default();
        assert!(steps > 0 && events > 0, "nothing came by {way:?}");
    }
}

/// One client, until it is behind the newest event.
fn follow(number: u64, doors: &Doors, mut random: Random, newest: &AtomicU64) -> (Reading, Tally) {
    let channels: Vec<_> = (0..CHANNELS)
        .filter(|channel| *channel == number % CHANNELS || random.below(2) == 0)
        .map(channel)
        .collect();
    let mut cursor = match number % 3 {
        0 => "0".to_owned(),
        1 => "rt-1".to_owned(),
        _ => "now".to_owned(),
    };
    let mut reading = Reading { channels, ..Reading::default() };
    let mut tally = Tally::new();
    let mut late = None;
    loop {
        // `now` is a place only once a reply has said which.
        let way = if cursor == "now" {
            Way::ShortPoll
        } else {
            ways::ALL[random.below(ways::ALL.len() as u64) as usize]
        };
        let step = ways::step(way, doors, &reading.channels.join(","), &cursor, number, &mut random);
        let entry = tally.entry(way).or_default();
        entry.0 += 1;
        entry.1 += step.events.len();
        if reading.began_after.is_none() && step.cursor.is_some() {
            let began =
                if cursor == "now" { step.cursor.as_ref().and_then(|id| id.parse().ok()) } else { Some(0) };
            reading.began_after = began;
        }
        reading.gaps += step.gaps;
        reading.events.extend(step.events);
        if let Some(next) = step.cursor {
            cursor = next;
        }
        reading.cursor = cursor.parse().unwrap_or(0);
        let newest = newest.load(Ordering::SeqCst);
        if reading.cursor >= newest {
            return (reading, tally);
        }
        if newest < u64::MAX {
            let began = *late.get_or_insert_with(Instant::now);
            assert!(
                began.elapsed() < PATIENCE,
                "client {number} stands at {cursor} and should be at {newest}"
            );
        }
    }
}

fn channel(number: u64) -> String {
    format!("c{number}")
}

/// Publishes all events in batches of random size, in random pauses.
struct Publisher {
    thread: Background<()>,
    sent: Arc<AtomicU64>,
}

impl Publisher {
    fn start(store: &Store, nginx: &Address, mut random: Random) -> Self {
        let sent = Arc::<AtomicU64>::default();
        let (counter, nginx) = (sent.clone(), nginx.clone());
        let mut application = match store {
            Store::Postgres(database) => Some(database.connect()),
            Store::Sqlite(_) => None,
        };
        let thread = Background::start(move |stopping| {
            let mut left = EVENTS;
            while left > 0 && !stopping.load(Ordering::SeqCst) {
                let count = (1 + random.below(9) as usize).min(left);
                let events: Vec<_> =
                    (0..count).map(|n| (channel(random.below(CHANNELS)), format!("{left}-{n}"))).collect();
                match &mut application {
                    Some(client) if random.below(2) == 0 => in_sql(client, &events),
                    _ => over_http(&nginx, &events),
                }
                left -= count;
                counter.fetch_add(count as u64, Ordering::SeqCst);
                random.pause(60);
            }
        });
        Self { thread, sent }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst) as usize
    }

    fn finish(self) {
        self.thread.finish();
    }
}

fn in_sql(client: &mut postgres::Client, events: &[(String, String)]) {
    let mut transaction = client.transaction().expect("the database runs");
    for (channel, key) in events {
        let sql = "SELECT everpoll.publish($1::text, 'made', json_build_object('channel', $1::text, 'key', $2::text))";
        transaction.execute(sql, &[channel, key]).expect("it is published");
    }
    transaction.commit().expect("nothing stands against the commit");
}

/// What is not answered with 201 is sent again: the keys make it one event.
fn over_http(nginx: &Address, events: &[(String, String)]) {
    let events: Vec<_> = events
        .iter()
        .map(|(channel, key)| json!({"channel": channel, "type": "made", "data": {"channel": channel}, "key": key}))
        .collect();
    let publish = http::post_json("/publish", json!(events).to_string());
    wait::until("it is published", PATIENCE, || {
        publish.try_send(nginx).is_ok_and(|reply| reply.status == 201)
    });
}
