//! `bench`: what Everpoll costs on this machine, beside other programs and beside the floor, as tables in Markdown.
//!
//! ```text
//! cargo run --release -p everpoll-tests --bin bench -- fanout --repeat 5 --json fanout.json
//! ```
//!
//! Without arguments it lists the benchmarks. The programs are the real ones, with a real PostgreSQL and nginx from the
//! harness, and everything is on loopback. Peers that are not installed are left out by name; `tests/bench/peers/install`
//! installs them.
//!
//! What a newcomer gets wrong: the figures are of one machine, on which clients and servers share the processors. What
//! can be compared with another machine are the ratios, so each table has a floor in it: the same work without Everpoll.

use std::path::PathBuf;
use std::time::Duration;

use everpoll_tests::{Database, Sqlite, process};

mod audience;
mod bare;
mod cgi;
mod fallback;
mod fanout;
mod flow;
mod hold;
mod idle;
mod latency;
mod load;
mod memory;
mod peers;
mod php;
mod proxy;
mod publish;
mod scale;
mod site;
mod sqlite;
mod storm;
mod streams;
mod table;
mod tls;
mod watch;

use bare::Asked;
use fanout::Transport;

const USAGE: &str = "usage: bench NAME… [--repeat N] [--no-peers] [--json FILE] [--quick]

  --repeat N   how often each figure is measured; the median is shown, with the lowest and the highest (default 3)
  --no-peers   measures Everpoll and the floor only
  --json FILE  writes the tables there, too, with each sample
  --quick      only shows that the benchmarks work

NAME is all, or some of:
";

/// How much is measured.
pub(crate) struct Scale {
    /// Held polls, or streams, whose memory is measured.
    pub(crate) held: usize,
    /// Clients that wait for an event: few, some, many.
    pub(crate) waiting: [usize; 3],
    /// Events published to them, in each turn.
    pub(crate) rounds: usize,
    /// How often everything else is repeated.
    pub(crate) runs: usize,
    /// How long one run of it lasts.
    pub(crate) time: Duration,
    /// Clients that lose their daemon.
    pub(crate) storm: usize,
    /// Clients of several daemons.
    pub(crate) many: usize,
    /// Whether other programs are measured as well, where they are installed.
    pub(crate) peers: bool,
}

const FULL: Scale = Scale {
    held: 10_000,
    waiting: [1_000, 5_000, 15_000],
    rounds: 5,
    runs: 3,
    time: Duration::from_secs(3),
    storm: 15_000,
    many: 100_000,
    peers: true,
};

/// To see whether the benchmarks work; the figures mean nothing.
const QUICK: Scale = Scale {
    held: 500,
    waiting: [50, 100, 200],
    rounds: 1,
    runs: 1,
    time: Duration::from_millis(300),
    storm: 500,
    many: 1_000,
    peers: true,
};

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

/// One of them: its names, what it measures, and what does it.
struct Benchmark {
    names: &'static [&'static str],
    about: &'static str,
    run: fn(&Scale) -> table::Table,
}

const fn benchmark(
    names: &'static [&'static str],
    about: &'static str,
    run: fn(&Scale) -> table::Table,
) -> Benchmark {
    Benchmark { names, about, run }
}

const FANOUT: &str = "time until an event is with all who wait for it, and what that costs";

const FLOW: &str = "events a second through 10 channels with 10 subscribers each";

const LATENCY: &str = "time of one event to one subscriber";

const ALL: &[Benchmark] = &[
    benchmark(&["hold", "longpoll"], "memory of held polls", hold::run),
    benchmark(&["hold", "eventsource"], "memory of EventSource streams", streams::eventsource),
    benchmark(&["hold", "websocket"], "memory of WebSockets", streams::websocket),
    benchmark(&["hold", "million"], "memory of held polls after 1,000,000 answers", hold::million),
    benchmark(&["idle"], "processor time of clients that merely wait", idle::run),
    benchmark(
        &["growth"],
        "processor time of an event beside clients and channels that it is not for",
        idle::growth,
    ),
    benchmark(&["hold", "memory"], "memory of held clients beside the peers", memory::run),
    benchmark(&["hold", "proxy"], "memory of held polls in nginx", proxy::run),
    benchmark(&["tls"], "what TLS costs in the daemon, and in nginx in front of it", tls::run),
    benchmark(&["latency"], LATENCY, |scale| latency::run(scale, Transport::LongPoll)),
    benchmark(&["latency"], LATENCY, |scale| latency::run(scale, Transport::EventSource)),
    benchmark(&["latency"], LATENCY, |scale| latency::run(scale, Transport::WebSocket)),
    benchmark(&["fanout", "fanout-longpoll"], FANOUT, |scale| fanout::run(scale, Transport::LongPoll, 0)),
    benchmark(&["fanout", "fanout-longpoll"], FANOUT, |scale| fanout::run(scale, Transport::LongPoll, 1)),
    benchmark(&["fanout", "fanout-longpoll"], FANOUT, |scale| fanout::run(scale, Transport::LongPoll, 2)),
    benchmark(&["fanout", "fanout-eventsource"], FANOUT, |scale| {
        fanout::run(scale, Transport::EventSource, 0)
    }),
    benchmark(&["fanout", "fanout-eventsource"], FANOUT, |scale| {
        fanout::run(scale, Transport::EventSource, 1)
    }),
    benchmark(&["fanout", "fanout-eventsource"], FANOUT, |scale| {
        fanout::run(scale, Transport::EventSource, 2)
    }),
    benchmark(&["fanout", "fanout-websocket"], FANOUT, |scale| fanout::run(scale, Transport::WebSocket, 0)),
    benchmark(&["fanout", "fanout-websocket"], FANOUT, |scale| fanout::run(scale, Transport::WebSocket, 1)),
    benchmark(&["fanout", "fanout-websocket"], FANOUT, |scale| fanout::run(scale, Transport::WebSocket, 2)),
    benchmark(&["flow", "flow-longpoll"], FLOW, |scale| flow::run(scale, Transport::LongPoll)),
    benchmark(&["flow", "flow-eventsource"], FLOW, |scale| flow::run(scale, Transport::EventSource)),
    benchmark(&["flow", "flow-websocket"], FLOW, |scale| flow::run(scale, Transport::WebSocket)),
    benchmark(&["storm", "reconnect"], "15,000 clients lose their daemon and come back", storm::reconnect),
    benchmark(&["storm", "flood"], "15,000 clients lose their daemon for good", storm::flood),
    benchmark(&["scale"], "100,000 polls, held by six daemons behind nginx", scale::run),
    benchmark(&["publish"], "transactions that publish in a second", publish::run),
    benchmark(&["fallback"], "polls that the fallback answers in a second", fallback::run),
    benchmark(&["cgi"], "how long the fallback takes as plain CGI", cgi::run),
];

/// What was asked for.
struct Wish {
    benchmarks: Vec<&'static Benchmark>,
    scale: Scale,
    json: Option<PathBuf>,
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare-polls", clients] => return serve_bare(clients, Asked::EachTime),
        ["bare-streams", clients] => return serve_bare(clients, Asked::Once),
        _ => {}
    }
    let wish = wish(arguments.iter().map(String::as_str)).unwrap_or_else(|problem| usage(&problem));
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build, and so are the programs it starts: add --release");
    }
    // A connection is a file at both ends; the daemon raises its own limit.
    process::raise_file_limit();
    let machine = table::machine();
    println!("{machine}\n");
    let mut tables = Vec::new();
    for benchmark in wish.benchmarks {
        let table = (benchmark.run)(&wish.scale);
        println!("{table}");
        tables.push(table.json());
        // Each time, so that a run that is broken off keeps what it has measured.
        if let Some(file) = &wish.json {
            let text = serde_json::json!({ "machine": machine, "command": arguments, "tables": tables });
            if let Err(error) = std::fs::write(file, format!("{text:#}\n")) {
                eprintln!("cannot write {}: {error}", file.display());
                std::process::exit(1);
            }
        }
    }
}

/// Reads the arguments.
fn wish<'a>(mut arguments: impl Iterator<Item = &'a str>) -> Result<Wish, String> {
    let (mut names, mut repeat, mut json, mut peers, mut quick) = (Vec::new(), None, None, true, false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument {
            "--quick" => quick = true,
            "--no-peers" => peers = false,
            "--json" => json = Some(PathBuf::from(value()?)),
            "--repeat" => {
                let text = value()?;
                let count = text.parse().ok().filter(|count| *count > 0);
                repeat = Some(count.ok_or_else(|| format!("--repeat {text} is not a number from 1 on"))?);
            }
            name if name == "all" || ALL.iter().any(|one| one.names.contains(&name)) => names.push(name),
            other => return Err(format!("there is no benchmark and no option {other}")),
        }
    }
    let is_chosen = |one: &&Benchmark| names.iter().any(|name| *name == "all" || one.names.contains(name));
    let benchmarks: Vec<_> = ALL.iter().filter(is_chosen).collect();
    if benchmarks.is_empty() {
        return Err("name a benchmark".to_owned());
    }
    let scale = if quick { QUICK } else { FULL };
    let scale = Scale { peers, runs: repeat.unwrap_or(scale.runs), ..scale };
    Ok(Wish { benchmarks, scale, json })
}

fn serve_bare(clients: &str, asked: Asked) {
    let clients = clients.parse().unwrap_or_else(|_| usage("how many clients?"));
    // Its clients leave without a word when the benchmark is over.
    let _ = bare::serve(clients, asked);
}

fn usage(problem: &str) -> ! {
    eprintln!("bench: {problem}\n\n{USAGE}");
    for group in ALL.chunk_by(|one, two| one.about == two.about) {
        let mut names: Vec<_> = group.iter().flat_map(|one| one.names).copied().collect();
        names.sort_unstable();
        names.dedup();
        eprintln!("  {:<20} {}", names.join(", "), group[0].about);
    }
    std::process::exit(2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_choose_benchmarks_and_how_often() {
        let wish = |text: &str| wish(text.split(' '));
        let all = wish("hold --repeat 7 --json f").unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!((all.benchmarks.len(), all.scale.runs, all.scale.peers), (6, 7, true));
        assert!(wish("fanout --repeat 0").is_err());
        assert!(wish("--repeat 3").is_err());
        assert!(wish("cheese").is_err());
        assert!(wish("fanout --quick").is_ok_and(|wish| wish.scale.runs == 1));
    }
}
