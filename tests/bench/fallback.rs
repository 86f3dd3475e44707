//! How many polls the fallback answers behind nginx, beside nginx alone.
//!
//! All ask with the newest cursor and get an empty batch: that is what browsers do while the daemon is away. Once nginx
//! passes straight to the fallback, and once it runs the shipped configuration and finds no daemon at first.

use everpoll_tests::{Address, Fallback, TestDir, WebServer, http};
use tokio::runtime::Runtime;

use crate::load::{self, Pace};
use crate::table::{Better, Table, median, spread};
use crate::watch::Watched;
use crate::{Log, Scale};

/// Clients, each with a connection of its own.
const CONNECTIONS: [usize; 2] = [16, 64];

/// What is asked for.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// `return 200`.
    Return,
    /// A file.
    File,
    /// The fallback.
    Fallback,
    /// The fallback, after the daemon was not there.
    Outage,
}

const WAYS: [Way; 4] = [Way::Return, Way::File, Way::Fallback, Way::Outage];

/// What one way took with so many connections.
#[derive(Default)]
struct Paces {
    per_second: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// A log, the fallback on it, and nginx in front, twice.
struct Site {
    straight: WebServer,
    shipped: WebServer,
    fallback: Watched,
    request: Vec<u8>,
    // What the servers above need for as long as they run.
    _fallback: Fallback,
    _log: Log,
    _directory: TestDir,
}

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let columns = [
        "connections",
        "16: requests a second",
        "p50 ms",
        "p99 ms",
        "64: requests a second",
        "p50 ms",
        "p99 ms",
    ];
    let mut table = Table::new("The fallback behind nginx, empty polls", &columns);
    let logs = [("PostgreSQL", Site::start(Log::postgres())), ("SQLite", Site::start(Log::sqlite()))];
    let runtime = load::runtime();
    let mut rows: Vec<(String, Vec<Paces>)> = Vec::new();
    let (mut idle, mut loaded) = (Vec::new(), Vec::new());
    for (name, site) in &logs {
        idle.push((*name, site.memory()));
    }
    for _ in 0..scale.runs {
        let mut row = 0;
        for (number, (log, site)) in logs.iter().enumerate() {
            // nginx alone is the same on both.
            for way in WAYS.into_iter().filter(|way| number == 0 || way.is_ours()) {
                if rows.len() == row {
                    rows.push((way.name(log), CONNECTIONS.map(|_| Paces::default()).into()));
                }
                for (connections, paces) in CONNECTIONS.into_iter().zip(&mut rows[row].1) {
                    paces.add(&site.pace(&runtime, way, connections, scale));
                }
                row += 1;
            }
        }
    }
    for (name, site) in &logs {
        loaded.push((*name, site.memory()));
    }
    for (name, paces) in &rows {
        let cells = paces.iter().flat_map(|Paces { per_second, p50, p99 }| {
            [spread(per_second, 0), spread(p50, 2), spread(p99, 2)]
        });
        table.row(name.clone(), cells);
    }
    table.compare(Better::More, [1, 4]);
    table.compare(Better::Less, [2, 3, 5, 6]);
    let rate = |row: usize| median(&rows[row].1[1].per_second);
    table.note(format!(
        "At 64 connections the fallback on PostgreSQL answers {:.0} % of what nginx alone does with `return 200`. The \
         clients, nginx, the fallback and the database share the processors.",
        rate(2) / rate(0) * 100.0,
    ));
    let list = |memory: &[(&str, f64)]| {
        memory.iter().map(|(log, mb)| format!("{mb:.1} MB ({log})")).collect::<Vec<_>>().join(", ")
    };
    table.note(format!("The fallback's own memory: {} before, {} after.", list(&idle), list(&loaded)));
    table
}

impl Way {
    fn is_ours(self) -> bool {
        matches!(self, Self::Fallback | Self::Outage)
    }

    fn name(self, log: &str) -> String {
        match self {
            Self::Return => "floor: nginx, `return 200`".to_owned(),
            Self::File => "floor: nginx, a file".to_owned(),
            Self::Fallback => format!("fallback on {log}"),
            Self::Outage => format!("fallback on {log}, no daemon"),
        }
    }
}

impl Paces {
    fn add(&mut self, pace: &Pace) {
        assert_eq!(pace.refused, 0, "polls were refused");
        self.per_second.push(pace.per_second);
        self.p50.push(pace.p50.as_secs_f64() * 1000.0);
        self.p99.push(pace.p99.as_secs_f64() * 1000.0);
    }
}

impl Site {
    fn start(log: Log) -> Self {
        let directory = TestDir::new();
        let file = directory.file("floor.json", "[]");
        // Nobody listens there.
        let daemon = Address::Unix(directory.join("daemon.sock"));
        let mut fallback = Fallback::on(log.url()).start();
        let floors = format!(
            "location = /floor/return {{ default_type application/json; return 200 '[]'; }}\n\
             location = /floor/file {{ default_type application/json; alias {}; }}\n",
            file.display()
        );
        let straight = WebServer::nginx_with(&daemon, fallback.address(), |text| {
            if text.contains(FALLBACK) { floors.clone() + &without_daemon(text) } else { text.to_owned() }
        });
        let shipped = WebServer::nginx(&daemon, fallback.address());
        let event = ["publish", "cheese", "cheese_made", "{}"];
        let published = everpoll_tests::everpoll::command_line(&log.url(), &event, b"");
        assert!(published.status.success(), "{}", published.stderr);
        let cursor = http::get("/e/cheese/browser?last_event_id=now").send(straight.address()).cursor();
        let id = fallback.process().id();
        let request = load::poll("cheese", "browser", &format!("last_event_id={cursor}"));
        Self {
            straight,
            shipped,
            fallback: Watched(id),
            request,
            _fallback: fallback,
            _log: log,
            _directory: directory,
        }
    }

    fn pace(&self, runtime: &Runtime, way: Way, connections: usize, scale: &Scale) -> Pace {
        let server = if way == Way::Outage { &self.shipped } else { &self.straight };
        let request = match way {
            Way::Return => load::get("/floor/return"),
            Way::File => load::get("/floor/file"),
            Way::Fallback | Way::Outage => self.request.clone(),
        };
        load::closed_loop(runtime, server.address(), connections, &request, 200, scale.time)
    }

    /// The fallback's own, in megabytes.
    fn memory(&self) -> f64 {
        self.fallback.memory() as f64 / 1024.0 / 1024.0
    }
}

const POLLS: &str = "location ^~ /e/ {";
const FALLBACK: &str = "location @everpoll_fallback {";

/// The shipped locations, with polls passed straight to the fallback, as if nobody had ever set up a daemon.
fn without_daemon(text: &str) -> String {
    let polls = block(text, POLLS);
    text.replace(polls, &block(text, FALLBACK).replace(FALLBACK, POLLS))
}

/// From the line that begins a location to the brace that ends it.
fn block<'a>(text: &'a str, begin: &str) -> &'a str {
    let from =
        text.find(begin).unwrap_or_else(|| panic!("the shipped configuration no longer says {begin:?}"));
    let length = text[from..].find("\n}\n").expect("a location ends");
    &text[from..from + length + 2]
}
