//! Limits of what clients may do: who is above one is told so, and all others are served as ever.

use std::net::Ipv4Addr;

use everpoll_tests::http::{self, Address, Connection};
use everpoll_tests::tls::Authority;
use everpoll_tests::{
    Daemon, EventStream, Reply, Sqlite, TestDir, WebServer, WebSocket, sse, wait, websocket,
};

use crate::site::{Site, Store};

const EVENT: &str = r#"{"channel":"cheese","type":"made","data":1}"#;

#[test]
fn sizes_are_settings_and_each_refusal_names_its_limit() {
    let settings = [
        ("EVERPOLL_EVENT_MAX", "1KiB"),
        ("EVERPOLL_BATCH_MAX", "2"),
        ("EVERPOLL_CHANNELS_MAX", "3"),
        ("EVERPOLL_POLL_BODY_MAX", "1KiB"),
        ("EVERPOLL_HEAD_MAX", "4KiB"),
    ];
    let site = Site::with(Store::sqlite(), &settings);
    let large =
        |bytes: usize| format!(r#"{{"channel":"cheese","type":"made","data":"{}"}}"#, "x".repeat(bytes - 2));
    for (name, address) in site.doors() {
        let told = |request: http::Request| {
            let reply = request.send(address);
            let json = reply.json();
            let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
            (reply.status, text("code"), text("detail"))
        };
        let refused = |request, status, code: &str, limit: &str| {
            let (was, said, detail) = told(request);
            assert_eq!((was, said.as_str()), (status, code), "{name}: {detail}");
            assert!(detail.contains(limit), "{name}: {detail}");
        };
        assert_eq!(told(http::post_json("/publish", large(1024))).0, 201, "{name}");
        refused(http::post_json("/publish", large(1025)), 413, "data_too_large", "the limit is 1024");
        assert_eq!(told(http::post_json("/publish", format!("[{EVENT},{EVENT}]"))).0, 201, "{name}");
        let three = format!("[{EVENT},{EVENT},{EVENT}]");
        refused(http::post_json("/publish", three), 400, "publish_too_many", "the limit is 2");
        assert_eq!(http::get("/e/a,b,c?flavor=short-poll").send(address).status, 200, "{name}");
        refused(http::get("/e/a,b,c,d?flavor=short-poll"), 400, "too_many_channels", "the limit is 3");
        let body = |bytes: usize| format!("flavor=short-poll&_={}", "x".repeat(bytes - 20));
        let post = |body: String| http::request("POST", "/e/a").body(body);
        assert_eq!(post(body(1024)).send(address).status, 200, "{name}");
        refused(post(body(1025)), 413, "body_too_large", "1024 bytes");
    }
    for (name, address) in site.doors() {
        let with_head = |bytes: usize| {
            http::get("/e/a?flavor=short-poll").header("Cookie", &"x".repeat(bytes)).send(address)
        };
        assert_eq!(with_head(3700).status, 200, "{name}");
        let reply = with_head(4100);
        assert_eq!((reply.status, reply.json()["code"].as_str()), (431, Some("head_too_large")), "{name}");
        assert!(reply.text().contains("4096 bytes"), "{name}: {}", reply.text());
        // Each by itself is small.
        let many = |count: usize| {
            let request = http::get("/e/a?flavor=short-poll");
            (0..count)
                .fold(request, |request, number| request.header(&format!("X-{number}"), "1"))
                .send(address)
        };
        assert_eq!(many(80).status, 200, "{name}");
        let reply = many(110);
        assert_eq!((reply.status, reply.json()["code"].as_str()), (431, Some("head_too_large")), "{name}");
    }
}

#[test]
fn data_of_the_command_line_has_the_same_limit() {
    let log = Sqlite::new();
    let publish = |data: &str| {
        let mut command = everpoll_tests::everpoll::command("everpoll");
        command.args(["publish", "cheese", "made", data]);
        command.env("EVERPOLL_DATABASE_URL", log.url()).env("EVERPOLL_EVENT_MAX", "64");
        let (status, _, errors) = everpoll_tests::process::run(command, b"");
        (status.code(), errors)
    };
    assert_eq!(publish(&format!("\"{}\"", "x".repeat(62))).0, Some(0));
    let (code, errors) = publish(&format!("\"{}\"", "x".repeat(63)));
    assert!(code == Some(2) && errors.contains("65 bytes long, the limit is 64"), "{code:?} {errors}");
}

/// Clients at addresses of their own. The test itself, at 127.0.0.1, is a web server in front that says nothing of whom it asks for, and so
/// is not counted.
const OTHERS: (&str, &str) = ("EVERPOLL_FORWARDED_PEERS", "127.0.0.1");

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn ask_from(source: Ipv4Addr, at: &Address, request: &http::Request) -> Reply {
    Connection::open_from(source, at).and_then(|mut it| it.exchange(request)).expect("a reply")
}

/// A request that a web server in front passes on for this client.
fn forwarded(client: &str, request: http::Request) -> http::Request {
    request.header("X-Forwarded-For", client)
}

fn short_poll() -> http::Request {
    http::get("/e/cheese?flavor=short-poll")
}

fn metric(at: &Address, name: &str) -> u64 {
    let page = http::get("/metrics").send(at);
    let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}")))
}

fn hits(at: &Address, limit: &str) -> u64 {
    metric(at, &format!("everpoll_limit_hits_total{{limit=\"{limit}\"}}"))
}

fn held(at: &Address, way: &str) -> u64 {
    metric(at, &format!("everpoll_held{{transport=\"{way}\"}}"))
}

/// That it is told when to come back, also as clients of others know it.
#[track_caller]
fn assert_too_many(reply: &Reply, code: &str) {
    assert_eq!((reply.status, reply.json()["code"].as_str()), (429, Some(code)), "{}", reply.text());
    let seconds = reply.reconnect_in();
    assert!((1..=60).contains(&seconds), "{reply:?}");
    assert_eq!(reply.header("retry-after"), Some(seconds.to_string().as_str()));
    assert_eq!(reply.json()["reconnect_in"], seconds);
}

/// Asks until it is one too many; before `burst` it must not be.
#[track_caller]
fn ask_until_too_many(burst: usize, ask: impl Fn() -> Reply) -> Reply {
    let mut asked = 0;
    wait::until_some("one is too many", wait::PATIENCE, || {
        let reply = ask();
        asked += 1;
        match reply.status {
            429 => Some(reply),
            status => {
                assert_eq!(status, 200, "{}", reply.text());
                None
            }
        }
        .inspect(|_| assert!(asked > burst, "refused after {asked}"))
    })
}

/// Holds polls from one address until it may have no more connections, and looks what it and all others are told.
fn check_connections_per_address(daemon: &Daemon) {
    let at = daemon.address();
    let poll = http::get("/e/cheese?last_event_id=0");
    let mut all = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open_from(ONE, at).expect("it listens");
        connection.send(&poll.bytes()).expect("it reads");
        all.push(connection);
    }
    wait::until("three are held", wait::PATIENCE, || held(at, "long_poll") == 3);
    let reply = ask_from(ONE, at, &poll);
    assert_too_many(&reply, "too_many_connections");
    assert!(reply.text().contains("connections_per_address"), "{}", reply.text());
    assert_eq!(hits(at, "connections_per_address"), 1);
    // Others are served: at another address, and behind a web server.
    assert_eq!(ask_from(OTHER, at, &short_poll()).status, 200);
    let behind: Vec<_> = (0..5).map(|_| poll.begin(at)).collect();
    wait::until("eight are held", wait::PATIENCE, || held(at, "long_poll") == 8);
    let id = daemon.publish(EVENT)[0];
    for held in behind {
        assert_eq!(held.reply().events()[0].id, id);
    }
    for connection in &mut all {
        assert_eq!(connection.read_reply(false).expect("a reply").events()[0].id, id);
    }
    drop(all);
    // What was taken is given back.
    for _ in 0..5 {
        wait::until("there is room again", wait::PATIENCE, || ask_from(ONE, at, &short_poll()).status == 200);
    }
}

#[test]
fn connections_of_one_address_leave_room_for_others() {
    let log = Sqlite::new();
    let (name, value) = OTHERS;
    let daemon =
        Daemon::on(log.url()).setting(name, value).setting("EVERPOLL_CONNECTIONS_PER_ADDRESS", 3).start();
    check_connections_per_address(&daemon);
}

#[test]
fn connections_of_one_address_are_told_so_through_tls() {
    let (log, authority) = (Sqlite::new(), Authority::new());
    let certificate = authority.sign("server");
    let (name, value) = OTHERS;
    let daemon = Daemon::on(log.url())
        .tls(&certificate)
        .setting(name, value)
        .setting("EVERPOLL_CONNECTIONS_PER_ADDRESS", 3)
        .start();
    check_connections_per_address(&daemon);
}

#[test]
fn full_daemon_says_so_through_tls() {
    let (log, authority) = (Sqlite::new(), Authority::new());
    let certificate = authority.sign("server");
    let daemon = Daemon::on(log.url()).tls(&certificate).setting("EVERPOLL_CONNECTIONS_MAX", 4).start();
    let at = daemon.address();
    // Without a request, so that none of them is held and answered.
    let mut idle: Vec<_> = (0..4).filter_map(|_| at.connect().ok()).collect();
    let reply = wait::until_some("it is full", wait::PATIENCE, || {
        let reply = short_poll().try_send(at).ok()?;
        (reply.status != 200).then_some(reply)
    });
    assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("overloaded")), "{}", reply.text());
    assert!(reply.reconnect_in() >= 5);
    idle.clear();
    wait::until("there is room again", wait::PATIENCE, || {
        short_poll().try_send(at).is_ok_and(|reply| reply.status == 200)
    });
}

#[test]
fn holds_of_one_client_behind_a_web_server_leave_room_for_others() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_CONNECTIONS_PER_ADDRESS", 2).start();
    let nobody = TestDir::new();
    let nginx = WebServer::nginx(daemon.address(), &Address::Unix(nobody.join("nobody.sock")));
    let (at, direct) = (nginx.address(), daemon.address());
    let poll = || http::get("/e/cheese?last_event_id=0");
    let stream = |client: &str| forwarded(client, sse::get("/e/cheese?last_event_id=0"));
    // nginx appends whom it sees, which is this machine, and so another web server.
    let first = forwarded("198.51.100.1, 203.0.113.1", poll()).begin(at);
    let mut second = EventStream::open(at, &stream("203.0.113.1"));
    second.expect("everpoll:hello");
    wait::until("both are held", wait::PATIENCE, || {
        (held(direct, "long_poll"), held(direct, "eventsource")) == (1, 1)
    });
    let reply = forwarded("203.0.113.1", poll()).send(at);
    assert_eq!((reply.status, reply.header("x-shortpoll-info")), (200, Some("true")));
    assert!(reply.reconnect_in() >= 5, "{reply:?}");
    let mut third = EventStream::open(at, &stream("203.0.113.1"));
    third.expect("everpoll:hello");
    assert_eq!(third.expect("everpoll:end").0["reason"], "short_poll");
    // Last, since nginx may send a stream over the same connection, where it is answered in short.
    let reply = forwarded("203.0.113.1", http::request("POST", "/e/cheese").body("last_event_id=0")).send(at);
    assert_eq!((reply.status, reply.header("x-shortpoll-info")), (200, Some("true")), "{}", reply.text());
    assert!(reply.reconnect_in() >= 5, "{reply:?}");
    assert_eq!(hits(direct, "connections_per_address"), 3);
    // Others are held, also those of whom nothing is said; of IPv6 a whole network is one.
    let others: Vec<_> =
        ["203.0.113.2", "2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", "127.0.0.1"]
            .into_iter()
            .map(|client| forwarded(client, poll()).begin(at))
            .collect();
    wait::until("all others are held", wait::PATIENCE, || held(direct, "long_poll") == 6);
    assert!(forwarded("2001:db8:0:1:ffff::", poll()).send(at).reconnect_in() >= 5);
    let id = daemon.publish(EVENT)[0];
    for held in others.into_iter().chain([first]) {
        assert_eq!(held.reply().events()[0].id, id);
    }
    second.expect("made");
    drop(second);
    wait::until("the stream's end is seen", wait::PATIENCE, || held(direct, "eventsource") == 0);
    let again: Vec<_> = (0..2)
        .map(|_| forwarded("203.0.113.1", http::get(&format!("/e/cheese?last_event_id={id}"))).begin(at))
        .collect();
    wait::until("there is room again", wait::PATIENCE, || held(direct, "long_poll") == 2);
    drop(again);
}

#[test]
fn requests_of_one_address_leave_room_for_others_at_both_programs() {
    const BURST: usize = 20;
    let settings =
        [("EVERPOLL_REQUESTS_PER_ADDRESS", "1 burst 20"), ("EVERPOLL_PUBLISH_KEY", "0123456789abcdef")];
    let site = Site::with(Store::sqlite(), &settings);
    for (name, at) in site.doors() {
        let client = "203.0.113.7";
        let ask = || forwarded(client, short_poll()).send(at);
        let reply = ask_until_too_many(BURST, ask);
        assert_too_many(&reply, "too_many_requests");
        // By each way, also those that count for nothing when they are refused for something else.
        // nginx has other things at other paths.
        let elsewhere = if name == "daemon" { "/nowhere" } else { "/e/a/b/c" };
        for request in [
            http::request("POST", "/e/cheese").body("flavor=short-poll"),
            http::get("/e/cheese?last_event_id=x"),
            http::get("/e/cheese?cb=f"),
            http::get(elsewhere),
            http::post_json("/publish", EVENT).header("Authorization", "Bearer wrong"),
        ] {
            let request = forwarded(client, request);
            let reply = wait::until_some("it is one too many", wait::PATIENCE, || {
                Some(request.send(at)).filter(|reply| reply.status == 429)
            });
            assert_too_many(&reply, "too_many_requests");
        }
        // An EventSource gives up for good on any status but 200.
        let told = wait::until_some("a stream is one too many", wait::PATIENCE, || {
            let reply = forwarded(client, sse::get("/e/cheese")).try_send(at).ok()?;
            Some(reply)
                .filter(|reply| reply.header("content-length").is_some() && reply.text().contains("too_many"))
        });
        assert_eq!(
            (told.status, told.header("content-type")),
            (200, Some("text/event-stream; charset=utf-8"))
        );
        assert!(told.text().contains("\nretry: ") && told.text().contains("event: everpoll:end"), "{name}");
        // A publisher with a key has a limit of its own.
        for _ in 0..BURST + 5 {
            let publish =
                http::post_json("/publish", EVENT).header("Authorization", "Bearer 0123456789abcdef");
            assert_eq!(forwarded(client, publish).send(at).status, 201, "{name}");
        }
        // Others are served meanwhile, and the same one later.
        assert_eq!(forwarded("203.0.113.8", short_poll()).send(at).status, 200, "{name}");
        assert_eq!(short_poll().send(at).status, 200, "{name}");
        wait::until("it may ask again", wait::PATIENCE, || ask().status == 200);
    }
    assert!(hits(site.daemon.address(), "requests_per_address") >= 7);
}

#[test]
fn requests_over_a_connection_of_its_own_count_for_whom_it_is() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url())
        .setting("EVERPOLL_FORWARDED_PEERS", "127.0.0.1")
        .setting("EVERPOLL_REQUESTS_PER_ADDRESS", "1 burst 10")
        .start();
    let at = daemon.address();
    let mut connection = Connection::open_from(ONE, at).expect("it listens");
    let mut ask = |request: http::Request| {
        // What it says about others does not count.
        let request = forwarded("203.0.113.9", request.header("Connection", "keep-alive"));
        connection.exchange(&request).expect("a reply")
    };
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        assert!(statuses.len() < 10_000, "none of so many was one too many");
        statuses.push(ask(short_poll()).status);
    }
    assert!(statuses.len() > 10, "{statuses:?}");
    // The same connection goes on when it may.
    wait::until("it may ask again", wait::PATIENCE, || ask(short_poll()).status == 200);
    let reply = wait::until_some("a WebSocket is one too many", wait::PATIENCE, || {
        let reply = ask_from(ONE, at, &websocket::request("/e/cheese"));
        (reply.status != 101).then_some(reply)
    });
    assert_too_many(&reply, "too_many_requests");
    assert_eq!(ask_from(OTHER, at, &short_poll()).status, 200);
}

#[test]
fn websockets_of_one_browser_are_bounded_and_take_nobodys_place() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_WEBSOCKETS_PER_WAIT_ID", 2).start();
    let at = daemon.address();
    let open = |wait_id: &str| {
        let mut socket = WebSocket::open(at, &format!("/e/cheese/{wait_id}"));
        socket.expect("everpoll:hello");
        socket
    };
    let mut open_ones = [open("one"), open("one"), open("other")];
    let mut third = open("one");
    let (code, reason) = third.closed();
    assert!(code == 1013 && reason.contains("place_taken"), "{code} {reason}");
    assert_eq!(hits(at, "websockets_per_wait_id"), 1);
    // Its polls are held as ever.
    let poll = http::get("/e/cheese/one?last_event_id=0").begin(at);
    wait::until("its poll is held", wait::PATIENCE, || held(at, "long_poll") == 1);
    let id = daemon.publish(EVENT)[0];
    assert_eq!(poll.reply().events()[0].id, id);
    for socket in &mut open_ones {
        assert_eq!(socket.expect("made")["id"], id);
    }
    let [first, ..] = open_ones;
    drop(first);
    wait::until("its end is seen", wait::PATIENCE, || held(at, "websocket") == 2);
    let mut again = open("one");
    daemon.publish(EVENT);
    again.expect("made");
}

#[test]
fn publishing_above_a_keys_rate_publishes_nothing_and_leaves_other_keys_alone() {
    let keys = "shop = { key = 'shop-0123456789abc', channels = ['*'], rate = '2 burst 10' }\n\
                all = { key = 'all-0123456789abcd', channels = ['*'] }";
    let settings = [("EVERPOLL_PUBLISH_KEYS", keys), ("EVERPOLL_PUBLISH_RATE", "100000")];
    let site = Site::with(Store::sqlite(), &settings);
    for (name, at) in site.doors() {
        let publish = |key: &str, events: usize| {
            let body = format!("[{}]", vec![EVENT; events].join(","));
            http::post_json("/publish", body).header("Authorization", &format!("Bearer {key}")).send(at)
        };
        let cursor = site.cursor("cheese");
        assert_eq!(publish("shop-0123456789abc", 10).status, 201, "{name}");
        let reply = publish("shop-0123456789abc", 10);
        assert_too_many(&reply, "publish_rate");
        assert!(reply.text().contains("\\\"shop\\\" may publish 2 events a second"), "{}", reply.text());
        assert!((4..=5).contains(&reply.reconnect_in()), "{reply:?}");
        assert_eq!(publish("all-0123456789abcd", 1000).status, 201, "{name}");
        // Nothing of what was refused is there.
        let (events, _) = crate::site::collect(at, "cheese", cursor, 1010);
        assert_eq!(events.len(), 1010, "{name}");
        wait::until("it may publish again", wait::PATIENCE, || {
            publish("shop-0123456789abc", 1).status == 201
        });
    }
    assert!(hits(site.daemon.address(), "publish_rate") >= 1);
}

#[test]
fn metrics_and_readiness_are_not_for_everybody() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_STATUS_PEERS", "127.0.0.1").start();
    let at = daemon.address();
    for path in ["/metrics", "/readyz"] {
        let refused = |reply: Reply| {
            assert_eq!(
                (reply.status, reply.json()["code"].as_str()),
                (403, Some("status_private")),
                "{path}"
            );
        };
        refused(ask_from(ONE, at, &http::get(path)));
        // What a web server passes on is its client's question.
        refused(forwarded("203.0.113.1", http::get(path)).send(at));
        assert_eq!(http::get(path).send(at).status, 200, "{path}");
        assert_eq!(forwarded("127.0.0.1", http::get(path)).send(at).status, 200, "{path}");
    }
    assert_eq!(ask_from(ONE, at, &http::get("/healthz")).status, 200);
    let directory = TestDir::new();
    let socket = Address::Unix(directory.join("daemon.sock"));
    let _daemon = Daemon::on(log.url()).setting("EVERPOLL_STATUS_PEERS", "none").at(&socket).start();
    assert_eq!(http::get("/metrics").send(&socket).status, 200);
    assert_eq!(forwarded("203.0.113.1", http::get("/metrics")).send(&socket).status, 403);
}
