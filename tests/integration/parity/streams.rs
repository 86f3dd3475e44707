//! Requests for streams. The fallback's end behind what there is; the daemon's have said the same until then.

use everpoll_tests::http;
use everpoll_tests::sse;

use super::cases::Cases;

/// What follows `/e/`.
const TARGETS: &[&str] = &[
    "cheese?last_event_id=2",
    "cheese?last_event_id=2&envelope=1",
    "cheese?last_event_id=2&padding=1",
    "cheese?last_event_id=2&padding=0",
    "cheese?last_event_id=2&beat=2",
    "cheese?last_event_id=2&beat=2.5&envelope=1&padding=1&ct=text",
    "cheese?last_event_id=2&ct=text",
    "cheese?last_event_id=2&cb=f",
    "cheese?last_event_id=2&pad=4096",
    "cheese?last_event_id=2&hold=0",
    "cheese?last_event_id=2&tab=a&n=1",
    "cheese/me?last_event_id=2",
    "cheese/?last_event_id=2",
    "cheese,wine,k%C3%A4se,a%20b,50%25?last_event_id=2",
    "k%C3%A4se?last_event_id=2&envelope=1",
    "nobody?last_event_id=2",
    // Now, then, never, and what is gone.
    "cheese",
    "cheese?last_event_id=now&envelope=1",
    "cheese?last_event_id=0",
    "cheese?last_event_id=0&envelope=1",
    "cheese?last_event_id=1",
    "cheese?last_event_id=NEWEST",
    "cheese?last_event_id=rt-1",
    "cheese?last_event_id=rt-1&envelope=1",
    "cheese?last_event_id=rt-99999999999",
    "cheese?last_event_id=9223372036854775807",
    // More than a batch: the fallback's ends there, the daemon goes on.
    "thousand?last_event_id=2",
    "more?last_event_id=2",
    "more?last_event_id=2&envelope=1",
    "large?last_event_id=2",
    "spaces?last_event_id=2",
    "escapes?last_event_id=2",
    // What is no stream.
    "a,,b",
    "cheese/w/x",
    "cheese?last_event_id=x",
    "cheese?beat=0",
    "cheese?ct=html",
    "cheese?cb=alert(1)",
    "cheese?flavor=long-poll&hold=0",
    "cheese?flavor=telegraph",
];

/// Adds them, for a log whose last event has the id `newest`.
pub(super) fn add(cases: &mut Cases, newest: u64) {
    for target in TARGETS {
        let target = target.replace("NEWEST", &newest.to_string());
        cases.stream(format!("stream: {target}"), sse::get(&format!("/e/{target}")));
    }
    let request = || http::get("/e/cheese?last_event_id=2");
    for (name, value) in [
        ("Flavor", "eventsource"),
        ("Accept", "text/html;q=0.5, Text/Event-Stream;q=1"),
        ("Accept", "text/event-stream;v=1"),
    ] {
        cases.stream(format!("stream: {name}: {value}"), request().header(name, value));
    }
    cases.stream("stream: by parameter".into(), http::get("/e/cheese?last_event_id=2&flavor=eventsource"));
    cases.stream("stream: by old address".into(), sse::get("/e.php/cheese/w?last_event_id=2"));
    let again = sse::get("/e/cheese?last_event_id=x").header("Last-Event-ID", "2");
    cases.stream("stream: that goes on".into(), again);
    cases.stream(
        "stream: cursor in the body".into(),
        http::request("POST", "/e/cheese?flavor=eventsource").body("last_event_id=2"),
    );
    cases.stream("stream: of another site".into(), request_of("https://shop.example"));
    cases.stream("stream: of a foreign site".into(), request_of("https://evil.example"));
    cases.stream(
        "stream: head".into(),
        http::request("HEAD", "/e/cheese?last_event_id=2").header("Accept", "text/event-stream"),
    );
}

fn request_of(origin: &str) -> http::Request {
    sse::get("/e/cheese?last_event_id=2").header("Origin", origin)
}
