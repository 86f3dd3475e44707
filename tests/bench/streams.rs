//! What a stream costs that is open and quiet: the daemon's own memory with none and with ten thousand of them.
//!
//! Measured when each has said hello, and again when all have been sent three events: what grows with the events written
//! would show only then. What a newcomer might miss: a heartbeat is an answer to wait for and bytes to read, so there is none
//! while memory is looked at.

use everpoll_tests::{Address, Daemon, Sqlite, TestDir};
use tokio::runtime::Runtime;

use crate::Scale;
use crate::load::{self, Connection};
use crate::table::{Table, median, spread};
use crate::watch::Watched;

/// Events sent to all streams of a channel before memory is looked at again.
const EVENTS: usize = 3;

/// A way to stream.
pub(crate) struct Transport {
    pub(crate) name: &'static str,
    pub(crate) query: &'static str,
    pub(crate) headers: &'static str,
    /// The most that an idle one may cost, in bytes.
    target: f64,
}

pub(crate) const EVENTSOURCE: Transport =
    Transport { name: "EventSource", query: "", headers: "Accept: text/event-stream\r\n", target: 1536.0 };

pub(crate) const WEBSOCKET: Transport = Transport {
    name: "WebSocket",
    query: "&flavor=websocket",
    headers: "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://localhost\r\n",
    target: 2560.0,
};

/// One way to be connected.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    unix: bool,
    one_channel: bool,
}

const CASES: [Case; 3] = [
    Case { name: "TCP, each on its own channel", unix: false, one_channel: false },
    Case { name: "TCP, all on one channel", unix: false, one_channel: true },
    Case { name: "unix socket, all on one channel", unix: true, one_channel: true },
];

/// Runs it for EventSource.
pub(crate) fn eventsource(scale: &Scale) -> Table {
    run(scale, &EVENTSOURCE)
}

/// Runs it for WebSocket.
pub(crate) fn websocket(scale: &Scale) -> Table {
    run(scale, &WEBSOCKET)
}

fn run(scale: &Scale, transport: &Transport) -> Table {
    let first = format!("bytes for each {}", transport.name);
    let title = format!("Memory at {} idle {}s", scale.held, transport.name);
    let mut table = Table::new(&title, &[&first, "after hello", "after three events"]);
    let mut worst = 0.0_f64;
    for case in CASES {
        let costs: Vec<_> = (0..scale.runs).map(|_| measure(transport, case, scale.held)).collect();
        let first: Vec<_> = costs.iter().map(|cost| cost.0).collect();
        let later: Vec<_> = costs.iter().filter_map(|cost| cost.1).collect();
        worst = worst.max(median(&first)).max(if later.is_empty() { 0.0 } else { median(&later) });
        table.row(case.name, [spread(&first, 0), spread(&later, 0)]);
    }
    let (target, verdict) = (transport.target, if worst < transport.target { "reached" } else { "missed" });
    table.note(format!(
        "The daemon's own (anonymous) memory, less what it had before the first of them. The kernel's memory for sockets \
         is not in it. The aim, less than {target} bytes, is {verdict}."
    ));
    table
}

/// Bytes for each stream, after its hello and after the events.
fn measure(transport: &Transport, case: Case, count: usize) -> (f64, Option<f64>) {
    let (log, directory) = (Sqlite::new(), TestDir::new());
    let mut start = Daemon::on(log.url()).setting("EVERPOLL_HEARTBEAT", 300);
    if case.unix {
        start = start.at(&Address::Unix(directory.join("daemon.sock")));
    }
    let mut daemon = start.start();
    // Behind the daemon, so that the clients go before it does.
    let runtime = load::runtime();
    let watched = Watched(daemon.process().id());
    let mut newest = 0;
    // What the first of each kind makes once and for all is no stream's.
    for _ in 0..50 {
        newest = daemon.publish(r#"{"channel":"warm-up","type":"cheese_made","data":{}}"#)[0];
    }
    let warm = load::connect(&runtime, daemon.address(), 1);
    drop(open(&runtime, transport, case, newest, warm));
    watched.wait_until_quiet();
    let before = watched.memory();
    let each = |memory: u64| (memory as f64 - before as f64) / count as f64;

    let connections = load::connect(&runtime, daemon.address(), count);
    let mut connections = open(&runtime, transport, case, newest, connections);
    watched.wait_until_quiet();
    let first = each(watched.memory());
    if !case.one_channel {
        return (first, None);
    }
    for number in 0..EVENTS {
        let kind = format!("cheese_made_{number}");
        let event = format!(r#"{{"channel":"cheese","type":"{kind}","data":{{"name":"Sbrinz"}}}}"#);
        daemon.publish(&event);
        connections = read(&runtime, connections, kind.into_bytes(), None);
    }
    watched.wait_until_quiet();
    (first, Some(each(watched.memory())))
}

/// Opens a stream on each connection and waits until all have said hello.
fn open(
    runtime: &Runtime,
    transport: &Transport,
    case: Case,
    cursor: u64,
    connections: Vec<Connection>,
) -> Vec<Connection> {
    let request = |number: usize| {
        let channel = if case.one_channel { "cheese".to_owned() } else { format!("cheese-{number}") };
        let query = format!("last_event_id={cursor}{}&_={number}", transport.query);
        load::stream(&channel, &format!("browser-{number}"), &query, transport.headers)
    };
    let requests = (0..connections.len()).map(request).collect();
    read(runtime, connections, b"everpoll:hello".to_vec(), Some(requests))
}

/// Lets each connection ask, if there is something to ask, and read until `sign` has come.
fn read(
    runtime: &Runtime,
    connections: Vec<Connection>,
    sign: Vec<u8>,
    requests: Option<Vec<Vec<u8>>>,
) -> Vec<Connection> {
    let count = connections.len();
    let requests = requests.unwrap_or_else(|| vec![Vec::new(); count]);
    let reading: Vec<_> = connections
        .into_iter()
        .zip(requests)
        .map(|(connection, request)| {
            let sign = sign.clone();
            runtime.spawn(async move {
                connection.ask(&request).await?;
                connection.read_until(&sign).await?;
                Ok::<_, std::io::Error>(connection)
            })
        })
        .collect();
    let all = async {
        let mut connections = Vec::with_capacity(count);
        for reader in reading {
            let read = reader.await.expect("it does not panic");
            connections.push(read.unwrap_or_else(|error| panic!("a stream broke: {error}")));
        }
        connections
    };
    let all = runtime.block_on(async { tokio::time::timeout(load::PATIENCE, all).await });
    all.unwrap_or_else(|_| panic!("after {:?} not all of {count} streams have said it", load::PATIENCE))
}
