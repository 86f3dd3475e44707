//! What a WebSocket gets, and what it may do: events as frames, pings, limits, and how it ends.
//!
//! [`handshake`] is about how it begins, [`conformance`] about every frame that a client may or may not send.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::websocket::{Frame, Received, opcode};
use everpoll_tests::{Daemon, Sqlite, TestDir, WebServer, WebSocket, wait, websocket};
use serde_json::{Value, json};

use crate::site::{Site, Store};

mod conformance;
mod handshake;

fn target(channels: &str, cursor: u64, parameters: &str) -> String {
    format!("/e/{channels}?last_event_id={cursor}&flavor=websocket&{parameters}")
}

pub(crate) fn open(site: &Site, channels: &str, cursor: u64, parameters: &str) -> WebSocket {
    WebSocket::open(site.daemon.address(), &target(channels, cursor, parameters))
}

fn id(message: &Value) -> u64 {
    message["id"].as_u64().unwrap_or_else(|| panic!("no id: {message}"))
}

/// The bytes of the next message.
#[track_caller]
fn text(socket: &mut WebSocket) -> String {
    match socket.receive(wait::PATIENCE) {
        Ok(Received::Frame(frame)) if frame.opcode == opcode::TEXT => {
            String::from_utf8(frame.payload).expect("a text is UTF-8")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_event_is_a_message_of_its_own() {
    let site = Site::on(Store::sqlite());
    let seen = site.publish("other", "1");
    let mut socket = open(&site, "cheese", seen, "");
    let hello = socket.expect("everpoll:hello");
    assert_eq!((id(&hello), hello["channel_id"].as_str()), (seen, Some("cheese")));
    assert_eq!(hello["data"], json!({"cursor": seen.to_string(), "beat": 15}));
    assert!(hello["ts"].as_str().is_some_and(|ts| ts.ends_with('Z')), "{hello}");

    let made = site.publish("cheese", r#"{"name":"Gouda"}"#);
    let live = text(&mut socket);
    let ts = live.rsplit_once("\"ts\":").expect("a time").1;
    let expected =
        format!(r#"{{"id":{made},"channel_id":"cheese","type":"made","data":{{"name":"Gouda"}},"ts":{ts}"#);
    assert_eq!((live.as_str(), ts.len()), (expected.as_str(), 27));
    // The same for whoever comes later, and the same time as in a poll.
    let mut later = open(&site, "cheese", seen, "");
    later.expect("everpoll:hello");
    assert_eq!(text(&mut later), live);
    let poll = site.daemon.get("/e/cheese?last_event_id=0&flavor=short-poll");
    assert!(poll.text().contains(&format!("\"ts\":{}", ts.trim_end_matches('}'))), "{}", poll.text());
}

#[test]
fn whatever_was_published_arrives_as_it_was() {
    let site = Site::on(Store::sqlite());
    let mut live = open(&site, "cheese,wine", 0, "");
    live.expect("everpoll:hello");
    let data = [
        json!("two\nlines\r \u{2028} \u{1f9c0} \0 \u{feff}"),
        json!({"nested": [1, 2.5, null, true]}),
        json!(null),
        json!(12345678901234567890_u64),
        // Lengths around those where a frame's head grows, and the longest there is.
        json!("x".repeat(40)),
        json!("x".repeat(65_400)),
        json!("x".repeat(65_536)),
        json!("x".repeat(1_048_574)),
    ];
    let types = ["error", "message", "close", "\u{e4}\u{1f9c0}", "\"quoted\"", "a:b", " spaces "];
    let published: Vec<_> = (0..data.len() * types.len())
        .map(|n| {
            let channel = if n % 2 == 0 { "cheese" } else { "wine" };
            json!({"channel": channel, "type": types[n % types.len()], "data": data[n % data.len()]})
        })
        .collect();
    let ids: Vec<_> = published.iter().flat_map(|event| site.daemon.publish(&event.to_string())).collect();
    let mut later = open(&site, "cheese,wine", 0, "");
    later.expect("everpoll:hello");
    for socket in [&mut live, &mut later] {
        for (event, expected) in published.iter().zip(&ids) {
            let text = text(socket);
            assert!(text.is_ascii());
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let got =
                json!({"channel": message["channel_id"], "type": message["type"], "data": message["data"]});
            assert_eq!((id(&message), &got), (*expected, event));
        }
    }
}

#[test]
fn gap_comes_after_the_hello() {
    let site = Site::on(Store::sqlite());
    for _ in 0..3 {
        site.publish("cheese", "0");
    }
    site.store.run_well(&["trim", "--count", "1"]);
    site.settle();
    let mut socket = open(&site, "cheese", 1, "");
    assert_eq!(id(&socket.expect("everpoll:hello")), 1);
    let gap = socket.expect("everpoll:gap");
    assert_eq!((id(&gap), &gap["data"]), (2, &json!({"after": 1, "before": 3, "reason": "trimmed"})));
    assert_eq!(id(&socket.expect("made")), 3);
    let mut ahead = open(&site, "cheese", 1000, "");
    ahead.expect("everpoll:hello");
    assert_eq!(ahead.expect("everpoll:gap")["data"]["reason"], "ahead");
}

#[test]
fn thousands_of_events_are_caught_up_in_order_and_then_it_is_live() {
    for store in Store::both() {
        let site = Site::with(store, &[("EVERPOLL_WINDOW_BYTES", "64KiB")]);
        let events = |count: usize| {
            let events: Vec<_> =
                (0..count).map(|n| json!({"channel": "cheese", "type": "made", "data": n})).collect();
            site.daemon.publish(&json!(events).to_string())
        };
        let mut ids: Vec<_> = (0..4).flat_map(|_| events(900)).collect();
        let mut socket = open(&site, "cheese", 0, "");
        socket.expect("everpoll:hello");
        ids.extend(events(10));
        let mut seen: Vec<_> = ids.iter().map(|_| id(&socket.expect("made"))).collect();
        ids.push(site.publish("cheese", "0"));
        seen.push(id(&socket.expect("made")));
        assert_eq!(seen, ids);
    }
}

#[test]
fn event_is_kept_from_the_browser_that_it_excludes() {
    let site = Site::on(Store::sqlite());
    let open = |wait_id: &str| {
        let target = format!("/e/cheese/{wait_id}?last_event_id=0&flavor=websocket");
        let mut socket = WebSocket::open(site.daemon.address(), &target);
        socket.expect("everpoll:hello");
        socket
    };
    let (mut me, mut you) = (open("me"), open("you"));
    let hidden = site.daemon.publish(r#"{"channel":"cheese","type":"made","data":1,"exclude":"me"}"#)[0];
    let shown = site.publish("cheese", "2");
    assert_eq!([id(&you.message()), id(&you.message())], [hidden, shown]);
    assert_eq!([id(&me.message()), id(&open("me").message())], [shown, shown]);
}

#[test]
fn beats_are_for_those_who_ask_and_pings_for_all() {
    let site = Site::with(Store::sqlite(), &[("EVERPOLL_HEARTBEAT", "1"), ("EVERPOLL_HOLD_MAX", "1")]);
    let seen = site.publish("cheese", "1");
    let mut asking = open(&site, "cheese", seen, "beat=1");
    assert_eq!(asking.expect("everpoll:hello")["data"]["beat"], 1);
    for n in 1..=3 {
        let beat = asking.expect("everpoll:beat");
        assert_eq!(beat["data"], json!({"n": n, "cursor": seen.to_string()}));
    }
    let mut quiet = open(&site, "cheese", seen, "");
    quiet.expect("everpoll:hello");
    // Longer than two heartbeats and the longest hold: an answered ping keeps it.
    let nothing = quiet.receive(Duration::from_secs(5));
    assert!(nothing.is_err(), "{nothing:?}");
    assert!((3..=6).contains(&quiet.pings()), "{} pings", quiet.pings());
    let made = site.publish("cheese", "2");
    assert_eq!(id(&quiet.expect("made")), made);
}

#[test]
fn socket_that_was_busy_is_not_taken_for_dead_when_it_falls_quiet() {
    let site = Site::with(Store::sqlite(), &[("EVERPOLL_HEARTBEAT", "1")]);
    let mut socket = open(&site, "cheese", 0, "");
    socket.expect("everpoll:hello");
    // While there are events no ping is needed, so none is answered either.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let made = site.publish("cheese", "1");
        assert_eq!(id(&socket.expect("made")), made);
        std::thread::sleep(Duration::from_millis(200));
    }
    let nothing = socket.receive(Duration::from_secs(4));
    assert!(nothing.is_err(), "{nothing:?}");
    let made = site.publish("cheese", "1");
    assert_eq!(id(&socket.expect("made")), made);
}

#[test]
fn socket_that_answers_no_ping_is_closed() {
    let site = Site::with(Store::sqlite(), &[("EVERPOLL_HEARTBEAT", "1")]);
    let mut deaf = open(&site, "cheese", 0, "");
    deaf.expect("everpoll:hello");
    deaf.answers_pings = false;
    let began = Instant::now();
    loop {
        match deaf.receive(wait::PATIENCE) {
            Ok(Received::Frame(frame)) if frame.opcode == opcode::PING => {}
            Ok(Received::Frame(frame)) if frame.opcode == opcode::CLOSE => {}
            Ok(Received::End) => break,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            other => panic!("{other:?}"),
        }
    }
    let took = began.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(8)).contains(&took), "{took:?}");
}

#[test]
fn sockets_take_nobodys_place() {
    let site = Site::on(Store::sqlite());
    let target = "/e/cheese/w?last_event_id=0&flavor=websocket";
    let mut sockets = [(); 3].map(|()| WebSocket::open(site.daemon.address(), target));
    for socket in &mut sockets {
        socket.expect("everpoll:hello");
    }
    let free = http::get("/e/nothing/w?hold=0.05").send(site.daemon.address());
    assert_eq!(free.reconnect_in(), 0, "browsers do not count them among the connections of a host");
    let made = site.publish("cheese", "1");
    for socket in &mut sockets {
        assert_eq!(id(&socket.expect("made")), made);
    }
}

#[test]
fn what_clients_say_is_ignored_up_to_a_limit() {
    let site = Site::on(Store::sqlite());
    let mut socket = open(&site, "cheese", 0, "");
    socket.expect("everpoll:hello");
    for _ in 0..1000 {
        socket.send(&Frame::new(opcode::TEXT, vec![b'x'; 4096])).expect("it reads");
    }
    let made = site.publish("cheese", "1");
    assert_eq!(id(&socket.expect("made")), made);
    // Refused by its head: nobody waits for the rest.
    let large = Frame::new(opcode::TEXT, vec![b'x'; 5000]).masked();
    socket.send_bytes(&large[..20]).expect("it reads");
    let (code, reason) = socket.closed();
    assert_eq!(code, 1009, "{reason}");
    assert!(reason.contains("4096") || reason.contains("4 KiB"), "{reason:?} says the limit");
}

#[test]
fn stop_closes_sockets_with_a_delay_to_come_back() {
    let mut site = Site::on(Store::sqlite());
    let mut sockets: Vec<_> = (0..50).map(|_| open(&site, "cheese", 0, "")).collect();
    for socket in &mut sockets {
        socket.expect("everpoll:hello");
    }
    site.daemon.process().terminate();
    for socket in &mut sockets {
        let (code, reason) = socket.closed();
        let delay = reason.strip_prefix("reconnect_in=").and_then(|delay| delay.parse::<u32>().ok());
        assert_eq!(code, 1001);
        assert!(delay.is_some_and(|delay| (1..=5).contains(&delay)), "{reason:?}");
    }
    assert_eq!(site.daemon.process().wait(wait::PATIENCE).code(), Some(0));
}

#[test]
fn stop_does_not_wait_for_sockets_that_say_no_goodbye() {
    let mut site = Site::with(Store::sqlite(), &[("EVERPOLL_DRAIN_TIMEOUT", "3")]);
    let mut rude: Vec<_> = (0..5).map(|_| open(&site, "cheese", 0, "")).collect();
    for socket in &mut rude {
        socket.expect("everpoll:hello");
    }
    let began = Instant::now();
    assert_eq!(site.daemon.stop().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn reader_that_takes_nothing_is_closed_and_the_others_go_on() {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).setting("EVERPOLL_WRITE_TIMEOUT", 2).start();
    let open = || WebSocket::open(daemon.address(), "/e/cheese?last_event_id=0&flavor=websocket");
    let (mut slow, mut good) = (open(), open());
    slow.expect("everpoll:hello");
    good.expect("everpoll:hello");
    let event = json!({"channel": "cheese", "type": "made", "data": "x".repeat(1_000_000)}).to_string();
    let mut ids = Vec::new();
    let before = everpoll_tests::process::resident_kilobytes(daemon_id(&mut daemon));
    for _ in 0..30 {
        ids.extend(daemon.publish(&event));
        assert_eq!(id(&good.expect("made")), ids[ids.len() - 1]);
    }
    // The window is 64 MiB; a second copy of it for the slow one would show.
    let after = everpoll_tests::process::resident_kilobytes(daemon_id(&mut daemon));
    assert!(after < before + 150_000, "{before} KB, then {after} KB");
    std::thread::sleep(Duration::from_secs(3));
    // What it finds when it reads at last: whole messages in order, and why it was closed if that still fitted.
    let mut seen = Vec::new();
    let ended = loop {
        match slow.receive(wait::PATIENCE) {
            Ok(Received::Frame(frame)) if frame.opcode == opcode::TEXT => {
                seen.push(id(&serde_json::from_slice(&frame.payload).expect("JSON")));
            }
            other => break other,
        }
    };
    assert!(seen.len() < ids.len(), "it was never slow");
    assert_eq!(seen, ids[..seen.len()]);
    match ended {
        Ok(Received::Frame(frame)) => assert_eq!(frame.close_code(), (1013, "resume from your cursor")),
        Ok(Received::End) | Err(_) => {}
    }
    let cursor = seen.last().copied().unwrap_or(0);
    let target = format!("/e/cheese?last_event_id={cursor}&flavor=websocket");
    let mut again = WebSocket::open(daemon.address(), &target);
    again.expect("everpoll:hello");
    for expected in &ids[seen.len()..] {
        assert_eq!(id(&again.expect("made")), *expected);
    }
}

/// Ends both ways of a connection when it is dropped, and with them the threads that use it.
struct Hangup<'a>(&'a TcpStream);

impl Drop for Hangup<'_> {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[test]
fn flood_of_frames_makes_nobody_else_wait() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    let target = "/e/cheese?last_event_id=0&flavor=websocket";
    let mut others: Vec<_> = (0..8).map(|_| WebSocket::open(daemon.address(), target)).collect();
    for other in &mut others {
        other.expect("everpoll:hello");
    }
    let Address::Tcp(at) = daemon.address() else { panic!("it listens at a TCP port") };
    let handshake = websocket::request("/e/ham?flavor=websocket").bytes();
    // Of a length that divides what is read at a time: half a frame at its end is left to a task in any case.
    let frames = |kind| Frame::new(kind, "ab").masked().repeat(20_000);
    // What comes right behind its handshake is a task's from the beginning; what comes later is read among others that wait, as long
    // as nothing is to be answered that does not fit.
    for (later, kind) in [(false, opcode::PING), (true, opcode::PONG)] {
        let mut flood = TcpStream::connect(at).expect("it listens");
        flood.write_all(&handshake).expect("it reads");
        let (mut first, hello) = (Vec::new(), &b"everpoll:hello"[..]);
        while later && !first.windows(hello.len()).any(|part| part == hello) {
            let mut some = [0; 1024];
            let read = flood.read(&mut some).expect("it answers");
            first.extend_from_slice(&some[..read]);
        }
        flood_beside(&daemon, &mut others, &flood, &frames(kind));
    }
}

/// Sends frames without a pause, while others are to get what is published.
fn flood_beside(daemon: &Daemon, others: &mut [WebSocket], flood: &TcpStream, frames: &[u8]) {
    let (mut writer, mut reader) = (flood, flood);
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let _hangup = Hangup(flood);
        scope.spawn(|| {
            while writer.write_all(frames).is_ok() {
                sent.fetch_add(frames.len(), Ordering::Relaxed);
            }
        });
        // It takes all that is answered, so that the daemon always has something to read.
        scope.spawn(|| {
            let mut some = vec![0; 64 * 1024];
            while let Ok(1..) = reader.read(&mut some) {}
        });
        // Far more than the sockets' buffers take.
        let wait_for_more = || {
            let more = sent.load(Ordering::Relaxed) + (2 << 20);
            wait::until("it floods", wait::PATIENCE, || sent.load(Ordering::Relaxed) > more);
        };
        wait_for_more();
        let before = sent.load(Ordering::Relaxed);
        for _ in 0..20 {
            let published = daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#);
            for other in &mut *others {
                assert_eq!(id(&other.expect("made")), published[0]);
            }
        }
        let meanwhile = sent.load(Ordering::Relaxed) - before;
        println!("{meanwhile} bytes were read while 20 events came");
        // Measured: at most 9 MB, in whatever time; where nobody else gets a turn before the flood pauses for breath, 90 MB and more.
        assert!(meanwhile < 50_000_000, "{meanwhile} bytes were read before others had their turn");
        wait_for_more();
    });
}

fn daemon_id(daemon: &mut Daemon) -> u32 {
    daemon.process().id()
}

#[test]
fn client_that_leaves_without_a_word_is_forgotten() {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).start();
    let descriptors = |daemon: &mut Daemon| {
        let folder = format!("/proc/{}/fd", daemon.process().id());
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    };
    let sockets: Vec<_> =
        (0..50).map(|_| WebSocket::open(daemon.address(), "/e/cheese?flavor=websocket")).collect();
    let with_them = descriptors(&mut daemon);
    assert!(with_them > 50, "{with_them}");
    drop(sockets);
    wait::until("their connections are gone", wait::PATIENCE, || descriptors(&mut daemon) <= with_them - 50);
}

#[test]
fn socket_passes_nginx_and_the_fallback_says_what_to_do() {
    let (site, directory) = (Site::on(Store::sqlite()), TestDir::new());
    let socket = Address::Unix(directory.join("daemon.sock"));
    let mut daemon = Daemon::on(site.store.url()).at(&socket).setting("EVERPOLL_HEARTBEAT", 1).start();
    let nginx = WebServer::nginx(daemon.address(), site.fallback.address());
    let mut socket = WebSocket::open(nginx.address(), &target("cheese", 0, ""));
    socket.expect("everpoll:hello");
    let made = site.publish("cheese", "1");
    assert_eq!(id(&socket.expect("made")), made);
    assert!(socket.receive(Duration::from_secs(3)).is_err());
    assert!(socket.pings() >= 2, "pings pass");
    daemon.kill_9();
    let mut rest = Vec::new();
    assert_eq!(socket.stream().read_to_end(&mut rest).unwrap_or(0), 0, "{rest:?}");
    let refused = everpoll_tests::websocket::request(&target("cheese", made, "")).send(nginx.address());
    assert_eq!((refused.status, refused.json()["code"].as_str()), (426, Some("upgrade_required")));
}
