//! The daemon faces clients itself: everything that is served without TLS, with it; its certificate, that changes while clients are
//! held; and whoever does the handshake wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use everpoll_tests::http::{self, Address, Connection, Held, ReplyParser};
use everpoll_tests::pollers::{Poller, Pollers};
use everpoll_tests::process::{self, Process};
use everpoll_tests::tls::{Authority, Certificate};
use everpoll_tests::{Daemon, EventStream, Script, Sqlite, TestDir, WebSocket, everpoll, sse, wait};
use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use socket2::{Domain, Socket, Type};

use crate::judge;
use crate::site::Store;

/// A request that is out for so long is held; an answer takes far less.
const HELD: Duration = Duration::from_millis(300);

const EVENT: &str = r#"{"channel":"cheese","type":"made","data":{"n":1}}"#;

/// All that runs. Fields are dropped from top to bottom.
struct Site {
    daemon: Daemon,
    certificate: Certificate,
    authority: Authority,
    log: Sqlite,
}

impl Site {
    fn start() -> Self {
        Self::with("EVERPOLL_HOLD_MAX", "25")
    }

    fn with(setting: &str, value: &str) -> Self {
        let (log, authority) = (Sqlite::new(), Authority::new());
        let certificate = authority.sign("server");
        let daemon = Daemon::on(log.url()).tls(&certificate).setting(setting, value).start();
        Self { daemon, certificate, authority, log }
    }

    fn address(&self) -> &Address {
        self.daemon.address()
    }

    fn socket(&self) -> SocketAddr {
        let Address::Tls(address, _) = self.address() else { panic!("it speaks TLS") };
        *address
    }

    /// The certificate that a new connection gets.
    fn shown(&self) -> Vec<u8> {
        self.address().connect().expect("a handshake").certificate().expect("a certificate")
    }

    fn publish(&self) -> u64 {
        self.daemon.publish(EVENT)[0]
    }

    fn metric(&self, name: &str) -> u64 {
        let page = self.daemon.get("/metrics");
        let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}")))
    }

    /// A poll that is held, over a connection that stays.
    fn hold(&self, wait_id: &str) -> Held {
        let target = format!("/e/cheese/{wait_id}?tab=a&n=2");
        let held = http::get(&target).header("Connection", "keep-alive").begin(self.address());
        // An earlier request of the same tab is sent away once the later one is held, and not before.
        let earlier = http::get(&format!("/e/cheese/{wait_id}?tab=a&n=1")).send(self.address());
        assert_eq!(earlier.reconnect_in(), 5);
        held
    }
}

#[test]
fn all_transports_and_all_else_are_served_with_each_version_of_tls() {
    let site = Site::start();
    for version in [&TLS12, &TLS13] {
        let address = Address::Tls(site.socket(), site.authority.trust(&[version]));
        let held = http::get("/e/cheese").begin(&address);
        let mut stream = EventStream::open(&address, &sse::get("/e/cheese"));
        stream.expect("everpoll:hello");
        let mut socket = WebSocket::open(&address, "/e/cheese?flavor=websocket");
        socket.expect("everpoll:hello");
        let padded = http::get("/e/cheese?pad=4096&beat=1").begin(&address);
        wait::until("all are held", wait::PATIENCE, || {
            let held = ["long_poll", "eventsource", "websocket", "padded"];
            held.iter().all(|way| site.metric(&format!("everpoll_held{{transport=\"{way}\"}}")) == 1)
        });
        // By hyper, over a connection of its own.
        let id = http::post_json("/publish", EVENT).send(&address).json()["ids"][0].as_u64().expect("an id");
        assert_eq!(held.reply().events()[0].id, id);
        assert_eq!(stream.expect("made").1, id.to_string());
        assert_eq!(socket.message()["id"], id);
        assert_eq!(padded.reply().events()[0].id, id);
        // One connection, for one poll after the other, and what hyper serves in between.
        let mut connection = Connection::open(&address).expect("a handshake");
        for target in [
            "/e/cheese?last_event_id=0",
            "/e/cheese?hold=0",
            "/e/a?flavor=short-poll",
            "/readyz",
            "/e/b?hold=0",
        ] {
            let request = http::get(target).header("Connection", "keep-alive");
            assert_eq!(connection.exchange(&request).expect("a reply").status, 200, "{target}");
        }
        // Two at once, and the second one is read while the first is held.
        let two = [http::get("/e/cheese?hold=1"), http::get("/e/cheese?last_event_id=0")];
        let two = two.map(|request| request.header("Connection", "keep-alive").bytes()).concat();
        connection.send(&two).expect("it is open");
        assert!(connection.read_reply(false).expect("the end of a hold").events().is_empty());
        assert!(!connection.read_reply(false).expect("a reply").events().is_empty());
        // Two in one record, the first as long as what is read at a time: of the second one the socket knows nothing any more.
        let first =
            |pad| http::get("/e/a?hold=0").header("Connection", "keep-alive").header("Pad", pad).bytes();
        let first = first(&"x".repeat(4096 - first("").len()));
        assert_eq!(first.len(), 4096);
        connection.send(&[first, http::get("/e/b?hold=0").bytes()].concat()).expect("it is open");
        for _ in 0..2 {
            connection.stream().set_deadline(wait::PATIENCE).expect("not zero");
            assert_eq!(connection.read_reply(false).expect("a reply").status, 200);
        }
    }
}

#[test]
fn large_replies_come_whole_to_a_client_that_takes_its_time() {
    let site = Site::start();
    // Of each character six bytes are sent, so four events are more than any socket takes at once.
    let text = "è".repeat(400_000);
    for n in 0..4 {
        let event = serde_json::json!({"channel": "large", "type": "made", "data": {"n": n, "text": text}});
        site.daemon.publish(&event.to_string());
    }
    let [mut polling, mut streaming] = [(); 2].map(|()| small(&site));
    for cursor in 0..4 {
        let request =
            http::get(&format!("/e/large?last_event_id={cursor}")).header("Connection", "keep-alive");
        polling.write_all(&request.bytes()).expect("it is open");
    }
    streaming.write_all(&sse::get("/e/large?last_event_id=0").bytes()).expect("it is open");
    // More than what one of them can have waiting.
    wait::until("much waits for both", wait::PATIENCE, || site.metric("everpoll_unsent_bytes") > 6 * 500_000);
    let (mut parser, mut ids) = (ReplyParser::default(), Vec::new());
    while ids.len() < 4 {
        match parser.next(false, false).expect("a reply") {
            Some(reply) => {
                ids.extend(reply.events().iter().map(|event| (event.id, event.data["text"] == text)))
            }
            None => {
                let mut some = [0; 10_000];
                let read = polling.read(&mut some).expect("more of it");
                parser.push(&some[..read]);
            }
        }
    }
    assert_eq!(ids, [(1, true), (2, true), (3, true), (4, true)]);
    let mut streaming = EventStream::on(streaming).expect("a head");
    streaming.expect("everpoll:hello");
    for n in 0..4 {
        let (data, id) = streaming.expect("made");
        assert_eq!((data["n"].as_u64(), data["text"] == text, id), (Some(n), true, (n + 1).to_string()));
    }
    // And a request that is longer than one record, by hyper.
    let event = serde_json::json!({"channel": "large", "type": "made", "data": text});
    assert_eq!(site.daemon.publish(&event.to_string()), [5]);
    assert!(site.daemon.log().lines().all(|line| !line.contains("ERROR")), "{}", site.daemon.log());
}

/// A connection of a client that has no room for more than a little.
fn small(site: &Site) -> http::Stream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("it may be small");
    socket.connect(&site.socket().into()).expect("it listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(wait::PATIENCE)).expect("not zero");
    http::Stream::Tls(Box::new(site.certificate.trust.greet(stream).expect("a handshake")))
}

#[test]
fn curl_trusts_the_certificate_and_is_held() {
    let site = Site::start();
    let curl = |target: &str, arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--cacert"]);
        command.arg(site.authority.root()).args(arguments);
        command.arg(format!("https://localhost:{}{target}", site.socket().port()));
        command
    };
    let directory = TestDir::new();
    let mut poll = Process::start("poll", curl("/e/cheese", &["--ipv4"]), directory.path());
    let mut stream =
        Process::start("stream", curl("/e/cheese?flavor=eventsource", &["--ipv4", "-N"]), directory.path());
    wait::until("both are held", wait::PATIENCE, || {
        site.metric("everpoll_held{transport=\"long_poll\"}") == 1
            && site.metric("everpoll_held{transport=\"eventsource\"}") == 1
    });
    let id = site.publish();
    assert_eq!(poll.wait(wait::PATIENCE).code(), Some(0), "{}", poll.log());
    assert!(poll.log().contains(&format!("[{{\"id\":{id},")), "{}", poll.log());
    wait::until("the event is there", wait::PATIENCE, || stream.log().contains(&format!("id: {id}\n")));
    assert!(stream.is_running());
    // It is told that the stream ends, and ends well.
    let mut site = site;
    assert_eq!(site.daemon.stop().code(), Some(0));
    assert_eq!(stream.wait(wait::PATIENCE).code(), Some(0), "{}", stream.log());
    site.daemon.start_again();
    // Whoever does not trust it gets nothing, and nobody else minds.
    let url = format!("https://localhost:{}/e/cheese", site.socket().port());
    let mut stranger = Command::new("curl");
    stranger.args(["--silent", "--show-error", "--noproxy", "*", "--ipv4", &url]);
    let (status, _, errors) = process::run(stranger, b"");
    assert_eq!(status.code(), Some(60), "{errors}");
    assert!(site.daemon.is_ready());
}

#[test]
fn page_in_chromium_counts_alike_by_all_transports() {
    let mut site = Site::with("EVERPOLL_DEMO", "true");
    let script = Script::browser("browser/secure.mjs").with("url", format!("https://{}", site.socket()));
    let log = script.run(|command| {
        assert_eq!(command, "restart");
        assert_eq!(site.daemon.stop().code(), Some(0));
        site.daemon.start_again();
        "done".to_owned()
    });
    eprintln!("{log}");
}

#[test]
fn new_certificate_is_read_while_clients_are_held() {
    let mut site = Site::start();
    let old = site.certificate.der();
    assert_eq!(site.shown(), old);
    let mut held: Vec<_> = (0..20).map(|n| site.hold(&format!("w{n}"))).collect();
    let mut stream = EventStream::open(site.address(), &sse::get("/e/cheese"));
    stream.expect("everpoll:hello");

    // Without a word: the files are looked at.
    let new = site.authority.sign("new");
    replace(&new, &site.certificate);
    wait::until("a new handshake gets it", wait::PATIENCE, || site.shown() == new.der());
    assert!(held.iter_mut().all(Held::is_waiting), "those who are held stay so");

    // At once: half a pair, and one that is none, change nothing and are told.
    for (part, name, told) in [
        (&site.certificate.key, "new.key", "does not belong"),
        (&site.certificate.chain, "new.pem", "has no certificate"),
    ] {
        let before = fs::read(part).expect("it is there");
        let other = site.authority.sign("other");
        let is_key = name.ends_with(".key");
        fs::write(part, if is_key { fs::read(other.key).expect("a key") } else { b"nothing\n".to_vec() })
            .expect("it can be written");
        site.daemon.process().signal(Signal::HUP);
        wait::until("it is told", wait::PATIENCE, || site.daemon.log().contains(told));
        assert!(site.daemon.log().contains("the old ones go on"), "{}", site.daemon.log());
        assert_eq!(site.shown(), new.der());
        fs::write(part, before).expect("it can be written");
    }
    let newest = site.authority.sign("newest");
    replace(&newest, &site.certificate);
    site.daemon.process().signal(Signal::HUP);
    wait::until("a new handshake gets the newest", wait::PATIENCE, || site.shown() == newest.der());

    let id = site.publish();
    for held in held {
        assert_eq!(held.reply().events()[0].id, id, "over its old connection");
    }
    assert_eq!(stream.expect("made").1, id.to_string());
    // Without TLS, the signal is what it is for others; with it, the daemon lives.
    assert!(site.daemon.is_ready());
}

#[test]
fn end_of_the_certificate_is_counted_and_told_in_time() {
    const DAY: u64 = 24 * 3600;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    // Of no whole number of days, so that it does not matter how long the test takes.
    let now = now + DAY / 2;
    let (log, authority) = (Sqlite::new(), Authority::new());
    let metric = "everpoll_tls_certificate_expiry_timestamp_seconds";
    let [ending, fresh] = [("ending", 80, 10), ("fresh", 1, 89)]
        .map(|(name, ago, left)| authority.sign_for(name, now - ago * DAY, now + left * DAY));
    let used = authority.sign("used");
    replace(&ending, &used);
    let daemon = Daemon::on(log.url()).tls(&used).start();
    let mut site = Site { daemon, certificate: used, authority, log };
    let worries = |site: &Site| site.daemon.log().matches("put a new one in its place").count();
    assert_eq!((site.metric(metric), worries(&site)), (now + 10 * DAY, 1), "{}", site.daemon.log());
    assert!(site.daemon.log().contains("ends in 10 days"), "{}", site.daemon.log());

    let read_again = |site: &mut Site, new: &Certificate, times: usize| {
        replace(new, &site.certificate);
        site.daemon.process().signal(Signal::HUP);
        wait::until("it is read", wait::PATIENCE, || {
            site.daemon.log().matches("read tls_certificate and tls_key again").count() >= times
        });
    };
    read_again(&mut site, &fresh, 1);
    wait::until("the new one counts", wait::PATIENCE, || site.metric(metric) == now + 89 * DAY);
    assert_eq!(worries(&site), 1, "{}", site.daemon.log());

    // The end of one that is in use is an error of the whole daemon.
    let ended = site.authority.sign_for("ended", now - 90 * DAY, now - DAY);
    let times = site.daemon.log().matches("read tls_certificate and tls_key again").count();
    read_again(&mut site, &ended, times + 1);
    wait::until("the end is told", wait::PATIENCE, || site.daemon.log().contains("has ended"));
    assert!(
        site.daemon.log().lines().any(|line| line.contains("ERROR") && line.contains("clients refuse it"))
    );
    assert!(site.address().connect().is_err(), "a client took a certificate that has ended");
}

fn replace(new: &Certificate, old: &Certificate) {
    for (new, old) in [(&new.chain, &old.chain), (&new.key, &old.key)] {
        fs::copy(new, old).expect("they can be written");
    }
}

#[test]
fn files_that_cannot_be_used_are_told_at_the_start() {
    let (authority, directory) = (Authority::new(), TestDir::new());
    let (one, other) = (authority.sign("one"), authority.sign("other"));
    let nothing = directory.file("nothing.pem", "no PEM\n");
    let torn = directory.file("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let missing = directory.join("missing.pem");
    let refused = |chain: &Path, key: &Path| {
        let mut command = everpoll::command("everpoll");
        command.arg("serve").current_dir(directory.path()).env("EVERPOLL_LISTEN", "127.0.0.1:0");
        command.env("EVERPOLL_TLS_CERTIFICATE", chain).env("EVERPOLL_TLS_KEY", key);
        let (status, _, errors) = process::run(command, b"");
        assert!(!status.success(), "it started with {} and {}", chain.display(), key.display());
        errors
    };
    for (chain, key, told) in [
        (&missing, &one.key, ["tls_certificate", "cannot be read"]),
        (&one.chain, &missing, ["tls_key", "cannot be read"]),
        (&nothing, &one.key, ["tls_certificate", "has no certificate"]),
        (&torn, &one.key, ["tls_certificate", "is not PEM"]),
        (&one.chain, &nothing, ["tls_key", "has no private key"]),
        (&one.chain, &one.chain, ["tls_key", "has no private key"]),
        (&one.chain, &other.key, ["tls_key", "does not belong to the certificate"]),
        (&nothing, &missing, ["has no certificate", "cannot be read"]),
    ] {
        let errors = refused(chain, key);
        assert!(told.iter().all(|part| errors.contains(part)), "{told:?} is not in {errors}");
    }
}

#[test]
fn request_without_tls_is_told_so() {
    let site = Site::start();
    let plain = Address::Tcp(site.socket());
    for request in [http::get("/e/cheese"), http::post_json("/publish", EVENT), http::get("/")] {
        let reply = request.send(&plain);
        assert_eq!((reply.status, reply.json()["code"].as_str()), (400, Some("tls_expected")), "{reply:?}");
        assert!(reply.json()["detail"].as_str().is_some_and(|detail| detail.contains("https://")));
    }
    assert_eq!(site.metric("everpoll_errors_total{code=\"tls_expected\"}"), 3);
    // A unix socket speaks as it always did, also beside a certificate.
    let sockets = TestDir::new();
    let daemon = Daemon::on(site.log.url())
        .tls(&site.certificate)
        .at(&Address::Unix(sockets.join("daemon.sock")))
        .start();
    assert_eq!(daemon.get("/e/cheese?hold=0").status, 200);
    assert!(daemon.log().contains("only unix sockets are listened on"), "{}", daemon.log());
}

#[test]
fn half_handshakes_end_and_harm_nobody() {
    let mut site = Site::with("EVERPOLL_HEAD_TIMEOUT", "1");
    let hello = hello(&site);
    let held = site.hold("w");
    let mut halves: Vec<_> = (0..300)
        .map(|n| {
            let mut stream = TcpStream::connect(site.socket()).expect("it listens");
            stream.set_read_timeout(Some(wait::PATIENCE)).expect("not zero");
            stream.write_all(&hello[..1 + n % (hello.len() - 1)]).expect("a few bytes");
            stream
        })
        .collect();
    // Others are served meanwhile.
    for _ in 0..20 {
        assert_eq!(site.daemon.get("/e/a?hold=0").status, 200);
    }
    // One byte now and then does not buy more time, and what is no TLS is not waited for.
    let mut slow = TcpStream::connect(site.socket()).expect("it listens");
    slow.set_read_timeout(Some(Duration::from_millis(20))).expect("not zero");
    let mut bytes = hello.iter();
    wait::until("it is cut off", wait::PATIENCE, || {
        let byte = *bytes.next().expect("more bytes than it has patience for");
        let _ = slow.write_all(&[byte]);
        matches!(slow.read(&mut [0]), Ok(0))
            || !matches!(slow.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    });
    let mut garbage: Vec<&[u8]> =
        vec![b"\x16\x03\x01\x00\x05hello", b"\x00", b"\x16\x03\x01\xff\xff", &[0x80; 4096], b"\xff"];
    let long = [b"\x16\x03\x01\x40\x00".as_slice(), &[1; 16_384]].concat();
    garbage.push(&long);
    for bytes in garbage {
        let mut stream = TcpStream::connect(site.socket()).expect("it listens");
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("not zero");
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // An alert, or nothing.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    for half in &mut halves {
        let mut answer = Vec::new();
        let _ = half.read_to_end(&mut answer);
    }
    assert!(site.metric("everpoll_tls_handshakes_total{result=\"failed\"}") >= 300);
    // The one that is held, and the one that asks.
    wait::until("all are gone", wait::PATIENCE, || site.metric("everpoll_connections") == 2);
    let id = site.publish();
    assert_eq!(held.reply().events()[0].id, id);
    assert!(site.daemon.process().is_running());
}

/// What a client begins with.
fn hello(site: &Site) -> Vec<u8> {
    let mut hello = Vec::new();
    site.certificate.trust.client().write_tls(&mut hello).expect("memory takes all");
    hello
}

#[test]
fn stop_says_farewell_to_everybody() {
    let mut site = Site::with("EVERPOLL_DRAIN_TIMEOUT", "120");
    let held: Vec<_> = (0..50).map(|n| site.hold(&format!("w{n}"))).collect();
    let mut stream = EventStream::open(site.address(), &sse::get("/e/cheese"));
    stream.expect("everpoll:hello");
    let mut socket = WebSocket::open(site.address(), "/e/cheese?flavor=websocket");
    socket.expect("everpoll:hello");
    let mut idle = Connection::open(site.address()).expect("a handshake");
    idle.exchange(&http::get("/e/cheese?hold=0").header("Connection", "keep-alive")).expect("a reply");
    // Half a handshake does not hold up the end for longer than a moment.
    let mut half = TcpStream::connect(site.socket()).expect("it listens");
    half.write_all(&hello(&site)[..1]).expect("a byte");

    site.daemon.process().terminate();
    let mut delays = BTreeSet::new();
    for held in held {
        let reply = held.reply();
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
        delays.insert(reply.reconnect_in());
    }
    assert!(delays.len() > 1, "{delays:?}");
    // A connection that ends without a farewell is an error to a client of TLS.
    assert!(stream.rest().iter().any(|event| event.kind == "everpoll:end"), "{stream}");
    assert_eq!(idle.stream().read(&mut [0]).expect("closed, not cut"), 0);
    assert_eq!(socket.closed().0, 1001);
    assert_eq!(site.daemon.process().wait(wait::PATIENCE).code(), Some(0), "{}", site.daemon.log());
}

#[test]
fn thousand_clients_get_all_events_once_through_restarts() {
    let store = Store::sqlite();
    let authority = Authority::new();
    let mut daemon = Daemon::on(store.url()).tls(&authority.sign("server")).start();
    let crowd = Pollers::start((0..1000).map(|n| {
        Poller::new(daemon.address(), &format!("channel-{}", n % 20), 0)
            .wait_id(format!("browser-{n}"))
            .reconnect_cap(Duration::from_millis(500))
    }));
    crowd.wait_until_held(HELD, wait::PATIENCE * 2);
    let publish = |daemon: &Daemon| {
        let events = (0..20).map(|n| format!(r#"{{"channel":"channel-{n}","type":"made","data":{n}}}"#));
        let events: Vec<_> = events.collect();
        daemon.publish(&format!("[{}]", events.join(",")))[0]
    };
    let mut last = publish(&daemon);
    for end in [Daemon::kill_9, |daemon: &mut Daemon| assert_eq!(daemon.stop().code(), Some(0))] {
        last = publish(&daemon).max(last);
        end(&mut daemon);
        daemon.start_again();
        for _ in 0..5 {
            last = publish(&daemon);
        }
        crowd.wait_until_reached(last, wait::PATIENCE * 2);
        crowd.wait_until_held(HELD, wait::PATIENCE * 2);
    }
    crowd.wait_until_reached(last, wait::PATIENCE * 2);
    let (readings, tally) = crowd.stop();
    assert_eq!(tally.statuses.keys().copied().collect::<Vec<_>>(), [200], "{tally:?}");
    let report = judge::judge(&judge::ledger_of(&judge::events(&store)), &readings);
    assert!(report.kept, "{report}");
    eprintln!("{report}\n{tally:?}");
}
