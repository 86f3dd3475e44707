//! Everpoll's own client, left to its defaults, behind every proxy there is: real ones, stock and hostile, and our own that
//! cuts on command. Events come in fits and starts, with pauses in which holds are really cut. Each client gets each event
//! exactly once, and what is cut stops being cut: after two errors at most there is none.
//!
//! The clients run in node, all in one process (`tests/js/proxies/gauntlet.mjs`), each in a network of its own (127.0.x.2):
//! the daemon remembers for a network what was cut there. With `EVERPOLL_TEST_LONG` set all proxies take part for three
//! minutes, with their real limits and the daemon's real holds. Without, it is the most hostile ones, and all times are a
//! third.

use std::fmt::Write as _;
use std::time::Duration;

use everpoll_tests::cutter::{Cutter, Mode};
use everpoll_tests::http::Address;
use everpoll_tests::pollers::Reading;
use everpoll_tests::proxies::{Kind, Proxy};
use everpoll_tests::{Daemon, Database, Script};
use serde_json::{Value, json};

use crate::judge;
use crate::writers::Random;

mod adaptive;
mod matrix;

/// How many errors a client may see before it has found out what its network lets live.
const ERRORS_MAX: usize = 2;

/// How late an event may come where nothing is ever cut. Generous: the machine is busy with other tests.
const LATE: i64 = 20_000;

/// What the client may be asked to use; where that does not work it must find out.
const TRANSPORTS: [&str; 3] = ["long-poll", "eventsource", "websocket"];

#[test]
fn client_gets_everything_once_through_every_proxy() {
    let long = std::env::var_os("EVERPOLL_TEST_LONG").is_some();
    let run = if long { Run::long() } else { Run::short() };
    let reports = run.go(Random::seeded());
    eprintln!("{}", reports.table());
    reports.judge();
}

/// What takes part, and how long things take.
struct Run {
    /// The real ones, with another limit than usual where there is one.
    proxies: Vec<(Kind, Option<u32>)>,
    cutters: Vec<(&'static str, Vec<Mode>)>,
    hold_max: u32,
    /// How long is published, and how long the pauses are; ms.
    publishes: u64,
    pauses: std::ops::Range<u64>,
}

impl Run {
    fn long() -> Self {
        Self {
            proxies: Kind::ALL.iter().map(|kind| (*kind, None)).collect(),
            cutters: cutters(Duration::from_secs(20)),
            hold_max: 25,
            publishes: 180_000,
            pauses: 26_000..50_000,
        }
    }

    fn short() -> Self {
        let hostile = [
            Kind::SquidHostile,
            Kind::TinyproxyAnonymous,
            Kind::E2guardian,
            Kind::ApacheReverse,
            Kind::NginxCache,
        ];
        Self {
            // E2guardian takes no limit below 20, and is there for what it keeps to itself.
            proxies: hostile.map(|kind| (kind, (kind != Kind::E2guardian).then_some(6))).to_vec(),
            cutters: cutters(Duration::from_secs(6)),
            hold_max: 7,
            publishes: 34_000,
            // Longer than what a blackhole takes to be noticed: a hold and ten seconds.
            pauses: 18_000..20_000,
        }
    }

    /// Starts everything, publishes, and returns what the clients say.
    fn go(self, random: Random) -> Reports {
        let database = Database::shared();
        database.migrate();
        let daemon = Daemon::on(database.url()).setting("EVERPOLL_HOLD_MAX", self.hold_max).start();
        let proxies = start(&self.proxies, &daemon);
        // Each stands before the next, the last before the daemon.
        let cutters: Vec<(_, Vec<Cutter>)> = self
            .cutters
            .iter()
            .map(|(name, modes)| {
                let mut chain: Vec<Cutter> = Vec::new();
                for mode in modes.iter().rev() {
                    let origin = chain.last().map_or(daemon.address(), Cutter::address).clone();
                    chain.push(Cutter::before(&origin, *mode));
                }
                (*name, chain)
            })
            .collect();
        let mut doors = vec![("none", daemon.address(), false)];
        doors.extend(
            proxies.iter().map(|proxy| (proxy.kind().name(), proxy.address(), proxy.kind().is_forward())),
        );
        doors.extend(
            cutters.iter().map(|(name, chain)| (*name, chain.last().expect("not empty").address(), false)),
        );

        let mut networks = 10..=255_u8;
        let mut way = |address: &Address, forward| {
            way(address, forward, &daemon, networks.next().expect("there are fewer than that"))
        };
        let mut clients = Vec::new();
        for (name, address, forward) in &doors {
            for transport in TRANSPORTS {
                clients.push(json!({
                    "name": format!("{name}/{transport}"),
                    "way": way(address, *forward),
                    "transport": transport,
                    // As old browsers have it, and the harder case.
                    "partial": name.starts_with("truncate"),
                }));
            }
        }
        let mut reports = Reports::default();
        let mut published = 0;
        let patience = 60_000;
        let log = Script::node("proxies/gauntlet.mjs")
            .with("clients", clients)
            .with("gaps", gaps(random, self.publishes, &self.pauses))
            .with("patience", patience)
            .within((self.publishes + patience) / 1000 + 60)
            .run(|command| match command.split_once(' ').unwrap_or((command, "")) {
                ("publish", _) => {
                    published += 1;
                    let event =
                        json!({ "channel": "cheese", "type": "cheese_created", "data": { "n": published } });
                    daemon.publish(&event.to_string())[0].to_string()
                }
                ("client", report) => {
                    reports.clients.push(serde_json::from_str(report).expect("it is JSON"));
                    "thanks".to_owned()
                }
                (other, _) => panic!("the script wants {other:?}"),
            });
        reports.log = log
            .lines()
            .filter(|line| !line.contains(" @") && !line.contains(" > "))
            .collect::<Vec<_>>()
            .join("\n");
        reports.published = judge::events_of(&database);
        reports
    }
}

/// Starts these in front of the daemon, all at once, some with another limit than usual.
fn start(kinds: &[(Kind, Option<u32>)], daemon: &Daemon) -> Vec<Proxy> {
    std::thread::scope(|scope| {
        let start = |(kind, limit): &(Kind, Option<u32>)| {
            let proxy = Proxy::before(daemon.address(), *kind);
            let limit = limit.unwrap_or_else(|| kind.usual_limit());
            scope.spawn(move || proxy.limit(limit).start())
        };
        let starting: Vec<_> = kinds.iter().map(start).collect();
        starting.into_iter().map(|proxy| proxy.join().expect("it starts")).collect()
    })
}

/// How a client reaches the daemon, as `tests/js/proxies/network.mjs` takes it. Each `network` (127.0.x.2) is one for which
/// the daemon remembers things.
fn way(address: &Address, forward: bool, daemon: &Daemon, network: u8) -> Value {
    let Address::Tcp(address) = address else { panic!("{address} is not TCP") };
    json!({
        "host": address.ip().to_string(),
        "port": address.port(),
        "origin": daemon.address().to_string(),
        "forward": forward,
        "from": format!("127.0.{network}.2"),
    })
}

/// Our own, with this limit where they have one.
fn cutters(limit: Duration) -> Vec<(&'static str, Vec<Mode>)> {
    vec![
        ("fin", vec![Mode::Fin(limit)]),
        ("rst", vec![Mode::Rst(limit)]),
        ("blackhole", vec![Mode::Blackhole(limit)]),
        ("504", vec![Mode::GatewayTimeout(limit)]),
        ("html-200", vec![Mode::Html200(limit)]),
        ("http-1.0", vec![Mode::Http10]),
        ("buffer", vec![Mode::Buffer]),
        ("truncate", vec![Mode::Truncate(3)]),
        ("duplicate", vec![Mode::Duplicate]),
        ("strip+cache", vec![Mode::Strip, Mode::Cache]),
    ]
}

/// The pauses before each publish, ms: a few short ones, a long one, and so on.
fn gaps(mut random: Random, total: u64, pauses: &std::ops::Range<u64>) -> Vec<u64> {
    let (mut gaps, mut sum) = (Vec::new(), 0);
    while sum < total {
        for _ in 0..6 {
            gaps.push(random.below(1500));
        }
        gaps.push(pauses.start + random.below(pauses.end - pauses.start));
        sum = gaps.iter().sum();
    }
    gaps
}

/// What the clients say.
#[derive(Default)]
struct Reports {
    clients: Vec<Value>,
    published: Vec<judge::Event>,
    log: String,
}

impl Reports {
    /// All that is wrong.
    #[track_caller]
    fn judge(&self) {
        let (mut wrong, ledger) = (String::new(), judge::ledger_of(&self.published));
        for client in &self.clients {
            let name = client["name"].as_str().unwrap_or_default();
            let events = client["events"].as_array().into_iter().flatten();
            let reading = Reading {
                channels: vec!["cheese".to_owned()],
                began_after: client["began"].as_str().and_then(|began| began.parse().ok()),
                events: events
                    .filter_map(|event| Some((event["id"].as_u64()?, "cheese".to_owned())))
                    .collect(),
                ..Reading::default()
            };
            let report = judge::judge(&ledger, [&reading]);
            if !report.kept || client["gaps"] != 0 {
                let (broken, findings) = (&report.broken, &report.findings);
                let _ = writeln!(wrong, "{name}: {broken:?}, {findings:?}, {} gaps", client["gaps"]);
            }
            let errors = client["errors"].as_array().map_or(0, Vec::len);
            // A stream that is given up may leave a dead connection behind, which the next poll finds out.
            let streams = client["streams"].as_array().map_or(0, Vec::len);
            // An evil that comes at random has no end.
            let at_random = name.starts_with("truncate");
            if !at_random && errors > ERRORS_MAX + streams {
                let _ = writeln!(wrong, "{name}: {errors} errors: {:#}", client["errors"]);
            }
            let late = numbers(client["events"].as_array().into_iter().flatten().map(|event| &event["late"]));
            if errors + streams == 0 && most(&late) > LATE {
                let _ = writeln!(wrong, "{name}: {} ms late", most(&late));
            }
            if !at_random && client["state"] != "live" && client["state"] != "polling" {
                let _ = writeln!(wrong, "{name}: it is {} in the end", client["state"]);
            }
        }
        assert!(!self.clients.is_empty() && self.published.len() > 10, "there was a run");
        assert!(wrong.is_empty(), "{wrong}\n{}\n{}", self.table(), self.log);
    }

    /// One line for each client.
    fn table(&self) -> String {
        let mut table = format!("{} events\n{:<34}{:<12}", self.published.len(), "client", "ended as");
        let _ = writeln!(
            table,
            "{:>8}{:>8}{:>9}{:>8}  errors, streams that ended",
            "events", "p50 ms", "max ms", "asked"
        );
        for client in &self.clients {
            let late = numbers(client["events"].as_array().into_iter().flatten().map(|event| &event["late"]));
            let _ = write!(table, "{:<34}{:<12}", text(&client["name"]), text(&client["transport"]));
            let _ = write!(
                table,
                "{:>8}{:>8}{:>9}{:>8}  ",
                late.len(),
                middle(&late),
                most(&late),
                client["requests"]
            );
            let _ = writeln!(table, "{} {}", ends(&client["errors"]), ends(&client["streams"]));
        }
        table
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn numbers<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<i64> {
    let mut numbers: Vec<_> = values.filter_map(Value::as_i64).collect();
    numbers.sort_unstable();
    numbers
}

fn middle(sorted: &[i64]) -> i64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn most(sorted: &[i64]) -> i64 {
    sorted.last().copied().unwrap_or_default()
}

/// How often, and after how many seconds with what: `2: 20.0 s 504, 20.0 s aborted`.
fn ends(list: &Value) -> String {
    let Some(list) = list.as_array().filter(|list| !list.is_empty()) else { return "-".to_owned() };
    let shown = list.iter().take(4).map(|end| {
        let seconds = end["elapsed"].as_f64().unwrap_or_default() / 1000.0;
        let status = end["status"].as_u64().filter(|status| *status > 0).map(|status| status.to_string());
        format!("{seconds:.1} s {}", status.as_deref().unwrap_or(text(&end["why"])))
    });
    format!("{}: {}", list.len(), shown.collect::<Vec<_>>().join(", "))
}
