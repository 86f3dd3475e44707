//! How many polls the fallback answers behind nginx, beside nginx alone and beside PHP-FPM.
//!
//! All ask with the newest cursor and get an empty batch: that is what browsers do while the daemon is away. Once nginx
//! passes straight to the fallback, and once it runs the shipped configuration and finds no daemon at first.

use everpoll_tests::{Address, Fallback, TestDir, WebServer, http};
use tokio::runtime::Runtime;

use crate::load::{self, Pace};
use crate::php::Php;
use crate::table::{Better, Cell, Table, median, spread};
use crate::watch::{Memory, Watched};
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
    /// PHP-FPM, with one of [`POOLS`].
    Php(usize),
}

const WAYS: [Way; 6] = [Way::Return, Way::File, Way::Fallback, Way::Outage, Way::Php(0), Way::Php(1)];

/// PHP-FPM's processes: as many as the fallback has workers, and as many as there are clients.
const POOLS: [usize; 2] = [8, 64];

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
    php: Vec<Php>,
    request: Vec<u8>,
    php_query: String,
    // What the servers above need for as long as they run.
    _fallback: Fallback,
    log: Log,
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
        "own memory, MB",
        "with its share of files, MB",
    ];
    let mut table = Table::new("The fallback behind nginx, empty polls", &columns);
    let php: Vec<_> = POOLS.into_iter().filter(|_| scale.peers).filter_map(Php::start).collect();
    let has_php = !php.is_empty();
    let logs = [
        ("PostgreSQL", Site::start(Log::postgres(), php)),
        ("SQLite", Site::start(Log::sqlite(), Vec::new())),
    ];
    let runtime = load::runtime();
    let mut rows: Vec<(String, Way, Vec<Paces>, usize)> = Vec::new();
    for _ in 0..scale.runs {
        let mut row = 0;
        for (number, (log, site)) in logs.iter().enumerate() {
            for way in WAYS.into_iter().filter(|way| site.has(*way, number == 0)) {
                if rows.len() == row {
                    rows.push((way.name(log), way, CONNECTIONS.map(|_| Paces::default()).into(), number));
                }
                for (connections, paces) in CONNECTIONS.into_iter().zip(&mut rows[row].2) {
                    paces.add(&site.pace(&runtime, way, connections, scale));
                }
                row += 1;
            }
        }
    }
    for (name, way, paces, log) in &rows {
        let mut cells: Vec<Cell> = paces
            .iter()
            .flat_map(|Paces { per_second, p50, p99 }| {
                [spread(per_second, 0), spread(p50, 2), spread(p99, 2)]
            })
            .collect();
        let megabytes = |bytes: u64| spread(&[bytes as f64 / 1024.0 / 1024.0], 1);
        match logs[*log].1.memory(*way) {
            Some(Memory { own, share }) => cells.extend([megabytes(own), megabytes(share)]),
            None => cells.extend(["".into(), "".into()]),
        }
        match way {
            Way::Php(_) => table.peer(name.clone(), cells),
            _ => table.row(name.clone(), cells),
        }
    }
    table.compare(Better::More, [1, 4]);
    table.compare(Better::Less, [2, 3, 5, 6, 7, 8]);
    let rate = |row: usize| median(&rows[row].2[1].per_second);
    table.note(format!(
        "At 64 connections the fallback on PostgreSQL answers {:.0} % of what nginx alone does with `return 200`. The \
         clients, nginx, the fallback and the database share the processors. Memory is that after the load, of all processes; \
         the database's is not in it.",
        rate(2) / rate(0) * 100.0,
    ));
    if let Log::Postgres(database) = &logs[0].1.log {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'everpoll-fallback'";
        let connections = database.psql(count);
        table.note(format!(
            "The fallback had made {} connections to PostgreSQL in the end; PHP-FPM makes one for each process.",
            connections.trim()
        ));
    }
    if scale.peers && !has_php {
        table.note("PHP-FPM is not installed, so its row is missing: `tests/bench/peers/install php`.");
    }
    table
}

impl Way {
    fn name(self, log: &str) -> String {
        match self {
            Self::Return => "floor: nginx, `return 200`".to_owned(),
            Self::File => "floor: nginx, a file".to_owned(),
            Self::Fallback => format!("fallback on {log}"),
            Self::Outage => format!("fallback on {log}, no daemon"),
            Self::Php(pool) => format!("PHP-FPM, {} processes", POOLS[pool]),
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
    fn start(log: Log, php: Vec<Php>) -> Self {
        let directory = TestDir::new();
        let file = directory.file("floor.json", "[]");
        // Nobody listens there.
        let daemon = Address::Unix(directory.join("daemon.sock"));
        let mut fallback = Fallback::on(log.url()).start();
        let locations =
            php.iter().enumerate().map(|(pool, php)| php.location(&format!("php{pool}"), &log.url()));
        let floors = locations.collect::<String>()
            + &format!(
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
        let query = format!("last_event_id={cursor}");
        let request = load::poll("cheese", "browser", &query);
        Self {
            straight,
            shipped,
            fallback: Watched(id),
            php,
            request,
            php_query: query,
            _fallback: fallback,
            log,
            _directory: directory,
        }
    }

    fn pace(&self, runtime: &Runtime, way: Way, connections: usize, scale: &Scale) -> Pace {
        let server = if way == Way::Outage { &self.shipped } else { &self.straight };
        let request = match way {
            Way::Return => load::get("/floor/return"),
            Way::File => load::get("/floor/file"),
            Way::Fallback | Way::Outage => self.request.clone(),
            Way::Php(pool) => load::get(&format!("/php{pool}/cheese/browser?{}", self.php_query)),
        };
        load::closed_loop(runtime, server.address(), connections, &request, 200, scale.time)
    }

    /// Whether this way is there; nginx alone is the same on both logs, so `first` has it.
    fn has(&self, way: Way, first: bool) -> bool {
        match way {
            Way::Return | Way::File => first,
            Way::Fallback | Way::Outage => true,
            Way::Php(pool) => pool < self.php.len(),
        }
    }

    fn memory(&self, way: Way) -> Option<Memory> {
        match way {
            Way::Return | Way::File => None,
            Way::Fallback | Way::Outage => Some(self.fallback.all_memory()),
            Way::Php(pool) => self.php.get(pool).map(Php::memory),
        }
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
