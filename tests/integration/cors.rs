//! Pages of other hosts, and scripts for those that cannot read across hosts: what the settings `allow_origins` and `jsonp`
//! let them have, from both programs.
//!
//! That both answer alike for all kinds of origins is told by `parity`; here it is what a page may count on.

use everpoll_protocol::SCRIPT_HASH;
use everpoll_tests::everpoll::command;
use everpoll_tests::http::{self, Address, Request};
use everpoll_tests::{EventStream, Reply, TestDir, process, sse, websocket};

use crate::site::{Site, Store};

const SHOP: &str = "https://shop.example";

/// Both programs with these settings and one event in the log.
fn site(settings: &[(&str, &str)]) -> Site {
    let site = Site::with(Store::sqlite(), settings);
    site.publish("cheese", r#"{"name":"Gouda"}"#);
    site
}

fn poll(parameters: &str) -> Request {
    http::get(&format!("/e/cheese?last_event_id=0&{parameters}")).header("Flavor", "short-poll")
}

fn from(origin: &str, request: Request, address: &Address) -> Reply {
    request.header("Origin", origin).send(address)
}

/// What a browser is told about pages of other hosts: who may read, with cookies, and which headers.
fn told(reply: &Reply) -> [Option<&str>; 4] {
    [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-expose-headers",
        "vary",
    ]
    .map(|name| reply.header(name))
}

const EXPOSED: &str = "x-ps-reconnect-in, x-shortpoll-info, x-ps-cursor";
const ADMITTED: [Option<&str>; 4] = [Some(SHOP), Some("true"), Some(EXPOSED), Some("Origin")];
const ANY: [Option<&str>; 4] = [Some("*"), None, Some(EXPOSED), None];
const NOTHING: [Option<&str>; 4] = [None; 4];

#[test]
fn listed_pages_read_events_and_errors_and_others_are_not_told() {
    let site = site(&[("EVERPOLL_ALLOW_ORIGINS", "https://shop.example, http://localhost:8080")]);
    for (name, address) in site.doors() {
        for (origin, expected) in [
            (SHOP, ADMITTED),
            ("https://evil.example", NOTHING),
            ("http://shop.example", NOTHING),
            ("null", NOTHING),
        ] {
            let reply = from(origin, poll(""), address);
            assert_eq!(
                (reply.status, reply.events().len()),
                (200, 1),
                "{name}: the browser decides, {reply:?}"
            );
            assert_eq!(told(&reply), expected, "{name}, {origin}");
            // A page that may not read an error would take it for a network that is gone.
            let error = from(origin, poll("hold=x"), address);
            assert_eq!((error.status, told(&error)), (400, expected), "{name}, {origin}");
            let path = from(origin, http::get("/e/a/b/c"), address);
            assert_eq!((path.status, told(&path)), (404, expected), "{name}, {origin}");
            let stream =
                EventStream::open(address, &sse::get("/e/cheese?last_event_id=0").header("Origin", origin));
            assert_eq!(told(&stream.head), expected, "{name}, {origin}");
        }
        assert_eq!(told(&poll("").send(address)), NOTHING, "{name}: a page of the same host");
    }
}

#[test]
fn browser_that_asks_first_is_answered_for_a_day() {
    let site = site(&[("EVERPOLL_ALLOW_ORIGINS", SHOP)]);
    for (name, address) in site.doors() {
        let ask = |origin| {
            let request = http::request("OPTIONS", "/e/cheese/w?last_event_id=7")
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "content-type,last-event-id");
            from(origin, request, address)
        };
        let reply = ask(SHOP);
        assert_eq!((reply.status, told(&reply)), (200, ADMITTED), "{name}");
        assert_eq!(reply.header("access-control-allow-methods"), Some("GET, HEAD, POST, OPTIONS"));
        assert_eq!(reply.header("access-control-max-age"), Some("86400"));
        let headers = reply.header("access-control-allow-headers").expect("they are named");
        for header in ["Last-Event-ID", "Flavor", "Content-Type", "Authorization"] {
            assert!(headers.split(", ").any(|named| named == header), "{name}: {header} is not in {headers}");
        }
        let refused = ask("https://evil.example");
        assert_eq!((refused.status, told(&refused)), (200, NOTHING), "{name}");
        assert_eq!(refused.header("access-control-allow-methods"), None, "{name}");
        // Publishing is for servers, and never for pages of another host.
        let publish = http::request("OPTIONS", "/publish").header("Access-Control-Request-Method", "POST");
        assert_eq!(told(&from(SHOP, publish, address)), NOTHING, "{name}");
    }
}

#[test]
fn star_lets_every_page_read_without_cookies() {
    let site = site(&[("EVERPOLL_ALLOW_ORIGINS", "*")]);
    for (name, address) in site.doors() {
        for origin in [SHOP, "https://evil.example", "null"] {
            assert_eq!(told(&from(origin, poll(""), address)), ANY, "{name}, {origin}");
            assert_eq!(told(&from(origin, poll("hold=x"), address)), ANY, "{name}, {origin}");
        }
        // So that what a cache keeps for one fits all.
        assert_eq!(told(&poll("").send(address)), ANY, "{name}");
    }
    let socket = websocket::request("/e/cheese?flavor=websocket").header("Origin", "https://evil.example");
    assert!(everpoll_tests::WebSocket::try_open(site.daemon.address(), &socket).is_ok());
}

#[test]
fn nobody_is_let_in_by_default_and_the_client_is_for_all() {
    let site = site(&[]);
    for (name, address) in site.doors() {
        assert_eq!(told(&from(SHOP, poll(""), address)), NOTHING, "{name}");
        for target in ["/everpoll.js", &format!("/everpoll.{SCRIPT_HASH}.js")] {
            let script = from(SHOP, http::get(target), address);
            assert_eq!(script.header("access-control-allow-origin"), Some("*"), "{name}: {target}");
        }
    }
}

#[test]
fn script_calls_the_page_with_what_headers_would_say() {
    let site = site(&[("EVERPOLL_JSONP", "true"), ("EVERPOLL_ALLOW_ORIGINS", SHOP)]);
    for (name, address) in site.doors() {
        let called = |request: Request| {
            let reply = request.send(address);
            assert_eq!(reply.status, 200, "{name}: a script element tells no status: {reply:?}");
            let kind = reply.header("content-type");
            assert_eq!(kind, Some("application/javascript; charset=utf-8"), "{name}");
            let text = reply.text().to_owned();
            let json = text.strip_prefix("/**/Everpoll.f_1(").and_then(|text| text.strip_suffix(");"));
            let json = json.unwrap_or_else(|| panic!("{name}: {text}"));
            serde_json::from_str::<serde_json::Value>(json).expect("an object")
        };
        let news = called(poll("cb=Everpoll.f_1"));
        assert_eq!((&news["events"][0]["data"]["data"]["name"], &news["end"]), (&"Gouda".into(), &1.into()));
        assert!(news["cursor"].is_string() && news["reconnect_in"].is_u64() && news["short_poll"] == true);
        let error = called(poll("cb=Everpoll.f_1&hold=x"));
        assert_eq!((&error["code"], &error["reconnect_in"]), (&"hold_malformed".into(), &60.into()));
        let error = called(http::get("/e/a/b/c?cb=Everpoll.f_1"));
        assert_eq!((&error["code"], &error["status"]), (&"not_found".into(), &404.into()));
        // What is no name must not become a part of a page.
        for wrong in ["alert(1)", "a%3Cscript%3E", "a;b", "%E2%80%A8"] {
            let reply = poll(&format!("cb={wrong}")).send(address);
            assert_eq!(
                (reply.status, reply.json()["code"].as_str()),
                (400, Some("callback_malformed")),
                "{name}"
            );
        }
    }
}

#[test]
fn scripts_are_refused_where_they_are_off() {
    let site = site(&[]);
    for (name, address) in site.doors() {
        let reply = poll("cb=f").send(address);
        assert_eq!((reply.status, reply.json()["code"].as_str()), (403, Some("jsonp_off")), "{name}");
        assert!(!reply.text().contains("Gouda"), "{name}");
        // An EventSource reads no scripts, so this is a mistake as well.
        let stream = sse::get("/e/cheese?cb=f").send(address);
        assert_eq!(stream.status, 403, "{name}");
    }
}

#[test]
fn plain_text_is_the_same_under_another_type() {
    let site = site(&[]);
    for (name, address) in site.doors() {
        let (json, text) = (poll("").send(address), poll("ct=text").send(address));
        assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"), "{name}");
        assert_eq!(text.body, json.body, "{name}");
        let error = poll("ct=text&hold=x").send(address);
        // As far as it can be understood: this much can.
        assert_eq!(
            (error.status, error.header("content-type")),
            (400, Some("text/plain; charset=utf-8")),
            "{name}"
        );
        let stream = EventStream::open(address, &sse::get("/e/cheese?last_event_id=0&ct=text"));
        assert_eq!(stream.head.header("content-type"), Some("text/plain; charset=utf-8"), "{name}");
    }
}

#[test]
fn wrong_settings_are_told_by_both_programs() {
    for (name, value, expected) in [
        (
            "EVERPOLL_ALLOW_ORIGINS",
            "https://shop.example shop.example",
            "names \"shop.example\", which is no origin; give scheme, host and port as in https://shop.example",
        ),
        ("EVERPOLL_ALLOW_ORIGINS", "https://shop.example/path", "without a path"),
        ("EVERPOLL_ALLOW_ORIGINS", "https://*.shop.example", "which is no origin"),
        ("EVERPOLL_JSONP", "perhaps", "EVERPOLL_JSONP=\"perhaps\" is"),
        ("EVERPOLL_PADDED_HOLD_MAX", "3601", "EVERPOLL_PADDED_HOLD_MAX=\"3601\""),
        ("EVERPOLL_HEARTBEAT", "0", "EVERPOLL_HEARTBEAT=\"0\""),
    ] {
        let directory = TestDir::new();
        for program in ["everpoll", "everpoll-fallback"] {
            let mut command = command(program);
            let socket = format!("unix:{}", directory.join("socket").display());
            match program {
                "everpoll" => command.arg("serve").env("EVERPOLL_LISTEN", &socket),
                _ => command.args(["--listen", &socket]),
            };
            let url = format!("sqlite:{}", directory.join("test.db").display());
            command.env("EVERPOLL_DATABASE_URL", url).env(name, value);
            let (status, _, stderr) = process::run(command, b"");
            assert_eq!(status.code(), Some(2), "{program} with {name}={value}: {stderr}");
            assert!(stderr.contains(expected), "{program}: {stderr}");
        }
    }
}
