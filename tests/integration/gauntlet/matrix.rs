//! What each proxy does to each transport, asked by plain clients that learn nothing: whether events come through, how late,
//! and how often they are cut.
//!
//! What comes through and what does not is a fact about these proxies that `docs/reference/proxies.md` states; a new version
//! that behaves otherwise fails here by name. With `EVERPOLL_TEST_LONG` set there are pauses of 45 s, in which a proxy can lose
//! its patience, and the table that is printed is the one of that page.

use std::fmt::Write as _;

use everpoll_tests::proxies::Kind;
use everpoll_tests::{Daemon, Script, Sqlite};
use serde_json::{Value, json};

use super::{middle, most, numbers, start, text, way};

const TRANSPORTS: [&str; 4] = ["long-poll", "padded", "eventsource", "websocket"];

/// An event that takes longer was not passed on when it came. Generous: the machine is busy with other tests.
const LATE: i64 = 5_000;

#[test]
fn each_transport_comes_through_the_proxies_that_the_page_names() {
    let long = std::env::var_os("EVERPOLL_TEST_LONG").is_some();
    let sqlite = Sqlite::new();
    let daemon = Daemon::on(sqlite.url()).start();
    let proxies = start(&Kind::ALL.map(|kind| (kind, None)), &daemon);
    let mut doors = vec![("none", daemon.address(), false)];
    doors.extend(
        proxies.iter().map(|proxy| (proxy.kind().name(), proxy.address(), proxy.kind().is_forward())),
    );
    let mut networks = 10..=255_u8;
    let mut probes = Vec::new();
    for (name, address, forward) in &doors {
        for transport in TRANSPORTS {
            let network = networks.next().expect("there are fewer than that");
            let way = way(address, *forward, &daemon, network);
            probes.push(json!({ "name": name, "way": way, "transport": transport }));
        }
    }
    let mut reports: Vec<Value> = Vec::new();
    Script::node("proxies/matrix.mjs")
        .with("probes", probes)
        .with("rounds", if long { 4 } else { 2 })
        .with("events", if long { 5 } else { 2 })
        .with("burst", if long { 15_000 } else { 4_000 })
        .with("silence", if long { 45_000 } else { LATE })
        .within(400)
        .run(|command| match command.split_once(' ') {
            Some(("publish", channel)) => {
                let event = json!({ "channel": channel, "type": "cheese_created", "data": {} });
                daemon.publish(&event.to_string())[0].to_string()
            }
            Some(("probe", report)) => {
                reports.push(serde_json::from_str(report).expect("it is JSON"));
                "thanks".to_owned()
            }
            _ => panic!("the script wants {command:?}"),
        });
    eprintln!("{}", table(&reports));
    let wrong: String = reports.iter().filter_map(complaint).collect();
    assert!(wrong.is_empty() && reports.len() == doors.len() * TRANSPORTS.len(), "{wrong}");
}

/// What does not come through, and why. Everything else does.
fn obstacle(proxy: &str, transport: &str) -> Option<&'static str> {
    match (proxy, transport) {
        // Passed on when it ends, which it does not.
        ("privoxy" | "e2guardian" | "varnish-cache", "eventsource") => Some("mute"),
        // Only to port 443.
        ("apache-forward", "websocket") => Some("403"),
        // They drop what they do not know of, unless they are told.
        ("apache-reverse" | "varnish" | "varnish-cache" | "nginx" | "nginx-cache", "websocket") => {
            Some("426")
        }
        _ => None,
    }
}

/// What is wrong with a report, one line; nothing when it is as the page says.
fn complaint(report: &Value) -> Option<String> {
    let (proxy, transport) = (text(&report["name"]), text(&report["transport"]));
    let late = numbers(report["late"].as_array().into_iter().flatten());
    let published = report["published"].as_u64().unwrap_or_default() as usize;
    let reason = report["cuts"][0]["why"].as_str().unwrap_or_default();
    let as_it_is = match obstacle(proxy, transport) {
        None => late.len() == published && published > 0 && report["doubled"] == 0 && most(&late) < LATE,
        Some("mute") => late.is_empty(),
        Some(status) => late.is_empty() && reason.contains(status),
    };
    (!as_it_is).then(|| {
        format!("{transport} through {proxy} should be {:?}: {report}\n", obstacle(proxy, transport))
    })
}

/// In Markdown: one line for each proxy.
fn table(reports: &[Value]) -> String {
    let mut table = format!("| proxy | {} |\n| --- | --- | --- | --- | --- |", TRANSPORTS.join(" | "));
    for report in reports {
        if report["transport"] == TRANSPORTS[0] {
            let _ = write!(table, "\n| {} |", text(&report["name"]));
        }
        let _ = write!(table, " {} |", cell(report));
    }
    table
}

fn cell(report: &Value) -> String {
    let late = numbers(report["late"].as_array().into_iter().flatten());
    if let Some(obstacle) = obstacle(text(&report["name"]), text(&report["transport"])) {
        return if late.is_empty() { obstacle.to_owned() } else { format!("{obstacle}, but {late:?}") };
    }
    let mut cell = format!("{} / {} ms", middle(&late), most(&late));
    let cuts = report["cuts"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(first) = cuts.first() {
        let seconds = first["elapsed"].as_f64().unwrap_or_default() / 1000.0;
        let what = first["status"].as_u64().filter(|status| *status > 0).map(|status| status.to_string());
        let what = what.unwrap_or_else(|| text(&first["why"]).to_owned());
        let _ = write!(cell, ", {} cut, as {what} after {seconds:.0} s", cuts.len());
    }
    cell
}
