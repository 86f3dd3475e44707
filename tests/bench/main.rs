//! `bench`: what Everpoll costs on this machine, as tables in Markdown.
//!
//! ```text
//! cargo run --release -p everpoll-tests --bin bench -- hold|eventsource|websocket|fanout|publish|fallback|all [--quick]
//! ```
//!
//! The programs are the real ones, with a real PostgreSQL and nginx from the harness, and everything is on loopback.
//! What a newcomer gets wrong: the figures are of one machine, on which clients and servers share the processors. What
//! can be compared with another machine are the ratios, so each table has a floor in it: the same work without Everpoll.

use std::time::Duration;

use everpoll_tests::{Database, Sqlite};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod bare;
mod fallback;
mod fanout;
mod hold;
mod load;
mod publish;
mod sqlite;
mod streams;
mod table;
mod watch;

const USAGE: &str = "usage: bench hold|eventsource|websocket|fanout|publish|fallback|all [--quick]";

/// How much is measured.
pub(crate) struct Scale {
    /// Held polls, or streams, whose memory is measured.
    pub(crate) held: usize,
    /// Held polls that wait for an event.
    pub(crate) waiting: usize,
    /// Events published to them, in each turn.
    pub(crate) rounds: usize,
    /// How often everything else is repeated.
    pub(crate) runs: usize,
    /// How long one run of it lasts.
    pub(crate) time: Duration,
}

const FULL: Scale = Scale { held: 10_000, waiting: 5_000, rounds: 5, runs: 3, time: Duration::from_secs(3) };

/// To see whether the benchmarks work; the figures mean nothing.
const QUICK: Scale = Scale { held: 500, waiting: 200, rounds: 1, runs: 1, time: Duration::from_millis(300) };

/// A log of a benchmark's own.
pub(crate) enum Log {
    /// A database on the PostgreSQL server that all benchmarks share.
    Postgres(Database),
    /// A file.
    Sqlite(Sqlite),
}

impl Log {
    /// A new database, with Everpoll's layout.
    pub(crate) fn postgres() -> Self {
        let database = Database::shared();
        database.migrate();
        Self::Postgres(database)
    }

    /// A new file, which its first user fills.
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(Sqlite::new())
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(database) => database.url(),
            Self::Sqlite(file) => file.url(),
        }
    }
}

/// One of them.
type Benchmark = fn(&Scale) -> table::Table;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (what, scale) = match arguments[..] {
        [bare::SERVE, clients] => return serve_bare(clients),
        [what] => (what, FULL),
        [what, "--quick"] => (what, QUICK),
        _ => usage(),
    };
    let all: [(&str, Benchmark); 6] = [
        ("hold", hold::run),
        ("eventsource", streams::eventsource),
        ("websocket", streams::websocket),
        ("fanout", fanout::run),
        ("publish", publish::run),
        ("fallback", fallback::run),
    ];
    let chosen: Vec<_> = all.into_iter().filter(|(name, _)| what == "all" || what == *name).collect();
    if chosen.is_empty() {
        usage();
    }
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build, and so are the programs it starts: add --release");
    }
    // A connection is a file at both ends; the daemon raises its own limit.
    let files = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files });
    println!("{}\n", table::machine());
    for (_, run) in chosen {
        println!("{}", run(&scale));
    }
}

fn serve_bare(clients: &str) {
    let clients = clients.parse().unwrap_or_else(|_| usage());
    // Its clients leave without a word when the benchmark is over.
    let _ = bare::serve(clients);
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2);
}
