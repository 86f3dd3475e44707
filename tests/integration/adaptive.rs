//! Holds that fit the networks they pass: what one client reports is done for all behind the same proxies.
//!
//! A daemon that has just started believes no report, since what was cut then was cut by the end of the one before it. So
//! these tests take that time and a little more; they run beside the others.

use std::process::Command;
use std::time::{Duration, Instant};

use everpoll_tests::everpoll::DaemonStart;
use everpoll_tests::http::{self, Address, Request};
use everpoll_tests::{Daemon, Fallback, TestDir, WebServer, process, wait};

use crate::site::Store;

/// Longest hold, in seconds: short, so that a report is believed soon.
const HOLD_MAX: u64 = 8;

/// A poll that is answered at once, and says how long the next one may be held.
fn asked(cut: &str) -> Request {
    http::get(&format!("/e/cheese?flavor=short-poll&envelope=1&{cut}"))
}

/// A poll from behind a web server on this machine, of a client with this address.
fn of(address: &str, request: Request) -> Request {
    request.header("X-Forwarded-For", address)
}

/// How long the next poll of `client` may be held.
fn hold(daemon: &Address, client: &str, cut: &str) -> u64 {
    of(client, asked(cut)).send(daemon).json()["hold"].as_u64().expect("an envelope says it")
}

fn daemon(store: &Store) -> DaemonStart {
    Daemon::on(store.url()).setting("EVERPOLL_HOLD_MAX", HOLD_MAX)
}

/// Reports a cut until it is believed, and says how long that took.
fn until_believed(what: &str, since: Instant, mut report: impl FnMut() -> u64) -> Duration {
    wait::until(what, wait::PATIENCE, || report() < HOLD_MAX);
    since.elapsed()
}

#[test]
fn cut_shortens_the_holds_of_its_network_and_of_no_other() {
    let (store, began) = (Store::sqlite(), Instant::now());
    let daemon = daemon(&store).start();
    let address = daemon.address();
    // The daemon starts, and all that was held by the one before it has just been cut.
    assert_eq!(hold(address, "192.0.2.7", "cut=1200.0"), HOLD_MAX, "nothing is believed yet");
    let took = until_believed("a report is believed", began, || hold(address, "192.0.2.7", "cut=1200.0"));
    assert!(took >= Duration::from_secs(11), "it was believed after {took:?}");

    // 0.8 of 1.2 s, but nobody can make the polls of an office a flood.
    assert_eq!(hold(address, "192.0.2.200", ""), 5, "a neighbour");
    for stranger in ["192.0.3.7", "198.51.100.1", "2001:db8::1"] {
        assert_eq!(hold(address, stranger, ""), HOLD_MAX, "{stranger}");
    }
    let through = of("192.0.2.7", asked("")).header("Via", "1.1 squid").send(address);
    assert_eq!(through.json()["hold"], HOLD_MAX, "another proxy of the same network");
    // What a client claims further left is no matter; the web server has noted the last.
    assert_eq!(hold(address, "192.0.2.7, 203.0.113.9", ""), HOLD_MAX);

    // Held as it was said; whoever asks for less gets less, and what is padded is as long as ever.
    let began = Instant::now();
    let poll = |parameters: &str| http::get(&format!("/e/cheese?envelope=1&{parameters}"));
    let held = [
        (of("192.0.2.8", poll("hold=8")), 5),
        (of("192.0.2.8", poll("hold=6")), 5),
        (of("192.0.2.8", poll("hold=6.5&pad=1024&beat=1")), 6),
        (of("192.0.3.8", poll("hold=6.5")), 6),
        (of("192.0.2.8", poll("hold=2")), 2),
    ];
    let held = held.map(|(request, seconds)| (request.begin(address), request, seconds));
    let waiting: Vec<_> = held
        .into_iter()
        .map(|(held, request, seconds)| {
            let target = request.target().to_owned();
            std::thread::spawn(move || {
                let reply = held.reply();
                (target, reply.status, began.elapsed().as_secs(), seconds)
            })
        })
        .collect();
    for thread in waiting {
        let (target, status, took, seconds) = thread.join().expect("it is answered");
        assert_eq!((status, took), (200, seconds), "{target}");
    }

    // The least counts, and none is longer than the longest hold.
    wait::until("the longer report is believed", wait::PATIENCE, || {
        hold(address, "203.0.113.7", "cut=8000.504") == 6
    });
    assert_eq!(hold(address, "203.0.113.8", "cut=60000.12002"), 6);
    assert_eq!(hold(address, "203.0.113.8", "cut=7000.502"), 5);
    assert_eq!(hold(address, "198.51.100.7", "cut=3600000.0"), HOLD_MAX);
    // There was no hold that could have been cut.
    assert_eq!(hold(address, "198.51.100.7", "cut=999.0"), HOLD_MAX);
    let malformed = asked("cut=20").send(address);
    assert_eq!((malformed.status, malformed.json()["code"].as_str()), (400, Some("cut_malformed")));
}

#[test]
fn network_is_known_behind_nginx_and_nobody_speaks_for_another() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let began = Instant::now();
    // The clients are of this machine as well, and no web servers.
    let daemon = daemon(&store).setting("EVERPOLL_FORWARDED_PEERS", "none");
    let daemon = daemon.at(&Address::Unix(directory.join("daemon.sock"))).start();
    let fallback = Fallback::on(store.url()).start();
    let nginx = WebServer::nginx(daemon.address(), fallback.address());
    // From another network of this machine, with what a client may claim.
    let hold = |from: &str, cut: &str| {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--max-time",
            "20",
            "--interface",
            from,
            "-H",
            "X-Forwarded-For: 127.0.9.9",
        ]);
        command.arg(format!("http://{}/e/cheese?flavor=short-poll&envelope=1&{cut}", nginx.address()));
        let (status, stdout, stderr) = process::run(command, b"");
        assert!(status.success(), "{stderr}");
        let reply: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}"));
        reply["hold"].as_u64().expect("an envelope says it")
    };
    until_believed("a report is believed", began, || hold("127.0.5.1", "cut=1200.504"));
    assert_eq!(hold("127.0.5.2", ""), 5, "a neighbour");
    assert_eq!(hold("127.0.6.1", ""), HOLD_MAX, "another network");
    // The one that the client had claimed to be.
    assert_eq!(hold("127.0.9.9", ""), HOLD_MAX);
}
