//! Paths that mean one thing to a web server in front and another to the program behind it.

use everpoll_tests::http::{self, Address};
use everpoll_tests::stub::{Act, Stub};
use everpoll_tests::{Daemon, Fallback, TestDir, WebServer};

use super::{Stage, refusal};
use crate::nginx::asking;
use crate::site::Store;

/// A request with exactly this target.
fn line(target: &str, more: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nFlavor: short-poll\r\n{more}\r\n")
        .into_bytes()
}

/// Targets that lead to what is the daemon's own, or to nothing, if one reads them so.
const TRICKS: &[&str] = &[
    "/metrics",
    "//metrics",
    "/./metrics",
    "/%6Detrics",
    "/%6detrics",
    "/e/../metrics",
    "/e/%2e%2e/metrics",
    "/e/..%2Fmetrics",
    "/e/%2e%2e%2fmetrics",
    "/e/%252e%252e%252fmetrics",
    "/e/cheese/../../metrics",
    "/e/cheese/..%2F..%2Fmetrics",
    "/e/..\\metrics",
    "/e/..%5Cmetrics",
    "/e/..;/metrics",
    "/e/..%00/metrics",
    "/e/.%2e/metrics?",
    "/metrics/.",
    "/metrics/",
    "/metrics#/e/cheese",
    "/metrics?/e/cheese",
    "/metrics%23/e/cheese",
    "/metrics%3F/e/cheese",
    "/metrics%00/e/cheese",
    "/metrics;/e/cheese",
    "/everpoll.js/../metrics",
    "/everpoll.%2F..%2F..%2Fmetrics",
    "/everpoll..%2Fmetrics",
    "/publish/../metrics",
    "http://a/metrics",
    "http://a//metrics",
    "HTTP://A/metrics",
    "http:///metrics",
    "http://a/e/../metrics",
    "http://a?/metrics",
    "http://a#/metrics",
    "https://b:8377/metrics",
    "file:///metrics",
    "*",
    "a:80",
    "metrics",
    "?/metrics",
    "\\metrics",
    "/e/cheese\\..\\..\\metrics",
    "/\u{ff0e}\u{ff0e}/metrics",
    "/%c0%ae%c0%ae/metrics",
    "/e/%c0%ae%c0%ae/metrics",
    "/healthz",
    "/readyz",
    "/e/../healthz",
    "/e/..%2Freadyz",
];

#[test]
fn nothing_of_the_daemon_alone_is_reached_through_nginx() {
    let stage = Stage::new();
    let [(_, daemon), (_, nginx), (_, fallback)] = stage.doors();
    for trick in TRICKS {
        for address in [nginx, fallback] {
            let reply = refusal(trick, address, &line(trick, ""));
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            let is_own =
                text.contains("everpoll_") || text.contains("\"alive\"") || text.contains("\"ready\"");
            assert!(!is_own, "{trick}: {text}");
            assert!([200, 400, 403, 404, 405].contains(&reply.status), "{trick}: {reply:?}");
            // What is answered as a poll is one, of a channel with that name.
            assert!(reply.status != 200 || text == "[]", "{trick}: {text}");
        }
        // The daemon straightens no path: what has another spelling is another path.
        let reply = refusal(trick, daemon, &line(trick, ""));
        let own = ["/metrics", "/healthz", "/readyz", "http://a/metrics"];
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let known = own.contains(trick)
            || ["/metrics#", "/metrics?", "https://b:8377/", "HTTP://A/"]
                .iter()
                .any(|known| trick.starts_with(known));
        assert!(known || !text.contains("everpoll_"), "{trick}: {text}");
    }
}

/// The shipped configuration under `access = "proxy"`, with an application that lets nobody read anything.
struct Closed {
    nginx: WebServer,
    _application: Stub,
    fallback: Fallback,
    daemon: Daemon,
    _store: Store,
    _directory: TestDir,
}

impl Closed {
    fn new() -> Self {
        let (store, directory) = (Store::sqlite(), TestDir::new());
        let start = Daemon::on(store.url()).at(&Address::Unix(directory.join("daemon.sock")));
        let daemon = start.setting("EVERPOLL_ACCESS", "proxy").setting("EVERPOLL_DEMO", "true").start();
        let fallback = Fallback::on(store.url()).setting("EVERPOLL_ACCESS", "proxy").start();
        let application =
            Stub::daemon(Act::Answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned()));
        let url = format!("http://unix:{}:/may-poll", application.path().display());
        let nginx =
            WebServer::nginx_with(daemon.address(), fallback.address(), |config| asking(config, &url));
        Self { nginx, _application: application, fallback, daemon, _store: store, _directory: directory }
    }
}

/// nginx passes on what the client wrote unless it is told a path. What one of its locations takes for the browser client's file,
/// or for the demo, is a poll to the daemon; and only the location of polls asks the application.
#[test]
fn no_detour_leads_around_the_application() {
    let mut closed = Closed::new();
    // In the event's channel, and in all that is granted to oneself.
    closed.daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
    let grants = "X-Everpoll-Channels: *\r\nX_Everpoll_Channels: *\r\nX-Everpoll-Until: 9999999999\r\n";
    let detours = [
        "/everpoll.js",
        "/everpoll.0123456789abcdef.js",
        "/everpoll.%2F..%2Feverpoll.js",
        "/demo",
        "/demo/",
        "/demo/clock",
        "/publish",
        "/everpoll-auth",
        "/",
        "/nothing",
    ];
    for round in 0..2 {
        for detour in detours {
            let encoded = detour.trim_start_matches('/').replace('/', "%2F");
            for target in [
                format!("/e/cheese/..%2F..%2F{encoded}?last_event_id=0"),
                format!("/e/cheese/%2e%2e%2f%2E%2E%2F{encoded}?last_event_id=0"),
                format!("/e/cheese%2F..%2F..%2F{encoded}?last_event_id=0"),
                format!("/e/cheese/../..{detour}?last_event_id=0"),
                format!("//e/cheese/..%2F..%2F{encoded}?last_event_id=0"),
                format!("/e/cheese#/../..{detour}"),
                format!("{detour}/../e/cheese?last_event_id=0"),
                format!("{detour}/..%2Fe%2Fcheese?last_event_id=0"),
                format!("{detour}%2F..%2Fe/cheese?last_event_id=0"),
                format!("http://a/e/cheese/..%2F..%2F{encoded}?last_event_id=0"),
                format!("http://a{detour}/../e/cheese?last_event_id=0"),
            ] {
                for more in [String::new(), grants.to_owned()] {
                    let reply = refusal(&target, closed.nginx.address(), &line(&target, &more));
                    let text = String::from_utf8_lossy(&reply.body);
                    assert!(!text.contains("gouda"), "{target}: {text}");
                }
            }
        }
        // The same of the fallback, once there is no daemon.
        if round == 0 {
            closed.daemon.kill_9();
        }
    }
    assert!(closed.fallback.process().is_running());
    assert_eq!(http::get("/e/cheese").send(closed.nginx.address()).status, 403);
}
