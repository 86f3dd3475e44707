//! How long it takes until an event is with all who wait for it, and what that costs.
//!
//! The clock runs from just before the event is published to the last byte at the last client; processor time is the
//! server's own, whole rounds of it: a poll that comes back is in it. Beside it stands the floor: a
//! [bare server](crate::bare) with the same clients. Each client must get each event, and once.

use std::time::{Duration, Instant};

use everpoll_tests::{Address, Daemon, http};

use crate::bare::{Asked, Bare};
use crate::load::{self, Reply};
use crate::peers::{Fanned, Peer};
pub(crate) use crate::site::Transport;
use crate::streams::{EVENTSOURCE, WEBSOCKET};
use crate::table::{Better, Table, spread};
use crate::watch::Watched;
use crate::{Log, Scale, sqlite};

/// What events are fanned out by.
pub(crate) trait Server {
    /// Where its clients connect.
    fn address(&self) -> &Address;

    /// The processes whose time is counted.
    fn processes(&mut self) -> Vec<Watched>;

    /// What a client sends that wants what comes after `cursor`, or from now on.
    fn request(&self, client: usize, cursor: Option<&str>) -> Vec<u8>;

    /// Whether a stream begins with a head at once.
    fn greets(&self) -> bool {
        true
    }

    /// Where a poll that had this reply goes on.
    fn cursor(&self, reply: &Reply) -> Option<String>;

    /// Has [`data`] of this round sent to all; returns when that is committed.
    fn publish(&mut self, round: usize);
}

/// What one server took.
#[derive(Default)]
pub(crate) struct Times {
    /// From before the publish to the last client, in milliseconds.
    pub(crate) last: Vec<f64>,
    /// Processor time for each delivery, in microseconds.
    pub(crate) cost: Vec<f64>,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
}

/// Runs it for a transport and one of the numbers of clients, and returns the table.
pub(crate) fn run(scale: &Scale, transport: Transport, size: usize) -> Table {
    let clients = scale.waiting[size];
    let title = format!("Fan-out of one event to {clients} clients: {}", transport.name());
    let cost = "\u{b5}s of processor time for each delivery";
    let mut table = Table::new(&title, &["", "ms to the last client", cost, "lost", "doubled"]);
    let mut ways = vec![Way::Floor, Way::Postgres];
    if transport == Transport::LongPoll && size == 1 {
        ways.extend([Way::Sqlite, Way::SqliteHttp]);
    }
    if scale.peers {
        let peers = Peer::installed(&Fanned::peers(transport), &mut table);
        ways.extend(peers.into_iter().map(Way::Peer));
    }
    let mut times: Vec<_> = ways.iter().map(|_| Times::default()).collect();
    // In turns, so that a busy minute of the machine does not hit one server alone.
    for _ in 0..scale.runs {
        for (way, times) in ways.iter().zip(&mut times) {
            time(way.start(transport, clients).as_mut(), transport, clients, scale.rounds, times);
        }
    }
    for (way, times) in ways.iter().zip(&times) {
        let Times { last, cost, lost, doubled } = times;
        let cells = [spread(last, 1), spread(cost, 1), (*lost).into(), (*doubled).into()];
        match way {
            Way::Peer(_) => table.peer(way.name(), cells),
            _ => table.row(way.name(), cells),
        }
    }
    table.compare(Better::Less, [1, 2]);
    table.note(format!(
        "{} events each. Everpoll's time includes the publisher's commit. Clients and servers share the processors: the \
         clients' own work is in all rows.",
        scale.rounds * scale.runs,
    ));
    table
}

/// Lets `server` send `rounds` events, after one for warming up, to so many clients.
pub(crate) fn time(
    server: &mut dyn Server,
    transport: Transport,
    clients: usize,
    rounds: usize,
    times: &mut Times,
) {
    let runtime = load::runtime();
    let mut connections = load::connect(&runtime, server.address(), clients);
    let mut readings = vec![Reading::default(); clients];
    if transport != Transport::LongPoll {
        let asking = load::send(&runtime, connections, |client| server.request(client, None));
        connections = if server.greets() {
            load::replies(&runtime, load::listen(&runtime, asking, b"\r\n\r\n")).0
        } else {
            asking
        };
    }
    let mut before = Duration::ZERO;
    for round in 0..=rounds {
        quiet(server);
        if round == 1 {
            before = processor_time(server);
        }
        let sign = format!("\"round\":{round},");
        let sign =
            if server.greets() || transport == Transport::LongPoll { sign } else { "\"round\":".into() };
        let waiting = if transport == Transport::LongPoll {
            let request = |client: usize| server.request(client, readings[client].cursor.as_deref());
            load::ask(&runtime, connections, request)
        } else {
            load::listen(&runtime, connections, sign.as_bytes())
        };
        quiet(server);
        let start = Instant::now();
        server.publish(round);
        let (again, replies) = load::replies(&runtime, waiting);
        connections = again;
        if round > 0 {
            times.last.push(milliseconds(start, last(&replies)));
        }
        for (reading, reply) in readings.iter_mut().zip(&replies) {
            reading.take(reply);
            if transport == Transport::LongPoll {
                assert_eq!(reply.status(), 200, "{}", String::from_utf8_lossy(reply.body()));
                reading.cursor = server.cursor(reply);
            }
        }
    }
    quiet(server);
    let spent = processor_time(server).saturating_sub(before);
    times.cost.push(spent.as_secs_f64() * 1e6 / (rounds * clients) as f64);
    for (reading, connection) in readings.iter_mut().zip(&connections) {
        reading.take(&connection.rest());
        let mut got = reading.rounds.clone();
        got.sort_unstable();
        got.dedup();
        // The floor has one event for all rounds.
        if server.greets() {
            times.lost += rounds + 1 - got.len();
            times.doubled += reading.rounds.len() - got.len();
        }
    }
}

fn quiet(server: &mut dyn Server) {
    for process in server.processes() {
        process.wait_until_quiet();
    }
}

fn processor_time(server: &mut dyn Server) -> Duration {
    server.processes().into_iter().map(Watched::processor_time).sum()
}

/// What one client got.
#[derive(Clone, Default)]
struct Reading {
    cursor: Option<String>,
    rounds: Vec<u64>,
}

impl Reading {
    fn take(&mut self, reply: &Reply) {
        let text = String::from_utf8_lossy(reply.bytes());
        self.rounds.extend(text.split("\"round\":").skip(1).filter_map(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
            digits.parse::<u64>().ok()
        }));
    }
}

/// Where the log is, and how an event gets into it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Floor,
    Postgres,
    Sqlite,
    SqliteHttp,
    Peer(Peer),
}

impl Way {
    fn name(self) -> String {
        let name = match self {
            Self::Floor => "floor: a bare server",
            Self::Postgres => "Everpoll, PostgreSQL, INSERT",
            Self::Sqlite => "Everpoll, SQLite, INSERT",
            Self::SqliteHttp => "Everpoll, SQLite, POST /publish",
            Self::Peer(peer) => return peer.name(),
        };
        name.to_owned()
    }

    fn start(self, transport: Transport, clients: usize) -> Box<dyn Server> {
        match self {
            Self::Floor => Box::new(Floor::start(transport, clients)),
            Self::Postgres => Box::new(Everpoll::start(Log::postgres(), transport, false)),
            Self::Sqlite => Box::new(Everpoll::start(Log::sqlite(), transport, false)),
            Self::SqliteHttp => Box::new(Everpoll::start(Log::sqlite(), transport, true)),
            Self::Peer(peer) => Box::new(Fanned::start(peer, transport)),
        }
    }
}

/// The floor.
pub(crate) struct Floor {
    bare: Bare,
    transport: Transport,
}

impl Floor {
    pub(crate) fn start(transport: Transport, clients: usize) -> Self {
        let asked = if transport == Transport::LongPoll { Asked::EachTime } else { Asked::Once };
        let bare = Bare::start(clients, &bare_reply(transport), asked);
        Self { bare: bare.expect("this program can be started again"), transport }
    }
}

impl Server for Floor {
    fn address(&self) -> &Address {
        self.bare.address()
    }

    fn processes(&mut self) -> Vec<Watched> {
        vec![Watched(self.bare.id())]
    }

    fn request(&self, client: usize, cursor: Option<&str>) -> Vec<u8> {
        request(self.transport, client, cursor)
    }

    fn greets(&self) -> bool {
        false
    }

    fn cursor(&self, _: &Reply) -> Option<String> {
        None
    }

    fn publish(&mut self, _: usize) {
        self.bare.write().expect("it runs");
    }
}

/// What the daemon sends, in its length.
fn bare_reply(transport: Transport) -> Vec<u8> {
    let data = data(1);
    let record = r#"{"id":1,"channel_id":"cheese""#;
    let ts = r#""ts":"2026-01-01T00:00:00.000Z""#;
    match transport {
        Transport::LongPoll => {
            let body = format!(r#"[{record},{ts},"data":{{"type":"cheese_made","data":{data}}}}}]"#);
            let head = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nConnection: keep-alive\r\n\
                Content-Type: application/json; charset=utf-8\r\n\
                Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0, no-transform\r\nPragma: no-cache\r\n\
                Expires: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n\
                x-ps-reconnect-in: 0\r\nx-shortpoll-info: false\r\nx-ps-cursor: 1\r\n";
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }
        Transport::EventSource => format!("event: cheese_made\ndata: {data}\nid: 1\n\n").into_bytes(),
        Transport::WebSocket => {
            let text = format!(r#"{record},"type":"cheese_made","data":{data},{ts}}}"#);
            // One frame; its length fits into sixteen bits.
            let length = u16::try_from(text.len()).expect("it is short").to_be_bytes();
            [&[0x81, 126], &length[..], text.as_bytes()].concat()
        }
    }
}

/// The daemon.
struct Everpoll {
    // In this order: it goes before its log.
    daemon: Daemon,
    publisher: Publisher,
    transport: Transport,
    _log: Log,
}

/// Who publishes.
enum Publisher {
    Postgres(Box<postgres::Client>, postgres::Statement),
    Sqlite(rusqlite::Connection),
    Http,
}

impl Everpoll {
    fn start(log: Log, transport: Transport, over_http: bool) -> Self {
        let daemon =
            Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600).setting("EVERPOLL_HEARTBEAT", 300);
        let daemon = daemon.start();
        let publisher = match &log {
            _ if over_http => Publisher::Http,
            Log::Postgres(database) => {
                let mut client = database.connect();
                let insert = "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'cheese_made', $1::text::json)";
                let insert = client.prepare(insert).expect("the daemon's layout is there");
                Publisher::Postgres(Box::new(client), insert)
            }
            Log::Sqlite(file) => Publisher::Sqlite(sqlite::open(&file.path())),
        };
        Self { daemon, publisher, transport, _log: log }
    }
}

impl Server for Everpoll {
    fn address(&self) -> &Address {
        self.daemon.address()
    }

    fn processes(&mut self) -> Vec<Watched> {
        vec![Watched(self.daemon.process().id())]
    }

    fn request(&self, client: usize, cursor: Option<&str>) -> Vec<u8> {
        request(self.transport, client, cursor)
    }

    fn cursor(&self, reply: &Reply) -> Option<String> {
        reply.header("x-ps-cursor").map(str::to_owned)
    }

    fn publish(&mut self, round: usize) {
        let data = data(round);
        match &mut self.publisher {
            Publisher::Postgres(client, insert) => {
                client.execute(insert, &[&data]).expect("the server runs");
            }
            Publisher::Sqlite(file) => {
                let insert = "INSERT INTO events (channel, type, data) VALUES ('cheese', 'cheese_made', ?1)";
                file.execute(insert, [&data]).expect("the file can be written");
            }
            Publisher::Http => {
                let event = format!(r#"{{"channel":"cheese","type":"cheese_made","data":{data}}}"#);
                let reply = http::post_json("/publish", event).send(self.daemon.address());
                assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
            }
        }
    }
}

/// The event of a round.
pub(crate) fn data(round: usize) -> String {
    format!(r#"{{"round":{round},"name":"Sbrinz","weight":4.25,"from":["Obwalden","Nidwalden"]}}"#)
}

/// What a client of Everpoll sends.
fn request(transport: Transport, client: usize, cursor: Option<&str>) -> Vec<u8> {
    let (query, headers) = match transport {
        Transport::LongPoll => ("", ""),
        Transport::EventSource => (EVENTSOURCE.query, EVENTSOURCE.headers),
        Transport::WebSocket => (WEBSOCKET.query, WEBSOCKET.headers),
    };
    let query = format!("last_event_id={}{query}&_={client}", cursor.unwrap_or("now"));
    load::stream("cheese", &format!("browser-{client}"), &query, headers)
}

fn last(replies: &[Reply]) -> Instant {
    replies.iter().map(|reply| reply.at).max().expect("there are clients")
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}
