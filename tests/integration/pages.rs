//! The daemon's pages for people: their files, the requests of the self-test, and the demo's job.
//!
//! What the pages do in a browser is told by `tests/js/browser/self-test.mjs`, at the end here, and by `browsers.rs`.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use everpoll_tests::cutter::Mode;
use everpoll_tests::everpoll::DaemonStart;
use everpoll_tests::http::{self, Address, Connection, Held, Reply, Request};
use everpoll_tests::{
    Cutter, Daemon, EventStream, Fallback, Script, Sqlite, WebServer, WebSocket, sse, wait, websocket,
};

use crate::site::{collect, poll};

/// Every file of the pages, with its type.
const FILES: [(&str, &str); 8] = [
    ("/e/_probe", "text/html; charset=utf-8"),
    ("/e/_probe/probe.css", "text/css; charset=utf-8"),
    ("/e/_probe/probe.js", "text/javascript; charset=utf-8"),
    ("/e/_probe/icon.svg", "image/svg+xml"),
    ("/demo", "text/html; charset=utf-8"),
    ("/demo/demo.css", "text/css; charset=utf-8"),
    ("/demo/demo.js", "text/javascript; charset=utf-8"),
    ("/demo/icon.svg", "image/svg+xml"),
];

/// A test request that is answered at once.
const BRIEF: &str = "/e/_probe/hold?seconds=0";

/// A daemon on a log of its own. The log is dropped after it.
struct Served {
    daemon: Daemon,
    sqlite: Sqlite,
}

impl Served {
    fn with(settings: impl Fn(DaemonStart) -> DaemonStart) -> Self {
        let sqlite = Sqlite::new();
        let daemon = settings(Daemon::on(sqlite.url()).setting("EVERPOLL_DEMO", "true")).start();
        Self { daemon, sqlite }
    }

    fn start() -> Self {
        Self::with(|start| start)
    }

    fn get(&self, target: &str) -> Reply {
        self.daemon.get(target)
    }
}

fn job() -> http::Request {
    http::post_json("/demo/job", "{}")
}

#[track_caller]
fn assert_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.json()["code"].as_str()), (status, Some(code)), "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
}

/// The headers that keep caches away, without those that differ from reply to reply.
fn caching(reply: &Reply) -> Vec<(String, String)> {
    let kept = ["cache-control", "pragma", "expires", "x-accel-buffering", "x-content-type-options"];
    let headers = reply.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    headers.filter(|(name, _)| kept.contains(&name.as_str())).collect()
}

#[test]
fn files_of_the_pages_are_served_and_not_sent_twice() {
    let served = Served::start();
    for (target, content_type) in FILES {
        let reply = served.get(target);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(content_type)), "{target}");
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
        assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
        let head = http::request("HEAD", target).send(served.daemon.address());
        assert_eq!((head.status, head.body.len()), (200, 0), "{target}");
        assert_eq!(head.header("content-length"), reply.header("content-length"));

        let tag = reply.header("etag").expect("a tag");
        for known in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let again = http::get(target).header("If-None-Match", &known).send(served.daemon.address());
            assert_eq!((again.status, again.body.len()), (304, 0), "{target} {known}");
            assert_eq!(again.header("etag"), Some(tag));
        }
        let other = http::get(target).header("If-None-Match", "\"other\"").send(served.daemon.address());
        assert_eq!(other.status, 200, "{target}");
        let wrong = http::post_json(target, "{}").send(served.daemon.address());
        assert_problem(&wrong, 405, "method_not_allowed");
        assert_eq!(wrong.header("allow"), Some("GET, HEAD"));
    }
}

#[test]
fn pages_load_nothing_from_elsewhere_and_run_nothing_inline() {
    let served = Served::start();
    for (target, _) in FILES {
        let reply = served.get(target);
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'self'; "), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = reply.text();
        // The icon's is the name of its language and loads nothing; the demo shows a line for a terminal.
        let text =
            text.replace("http://www.w3.org/2000/svg", "").replace("curl -i http://127.0.0.1:8377", "");
        assert!(!text.contains("://") || target.ends_with(".js"), "{target} names another host");
        for inline in [" style=", " onclick=", "<script>", "<style", "javascript:"] {
            assert!(!text.contains(inline), "{target} has {inline}");
        }
    }
    // All that a page names is there.
    for page in ["/e/_probe", "/demo"] {
        let folder = &page[..=page.rfind('/').expect("a path")];
        let reply = served.get(page);
        let text = reply.text();
        let named = text.split(['"']).skip(1).step_by(2).filter(|value| value.contains(['/', '.']));
        let named: Vec<_> = named.filter(|value| value.ends_with(".js") || value.ends_with(".css")).collect();
        assert!(named.len() >= 2, "{named:?}");
        for file in named {
            assert_eq!(served.get(&format!("{folder}{file}")).status, 200, "{page} names {file}");
        }
    }
}

#[test]
fn pages_that_are_switched_off_are_not_there() {
    let sqlite = Sqlite::new();
    let daemon = Daemon::on(sqlite.url()).setting("EVERPOLL_PROBE", "false").start();
    for target in ["/e/_probe", "/e/_probe/hold", "/e/_probe/echo", "/demo", "/demo/demo.js", "/demo/clock"] {
        assert_problem(&daemon.get(target), 404, "not_found");
    }
    assert_problem(&http::request("POST", "/demo/job").send(daemon.address()), 404, "not_found");
    // As shipped: the self-test is there, the demo is not.
    let daemon = Daemon::on(sqlite.url()).start();
    assert_eq!(daemon.get("/e/_probe").status, 200);
    assert_problem(&daemon.get("/demo"), 404, "not_found");
    assert_problem(&daemon.get("/e/_probe/other"), 404, "not_found");
}

#[test]
fn test_request_is_held_as_long_as_it_asks() {
    let served = Served::start();
    let polled = served.get("/e/cheese?flavor=short-poll");
    let began = Instant::now();
    let reply = served.get("/e/_probe/hold?seconds=0.7&_=1");
    assert!(began.elapsed() >= Duration::from_millis(700));
    let answer = reply.json();
    assert_eq!(
        (reply.status, answer["ended"].as_str(), answer["end"].as_u64()),
        (200, Some("time"), Some(1))
    );
    assert!((700..20_000).contains(&answer["held_ms"].as_u64().expect("a time")), "{answer}");
    assert!(reply.text().ends_with("\"end\":1}"), "{answer}");
    assert_eq!((caching(&reply).len(), caching(&reply)), (5, caching(&polled)));
    let next = served.get("/e.php/_probe/hold?seconds=0").json();
    assert!(next["serial"].as_u64() > answer["serial"].as_u64(), "{next}");

    for query in [
        "seconds=126",
        "seconds=-1",
        "seconds=1e1",
        "seconds=",
        "pad=1023",
        "pad=65537",
        "beat=0.5",
        "beat=61",
    ] {
        let reply = served.get(&format!("/e/_probe/hold?{query}"));
        assert_problem(&reply, 400, "probe_malformed");
        assert!(reply.text().contains("is not a number from"), "{}", reply.text());
    }
    let wrong = http::post_json("/e/_probe/hold", "{}").send(served.daemon.address());
    assert_problem(&wrong, 405, "method_not_allowed");
}

/// Holds one plain and one padded test request, which are all that a daemon with 20 connections takes.
fn hold_both(address: &Address) -> (Held, Held) {
    let mut padded = http::get("/e/_probe/hold?seconds=125&pad=1024&beat=1").begin(address);
    wait::until("the head of the padded one comes", wait::PATIENCE, || !padded.is_waiting());
    let begin = || http::get("/e/_probe/hold?seconds=125").begin(address);
    let mut plain = begin();
    wait::until("there is no place left", wait::PATIENCE, || {
        if !plain.is_waiting() {
            // It came while the question below had the place, and was sent away.
            plain = begin();
        }
        http::get(BRIEF).send(address).status == 429 && plain.is_waiting()
    });
    (plain, padded)
}

/// Sends a padded hold and returns its bytes with the time when they came; until it is closed.
fn pieces(address: &Address, target: &str) -> Vec<(Duration, Vec<u8>)> {
    let mut stream = address.connect().expect("it listens");
    stream.write_all(&http::get(target).bytes()).expect("it takes requests");
    let (began, mut pieces, mut some) = (Instant::now(), Vec::new(), vec![0; 65536]);
    loop {
        match stream.read(&mut some) {
            Ok(0) => return pieces,
            Ok(length) => pieces.push((began.elapsed(), some[..length].to_vec())),
            Err(error) => panic!("{target}: {error}"),
        }
    }
}

#[test]
fn padded_test_request_shows_signs_of_life_all_the_way() {
    let served = Served::start();
    let fallback = Fallback::on(served.sqlite.url()).start();
    let nginx = WebServer::nginx(served.daemon.address(), fallback.address());
    // Nothing but silence is cut, and the beats break it.
    let cutter = Cutter::before(nginx.address(), Mode::Fin(Duration::from_secs(2)));
    let target = "/e/_probe/hold?seconds=3.5&pad=2048&beat=1";
    for address in [served.daemon.address(), nginx.address(), cutter.address()] {
        let pieces = pieces(address, target);
        let all: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let text = String::from_utf8(all).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.to_ascii_lowercase().contains("content-length: 2048"), "{head}");
        assert_eq!(body.len(), 2048);
        let answer: serde_json::Value = serde_json::from_str(body).expect("JSON between spaces");
        assert_eq!((answer["ended"].as_str(), body.find('{')), (Some("time"), Some(3)), "{body}");
        // The head came before the first space, and that long before the answer.
        assert!(pieces.len() >= 4, "{address}: {} pieces", pieces.len());
        let apart = pieces.last().expect("the answer").0 - pieces[0].0;
        assert!(apart >= Duration::from_secs(3), "{address}: everything came within {apart:?}");
    }
}

#[test]
fn silent_test_request_is_cut_where_silence_is() {
    let served = Served::start();
    let cutter = Cutter::before(served.daemon.address(), Mode::Fin(Duration::from_secs(1)));
    let cut = http::get("/e/_probe/hold?seconds=60").try_send(cutter.address());
    assert!(cut.is_err(), "{cut:?}");
    let short = http::get("/e/_probe/hold?seconds=0.2").send(cutter.address());
    assert_eq!(short.json()["ended"], "time");
}

#[test]
fn test_request_that_is_sent_again_is_told_so() {
    let served = Served::start();
    let cutter = Cutter::before(served.daemon.address(), Mode::Fin(Duration::from_millis(1500)));
    let target = "/e/_probe/hold?seconds=60&key=one";
    assert!(http::get(target).try_send(cutter.address()).is_err());
    // As a browser does it.
    let again = http::get(target).send(cutter.address()).json();
    assert_eq!(again["ended"], "again", "{again}");
    assert!(again["held_ms"].as_u64().is_some_and(|ms| (1000..60_000).contains(&ms)), "{again}");
    // A copy that comes with it is held as well, and so is another request.
    let doubled = Cutter::before(served.daemon.address(), Mode::Duplicate);
    for key in ["two", "three"] {
        let reply = http::get(&format!("/e/_probe/hold?seconds=0.3&key={key}")).send(doubled.address());
        assert_eq!(reply.json()["ended"], "time");
    }
}

#[test]
fn test_requests_are_bounded_and_give_their_places_back() {
    // A tenth of the connections: two.
    let served = Served::with(|start| start.setting("EVERPOLL_CONNECTIONS_MAX", "20"));
    let address = served.daemon.address();
    let (plain, padded) = hold_both(address);
    let ask = || served.get(BRIEF);
    let busy = ask();
    assert_problem(&busy, 429, "probe_busy");
    assert!(busy.text().contains("2 holds") && busy.reconnect_in() > 0, "{}", busy.text());
    // Polls have their own places, and so has the rest of the test.
    assert_eq!(served.get("/e/_probe/echo").status, 200);
    assert_eq!(served.get("/e/cheese?flavor=short-poll").status, 200);
    drop(padded);
    wait::until("the padded one's place is free", wait::PATIENCE, || ask().status == 200);
    drop(plain);
    let held = http::get("/e/_probe/hold?seconds=125&beat=1&pad=1024").begin(address);
    wait::until("the plain one's place is free, too", wait::PATIENCE, || ask().status == 200);
    drop(held);
}

#[test]
fn test_requests_end_with_the_daemon() {
    // With two places, it can be seen from outside that both are taken.
    let mut served = Served::with(|start| start.setting("EVERPOLL_CONNECTIONS_MAX", "20"));
    let address = served.daemon.address().clone();
    let (plain, padded) = hold_both(&address);
    served.daemon.process().terminate();
    for held in [plain, padded] {
        let reply = held.reply();
        assert_eq!((reply.status, reply.json()["ended"].as_str()), (200, Some("draining")));
    }
    assert_eq!(served.daemon.process().wait(wait::PATIENCE).code(), Some(0));
}

#[test]
fn echo_tells_what_arrived_and_no_secrets() {
    let served = Served::start();
    let fallback = Fallback::on(served.sqlite.url()).start();
    let nginx = WebServer::nginx(served.daemon.address(), fallback.address());
    let body = "x".repeat(3000);
    let request = http::request("POST", "/e/_probe/echo?_=1").header("Last-Event-Id", "probe-7");
    let request = request.header("Cookie", "session=hush").header("Authorization", "Bearer hush-hush");
    let request = request.header("Via", "1.1 squid").header("X-Forwarded-For", "192.0.2.7").body(body);
    let (direct, through_nginx) = (request.send(served.daemon.address()), request.send(nginx.address()));
    for (reply, addresses) in [(&direct, 1), (&through_nginx, 2)] {
        let answer = reply.json();
        assert_eq!(
            (reply.status, &answer["last_event_id"], &answer["via"]),
            (200, &"probe-7".into(), &"1.1 squid".into())
        );
        assert_eq!((&answer["cookie"], &answer["authorization"]), (&true.into(), &true.into()));
        assert_eq!((&answer["body_bytes"], &answer["method"]), (&3000.into(), &"POST".into()));
        assert_eq!(answer["forwarded_for"], addresses, "{answer}");
        assert!(!reply.text().contains("hush") && !reply.text().contains("192.0.2"), "{}", reply.text());
        for name in ["x-ps-reconnect-in", "x-ps-cursor", "x-shortpoll-info"] {
            assert!(reply.header(name).is_some(), "{name}");
        }
    }
    let stripped = Cutter::before(served.daemon.address(), Mode::Strip);
    let reply = http::get("/e/_probe/echo").header("Last-Event-Id", "7").send(stripped.address());
    assert_eq!(
        (&reply.json()["last_event_id"], reply.header("x-ps-cursor")),
        (&serde_json::Value::Null, None)
    );
    let cache = Cutter::before(served.daemon.address(), Mode::Cache);
    let serial = |target| http::get(target).send(cache.address()).json()["serial"].clone();
    assert_eq!(serial("/e/_probe/echo?_=1"), serial("/e/_probe/echo?_=1"));
    assert_ne!(serial("/e/_probe/echo?_=1"), serial("/e/_probe/echo?_=2"));

    let large = http::request("POST", "/e/_probe/echo").body("x".repeat(65_537));
    assert_problem(&large.send(served.daemon.address()), 413, "body_too_large");
}

#[test]
fn job_publishes_its_progress_to_its_end() {
    let served = Served::start();
    let address = served.daemon.address();
    let started = job().send(address);
    assert_eq!(started.status, 202, "{}", started.text());
    // 0 %, 5 % … 100 %: over ten seconds, in which nothing has to be asked of the daemon.
    let (events, cursor) = collect(address, "cheese", 0, 21);
    let percents: Vec<_> = events.iter().filter_map(|event| event.data["percent"].as_u64()).collect();
    assert_eq!(percents, (0..=100).step_by(5).collect::<Vec<_>>());
    let ours =
        |event: &http::Event| event.kind == "job_progress" && event.data["job"] == started.json()["job"];
    assert!(events.iter().all(ours), "{events:?}");
    // Its place is free again, and it is silent.
    assert_eq!(poll("cheese", cursor, "flavor=short-poll").send(address).events(), []);
}

#[test]
fn jobs_are_few_and_for_those_who_may_publish() {
    let served = Served::start();
    let address = served.daemon.address();
    let status = |request: http::Request| request.send(address).status;
    // As for publishing: not for a page of another site, nor for somebody behind a proxy.
    assert_problem(&job().header("Origin", "https://evil.example").send(address), 403, "publish_not_local");
    assert_problem(&job().header("X-Forwarded-For", "192.0.2.7").send(address), 403, "publish_not_local");
    assert_problem(&http::request("POST", "/demo/job").send(address), 415, "not_json_content");
    assert_problem(&served.get("/demo/job"), 405, "method_not_allowed");

    let started: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn({
                let address = address.clone();
                move || job().send(&address).status
            })
        })
        .collect();
    assert!(started.into_iter().all(|thread| thread.join().is_ok_and(|status| status == 202)));
    let busy = job().send(address);
    assert_problem(&busy, 429, "demo_busy");
    assert!(busy.text().contains("3 jobs"), "{}", busy.text());
    wait::until("a place is free again", wait::PATIENCE, || status(job()) == 202);

    let keyed = Served::with(|start| start.setting("EVERPOLL_PUBLISH_KEY", "hush-hush-hush-hush"));
    assert_problem(&job().send(keyed.daemon.address()), 403, "publish_key_wrong");
    let with_key = job().header("Authorization", "Bearer hush-hush-hush-hush");
    assert_eq!(with_key.send(keyed.daemon.address()).status, 202);
}

#[test]
fn clock_is_the_servers() {
    use std::time::{SystemTime, UNIX_EPOCH};
    let served = Served::start();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let (before, reply, after) = (now(), served.get("/demo/clock?_=1"), now());
    let told = reply.json()["now"].as_u64().expect("a time");
    assert!((before..=after).contains(&told), "{before} {told} {after}");
    assert_eq!(caching(&reply).len(), 5);
}

#[test]
fn pages_are_reached_through_nginx_and_missed_with_a_word() {
    let mut served = Served::start();
    let fallback = Fallback::on(served.sqlite.url()).start();
    let nginx = WebServer::nginx(served.daemon.address(), fallback.address());
    for (target, content_type) in FILES {
        let reply = http::get(target).send(nginx.address());
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(content_type)), "{target}");
    }
    // Of this machine's own browser, which is what nginx says.
    assert_eq!(job().send(nginx.address()).status, 202);
    let elsewhere = job().header("X-Forwarded-For", "192.0.2.7").send(nginx.address());
    assert_problem(&elsewhere, 403, "publish_not_local");

    served.daemon.stop();
    let away = http::get("/demo").send(nginx.address());
    assert!(away.status == 503 && away.text().contains("reload this one"), "{}", away.text());
    let away = http::get("/e/_probe").send(nginx.address());
    assert_eq!(away.status, 404, "{}", away.text());
}

#[test]
fn client_is_loaded_through_nginx_from_either_program() {
    let mut served = Served::start();
    let fallback = Fallback::on(served.sqlite.url()).start();
    let nginx = WebServer::nginx(served.daemon.address(), fallback.address());
    let from_daemon = http::get("/everpoll.js").send(nginx.address());
    assert_eq!(from_daemon.status, 200, "{from_daemon:?}");
    assert!(from_daemon.header("content-type").is_some_and(|kind| kind.contains("javascript")));
    let tag = from_daemon.header("etag").expect("a tag").to_owned();
    let hashed = format!("/everpoll.{}.js", tag.trim_matches('"'));
    let kept = http::get(&hashed).send(nginx.address());
    assert!(kept.header("cache-control").is_some_and(|value| value.contains("immutable")), "{kept:?}");
    // Compressed, the tag is a weak one, and known all the same.
    let compressed = http::get("/everpoll.js").header("Accept-Encoding", "gzip").send(nginx.address());
    if let Some(weak) = compressed.header("etag") {
        let known = http::get("/everpoll.js").header("If-None-Match", weak).send(nginx.address());
        assert_eq!((known.status, known.body.len()), (304, 0));
    }
    served.daemon.stop();
    for target in ["/everpoll.js", &hashed] {
        let from_fallback = http::get(target).send(nginx.address());
        assert_eq!((from_fallback.status, &from_fallback.body), (200, &from_daemon.body), "{target}");
        assert_eq!(from_fallback.header("etag"), Some(tag.as_str()), "{target}");
    }
}

#[test]
fn streams_go_through_after_pages_on_the_same_connections() {
    let served = Served::start();
    let fallback = Fallback::on(served.sqlite.url()).start();
    let nginx = WebServer::nginx(served.daemon.address(), fallback.address());
    // nginx keeps its connections to the daemon and sends the next request for /e into any of them.
    for round in 0..4 {
        let tests: Vec<_> = (0..4)
            .map(|n| http::get(&format!("/e/_probe/hold?seconds=0.1&n={n}")).begin(nginx.address()))
            .collect();
        assert!(tests.into_iter().all(|held| held.reply().status == 200));
        let echo = http::request("POST", "/e/_probe/echo").body("x").send(nginx.address());
        assert_eq!(echo.status, 200);
        let mut stream = EventStream::open(nginx.address(), &sse::get("/e/cheese?flavor=eventsource&beat=1"));
        stream.expect("everpoll:hello");
        let (beat, _) = stream.expect("everpoll:beat");
        assert!(beat["n"].is_number(), "round {round}: {}", stream.text());
        WebSocket::open(nginx.address(), "/e/cheese?flavor=websocket&beat=1").expect("everpoll:hello");
    }
}

#[test]
fn stream_behind_a_body_in_chunks_is_sent_to_another_connection() {
    let served = Served::start();
    let (address, kept) =
        (served.daemon.address(), |request: Request| request.header("Connection", "keep-alive"));
    // Such a connection stays with hyper, since only hyper knows where the body ends.
    let publish = || {
        let event = r#"{"channel":"cheese","type":"made","data":1}"#;
        let head = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut connection = Connection::open(address).expect("it listens");
        let bytes = format!("{head}{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
        connection.send(bytes.as_bytes()).expect("it reads");
        let published = connection.read_reply(false).expect("a reply");
        assert_eq!((published.status, published.keeps_connection()), (201, true));
        connection
    };
    for target in ["/e/cheese?flavor=eventsource", "/e/cheese?pad=1024&hold=0.1", "/everpoll.js"] {
        let reply = publish().exchange(&kept(http::get(target))).expect("a reply");
        assert_eq!((reply.status, reply.keeps_connection()), (200, false), "{target}");
    }
    let mut connection = publish();
    connection.send(&websocket::request("/e/cheese?flavor=websocket").bytes()).expect("it reads");
    let refused = connection.read_reply(false).expect("a reply");
    assert_eq!((refused.status, refused.keeps_connection()), (426, false));
}

#[test]
fn self_test_tells_a_visitor_what_the_network_does() {
    let served = Served::start();
    let fallback = Fallback::on(served.sqlite.url()).start();
    let nginx = WebServer::nginx(served.daemon.address(), fallback.address());
    // Silence is cut in front of it all, so that the tests end soon; streams, with a beat each second, pass.
    let visit = |network: &Address, [headers, cache, eventsource, websocket]: [&str; 4]| {
        let cutter = Cutter::before(network, Mode::Fin(Duration::from_secs(5)));
        let results = serde_json::json!({
            "hold-25": "cut after", "hold-60": "cut after", "padded-60": "cut after", "post": "works",
            "headers": headers, "cache": cache, "eventsource": eventsource, "websocket": websocket,
        });
        Script::browser("browser/self-test.mjs")
            .with("browser", "chromium")
            .with("url", format!("http://{}", cutter.address()))
            .with("results", results)
            // A busy machine takes long to start a browser.
            .within(300)
            .run(|command| panic!("it asks for {command}"));
    };
    visit(nginx.address(), ["works"; 4]);
    let buffering = Cutter::before(nginx.address(), Mode::Buffer);
    let stripping = Cutter::before(buffering.address(), Mode::Strip);
    let storing = Cutter::before(stripping.address(), Mode::Cache);
    visit(storing.address(), ["stripped", "cached", "buffered", "stripped"]);
}
