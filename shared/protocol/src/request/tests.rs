//! Requests, from their bytes to what is wanted.

use super::*;
use crate::parameters::MAX_HOLD_SECONDS;
use crate::{Access, Origins, PublishSizes, Publisher, Rates, Spaces};

pub(crate) struct TestHeaders(pub(crate) &'static [(&'static str, &'static str)]);

impl Headers for TestHeaders {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let value = self.0.iter().find(|header| header.0 == name)?.1;
        Some(value.as_bytes().into())
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        hold_max: Duration::from_secs(25),
        padded_hold_max: Duration::from_secs(120),
        heartbeat: Duration::from_secs(15),
        origins: Origins::default(),
        jsonp: false,
        channels_max: 64,
        poll_body_max: 64 * 1024,
        publish_body_max: 1000,
        publish_sizes: PublishSizes::default(),
        access: Access::Open,
        spaces: Spaces::default(),
        publisher: Publisher::new(Vec::new(), true),
        fronts: crate::sender::tests::fronts(&["127.0.0.0/8"]),
        rates: Rates::new(None, 0),
        head_max: 16 * 1024,
        status_peers: Vec::new(),
        judged: 0,
    }
}

fn parse(
    method: &str,
    target: &str,
    headers: &'static [(&'static str, &'static str)],
    body: &str,
) -> Result<Request, RequestError> {
    let headers = TestHeaders(headers);
    let (target, body) = (target.as_bytes(), body.as_bytes());
    Request::parse(
        &RawRequest {
            method,
            target,
            headers: &headers,
            body,
            peer_is_local: true,
            peer: None,
            may_upgrade: true,
            web_server: None,
            now: Timestamp::default(),
        },
        &limits(),
    )
}

fn poll(parsed: Result<Request, RequestError>) -> PollRequest {
    match parsed {
        Ok(Request::Poll(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn code(parsed: Result<Request, RequestError>) -> &'static str {
    parsed.unwrap_err().code()
}

pub(crate) fn poll_request(target: &str) -> PollRequest {
    poll(parse("GET", target, &[], ""))
}

#[test]
fn path_names_channels_and_browser() {
    let request = poll_request("/e/cheese,b%C3%A4r/browser%2F1?_=17");
    let names: Vec<_> = request.channels.as_slice().iter().map(crate::Channel::as_str).collect();
    assert_eq!(names, ["b\u{e4}r", "cheese"]);
    assert_eq!(request.wait_id.as_ref().map(WaitId::as_str), Some("browser/1"));
    assert_eq!(poll_request("/e.php/cheese/").wait_id, None);
    assert_eq!(poll_request("http://shop.example/e/cheese").channels.as_slice()[0].as_str(), "cheese");
    assert_eq!(code(parse("GET", "/e/cheese/w/x", &[], "")), "not_found");
    assert_eq!(code(parse("GET", "/e", &[], "")), "not_found");
    assert_eq!(code(parse("GET", "/e/", &[], "")), "channel_empty");
    assert_eq!(code(parse("GET", "/", &[], "")), "not_found");
}

#[test]
fn header_wins_over_query_and_query_over_body() {
    let headers = &[("last-event-id", "1")];
    assert_eq!(
        poll(parse("POST", "/e/c?last_event_id=2", headers, "last_event_id=3")).cursor,
        Cursor::After(1)
    );
    assert_eq!(poll(parse("POST", "/e/c?last_event_id=2", &[], "last_event_id=3")).cursor, Cursor::After(2));
    assert_eq!(poll(parse("POST", "/e/c", &[], "last_event_id=3")).cursor, Cursor::After(3));
    assert_eq!(poll(parse("POST", "/e/c", &[], r#"{"last_event_id":3,"x":[]}"#)).cursor, Cursor::After(3));
    assert_eq!(
        poll(parse("GET", "/e/c?last_event_id=2", &[("last-event-id", "")], "")).cursor,
        Cursor::After(2)
    );
}

#[test]
fn parameters_are_checked() {
    let request = poll_request("/e/c/w?hold=12.5&envelope=1&tab=a+b&n=7&flavor=short-poll");
    assert_eq!(request.hold, Some(Duration::from_millis(12_500)));
    assert!(request.envelope);
    assert_eq!(request.tab, Some(Tab { key: "a b".into(), n: 7 }));
    assert_eq!(request.flavor, Flavor::ShortPoll);
    for (query, expected) in [
        ("hold=-1", "hold_malformed"),
        ("hold=1e3", "hold_malformed"),
        ("hold=NaN", "hold_malformed"),
        ("hold=.", "hold_malformed"),
        ("envelope=yes", "envelope_malformed"),
        ("tab=a", "tab_malformed"),
        ("n=1", "tab_malformed"),
        ("tab=a&n=-1", "tab_malformed"),
        ("flavor=carrier-pigeon", "flavor_unknown"),
        ("flavor=websocket", "upgrade_required"),
        ("pad=100", "pad_malformed"),
        ("pad=4096&beat=0.5", "beat_malformed"),
        ("cut=20", "cut_malformed"),
        ("ct=html", "content_type_unknown"),
        ("cb=alert(1)", "callback_malformed"),
        ("cb=f", "jsonp_off"),
        ("last_event_id=x", "cursor_malformed"),
    ] {
        assert_eq!(code(parse("GET", &format!("/e/c?{query}"), &[], "")), expected, "{query}");
    }
    let pad = poll_request("/e/c?pad=4096&beat=5&hold=60").pad;
    assert_eq!(pad, Some(Pad { bytes: 4096, beat: Duration::from_secs(5) }));
    assert_eq!(code(parse("POST", "/e/c", &[("content-type", "application/json")], "[1]")), "body_malformed");
}

#[test]
fn streams_are_chosen_by_header_or_parameter() {
    let flavor = |target, headers| poll(parse("GET", target, headers, "")).flavor;
    assert_eq!(flavor("/e/c", &[("accept", "text/event-stream")]), Flavor::EventSource);
    assert_eq!(flavor("/e/c?flavor=eventsource", &[]), Flavor::EventSource);
    assert_eq!(flavor("/e/c?flavor=long-poll", &[("accept", "text/event-stream")]), Flavor::LongPoll);
    assert_eq!(poll(parse("HEAD", "/e/c?flavor=eventsource", &[], "")).flavor, Flavor::ShortPoll);
    assert_eq!(code(parse("POST", "/e/c?flavor=eventsource", &[], "")), "stream_needs_get");
}

#[test]
fn script_is_known_by_its_hash() {
    let script = |target: &str| match parse("GET", target, &[], "") {
        Ok(Request::Script(script)) => script,
        other => panic!("{other:?}"),
    };
    assert!(!script("/everpoll.js").immutable);
    assert!(script(&format!("/everpoll.{SCRIPT_HASH}.js")).immutable);
    assert!(!script("/everpoll.0123456789abcdef.js").immutable);
}

#[test]
fn post_that_lost_its_body_is_not_taken_for_a_page_that_starts_now() {
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
    assert_eq!(code(parse("POST", "/e/c", &[FORM], "")), "body_lost");
    assert_eq!(code(parse("POST", "/e/c", &[("content-type", "application/json")], " ")), "body_lost");
    // The cursor is elsewhere, or nothing says that there was a body.
    assert!(parse("POST", "/e/c?last_event_id=7", &[FORM], "").is_ok());
    assert!(parse("POST", "/e/c", &[FORM, ("last-event-id", "7")], "").is_ok());
    assert!(parse("POST", "/e/c", &[FORM], "hold=5").is_ok());
    assert!(parse("POST", "/e/c", &[], "").is_ok());
}

#[test]
fn enormous_hold_is_no_overflow() {
    let hold = poll_request(&format!("/e/c?hold={}", "9".repeat(400))).hold;
    assert_eq!(hold, Some(Duration::from_secs(MAX_HOLD_SECONDS)));
}

#[test]
fn methods_sizes_and_paths_have_their_errors() {
    assert_eq!(parse("DELETE", "/e/c", &[], "").unwrap_err().status(), 405);
    assert_eq!(parse("GET", "/publish", &[], "").unwrap_err().status(), 405);
    assert_eq!(parse("get", "/e/c", &[], "").unwrap_err().status(), 405);
    let form = Form::default();
    assert_eq!(parse("OPTIONS", "/e/c", &[], ""), Ok(Request::Options { allow: POLL_METHODS, form }));
    assert_eq!(parse("GET", &format!("/e/{}", "x".repeat(9000)), &[], "").unwrap_err().status(), 414);
    assert_eq!(parse("POST", "/publish", &[], &" ".repeat(1001)).unwrap_err().status(), 413);
    assert!(poll(parse("HEAD", "/e/c", &[], "")).head_only);
}
