//! Everpoll's own client in real browsers: each event exactly once in the ledger of each page.

use everpoll_tests::Script;
use serde_json::json;

use crate::pages_site::PagesSite;

/// All that a page may ask for.
const TRANSPORTS: [&str; 4] = ["long-poll", "eventsource", "websocket", "short-poll"];

#[test]
fn each_transport_survives_reloads_and_a_dead_daemon_in_chromium() {
    transports("chromium");
}

#[test]
fn each_transport_survives_reloads_and_a_dead_daemon_in_firefox() {
    transports("firefox");
}

#[test]
fn demo_page_counts_alike_by_all_transports_in_chromium() {
    demo("chromium");
}

#[test]
fn demo_page_counts_alike_by_all_transports_in_firefox() {
    demo("firefox");
}

/// HTTP/1.1, of which the browser has six connections: all tabs together hold one.
#[test]
fn twenty_tabs_share_one_held_request() {
    let mut site = PagesSite::start(&[]);
    let script = Script::browser("browser/tabs.mjs").with("browser", "chromium").with("tabs", 20);
    eprintln!("{}", site.run(script.with("ends", json!(["close", "crash"]))));
}

/// Where the page is not from a secure origin, browsers have no locks.
#[test]
fn tabs_without_locks_share_one_held_request() {
    let mut site = PagesSite::start(&[]);
    let origin = site.url().replace("127.0.0.1", "everpoll.test");
    let script = Script::browser("browser/tabs.mjs").with("browser", "chromium").with("tabs", 6);
    let script = script
        .with("origin", origin)
        .with("flags", json!(["--host-resolver-rules=MAP everpoll.test 127.0.0.1"]));
    eprintln!("{}", site.run(script.with("ends", json!(["close", "crash"]))));
}

/// As few connections as Internet Explorer had, in a browser of today: the pages stay usable.
#[test]
fn two_tabs_of_a_browser_with_two_connections_stay_usable() {
    let mut site = PagesSite::start(&[]);
    let script = Script::browser("browser/tabs.mjs").with("browser", "firefox").with("tabs", 2);
    let few = json!({ "network.http.max-persistent-connections-per-server": 2 });
    eprintln!("{}", site.run(script.with("preferences", few).with("ends", json!(["close"]))));
}

fn transports(browser: &str) {
    let script = Script::browser("browser/transports.mjs").with("browser", browser);
    eprintln!("{}", PagesSite::start(&[]).run(script.with("transports", TRANSPORTS.to_vec())));
}

fn demo(browser: &str) {
    let script = Script::browser("browser/demo.mjs").with("browser", browser);
    eprintln!("{}", PagesSite::start(&[("EVERPOLL_DEMO", "true")]).run(script));
}
