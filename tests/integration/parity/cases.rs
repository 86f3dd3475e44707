//! The requests: tables of what is valid, odd and hostile in each part, and combinations drawn from a fixed seed.

use everpoll_tests::http::{self, Request};
use everpoll_tests::numbers::Numbers;

/// One request. Names are unique, so that one can be spoken of.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) request: Request,
    /// The daemon's reply to it may have no end.
    pub(super) stream: bool,
}

/// Channels as they stand in a path.
pub(super) const CHANNELS: &[(&str, &str)] = &[
    ("one", "cheese"),
    ("two", "wine,cheese"),
    ("twice", "cheese,cheese"),
    ("nobody's", "nobody"),
    ("utf-8", "k%C3%A4se"),
    ("utf-8 in lower case", "k%c3%a4se"),
    ("raw utf-8", "k\u{e4}se"),
    ("needlessly encoded", "%63%68%65%65%73%65"),
    ("emoji", "%F0%9F%A7%80"),
    ("space", "a%20b"),
    ("plus", "a+b"),
    ("encoded plus", "a%2Bb"),
    ("percent", "50%25"),
    ("twice encoded", "50%2525"),
    ("encoded slash", "a%2Fb"),
    ("encoded slash in lower case", "a%2fb"),
    ("encoded comma", "a%2Cb"),
    ("encoded question mark", "a%3Fb"),
    ("encoded hash", "a%23b"),
    ("empty name", "a,,b"),
    ("comma alone", ","),
    ("comma at the end", "cheese,"),
    ("latin-1", "k%E4se"),
    ("no utf-8", "%FF%FE"),
    ("overlong utf-8", "%C0%AF"),
    ("surrogate", "%ED%A0%80"),
    ("nul", "a%00b"),
    ("line feed", "a%0Ab"),
    ("carriage return", "a%0D%0AX:%20y"),
    ("delete", "a%7Fb"),
    ("c1 control", "a%C2%85b"),
    ("percent alone", "50%"),
    ("half a code", "a%4"),
    ("no hex", "a%zzb"),
    ("dots", "a..b"),
    ("encoded dot", "a%2Eb"),
    ("semicolon", "a;b=c"),
    ("signs", "!$'()*~-_.:@&="),
    ("angle brackets", "a%3Cscript%3E"),
    ("quotes", "a%22%27%60"),
    ("backslash", "a%5Cb"),
    ("thousand", "thousand"),
    ("more", "more"),
    ("large", "large"),
    ("spaces", "spaces"),
    ("escapes", "escapes"),
    ("all", "cheese,wine,k%C3%A4se,a%20b,a+b,50%25"),
];

/// Cursors as they stand in a query.
pub(super) const CURSORS: &[&str] = &[
    "",
    "now",
    "NOW",
    "0",
    "1",
    "2",
    "3",
    "MIDDLE",
    "NEWEST",
    "NEWEST0",
    "00000MIDDLE",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999999999",
    "-1",
    "%2B1",
    "+1",
    "1+",
    "%201%20",
    "1%09",
    "1%0A",
    "1%00",
    "1.5",
    "1e3",
    "0x10",
    "x",
    "%D9%A3",
    "%FF",
    "%3Cscript%3E",
    "rt-0",
    "rt-1",
    "rt-1.5",
    "rt-0.0000001",
    "rt-99999999999",
    "rt-99999999999999999999",
    "rt-",
    "rt--1",
    "rt-1.",
    "rt-.5",
    "rt-1e9",
    "rt-now",
    "RT-1",
    "1111111111111111111111111111111111111111111111111111111111111111",
    "11111111111111111111111111111111111111111111111111111111111111111",
];

/// Further parameters.
pub(super) const PARAMETERS: &[&str] = &[
    "_=1406125522123",
    "unknown=%FF&x&=&&&=1",
    "last_event_id=0&last_event_id=x",
    "last_event_id=&last_event_id=0",
    "LAST_EVENT_ID=0",
    "%6Cast_event_id=0",
    "last%5Fevent%5Fid=0",
    "last_event_id",
    // Without `=`, a query becomes the arguments of a CGI program.
    "--config+/etc/passwd",
    "--listen+unix:/tmp/everpoll-parity.sock",
    "--help",
    "-V+x",
    "last_event_id=0;hold=1",
    "last_event_id=0&amp;envelope=1",
    "envelope=1&last_event_id=0",
    "envelope=1",
    "envelope=0&last_event_id=0",
    "envelope=true",
    "envelope=2",
    "envelope=",
    "hold=0",
    "hold=0.5&last_event_id=0",
    "hold=-1",
    "hold=1e3",
    "hold=NaN",
    "hold=inf",
    "hold=",
    "hold=999999999999999999999999999",
    "hold=1,5",
    "tab=a&n=1",
    "tab=a",
    "n=1",
    "tab=a&n=-1",
    "tab=a&n=18446744073709551615",
    "tab=a&n=18446744073709551616",
    "tab=%FF&n=1",
    "tab=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx&n=1",
    "tab=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx&n=1",
    "?last_event_id=0",
    "last_event_id=0?envelope=1",
    "pad=4096&beat=10",
    "token=secret",
];

/// What follows the channels in the path.
pub(super) const WAIT_IDS: &[&str] = &[
    "/", "/w", "/me", "/you", "/%2F", "/a%20b", "/%C3%A4", "/%FF", "/%0A", "/%00", "/a/b", "/a/", "//",
    "/w;x", "/w,x",
];

/// Methods beside GET.
pub(super) const METHODS: &[&str] = &["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "get", "FOO"];

/// Paths that are not a poll's, or hardly.
pub(super) const PATHS: &[&str] = &[
    "/e",
    "/e/",
    "/e?last_event_id=0",
    "/e.php",
    "/e.php/",
    "/e.php/cheese",
    "/e.php/cheese/w?last_event_id=0",
    "/E/cheese",
    "/e//cheese",
    "//e/cheese",
    "/e/./cheese",
    "/e/../e/cheese",
    "/e/%2E%2E/cheese",
    "/publish",
    "/publish.php",
    "/publish/x",
    "/publish?x=1",
    "/",
    "/nothing",
    "/ex/cheese",
    "/%65/cheese",
    "http://localhost/e/cheese?last_event_id=0",
];

/// Bodies of a POST to a poll.
pub(super) const BODIES: &[(&str, &str, &str)] = &[
    ("form", "application/x-www-form-urlencoded", "last_event_id=0&envelope=1"),
    ("form with charset", "application/x-www-form-urlencoded; charset=utf-8", "last_event_id=0"),
    ("form with plus", "application/x-www-form-urlencoded", "last_event_id=+0+"),
    ("form with an error", "application/x-www-form-urlencoded", "last_event_id=soon"),
    ("form of garbage", "application/x-www-form-urlencoded", "%%%&&&===\u{0}\u{7f}"),
    ("empty form", "application/x-www-form-urlencoded", ""),
    ("no type", "", "last_event_id=0"),
    ("plain text", "text/plain", "last_event_id=0"),
    ("json", "application/json", r#"{"last_event_id":"0"}"#),
    ("json number", "application/json", r#"{"last_event_id":0,"envelope":true,"tab":null}"#),
    ("json with unknown", "Application/JSON; charset=utf-8", r#"{"x":[{}],"last_event_id":0}"#),
    ("json without type", "", r#" {"last_event_id":0} "#),
    ("json twice", "application/json", r#"{"last_event_id":0,"last_event_id":1}"#),
    ("json fraction", "application/json", r#"{"last_event_id":1.5}"#),
    ("json array", "application/json", "[]"),
    ("json of a list", "application/json", r#"{"last_event_id":[0]}"#),
    ("broken json", "application/json", r#"{"last_event_id":"#),
    ("json with more behind", "application/json", r#"{"last_event_id":0} x"#),
    ("empty json", "application/json", ""),
    ("deep json", "application/json", "DEEP"),
    ("no utf-8 in json", "application/json", "{\"x\":\"\u{80}\"}"),
    ("multipart", "multipart/form-data; boundary=x", "--x\r\n\r\n--x--"),
    ("64 KiB", "application/x-www-form-urlencoded", "FULL"),
    ("a byte more than 64 KiB", "application/x-www-form-urlencoded", "OVER"),
];

/// Bodies of a POST to /publish that publish nothing, or what is there.
pub(super) const PUBLISHES: &[(&str, &str, &str)] = &[
    ("known key", "application/json", r#"{"channel":"50%","type":"t","data":0,"key":"k1"}"#),
    (
        "known key twice",
        "application/json; charset=utf-8",
        r#"[{"channel":"50%","type":"t","data":1,"key":"k1"},{"channel":"50%","type":"t","data":2,"key":"k1"}]"#,
    ),
    ("empty", "application/json", ""),
    ("empty array", "application/json", "[]"),
    ("broken", "application/json", r#"{"channel":"#),
    ("number", "application/json", "7"),
    ("array of numbers", "application/json", "[7]"),
    ("no channel", "application/json", r#"{"type":"t","data":0}"#),
    ("no data", "application/json", r#"{"channel":"c","type":"t"}"#),
    ("unknown field", "application/json", r#"{"channel":"c","type":"t","data":0,"x":1}"#),
    ("field twice", "application/json", r#"{"channel":"c","channel":"d","type":"t","data":0}"#),
    ("empty channel", "application/json", r#"{"channel":"","type":"t","data":0}"#),
    ("channel with slash", "application/json", r#"{"channel":"a/b","type":"t","data":0}"#),
    ("long channel", "application/json", r#"{"channel":"LONG","type":"t","data":0}"#),
    ("empty type", "application/json", r#"{"channel":"c","type":"","data":0}"#),
    ("reserved type", "application/json", r#"{"channel":"c","type":"everpoll:gap","data":0}"#),
    ("empty key", "application/json", r#"{"channel":"c","type":"t","data":0,"key":""}"#),
    ("empty exclude", "application/json", r#"{"channel":"c","type":"t","data":0,"exclude":""}"#),
    (
        "second is wrong",
        "application/json",
        r#"[{"channel":"c","type":"t","data":0},{"channel":",","type":"t","data":0}]"#,
    ),
    ("deep data", "application/json", r#"{"channel":"c","type":"t","data":DEEP}"#),
    ("large data", "application/json", r#"{"channel":"c","type":"t","data":"LARGE"}"#),
    ("no type", "", r#"{"channel":"c","type":"t","data":0}"#),
    ("plain text", "text/plain", r#"{"channel":"c","type":"t","data":0}"#),
    ("form", "application/x-www-form-urlencoded", "channel=c&type=t&data=0"),
];

/// All requests, for a log with these events.
pub(super) fn all(ids: &[u64]) -> Vec<Case> {
    let (middle, newest) = (ids[ids.len() / 2], ids[ids.len() - 1]);
    let cursor =
        |text: &str| text.replace("MIDDLE", &middle.to_string()).replace("NEWEST", &newest.to_string());
    let mut cases = Cases(Vec::new());
    for (name, channels) in CHANNELS {
        cases.poll(format!("channel: {name}"), http::get(&format!("/e/{channels}?last_event_id=2")));
    }
    for (name, channels) in [
        ("200 bytes", "x".repeat(200)),
        ("201 bytes", "x".repeat(201)),
        ("200 encoded bytes", "%78".repeat(200)),
        ("201 encoded bytes", "%C3%A4".repeat(100) + "x"),
        ("64 names", ["x"; 64].join(",")),
        ("65 names", ["x"; 65].join(",")),
    ] {
        cases.poll(format!("channel: {name}"), http::get(&format!("/e/{channels}?last_event_id=2")));
    }
    for text in CURSORS {
        let sent = cursor(text);
        cases.poll(format!("cursor: {text}"), http::get(&format!("/e/cheese,wine?last_event_id={sent}")));
        cases.poll(format!("cursor in the body: {text}"), post("", &format!("last_event_id={sent}")));
        // In a header nothing is decoded; what no header can hold is left to the query.
        if !text.contains('%') {
            cases.poll(
                format!("cursor in a header: {text}"),
                http::get("/e/cheese,wine?last_event_id=x").header("Last-Event-Id", &sent),
            );
        }
    }
    for parameters in PARAMETERS {
        cases.poll(format!("parameters: {parameters}"), http::get(&format!("/e/cheese/w?{parameters}")));
    }
    for wait_id in WAIT_IDS {
        let target = format!("/e/cheese,wine{wait_id}?last_event_id=2");
        cases.poll(format!("wait_id: {wait_id}"), http::get(&target));
    }
    for (name, wait_id) in [("128 bytes", "w".repeat(128)), ("129 bytes", "w".repeat(129))] {
        cases.poll(format!("wait_id: {name}"), http::get(&format!("/e/cheese/{wait_id}?last_event_id=2")));
    }
    for method in METHODS {
        for path in ["/e/cheese?last_event_id=2", "/e/a,,b", "/publish"] {
            cases.poll(format!("{method} {path}"), http::request(method, path));
        }
    }
    for path in PATHS {
        cases.poll(format!("path: {path}"), http::get(path));
    }
    for (name, kind, body) in BODIES {
        let body = match *body {
            "FULL" => "x".repeat(64 * 1024),
            "OVER" => "x".repeat(64 * 1024 + 1),
            "DEEP" => "[".repeat(200),
            body => body.to_owned(),
        };
        cases.poll(format!("body: {name}"), post(kind, &body));
    }
    cases.poll("body: of a GET".to_owned(), http::get("/e/cheese?last_event_id=x").body("last_event_id=0"));
    for (name, kind, body) in PUBLISHES {
        let body = body
            .replace("LONG", &"x".repeat(201))
            .replace("DEEP", &format!("{}{}", "[".repeat(129), "]".repeat(129)))
            .replace("LARGE", &"x".repeat(1024 * 1024 - 1));
        cases.add(format!("publish: {name}"), with_type(http::request("POST", "/publish"), kind).body(body));
    }
    let event = r#"{"channel":"50%","type":"t","data":0,"key":"k1"}"#;
    for (name, value) in [
        ("Origin", "https://shop.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost:8377"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Real-IP", "192.0.2.7"),
        ("Forwarded", "for=192.0.2.7"),
        ("Authorization", "Bearer of-bad-news"),
    ] {
        cases
            .add(format!("publish: {name}: {value}"), http::post_json("/publish", event).header(name, value));
    }
    let too_large = format!("[{}]", " ".repeat(8 * 1024 * 1024));
    cases.add("publish: larger than 8 MiB".to_owned(), http::post_json("/publish", too_large));
    headers(&mut cases);
    lengths(&mut cases);
    combinations(&mut cases, &cursor);
    super::streams::add(&mut cases, newest);
    super::dressed::add(&mut cases);
    cases.0
}

/// Those that are about who may read, and in which form.
pub(super) fn dressed() -> Vec<Case> {
    let mut cases = Cases(Vec::new());
    super::dressed::add(&mut cases);
    cases.0
}

fn headers(cases: &mut Cases) {
    let poll = || http::get("/e/cheese?last_event_id=2");
    cases.poll(
        "header: cursor twice".to_owned(),
        poll().header("Last-Event-Id", "2").header("last-event-id", "3"),
    );
    cases.poll("header: empty cursor".to_owned(), poll().header("Last-Event-Id", ""));
    cases.poll("header: cursor in latin-1".to_owned(), poll().header("Last-Event-Id", "\u{e4}"));
    cases.poll("header: http 1.0".to_owned(), poll().http10());
    cases.poll("header: proxy".to_owned(), poll().header("Proxy", "http://evil.example"));
    cases.poll("header: setting".to_owned(), poll().header("Everpoll-Database-Url", "sqlite:/nowhere"));
    cases.poll("header: underscores".to_owned(), poll().header("Last_Event_Id", "x"));
    cases.poll(
        "header: gzip".to_owned(),
        poll().header("Accept-Encoding", "gzip, br").header("TE", "trailers"),
    );
    cases.poll("header: range".to_owned(), poll().header("Range", "bytes=0-0"));
    cases.poll("header: condition".to_owned(), poll().header("If-None-Match", "*"));
    cases.poll(
        "header: since".to_owned(),
        poll().header("If-Modified-Since", "Thu, 01 Jan 2099 00:00:00 GMT"),
    );
    // `hold=0` where the flavor is not the point.
    let poll = || http::get("/e/cheese?last_event_id=2&hold=0");
    for (name, value) in [
        ("Flavor", "short-poll"),
        ("Flavor", ""),
        ("Flavor", "telegraph"),
        ("Flavor", "websocket"),
        ("Upgrade", "websocket"),
    ] {
        cases.add(format!("flavor: {name}: {value}"), poll().header(name, value));
    }
    for query in [
        "flavor=",
        "flavor=short-poll",
        "flavor=Short-Poll",
        "flavor=%FF",
        "flavor=websocket",
        "flavor=x&flavor=short-poll",
    ] {
        cases
            .add(format!("flavor: {query}"), http::get(&format!("/e/cheese?last_event_id=2&hold=0&{query}")));
    }
}

fn lengths(cases: &mut Cases) {
    for bytes in [8192, 8193, 12_000] {
        let start = "/e/cheese?last_event_id=2&x=";
        let target = format!("{start}{}", "y".repeat(bytes - start.len()));
        cases.poll(format!("target of {bytes} bytes"), http::get(&target));
    }
    cases.poll(
        "cookie of 8000 bytes".to_owned(),
        http::get("/e/cheese?last_event_id=2").header("Cookie", &"c".repeat(8000)),
    );
}

/// Anything with anything, 100 times.
fn combinations(cases: &mut Cases, cursor: &dyn Fn(&str) -> String) {
    let mut numbers = Numbers(2014);
    for n in 0..100 {
        let (_, channels) = numbers.pick(CHANNELS);
        let (wait_id, parameters) = (numbers.pick(WAIT_IDS), numbers.pick(PARAMETERS));
        let at = cursor(numbers.pick::<&str>(CURSORS));
        let target = format!("/e/{channels}{wait_id}?{parameters}&last_event_id={at}");
        let request = match numbers.below(4) {
            0 => {
                let (_, kind, body) = numbers.pick(BODIES);
                with_type(http::request("POST", &target), kind).body(*body)
            }
            1 => http::request("HEAD", &target),
            _ => http::get(&target),
        };
        let method = if request.bytes().starts_with(b"POST") { "POST" } else { "GET or HEAD" };
        cases.poll(format!("combination {n}: {method} {target}"), request);
    }
}

pub(super) struct Cases(Vec<Case>);

impl Cases {
    /// A poll that is not to be held, said in a header, which leaves the target as it is.
    pub(super) fn poll(&mut self, name: String, request: Request) {
        self.add(name, request.header("Flavor", "short-poll"));
    }

    pub(super) fn add(&mut self, name: String, request: Request) {
        self.push(Case { name, request, stream: false });
    }

    /// Something that asks for a stream, and may get one.
    pub(super) fn stream(&mut self, name: String, request: Request) {
        self.push(Case { name, request, stream: true });
    }

    fn push(&mut self, case: Case) {
        assert!(self.0.iter().all(|other| other.name != case.name), "{} twice", case.name);
        self.0.push(case);
    }
}

fn post(kind: &str, body: &str) -> Request {
    with_type(http::request("POST", "/e/cheese,wine"), kind).body(body)
}

fn with_type(request: Request, kind: &str) -> Request {
    if kind.is_empty() { request } else { request.header("Content-Type", kind) }
}
