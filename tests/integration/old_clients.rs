//! Pages written long before Everpoll, or without it, in browsers of today: nothing to install, nothing to change.
//!
//! jQuery's long-polling, a bare EventSource and a plain WebSocket, from pages behind the same nginx. The daemon is killed
//! and stopped under them, while an application publishes all the time; the fallback serves in between.
//! Each page ends with each event exactly once, in order.

use everpoll_tests::Script;

use crate::pages_site::PagesSite;

/// The pages, each with an old client of its kind.
const PAGES: [&str; 3] = ["old-long-poll", "old-eventsource", "old-websocket"];

#[test]
fn old_clients_get_each_event_once_in_chromium() {
    run("chromium");
}

#[test]
fn old_clients_get_each_event_once_in_firefox() {
    run("firefox");
}

fn run(browser: &str) {
    let script = Script::browser("browser/old-clients.mjs").with("browser", browser);
    let log = PagesSite::start(&[]).run(script.with("pages", PAGES.to_vec()));
    eprintln!("{log}");
}
