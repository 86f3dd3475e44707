//! Holds that are cut after a while: the client finds out how long they live, and a neighbour is told by the daemon.
//!
//! What a newcomer gets wrong: a browser sends a request again that dies on a kept connection without an answer, so the
//! client learns of a cut by FIN or RST after twice the time. What a proxy answers itself, 504 for example, comes at once.

use std::time::{Duration, Instant};

use everpoll_tests::cutter::{Cutter, Mode};
use everpoll_tests::{Daemon, Script, Sqlite, wait};
use serde_json::json;

use super::{ERRORS_MAX, way};

/// What was cut soon after the daemon's start may have been cut by the end of the one before it, so for so long no neighbour is
/// told of it.
const AFTER_START: Duration = Duration::from_secs(11);

/// One network that cuts.
struct Case {
    name: &'static str,
    mode: Mode,
    /// The longest hold that the client may have, seconds.
    hold: f64,
    /// How many whole holds show that it has found out.
    clean: u32,
    /// Whether a neighbour begins with what is known.
    neighbour: bool,
    /// Whether to wait until the client has found out that the cutter was lifted.
    lifted: bool,
}

#[test]
fn client_finds_out_what_its_network_lets_live() {
    let long = std::env::var_os("EVERPOLL_TEST_LONG").is_some();
    let cases = if long { long_cases() } else { short_cases() };
    let sqlite = Sqlite::new();
    let (daemon, started) = (Daemon::on(sqlite.url()).start(), Instant::now());
    std::thread::scope(|scope| {
        for (network, case) in (10..).zip(&cases) {
            let daemon = &daemon;
            scope.spawn(move || {
                if case.neighbour {
                    wait::until("the daemon believes in cuts", AFTER_START * 2, || {
                        started.elapsed() > AFTER_START
                    });
                }
                case.run(daemon, network);
            });
        }
    });
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn short_cases() -> Vec<Case> {
    vec![
        // Twenty clean holds make it try a longer one: they must be short here.
        case("fin", Mode::Fin(seconds(2.0)), 2.6).lifted(),
        case("rst", Mode::Rst(seconds(4.0)), 5.0),
        case("504", Mode::GatewayTimeout(seconds(7.0)), 9.0).neighbour(),
        case("html", Mode::Html200(seconds(6.0)), 8.0),
    ]
}

fn long_cases() -> Vec<Case> {
    let mut cases = vec![
        case("fin-3", Mode::Fin(seconds(3.0)), 4.0).lifted(),
        case("fin-8", Mode::Fin(seconds(8.0)), 10.0).lifted(),
        case("blackhole-20", Mode::Blackhole(seconds(20.0)), 25.0),
        case("504-8", Mode::GatewayTimeout(seconds(8.0)), 25.0).neighbour(),
        case("504-20", Mode::GatewayTimeout(seconds(20.0)), 25.0).neighbour(),
        case("html-20", Mode::Html200(seconds(20.0)), 25.0).neighbour(),
    ];
    for limit in [3.0, 8.0, 20.0] {
        cases.push(case("fin", Mode::Fin(seconds(limit)), 25.0));
        cases.push(case("rst", Mode::Rst(seconds(limit)), 25.0));
    }
    cases
}

fn case(name: &'static str, mode: Mode, hold: f64) -> Case {
    Case { name, mode, hold, clean: 2, neighbour: false, lifted: false }
}

impl Case {
    fn neighbour(self) -> Self {
        Self { neighbour: true, ..self }
    }

    fn lifted(self) -> Self {
        Self { lifted: true, ..self }
    }

    #[track_caller]
    fn run(&self, daemon: &Daemon, network: u8) {
        let Self { name, mode, hold, clean, .. } = self;
        let cutter = Cutter::before(daemon.address(), *mode);
        let channel = format!("cheese-{network}");
        // Twenty holds and what goes before them, on a busy machine.
        let patience = 60.0 + 30.0 * hold;
        let script = Script::node("proxies/adaptive.mjs")
            .with("way", way(cutter.address(), false, daemon, network))
            .with("channel", channel.as_str())
            .with("options", json!({ "hold": hold }))
            .with("clean", *clean)
            .with("neighbour", self.neighbour)
            .with("reaches", if self.lifted { *hold } else { 0.0 })
            .with("patience", patience * 1000.0)
            .within(patience as u64 * 3);
        let log = script.run(|command| {
            let (what, count) = command.split_once(' ').unwrap_or((command, ""));
            let count: usize = count.parse().unwrap_or_default();
            match what {
                "publish" => {
                    let event = json!({ "channel": channel, "type": "cheese_created", "data": {} });
                    return daemon.publish(&event.to_string())[0].to_string();
                }
                "cuts" => assert!(count <= ERRORS_MAX, "{name}: it was cut {count} times before it knew"),
                "neighbour" => assert_eq!(count, 0, "{name}: its neighbour was cut"),
                "lift" => cutter.set(Mode::Pass),
                "lifted" => assert!(count <= ERRORS_MAX, "{name}: {count} errors when all was well"),
                _ => panic!("the script wants {command:?}"),
            }
            "done".to_owned()
        });
        eprintln!("{name} {mode:?}, holds of up to {hold} s; the cutter: {:?}\n{log}", cutter.counters());
    }
}
