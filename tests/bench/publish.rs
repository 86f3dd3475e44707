//! How many transactions publish in a second, beside an application that inserts the same row into a table of its own.
//!
//! Everything is durable: an insert returns, and a publish is answered, when the disk has it. The daemon runs and
//! follows the log meanwhile, as it does in real life. Runs take turns: a disk has fast and slow minutes.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use everpoll_tests::{Daemon, Database};

use crate::load;
use crate::table::{Cell, Table, median, spread};
use crate::watch::Watched;
use crate::{Log, Scale, sqlite};

/// Writers in SQL.
const WRITERS: [usize; 2] = [1, 16];

/// Connections that publish over HTTP.
const CONNECTIONS: [usize; 3] = [1, 16, 64];

const DATA: &str = r#"{"name":"Sbrinz","weight":4.25,"from":["Obwalden","Nidwalden"]}"#;

/// The application's own table, on either database.
const PLAIN_POSTGRES: &str = "CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, channel text NOT NULL, type text NOT NULL, data json NOT NULL)";
const PLAIN_SQLITE: &str = "CREATE TABLE plain (id integer PRIMARY KEY AUTOINCREMENT, channel text NOT NULL, type text NOT NULL, data text NOT NULL) STRICT";

/// One way to write, by so many at once.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain(usize),
    Insert(usize),
    /// Transactions commit one by one, with `everpoll.serial_commits`. Only PostgreSQL has it.
    Serial(usize),
    /// Beside so many held polls.
    Held(usize, usize),
    Http(usize),
}

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let mut table = Table::new("Publishing", &["transactions a second", "PostgreSQL", "SQLite"]);
    let ways: Vec<_> = WRITERS
        .into_iter()
        .flat_map(|writers| {
            [Way::Plain(writers), Way::Insert(writers), Way::Held(writers, scale.held), Way::Serial(writers)]
        })
        .chain(CONNECTIONS.into_iter().map(Way::Http))
        .collect();
    let mut rates: Vec<_> = ways.iter().map(|way| (*way, [Vec::new(), Vec::new()])).collect();
    for _ in 0..scale.runs {
        for (number, log) in [Log::postgres(), Log::sqlite()].into_iter().enumerate() {
            let mut daemon = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600).start();
            make_plain_table(&log);
            for (way, rates) in &mut rates {
                rates[number].extend(way.rate(&log, &mut daemon, scale.time));
            }
        }
    }
    for (way, rates) in &rates {
        let cells = rates.iter().map(|rates| match &rates[..] {
            [] => Cell::Text(String::new()),
            rates => spread(rates, 0),
        });
        table.row(way.name(), cells);
    }
    let of = |wanted: Way, log: usize| {
        rates.iter().find(|(way, _)| *way == wanted).map_or(0.0, |(_, rates)| median(&rates[log]))
    };
    let share =
        |writers: usize, log: usize| of(Way::Insert(writers), log) / of(Way::Plain(writers), log) * 100.0;
    table.note(format!(
        "Publishing in SQL reaches {:.0} % of the plain insert with 1 writer and {:.0} % with 16 on PostgreSQL, {:.0} % \
         and {:.0} % on SQLite. A transaction is one event; over HTTP many requests share a commit. With 16 writers, \
         SQLite's wait for their turn by sleeping.",
        share(1, 0),
        share(16, 0),
        share(1, 1),
        share(16, 1),
    ));
    table
}

impl Way {
    fn name(self) -> String {
        let beside;
        let (what, count, by) = match self {
            Self::Plain(count) => ("floor: plain INSERT", count, "writer"),
            Self::Insert(count) => ("INSERT of an event", count, "writer"),
            Self::Held(count, held) => {
                beside = format!("the same beside {held} held polls");
                (&*beside, count, "writer")
            }
            Self::Serial(count) => ("the same with serial_commits", count, "writer"),
            Self::Http(count) => ("POST /publish", count, "connection"),
        };
        format!("{what}, {count} {by}{}", if count == 1 { "" } else { "s" })
    }

    /// Transactions a second, where there is such a way.
    fn rate(self, log: &Log, daemon: &mut Daemon, time: Duration) -> Option<f64> {
        Some(match self {
            Self::Plain(writers) => insert(log, "plain", writers, time),
            Self::Insert(writers) => insert(log, "events", writers, time),
            Self::Serial(writers) => {
                let Log::Postgres(database) = log else { return None };
                let set =
                    |to| format!("ALTER DATABASE {} SET everpoll.serial_commits = {to}", database.name());
                database.psql(&set("on"));
                let rate = insert(log, "events", writers, time);
                database.psql(&set("off"));
                rate
            }
            Self::Held(writers, held) => {
                let runtime = load::runtime();
                let connections = load::connect(&runtime, daemon.address(), held);
                let waiting = load::ask(&runtime, connections, |number| {
                    load::poll(&format!("quiet-{number}"), &format!("browser-{number}"), "hold=3600")
                });
                Watched(daemon.process().id()).wait_until_quiet();
                let rate = insert(log, "events", writers, time);
                assert!(!waiting.iter().any(|client| client.is_finished()), "a poll was answered");
                rate
            }
            Self::Http(connections) => {
                let event = format!(r#"{{"channel":"cheese","type":"cheese_made","data":{DATA}}}"#);
                let (runtime, request) = (load::runtime(), load::publish(&event));
                let pace = load::closed_loop(&runtime, daemon.address(), connections, &request, 201, time);
                assert_eq!(pace.refused, 0, "publishes were refused");
                pace.per_second
            }
        })
    }
}

fn make_plain_table(log: &Log) {
    match log {
        Log::Postgres(database) => drop(database.psql(PLAIN_POSTGRES)),
        Log::Sqlite(file) => sqlite::open(&file.path()).execute_batch(PLAIN_SQLITE).expect("a new file"),
    }
}

/// Inserts of one row each, by so many writers, a second.
fn insert(log: &Log, table: &str, writers: usize, time: Duration) -> f64 {
    let ready = Barrier::new(writers);
    let counted: usize = std::thread::scope(|scope| {
        let writing: Vec<_> = (0..writers)
            .map(|_| {
                scope.spawn(|| {
                    let mut insert = writer(log, table);
                    ready.wait();
                    repeat(&mut insert, time)
                })
            })
            .collect();
        writing.into_iter().map(|writer| writer.join().expect("it panicked with the reason")).sum()
    });
    counted as f64 / time.as_secs_f64()
}

/// How often it was done in `time`, after a fifth of that for warming up.
fn repeat(insert: &mut dyn FnMut(), time: Duration) -> usize {
    let begin = Instant::now() + time / 5;
    let end = begin + time;
    let mut count = 0;
    loop {
        let start = Instant::now();
        if start >= end {
            return count;
        }
        insert();
        count += usize::from(start >= begin && Instant::now() <= end);
    }
}

/// What inserts one row, on a connection of its own.
fn writer(log: &Log, table: &str) -> Box<dyn FnMut()> {
    match log {
        Log::Postgres(database) => postgres_writer(database, table),
        Log::Sqlite(file) => {
            let connection = sqlite::open(&file.path());
            let sql =
                format!("INSERT INTO {table} (channel, type, data) VALUES ('cheese', 'cheese_made', ?1)");
            Box::new(move || {
                let mut insert = connection.prepare_cached(&sql).expect("the table is there");
                insert.execute([DATA]).expect("the file can be written");
            })
        }
    }
}

fn postgres_writer(database: &Database, table: &str) -> Box<dyn FnMut()> {
    let table = if table == "events" { "everpoll.events" } else { table };
    let sql =
        format!("INSERT INTO {table} (channel, type, data) VALUES ('cheese', 'cheese_made', $1::text::json)");
    let mut client = database.connect();
    let insert = client.prepare(&sql).expect("the table is there");
    Box::new(move || {
        client.execute(&insert, &[&DATA]).expect("the server runs");
    })
}
