//! What a held poll costs: the daemon's own memory with none and with ten thousand of them.
//!
//! Measured again after each client was answered three times and came back, since what grows with the requests served
//! would show only then. All on one channel, they are answered with an event; each on its own channel, by the end of
//! their hold, so that the memory for thousands of events is not counted as theirs.

use everpoll_tests::{Address, Daemon, Sqlite, TestDir};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::Scale;
use crate::load::{self, Connection, Reply};
use crate::table::{Table, median, spread};
use crate::watch::Watched;

/// How often each client is answered before memory is looked at again.
const ANSWERS: usize = 3;

/// The first of the holds that end by themselves, in seconds: memory is looked at while it lasts.
const LONG_ENOUGH: u32 = 10;

/// The others: longer than all clients need to ask.
const SHORT: u32 = 3;

/// The most that a held poll may cost, in bytes.
const TARGET: f64 = 1024.0;

/// One way to wait.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    unix: bool,
    one_channel: bool,
}

const CASES: [Case; 4] = [
    Case { name: "TCP, each on its own channel", unix: false, one_channel: false },
    Case { name: "TCP, all on one channel", unix: false, one_channel: true },
    Case { name: "unix socket, each on its own channel", unix: true, one_channel: false },
    Case { name: "unix socket, all on one channel", unix: true, one_channel: true },
];

/// Bytes for each held poll.
struct Cost {
    first: f64,
    later: f64,
}

type Waiting = Vec<JoinHandle<(Connection, Reply)>>;

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let columns = ["bytes for each held poll", "at first", "after three answers"];
    let mut table = Table::new(&format!("Memory at {} held polls", scale.held), &columns);
    let mut worst = 0.0_f64;
    for case in CASES {
        let costs: Vec<_> = (0..scale.runs).map(|_| measure(case, scale.held)).collect();
        let first: Vec<_> = costs.iter().map(|cost| cost.first).collect();
        let later: Vec<_> = costs.iter().map(|cost| cost.later).collect();
        worst = worst.max(median(&first)).max(median(&later));
        table.row(case.name, [spread(&first, 0), spread(&later, 0)]);
    }
    let verdict = if worst < TARGET { "reached" } else { "missed" };
    table.note(format!(
        "The daemon's own (anonymous) memory, less what it had before the first of them. The kernel's memory for sockets \
         is not in it. The aim, less than {TARGET} bytes, is {verdict}."
    ));
    table
}

/// How often all clients are answered in the long run: 1,000,000 polls of 10,000 clients.
const MANY: usize = 100;

/// How often memory is looked at meanwhile.
const LOOKS: usize = 5;

/// Answers the same clients again and again, and returns a table of the memory meanwhile.
pub(crate) fn million(scale: &Scale) -> Table {
    let title = format!("Memory at {} held polls, answered again and again", scale.held);
    let mut table = Table::new(&title, &["polls answered", "bytes for each held poll"]);
    let log = Sqlite::new();
    // Events that are in memory are no poll's: they have a small window, soon full.
    let mut daemon = Daemon::on(log.url())
        .setting("EVERPOLL_HOLD_MAX", 3600)
        .setting("EVERPOLL_WINDOW_BYTES", "64KiB")
        .start();
    let runtime = load::runtime();
    let watched = Watched(daemon.process().id());
    let (mut newest, before) = warm_up(&daemon, watched, 500);
    let case = CASES[1];
    let connections = load::connect(&runtime, daemon.address(), scale.held);
    let mut waiting = ask(&runtime, case, connections, newest, 3600);
    for round in 0..=MANY {
        if round % (MANY / LOOKS) == 0 || round == ANSWERS {
            let bytes = (memory_held(watched, &waiting) as f64 - before as f64) / scale.held as f64;
            table.row((round * scale.held).to_string(), [spread(&[bytes], 0)]);
        }
        if round == MANY {
            break;
        }
        newest = daemon.publish(r#"{"channel":"cheese","type":"cheese_made","data":{"name":"Sbrinz"}}"#)[0];
        let (connections, replies) = load::replies(&runtime, waiting);
        assert!(replies.iter().all(|reply| reply.status() == 200), "not the answer that was due");
        waiting = ask(&runtime, case, connections, newest, 3600);
    }
    table.note("One run: what grows would do so in any.");
    table
}

/// Publishes some events, and returns the id of the last one and the memory then: what the first requests make once and for
/// all is no poll's.
fn warm_up(daemon: &Daemon, watched: Watched, events: usize) -> (u64, u64) {
    let mut newest = 0;
    for _ in 0..events {
        newest = daemon.publish(r#"{"channel":"warm-up","type":"cheese_made","data":{}}"#)[0];
    }
    watched.wait_until_quiet();
    (newest, watched.memory())
}

fn measure(case: Case, count: usize) -> Cost {
    let (log, directory) = (Sqlite::new(), TestDir::new());
    let mut start = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600);
    if case.unix {
        start = start.at(&Address::Unix(directory.join("daemon.sock")));
    }
    let mut daemon = start.start();
    // Behind the daemon, so that the clients go before it does.
    let runtime = load::runtime();
    let watched = Watched(daemon.process().id());
    let (mut newest, before) = warm_up(&daemon, watched, 50);
    let each = |memory: u64| (memory as f64 - before as f64) / count as f64;

    let connections = load::connect(&runtime, daemon.address(), count);
    let hold = if case.one_channel { 3600 } else { LONG_ENOUGH };
    let mut waiting = ask(&runtime, case, connections, newest, hold);
    let first = each(memory_held(watched, &waiting));
    for answer in 1..=ANSWERS {
        if case.one_channel {
            let event = r#"{"channel":"cheese","type":"cheese_made","data":{"name":"Sbrinz"}}"#;
            newest = daemon.publish(event)[0];
        }
        let (connections, replies) = load::replies(&runtime, waiting);
        for reply in replies {
            let is_empty = reply.body() == b"[]";
            assert!(reply.status() == 200 && is_empty != case.one_channel, "not the answer that was due");
        }
        let hold = if case.one_channel || answer == ANSWERS { 3600 } else { SHORT };
        waiting = ask(&runtime, case, connections, newest, hold);
        if case.one_channel {
            watched.wait_until_quiet();
        }
    }
    let later = each(memory_held(watched, &waiting));
    Cost { first, later }
}

/// Asks for what follows `cursor`, and not for what follows now: a poll that the daemon reads late gets its event, too.
fn ask(runtime: &Runtime, case: Case, connections: Vec<Connection>, cursor: u64, hold: u32) -> Waiting {
    load::ask(runtime, connections, move |number| {
        let channel = if case.one_channel { "cheese".to_owned() } else { format!("cheese-{number}") };
        let query = format!("last_event_id={cursor}&hold={hold}&_={number}");
        load::poll(&channel, &format!("browser-{number}"), &query)
    })
}

/// The memory while all of them are held.
fn memory_held(watched: Watched, waiting: &Waiting) -> u64 {
    watched.wait_until_quiet();
    let memory = watched.memory();
    let answered = waiting.iter().filter(|client| client.is_finished()).count();
    assert_eq!(answered, 0, "so many polls were answered before memory was looked at; is the machine busy?");
    memory
}
