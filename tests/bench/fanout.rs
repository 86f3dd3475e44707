//! How long it takes until an event is with all who wait for it.
//!
//! The clock runs from just before the event is published, and again from the moment at which the publisher knows that
//! it is committed, to the last byte at the last client. Beside it stands the floor: a [bare server](crate::bare) with
//! the same clients. Each client must get each event, and once.

use std::collections::BTreeSet;
use std::time::Instant;

use everpoll_tests::{Address, Daemon, http};

use crate::bare::Bare;
use crate::load::{self, Reply};
use crate::table::{Better, Table, median, spread};
use crate::watch::Watched;
use crate::{Log, Scale, sqlite};

/// How often the machine's servers take turns, so that a busy minute of it does not hit one of them alone.
const TURNS: usize = 3;

/// What one server took, in milliseconds.
#[derive(Default)]
struct Times {
    from_start: Vec<f64>,
    from_commit: Vec<f64>,
    lost: usize,
    doubled: usize,
}

/// Where the log is, and how an event gets into it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Postgres,
    Sqlite,
    SqliteHttp,
}

const WAYS: [Way; 3] = [Way::Postgres, Way::Sqlite, Way::SqliteHttp];

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL, INSERT",
            Self::Sqlite => "SQLite, INSERT",
            Self::SqliteHttp => "SQLite, POST /publish",
        }
    }
}

/// Who puts it there.
enum Publisher {
    Postgres(Box<postgres::Client>, postgres::Statement),
    Sqlite(rusqlite::Connection),
    Http(Address),
}

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let columns =
        ["milliseconds to the last client", "from before the publish", "from its commit", "lost", "doubled"];
    let mut table = Table::new(&format!("Fan-out to {} held polls of one channel", scale.waiting), &columns);
    let mut floor = Times::default();
    let mut ours = WAYS.map(|way| (way, Times::default()));
    for _ in 0..TURNS {
        time_bare(scale, &bare_reply(), &mut floor);
        for (way, times) in &mut ours {
            time_daemon(scale, *way, times);
        }
    }
    table.row("floor: a bare server", [spread(&floor.from_start, 1), "".into(), "".into(), "".into()]);
    for (way, times) in &ours {
        let Times { from_start, from_commit, lost, doubled } = times;
        let cells = [spread(from_start, 1), spread(from_commit, 1), (*lost).into(), (*doubled).into()];
        table.row(way.name(), cells);
    }
    table.compare(Better::Less, [1]);
    let (ours, floor) = (median(&ours[0].1.from_start), median(&floor.from_start));
    table.note(format!(
        "{} events each. With PostgreSQL it takes {:.2} times as long as the floor, commit included. Clients and servers \
         share the processors: the clients' own work is in all rows.",
        scale.rounds * TURNS,
        ours / floor,
    ));
    table
}

/// A reply of the size that the daemon sends.
fn bare_reply() -> Vec<u8> {
    let body = format!(
        r#"[{{"id":1,"channel_id":"cheese","ts":"2026-01-01T00:00:00.000Z","data":{{"type":"cheese_made","data":{}}}}}]"#,
        data(1)
    );
    let head = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nConnection: keep-alive\r\n\
        Content-Type: application/json; charset=utf-8\r\n\
        Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0, no-transform\r\nPragma: no-cache\r\n\
        Expires: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n\
        x-ps-reconnect-in: 0\r\nx-shortpoll-info: false\r\nx-ps-cursor: 1\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn time_bare(scale: &Scale, reply: &[u8], times: &mut Times) {
    let runtime = load::runtime();
    let mut server = Bare::start(scale.waiting, reply).expect("this program can be started again");
    let mut connections = load::connect(&runtime, server.address(), scale.waiting);
    // The first round is for warming up.
    for round in 0..=scale.rounds {
        let waiting = load::ask(&runtime, connections, request(|_| "now".to_owned()));
        Watched(server.id()).wait_until_quiet();
        let start = Instant::now();
        server.write().expect("it runs");
        let (again, replies) = load::replies(&runtime, waiting);
        connections = again;
        if round > 0 {
            times.from_start.push(milliseconds(start, last(&replies)));
        }
    }
}

fn time_daemon(scale: &Scale, way: Way, times: &mut Times) {
    let log = if way == Way::Postgres { Log::postgres() } else { Log::sqlite() };
    let mut daemon = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600).start();
    let mut publisher = Publisher::new(&log, (way == Way::SqliteHttp).then(|| daemon.address()));
    let watched = Watched(daemon.process().id());
    let runtime = load::runtime();
    let mut connections = load::connect(&runtime, daemon.address(), scale.waiting);
    let mut readings = vec![Reading::default(); scale.waiting];
    for round in 0..=scale.rounds {
        let cursors: Vec<_> = readings.iter().map(|reading| reading.cursor.clone()).collect();
        let waiting = load::ask(&runtime, connections, request(|client| cursors[client].clone()));
        watched.wait_until_quiet();
        let start = Instant::now();
        publisher.publish(round);
        let committed = Instant::now();
        let (again, replies) = load::replies(&runtime, waiting);
        connections = again;
        if round > 0 {
            times.from_start.push(milliseconds(start, last(&replies)));
            times.from_commit.push(milliseconds(committed, last(&replies)));
        }
        for (reading, reply) in readings.iter_mut().zip(&replies) {
            reading.take(reply);
        }
    }
    for reading in &readings {
        let got: BTreeSet<_> = reading.rounds.iter().collect();
        times.lost += scale.rounds + 1 - got.len();
        times.doubled += reading.rounds.len() - got.len();
    }
}

/// What one client got.
#[derive(Clone)]
struct Reading {
    cursor: String,
    rounds: Vec<u64>,
}

impl Default for Reading {
    fn default() -> Self {
        Self { cursor: "now".to_owned(), rounds: Vec::new() }
    }
}

impl Reading {
    fn take(&mut self, reply: &Reply) {
        assert_eq!(reply.status(), 200, "{}", String::from_utf8_lossy(reply.body()));
        self.cursor = reply.header("x-ps-cursor").expect("each reply says where to go on").to_owned();
        let records: serde_json::Value = serde_json::from_slice(reply.body()).expect("a batch is JSON");
        let records = records.as_array().into_iter().flatten();
        self.rounds.extend(records.filter_map(|record| record["data"]["data"]["round"].as_u64()));
    }
}

impl Publisher {
    fn new(log: &Log, daemon: Option<&Address>) -> Self {
        match (log, daemon) {
            (_, Some(daemon)) => Self::Http(daemon.clone()),
            (Log::Postgres(database), None) => {
                let mut client = database.connect();
                let insert = "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'cheese_made', $1::text::json)";
                let insert = client.prepare(insert).expect("the daemon's layout is there");
                Self::Postgres(Box::new(client), insert)
            }
            (Log::Sqlite(file), None) => Self::Sqlite(sqlite::open(&file.path())),
        }
    }

    /// Returns when it is committed.
    fn publish(&mut self, round: usize) {
        let data = data(round);
        match self {
            Self::Postgres(client, insert) => {
                client.execute(insert, &[&data]).expect("the server runs");
            }
            Self::Sqlite(file) => {
                let insert = "INSERT INTO events (channel, type, data) VALUES ('cheese', 'cheese_made', ?1)";
                file.execute(insert, [&data]).expect("the file can be written");
            }
            Self::Http(daemon) => {
                let event = format!(r#"{{"channel":"cheese","type":"cheese_made","data":{data}}}"#);
                let reply = http::post_json("/publish", event).send(daemon);
                assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
            }
        }
    }
}

fn data(round: usize) -> String {
    format!(r#"{{"round":{round},"name":"Sbrinz","weight":4.25,"from":["Obwalden","Nidwalden"]}}"#)
}

fn request(cursor: impl Fn(usize) -> String) -> impl Fn(usize) -> Vec<u8> {
    move |client| {
        load::poll(
            "cheese",
            &format!("browser-{client}"),
            &format!("last_event_id={}&_={client}", cursor(client)),
        )
    }
}

fn last(replies: &[Reply]) -> Instant {
    replies.iter().map(|reply| reply.at).max().expect("there are clients")
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}
