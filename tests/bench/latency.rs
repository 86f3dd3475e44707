//! How long one event takes to one subscriber while nothing else happens.
//!
//! The clock runs from just before the publish, and again from the moment at which the publisher knows that it is committed,
//! to the last byte at the subscriber. Pauses between events differ, so that they do not fall into step with whoever looks at
//! regular times.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use everpoll_tests::{Address, Redis};
use tokio::runtime::Runtime;

use crate::audience::{Audience, data};
use crate::load::{self, Connection};
use crate::peers::{Peer, attempt};
use crate::site::{Everpoll, Site, Transport};
use crate::table::{Better, Table, spread};
use crate::{Log, Scale, sqlite};

/// Events in each run.
const EVENTS: u32 = 150;

/// Publishes the event with this number, and returns when it is committed.
type Publish = Box<dyn FnMut(u32)>;

/// Where the log is, how an event gets into it, and what says so to the daemon.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Notify,
    PostgresRedis,
    Sqlite,
    SqliteRedis,
    Http(Kind),
    Peer(Peer),
}

/// A log, for what is published over HTTP.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Postgres,
    Sqlite,
}

const OURS: [Way; 6] = [
    Way::Notify,
    Way::PostgresRedis,
    Way::Sqlite,
    Way::SqliteRedis,
    Way::Http(Kind::Postgres),
    Way::Http(Kind::Sqlite),
];

/// Milliseconds: the median and the 99th percentile of each run.
#[derive(Default)]
struct Times {
    start_p50: Vec<f64>,
    start_p99: Vec<f64>,
    commit_p50: Vec<f64>,
    commit_p99: Vec<f64>,
    lost: usize,
    doubled: usize,
}

/// Runs it for a transport and returns the table.
pub(crate) fn run(scale: &Scale, transport: Transport) -> Table {
    let columns = [
        "milliseconds",
        "from before the publish: p50",
        "p99",
        "from its commit: p50",
        "p99",
        "lost",
        "doubled",
    ];
    let title = format!("One event to one subscriber, nothing else going on: {}", transport.name());
    let mut table = Table::new(&title, &columns);
    let peers = if scale.peers { Peer::installed(&Peer::ALL, &mut table) } else { Vec::new() };
    let ways = OURS.into_iter().chain(peers.into_iter().map(Way::Peer));
    let events = if scale.rounds > 1 { EVENTS } else { EVENTS / 10 };
    let mut all: Vec<_> = ways.map(|way| (way, Times::default())).collect();
    for _ in 0..scale.runs {
        for (way, times) in &mut all {
            let peer = if let Way::Peer(peer) = way { Some(*peer) } else { None };
            attempt(peer, || {
                measure(*way, transport, events, times);
                Some(())
            });
        }
    }
    for (way, times) in all.iter().filter(|(_, times)| !times.start_p50.is_empty()) {
        let Times { start_p50, start_p99, commit_p50, commit_p99, lost, doubled } = times;
        let mut cells = vec![spread(start_p50, 2), spread(start_p99, 2)];
        cells.extend([commit_p50, commit_p99].map(|times| spread(times, 2)));
        cells.extend([(*lost).into(), (*doubled).into()]);
        match way {
            Way::Peer(_) => table.peer(way.name(), cells),
            _ => table.row(way.name(), cells),
        }
    }
    table.compare(Better::Less, [1, 2]);
    table.note(format!(
        "{events} events in each run. Everpoll's times from before the publish include the commit to disk; the peers write \
         nothing to disk. With Redis, the publisher sends a message on `channels:<channel>` once it has committed, and the \
         other path, LISTEN/NOTIFY or a look at the file every few milliseconds, is there as well: what comes first counts."
    ));
    table
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Notify => "PostgreSQL, INSERT, LISTEN/NOTIFY".to_owned(),
            Self::PostgresRedis => "PostgreSQL, INSERT, Redis".to_owned(),
            Self::Sqlite => "SQLite, INSERT".to_owned(),
            Self::SqliteRedis => "SQLite, INSERT, Redis".to_owned(),
            Self::Http(Kind::Postgres) => "PostgreSQL, POST /publish".to_owned(),
            Self::Http(Kind::Sqlite) => "SQLite, POST /publish".to_owned(),
            Self::Peer(peer) => peer.name(),
        }
    }

    fn log(self) -> Log {
        match self {
            Self::Notify | Self::PostgresRedis | Self::Http(Kind::Postgres) => Log::postgres(),
            Self::Sqlite | Self::SqliteRedis | Self::Http(Kind::Sqlite) | Self::Peer(_) => Log::sqlite(),
        }
    }
}

fn measure(way: Way, transport: Transport, events: u32, times: &mut Times) {
    let runtime = load::runtime();
    let redis = matches!(way, Way::PostgresRedis | Way::SqliteRedis).then(Redis::start);
    let (site, mut publish): (Box<dyn Site>, Publish) = if let Way::Peer(peer) = way {
        let site = peer.start();
        let publish = over_http(&runtime, site.as_ref());
        (site, publish)
    } else {
        let url = redis.as_ref().map(Redis::url);
        let settings: Vec<_> = url.iter().map(|url| ("EVERPOLL_REDIS_URL", url.as_str())).collect();
        let site = Everpoll::start(way.log(), &settings);
        let publish = match way {
            Way::Http(_) => over_http(&runtime, &site),
            _ => in_sql(&site.log, redis.as_ref()),
        };
        (Box::new(site), publish)
    };
    let gathered = Audience::gather(&runtime, site.as_ref(), transport, 1, |_| "cheese-0".to_owned());
    let Some(audience) = gathered else { return };
    let (mut from_start, mut from_commit) = (Vec::new(), Vec::new());
    // The first ones are for warming up.
    for number in 0..events + 10 {
        thread::sleep(Duration::from_micros(4_000 + u64::from(number) * 7_919 % 16_000));
        let start = Instant::now();
        publish(number);
        let committed = Instant::now();
        audience.wait_for(1 + number as usize - times.lost);
        let seen = audience.take_seen().swap_remove(0);
        times.doubled += seen.len().saturating_sub(1);
        let Some((_, at)) = seen.into_iter().find(|(seen, _)| *seen == number) else {
            times.lost += 1;
            continue;
        };
        if number >= 10 {
            let milliseconds = |from: Instant| at.saturating_duration_since(from).as_secs_f64() * 1000.0;
            from_start.push(milliseconds(start));
            from_commit.push(milliseconds(committed));
        }
    }
    let percentile = |times: &mut Vec<f64>, percent: usize| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN)
    };
    times.start_p50.push(percentile(&mut from_start, 50));
    times.start_p99.push(percentile(&mut from_start, 99));
    if !matches!(way, Way::Peer(_)) {
        times.commit_p50.push(percentile(&mut from_commit, 50));
        times.commit_p99.push(percentile(&mut from_commit, 99));
    }
    drop((audience, publish, site, redis));
}

/// Publishes by a request, and waits for the answer.
fn over_http(runtime: &Runtime, site: &dyn Site) -> Publish {
    let handle = runtime.handle().clone();
    let address = Address::Tcp(site.publisher());
    let mut connection = runtime.block_on(Connection::open(&address)).expect("the server runs");
    let request = site.publish("cheese-0", &data(1_000_000_000));
    let text = String::from_utf8(request).expect("a request with JSON");
    Box::new(move |number| {
        // As long as before, so that the head need not be written anew; zeros in front are no number of JSON's, but text.
        let request = text.replace("~1000000000~", &format!("~{number:010}~")).into_bytes();
        let reply = handle.block_on(connection.exchange(&request)).expect("the server keeps its connections");
        assert!((200..300).contains(&reply.status()), "{}", String::from_utf8_lossy(reply.body()));
    })
}

/// Publishes as an application does, and sends what it is to send over Redis.
fn in_sql(log: &Log, redis: Option<&Redis>) -> Publish {
    let mut hint: Box<dyn FnMut()> = match redis {
        None => Box::new(|| {}),
        Some(redis) => {
            let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("Redis runs");
            stream.set_nodelay(true).expect("it is a socket");
            Box::new(move || {
                stream.write_all(b"PUBLISH channels:cheese-0 {}\r\n").expect("Redis runs");
                let _ = stream.read(&mut [0; 64]).expect("Redis runs");
            })
        }
    };
    match log {
        Log::Postgres(database) => {
            let mut client = database.connect();
            let insert = "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese-0', 'cheese_made', $1::text::json)";
            let insert = client.prepare(insert).expect("the daemon's layout is there");
            Box::new(move |number| {
                client.execute(&insert, &[&data(number)]).expect("the server runs");
                hint();
            })
        }
        Log::Sqlite(file) => {
            let connection = sqlite::open(&file.path());
            Box::new(move |number| {
                let insert =
                    "INSERT INTO events (channel, type, data) VALUES ('cheese-0', 'cheese_made', ?1)";
                connection.execute(insert, [data(number)]).expect("the file can be written");
                hint();
            })
        }
    }
}
