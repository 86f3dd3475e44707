//! The web server in front decides: nginx asks an application, and hands its answer over to both programs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use everpoll_tests::http::{self, Address};
use everpoll_tests::{Daemon, EventStream, Fallback, TestDir, WebServer, WebSocket, sse, wait, websocket};

use super::ends::publish_on;
use super::signer::now;
use super::{Credential, TRANSPORTS, request, verdict};
use crate::nginx::asking;
use crate::site::Store;

/// After the end of a right nothing may come any more, later than this: a loaded machine delivers late what was sent in time.
const LATE: f64 = 2.0;

/// What the application answers to a session, how many seconds after the question that ends, and when it was asked.
#[derive(Clone, Default)]
struct Session {
    status: u16,
    channels: Option<String>,
    until: Option<String>,
    lasts: Option<f64>,
    /// How long it takes to answer.
    takes: Duration,
    asked: Vec<f64>,
}

/// An application with sessions, by their cookie. Its own clock is an hour behind, which makes no difference: it counts from the
/// moment that nginx says.
#[derive(Clone, Default)]
struct Application(Arc<Mutex<HashMap<String, Session>>>);

impl Application {
    /// Serves on a port of its own, until the test ends.
    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let url = format!("http://{}/may-poll", listener.local_addr().expect("it listens"));
        let this = self.clone();
        let answer = move |stream: TcpStream| {
            let (mut session, mut moment) = (String::new(), now() - 3600.0);
            for line in
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty())
            {
                if let Some(value) = line.strip_prefix("Cookie: session=") {
                    session = value.to_owned();
                } else if let Some(value) = line.strip_prefix("X-Everpoll-Asked: ") {
                    moment = value.parse().expect("seconds since 1970");
                }
            }
            let (answer, takes) = this.answer(&session, moment);
            thread::sleep(takes);
            let _ = (&stream).write_all(answer.as_bytes());
        };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = answer.clone();
                thread::spawn(move || answer(stream));
            }
        });
        url
    }

    /// What it says, and how long it takes for that.
    fn answer(&self, session: &str, moment: f64) -> (String, Duration) {
        let mut sessions = self.0.lock().expect("nobody panics with it");
        let Some(session) = sessions.get_mut(session) else {
            let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return (refusal.to_owned(), Duration::ZERO);
        };
        session.asked.push(now());
        let lasts = session.lasts.map(|lasts| format!("{:.3}", moment + lasts));
        let header = |name: &str, value: Option<&String>| {
            value.map(|value| format!("X-Everpoll-{name}: {value}\r\n")).unwrap_or_default()
        };
        let answer = format!(
            "HTTP/1.1 {} Told\r\nContent-Length: 0\r\nConnection: close\r\n{}{}\r\n",
            session.status,
            header("Channels", session.channels.as_ref()),
            header("Until", session.until.as_ref().or(lasts.as_ref()))
        );
        (answer, session.takes)
    }

    fn set(&self, name: &str, session: Session) {
        self.0.lock().expect("nobody panics with it").insert(name.to_owned(), session);
    }

    /// When it was asked about this one.
    fn asked(&self, name: &str) -> Vec<f64> {
        self.0.lock().expect("nobody panics with it").get(name).map_or_else(Vec::new, |it| it.asked.clone())
    }
}

fn grants(channels: &str) -> Session {
    Session { status: 200, channels: Some(channels.to_owned()), ..Session::default() }
}

/// The shipped configuration with its comments done: the application is asked. With `cached`, its answers are kept so long.
fn nginx(daemon: &Address, fallback: &Address, application: &str, cached: Option<&str>) -> WebServer {
    WebServer::nginx_with(daemon, fallback, |config| {
        let config = asking(config, application);
        match cached {
            None => config,
            Some(time) => config
                .replace("#proxy_cache", "proxy_cache")
                .replace("#proxy_ignore_headers", "proxy_ignore_headers")
                .replace("/var/cache/nginx/everpoll", "cache")
                .replace("29s", time),
        }
    })
}

/// Both programs, each behind an nginx that asks the application. Fields are dropped from top to bottom.
struct Asked {
    to_daemon: WebServer,
    to_fallback: WebServer,
    application: Application,
    _fallback: Fallback,
    daemon: Daemon,
    _store: Store,
    _directory: TestDir,
}

impl Asked {
    fn with(cached: Option<&str>, recheck: &str) -> Self {
        let (store, directory) = (Store::sqlite(), TestDir::new());
        let socket = |name: &str| Address::Unix(directory.join(name));
        let daemon = Daemon::on(store.url())
            .at(&socket("daemon.sock"))
            .setting("EVERPOLL_ACCESS", "proxy")
            .setting("EVERPOLL_ACCESS_RECHECK", recheck);
        let fallback = Fallback::on(store.url()).setting("EVERPOLL_ACCESS", "proxy");
        let (daemon, fallback) = (daemon.start(), fallback.start());
        let application = Application::default();
        let url = application.serve();
        let to_daemon = nginx(daemon.address(), fallback.address(), &url, cached);
        let to_fallback = nginx(&socket("nobody.sock"), fallback.address(), &url, cached);
        Self {
            to_daemon,
            to_fallback,
            application,
            _fallback: fallback,
            daemon,
            _store: store,
            _directory: directory,
        }
    }

    fn doors(&self) -> [(&'static str, &Address); 2] {
        [("daemon", self.to_daemon.address()), ("fallback", self.to_fallback.address())]
    }
}

fn session(name: &str) -> Credential {
    Credential::default().and("Cookie", format!("session={name}"))
}

#[test]
fn application_decides_on_each_transport_for_both_programs_and_clients_cannot_pretend() {
    let asked = Asked::with(None, "30");
    let application = &asked.application;
    for channel in ["cheese", "shop-1", "wine", "k\u{e4}se"] {
        asked.daemon.publish(&format!(r#"{{"channel":"{channel}","type":"made","data":"gouda"}}"#));
    }
    application.set("shop", grants("cheese, shop-*,k%C3%A4se"));
    application.set("all", grants("*"));
    application.set("silent", Session { status: 200, ..Session::default() });
    application.set("odd", grants("a*b"));
    application.set("latin", grants("k%E4se"));
    application.set("over", Session { lasts: Some(-60.0), ..grants("*") });
    application.set("soon", Session { lasts: Some(60.0), ..grants("*") });
    application.set("when", Session { until: Some("tomorrow".into()), ..grants("*") });
    let forged = |name: &str| {
        session(name)
            .and("X-Everpoll-Channels", "*".into())
            .and("X_Everpoll_Channels", "*".into())
            .and("X-Everpoll-Until", "9999999999".into())
    };
    let cases = [
        ("a channel", session("shop"), "cheese", "ok"),
        ("a pattern", session("shop"), "shop-1", "ok"),
        ("an encoded name", session("shop"), "k%C3%A4se", "ok"),
        ("several", session("shop"), "cheese,shop-1", "ok"),
        ("another", session("shop"), "wine", "channel_forbidden"),
        ("one of several", session("shop"), "cheese,wine", "channel_forbidden"),
        ("all", session("all"), "wine", "ok"),
        ("no header", session("silent"), "cheese", "access_missing"),
        ("a pattern that is none", session("odd"), "cheese", "access_malformed"),
        ("no UTF-8", session("latin"), "cheese", "access_malformed"),
        ("over", session("over"), "cheese", "access_expired"),
        ("not over", session("soon"), "cheese", "ok"),
        ("an end that is none", session("when"), "cheese", "access_malformed"),
        ("forged, with less", forged("shop"), "wine", "channel_forbidden"),
        ("forged, with nothing", forged("silent"), "cheese", "access_missing"),
        ("forged, and over", forged("over"), "cheese", "access_expired"),
    ];
    for (name, credential, channels, expected) in &cases {
        for transport in TRANSPORTS {
            for (door, address) in asked.doors() {
                let request = request(transport, channels, credential);
                let (code, text) = verdict(door, transport, address, &request);
                assert_eq!(code, *expected, "{name}, {transport}, {door}: {text}");
            }
        }
    }
    // Who has no session does not get past nginx.
    for (door, address) in asked.doors() {
        assert_eq!(request("short-poll", "cheese", &forged("nobody")).send(address).status, 403, "{door}");
    }
}

#[test]
fn header_counts_from_listed_peers_only() {
    for (peers, expected) in
        [("none", "access_untrusted"), ("10.0.0.0/8", "access_untrusted"), ("127.0.0.0/8", "ok")]
    {
        let store = Store::sqlite();
        let daemon = Daemon::on(store.url())
            .setting("EVERPOLL_ACCESS", "proxy")
            .setting("EVERPOLL_ACCESS_PEERS", peers);
        let daemon = daemon.start();
        // A poll of an empty log would be held, so there is something in it.
        daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
        let by = Credential::default().and("X-Everpoll-Channels", "cheese".into());
        for transport in TRANSPORTS {
            let (code, text) =
                verdict("daemon", transport, daemon.address(), &request(transport, "cheese", &by));
            assert_eq!(code, expected, "{peers}, {transport}: {text}");
        }
    }
}

/// nginx may hand over for a moment what is over: then nothing is read, and the client is told to come back, not to stop.
#[test]
fn what_is_just_over_is_no_refusal_and_reads_nothing() {
    let asked = Asked::with(None, "30");
    asked.application.set("reader", Session { lasts: Some(-1.0), ..grants("cheese") });
    asked.daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
    let by = session("reader");
    let targets = |address| {
        let padded = http::get("/e/cheese?last_event_id=0&pad=4096").header("Cookie", "session=reader");
        let polls = ["long-poll", "short-poll", "POST"].map(|transport| request(transport, "cheese", &by));
        polls.into_iter().chain([padded]).map(move |request| request.send(address))
    };
    for (door, address) in asked.doors() {
        for reply in targets(address) {
            assert_eq!((reply.status, &reply.json()["code"]), (429, &"access_stale".into()), "{door}");
            assert_eq!((reply.reconnect_in(), reply.header("retry-after")), (1, Some("1")), "{door}");
        }
        // A browser's EventSource gives up for good on any status but 200.
        let stream = request("eventsource", "cheese", &by).send(address);
        let text = stream.text();
        assert_eq!(stream.status, 200, "{door}: {text}");
        assert!(
            text.contains("retry: 1000\n") && text.contains(r#""reason":"access_stale""#),
            "{door}: {text}"
        );
        assert!(!text.contains("gouda"), "{door}: {text}");
    }
    let socket = websocket::request("/e/cheese?last_event_id=0").header("Cookie", "session=reader");
    let mut socket =
        WebSocket::try_open(asked.to_daemon.address(), &socket).expect("it is told as a WebSocket");
    let Ok(websocket::Received::Frame(frame)) = socket.receive(wait::PATIENCE) else { panic!("a frame") };
    assert_eq!(frame.close_code(), (1013, "reconnect_in=1 access_stale"));
    assert!(asked.daemon.get("/metrics").text().contains("access_stale"), "it is counted");
    // Once it is asked anew, all of it is there.
    asked.application.set("reader", Session { lasts: Some(60.0), ..grants("cheese") });
    for (door, address) in asked.doors() {
        for reply in targets(address) {
            assert!(reply.status == 200 && reply.text().contains("gouda"), "{door}: {}", reply.text());
        }
    }
}

#[test]
fn slow_application_is_asked_once_however_many_polls_wait_for_its_answer() {
    let asked = Asked::with(Some("29s"), "30");
    asked.daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
    // For longer than nginx lets a request wait for another's answer by default.
    let slow = Session { takes: Duration::from_millis(5700), lasts: Some(30.0), ..grants("cheese") };
    for (door, _) in asked.doors() {
        asked.application.set(door, slow.clone());
    }
    let polls = asked.doors().map(|(door, address)| {
        let poll = http::get("/e/cheese?last_event_id=0").header("Cookie", &format!("session={door}"));
        (door, [(); 4].map(|()| poll.begin(address)))
    });
    for (door, polls) in polls {
        for poll in polls {
            let reply = poll.reply();
            assert!(reply.status == 200 && reply.text().contains("gouda"), "{door}: {reply:?}");
        }
        assert_eq!(asked.application.asked(door).len(), 1, "{door}");
    }
}

/// The recipe's own times, in seconds: how long nginx keeps an answer of the application, and how long what it allows lasts.
const SHIPPED: (u64, u64) = (29, 30);

#[test]
fn lost_rights_end_what_is_held_and_the_application_is_asked_now_and_then() {
    let long = std::env::var_os("EVERPOLL_TEST_LONG").is_some();
    let (kept, lasts) = if long { SHIPPED } else { (1, 2) };
    // Long enough for a stream to end and begin again, and then again; in the long form for three minutes.
    let questions = if long { 7 } else { 4 };
    let asked = Asked::with(Some(&format!("{kept}s")), "30");
    let readers = ["poll", "padded", "stream", "websocket", "fallback"];
    for reader in readers {
        asked.application.set(reader, Session { lasts: Some(lasts as f64), ..grants("cheese") });
    }
    asked.daemon.publish(r#"{"channel":"cheese","type":"made","data":0}"#);
    let [(_, daemon), (_, fallback)] = asked.doors();
    let began = now();
    // A test that fails is to end as well.
    let give_up = began + ((questions + 8) * lasts) as f64;
    let publisher = publish_on(asked.daemon.address());
    thread::scope(|scope| {
        let polls = scope.spawn(move || poll("poll", "", daemon, give_up));
        let padded = scope.spawn(move || poll("padded", "&pad=4096&beat=1", daemon, give_up));
        let streams = scope.spawn(move || follow("stream", daemon, give_up));
        let sockets = scope.spawn(move || listen("websocket", daemon, give_up));
        let short = scope.spawn(move || poll("fallback", "", fallback, give_up));
        wait::until("the application was asked again", Duration::from_secs((questions + 5) * lasts), || {
            readers.iter().all(|name| asked.application.asked(name).len() >= questions as usize)
        });
        let all = readers.map(|name| asked.application.asked(name));
        for name in readers {
            asked.application.0.lock().expect("nobody panics with it").remove(name);
        }
        let revoked = now();
        for (name, reader) in readers.iter().zip([polls, padded, streams, sockets, short]) {
            let (last, requests) = reader.join().expect("it reads");
            println!("{name}: {requests} requests, the last event {:.2} s after the end", last - revoked);
            let late = last - revoked;
            assert!(last > began && late < lasts as f64 + LATE, "{name}: {late:.2} s late");
            assert!(requests > 1, "{name} asked only {requests} times");
        }
        // Nobody is asked about twice within the time that a right lasts, in whole seconds, as nginx counts.
        for (name, moments) in readers.iter().zip(&all) {
            let between: Vec<_> = moments.windows(2).map(|two| two[1].floor() - two[0].floor()).collect();
            let (first, last) = (moments[0], moments[moments.len() - 1]);
            let rate = 60.0 * between.len() as f64 / (last - first);
            println!("{name}: asked {} times in {:.1} s, {rate:.3} a minute", moments.len(), last - first);
            assert!(between.iter().all(|seconds| *seconds >= lasts as f64), "{name}: {moments:?}");
        }
    });
    publisher.stop();
}

/// Polls until that is refused: when the last event came, and how many polls there were.
fn poll(name: &str, more: &str, address: &Address, give_up: f64) -> (f64, usize) {
    let (mut last, mut polls, mut cursor) = (0.0, 0, "0".to_owned());
    loop {
        let target = format!("/e/cheese?last_event_id={cursor}&envelope=1{more}");
        let reply = http::get(&target).header("Cookie", &format!("session={name}")).send(address);
        if reply.status == 403 || now() > give_up {
            return (last, polls);
        }
        if reply.status == 429 {
            thread::sleep(Duration::from_secs(reply.reconnect_in().into()));
            continue;
        }
        let body = reply.json();
        if body["events"].as_array().is_some_and(|events| !events.is_empty()) {
            last = now();
        }
        cursor = body["cursor"].as_str().expect("an envelope has a cursor").to_owned();
        polls += 1;
    }
}

/// The same by EventSource.
fn follow(name: &str, address: &Address, give_up: f64) -> (f64, usize) {
    let (mut last, mut ends, mut cursor) = (0.0, 0, 0);
    loop {
        let request = sse::get(&format!("/e/cheese?last_event_id={cursor}"));
        let mut stream = EventStream::open(address, &request.header("Cookie", &format!("session={name}")));
        if stream.head.status == 403 {
            return (last, ends);
        }
        let mut pause = 0;
        while let Some(event) = stream.try_next(wait::PATIENCE).expect("it goes on") {
            if now() > give_up {
                return (last, ends);
            }
            match &*event.kind {
                "made" => (last, cursor) = (now(), event.id()),
                "everpoll:end" => {
                    let end = event.json();
                    assert!(end["reason"] == "expired" || end["reason"] == "access_stale", "{end}");
                    pause = end["reconnect_in"].as_u64().expect("seconds");
                }
                _ => {}
            }
        }
        thread::sleep(Duration::from_secs(pause));
        ends += 1;
    }
}

/// The same by WebSocket.
fn listen(name: &str, address: &Address, give_up: f64) -> (f64, usize) {
    let (mut last, mut ends, mut cursor) = (0.0, 0, 0);
    loop {
        let request = websocket::request(&format!("/e/cheese?last_event_id={cursor}"));
        let mut socket =
            match WebSocket::try_open(address, &request.header("Cookie", &format!("session={name}"))) {
                Ok(socket) => socket,
                Err(error) if error.to_string().contains("status: 403") => return (last, ends),
                Err(error) => panic!("{error}"),
            };
        loop {
            if now() > give_up {
                return (last, ends);
            }
            match socket.receive(wait::PATIENCE).expect("it goes on") {
                websocket::Received::Frame(frame) if frame.opcode == websocket::opcode::TEXT => {
                    let event: serde_json::Value = serde_json::from_slice(&frame.payload).expect("JSON");
                    if event["type"] == "made" {
                        (last, cursor) = (now(), event["id"].as_u64().expect("an id"));
                    }
                }
                websocket::Received::Frame(frame) if frame.close_code().1.ends_with("access_stale") => {
                    thread::sleep(Duration::from_secs(1));
                    break;
                }
                _ => break,
            }
        }
        ends += 1;
    }
}
