//! Requests for replies in another dress: for pages of other hosts, for old browsers, as a script; and for the client itself.

use everpoll_protocol::SCRIPT_HASH;
use everpoll_tests::http::{self, Request};

use super::cases::Cases;

/// Parameters of polls, each for one that has news and is answered at once.
pub(super) const PARAMETERS: &[&str] = &[
    "ct=text",
    "ct=text&envelope=1",
    "ct=",
    "ct=html",
    "ct=TEXT",
    "ct=text&ct=html",
    "ct=text&hold=x",
    "cb=f",
    "cb=Everpoll.calls._1",
    "cb=",
    "cb=f&envelope=0",
    "cb=f&ct=text",
    "cb=f&hold=x",
    "cb=f&tab=a",
    "cb=f&pad=x",
    "cb=f&last_event_id=x&last_event_id=2",
    "cb=alert(1)",
    "cb=a-b",
    "cb=%C3%A4",
    "cb=a%0Ab",
    "cb=f&cb=g",
    "callback=f",
    "pad=4096",
    "pad=1024&beat=1",
    "pad=65536&beat=60&envelope=1",
    "pad=4096&beat=2.5&cb=f",
    "pad=",
    "pad=1023",
    "pad=65537",
    "pad=4096.0",
    "pad=-4096",
    "pad=1e4",
    "pad=99999999999999999999",
    "beat=10",
    "beat=",
    "beat=0",
    "beat=0.99",
    "beat=60.01",
    "beat=-1",
    "beat=inf",
    "padding=1",
    "padding=x",
    // Cuts that change nothing: after so long that no hold gets there, or so soon that there was no hold.
    "cut=40000.504",
    "cut=900.0",
    "cut=86400000.12002",
    "cut=",
    "cut=20013",
    "cut=20013.",
    "cut=.504",
    "cut=20013.x",
    "cut=20013.504.1",
    "cut=-1.0",
    "cut=86400001.0",
    "cut=20013.100000",
];

/// Origins: allowed, allowed in another spelling, and others.
const ORIGINS: &[&str] = &[
    "https://shop.example",
    "http://localhost:8377",
    "https://shop.example:443",
    "https://SHOP.example",
    "https://shop.example/",
    "http://shop.example",
    "https://a.shop.example",
    "https://shop.example.evil.example",
    "null",
    "",
    "https://shop.example, https://shop.example",
];

/// Adds them all.
pub(super) fn add(cases: &mut Cases) {
    for parameters in PARAMETERS {
        let target = format!("/e/cheese/w?{parameters}&last_event_id=2");
        cases.poll(format!("dress: {parameters}"), http::get(&target));
    }
    for bytes in [64, 65] {
        let target = format!("/e/cheese?last_event_id=2&cb={}", "f".repeat(bytes));
        cases.poll(format!("dress: function of {bytes} bytes"), http::get(&target));
    }
    for target in ["/e/a,,b?cb=f", "/e/a,,b?ct=text", "/e/cheese/w/x?cb=f", "/e/?cb=f"] {
        cases.poll(format!("dress: wrong path {target}"), http::get(target));
    }
    for method in ["HEAD", "POST", "OPTIONS", "PUT"] {
        for parameters in ["cb=f", "ct=text", "pad=4096"] {
            let target = format!("/e/cheese?last_event_id=2&{parameters}");
            cases.poll(format!("dress: {method} {parameters}"), http::request(method, &target));
        }
    }
    let form = http::request("POST", "/e/cheese").header("Content-Type", "application/x-www-form-urlencoded");
    cases.poll(
        "dress: in a form".into(),
        form.body("last_event_id=2&cb=f&pad=4096&beat=10&ct=text&padding=1&cut=40000.0"),
    );
    // It cannot be held, so it is answered as it would have been without padding.
    cases.add("dress: padded without a hold".into(), http::get("/e/cheese?last_event_id=2&pad=4096&hold=0"));
    origins(cases);
    script(cases);
}

fn origins(cases: &mut Cases) {
    for origin in ORIGINS {
        let mut from = |what: &str, request: Request| {
            cases.poll(format!("origin {origin:?}: {what}"), request.header("Origin", origin));
        };
        from("poll", http::get("/e/cheese?last_event_id=2"));
        from("nothing new", http::get("/e/nobody?last_event_id=now"));
        from("error", http::get("/e/cheese?last_event_id=x"));
        from("head", http::request("HEAD", "/e/cheese?last_event_id=2"));
        from("text", http::get("/e/cheese?last_event_id=2&ct=text&envelope=1"));
        from("script", http::get("/e/cheese?last_event_id=2&cb=f"));
        from("post", http::request("POST", "/e/cheese").body("last_event_id=2"));
        from("method", http::request("DELETE", "/e/cheese"));
        from("options", http::request("OPTIONS", "/e/cheese"));
        from("other path", http::get("/e/cheese/w/x"));
        from("client", http::get("/everpoll.js"));
        let preflight = http::request("OPTIONS", "/e/cheese/w?_=1")
            .header("Access-Control-Request-Method", "GET")
            .header("Access-Control-Request-Headers", "last-event-id,x-requested-with");
        from("preflight", preflight);
        let publish = http::request("OPTIONS", "/publish").header("Access-Control-Request-Method", "POST");
        from("preflight of a publish", publish);
    }
}

fn script(cases: &mut Cases) {
    let (own, other) = (format!("/everpoll.{SCRIPT_HASH}.js"), "/everpoll.0123456789abcdef.js");
    for target in ["/everpoll.js", "/everpoll.js?_=1", other] {
        cases.add(format!("script: {target}"), http::get(target));
    }
    cases.add("script: its own hash".into(), http::get(&own));
    for (name, tags) in [
        ("its tag", format!("\"{SCRIPT_HASH}\"")),
        ("its tag, weak", format!("W/\"{SCRIPT_HASH}\"")),
        ("several tags", format!("\"x\", \"{SCRIPT_HASH}\"")),
        ("another tag", "\"x\"".to_owned()),
        ("any tag", "*".to_owned()),
    ] {
        for (method, target) in [("GET", "/everpoll.js"), ("HEAD", "/everpoll.js"), ("GET", own.as_str())] {
            let of = if target == own { "own hash" } else { "script" };
            let request = http::request(method, target).header("If-None-Match", &tags);
            cases.add(format!("script: {method} of the {of}, known by {name}"), request);
        }
    }
    for method in ["HEAD", "POST", "OPTIONS", "PUT"] {
        cases.add(format!("script: {method}"), http::request(method, "/everpoll.js"));
    }
    for target in ["/everpoll.min.js", "/everpoll.js/", "/everpoll.0123.js", "/everpoll."] {
        cases.add(format!("script: none at {target}"), http::get(target));
    }
}
