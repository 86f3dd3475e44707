//! Requests that nobody has thought of: drawn by a grammar, sent through nginx to the daemon and to the fallback, and answered
//! the same, in each mode of access.
//!
//! What may differ stands in [`DIFFERENCES`], each with a request that shows it: when that is answered the same, the entry is no
//! more than a hole, and the test fails. A request that differs otherwise is made as small as it can be while it still differs,
//! and printed as a line for [`FIXED`].
//!
//! With `EVERPOLL_TEST_LONG` set it goes on for half an hour from a seed of that moment, which is printed; `EVERPOLL_TEST_SEED` draws
//! from one again.

mod credentials;
mod fixed;
mod request;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::numbers::Numbers;
use everpoll_tests::{Daemon, Fallback, TestDir, WebServer, wait};

use self::credentials::{Credentials, TOLD_CHANNELS, TOLD_UNTIL};
use self::fixed::FIXED;
use self::request::{Drawn, literal};
use super::cases::Case;
use super::essence::Essence;
use super::{SETTINGS, ask_daemon, fill, is_stream};
use crate::access::signer::Signer;
use crate::site::Store;

/// How many requests are drawn from each seed, and the seeds.
const COUNT: usize = 500;
const SEEDS: [u64; 2] = [2014, 6];

/// How long is drawn with `EVERPOLL_TEST_LONG`.
const LONG: Duration = Duration::from_secs(30 * 60);

/// Something in which the two may differ.
struct Difference {
    what: &'static str,
    /// A request that shows it.
    sample: &'static [u8],
    /// Whether these replies to a request differ in this.
    is: fn(request: &[u8], daemon: &Essence, fallback: &Essence) -> bool,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        what: "only the daemon has WebSockets",
        sample: b"GET /e/cheese HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        is: |request, daemon, fallback| {
            fallback.body.contains("\"upgrade_required\"") && opens_as_it_should(request, daemon)
        },
    },
    Difference {
        what: "a target that is no UTF-8 and a field with control characters are refused by the daemon alone",
        sample: b"GET /e/cheese?last_event_id=2&x=\xe4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                  Flavor: short-poll\r\n\r\n",
        is: |request, daemon, _| {
            // To a HEAD, nginx passes no more than the head.
            let says_so = daemon.body.is_empty() || daemon.body.contains("\"head_malformed\"");
            let (target, fields) = head(request);
            let in_field = |b: &u8| *b >= b' ' && *b != 0x7f || matches!(b, b'\t' | b'\r' | b'\n');
            let is_http = std::str::from_utf8(target).is_ok() && fields.iter().all(in_field);
            !is_http && daemon.status == 400 && says_so
        },
    },
    Difference {
        what: "what needs an escape in a target and has none is refused by hyper, which serves all with a body",
        sample: b"POST /e/cheese?last_event_id=2&x=\" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                  Flavor: short-poll\r\nContent-Length: 0\r\n\r\n",
        is: |request, daemon, _| {
            let (target, _) = head(request);
            target.iter().any(|b| b"\"<>`".contains(b)) && daemon.status == 400 && daemon.body.is_empty()
        },
    },
];

/// The target of a request, and its header fields.
fn head(request: &[u8]) -> (&[u8], &[u8]) {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(request.len());
    let line = request[..end].iter().position(|b| *b == b'\r').unwrap_or(end);
    let target = request[..line].split(|b| *b == b' ').nth(1).unwrap_or_default();
    (target, &request[line..end])
}

/// Whether this is what the daemon should answer to the handshake of a WebSocket, as far as its fields tell.
fn opens_as_it_should(request: &[u8], daemon: &Essence) -> bool {
    let field = |name| request::field(request, name).unwrap_or_default();
    let says = |code: &str| daemon.body.contains(&format!("\"{code}\""));
    let key = field("Sec-WebSocket-Key");
    let is_known_key = key == "dGhlIHNhbXBsZSBub25jZQ==";
    // Only who sends none at all is a program and no page.
    let is_listed = request::field(request, "Origin")
        .is_none_or(|origin| SETTINGS[0].1.split(' ').any(|listed| listed == origin));
    if field("Sec-WebSocket-Version") != "13" {
        return says("websocket_version");
    }
    if daemon.status != 101 {
        return says("websocket_key_malformed") && !is_known_key || says("origin_not_allowed") && !is_listed;
    }
    // RFC 6455 section 1.3 tells the answer to this key.
    let accepted = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    key.len() == 24 && (!is_known_key || daemon.header("sec-websocket-accept") == Some(accepted))
}

/// How readers are told apart where a request was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    Token,
    Proxy,
}

/// Both programs, each behind an nginx. Fields are dropped from top to bottom.
struct Doors {
    mode: Mode,
    to_daemon: WebServer,
    to_fallback: WebServer,
    fallback: Fallback,
    daemon: Daemon,
    credentials: Credentials,
    newest: u64,
    store: Store,
    _directory: TestDir,
    _signer: Option<Signer>,
}

impl Doors {
    fn open(mode: Mode, store: Store) -> Self {
        let directory = TestDir::new();
        let socket = |name: &str| Address::Unix(directory.join(name));
        let signer = (mode == Mode::Token).then(Signer::new);
        let keys = signer.as_ref().map(Signer::settings).unwrap_or_default();
        // Scripts are not answered where a web server decides.
        let jsonp = if mode == Mode::Proxy { "false" } else { "true" };
        let access = format!("{mode:?}").to_lowercase();
        let settings = [
            SETTINGS[0],
            ("EVERPOLL_JSONP", jsonp),
            ("EVERPOLL_ACCESS", &access),
            ("EVERPOLL_TOKEN_KEYS", &keys),
            // Longer than is waited for a reply: a stream that nobody expects must not seem to go on for ever.
            ("EVERPOLL_HEARTBEAT", "55"),
            ("EVERPOLL_LOG", "error"),
        ];
        let daemon = Daemon::on(store.url()).at(&socket("daemon.sock"));
        let daemon =
            settings.iter().fold(daemon, |daemon, (name, value)| daemon.setting(name, value)).start();
        let fallback = Fallback::on(store.url());
        let fallback =
            settings.iter().fold(fallback, |fallback, (name, value)| fallback.setting(name, value)).start();
        let newest = *fill(&store, &daemon).last().expect("something was published");
        // In place of an application that nginx would ask.
        let told = |name: &str| format!("$http_{}", name.to_ascii_lowercase().replace('-', "_"));
        let edit = |config: &str| {
            config
                .replace(
                    "set $everpoll_channels \"\"",
                    &format!("set $everpoll_channels {}", told(TOLD_CHANNELS)),
                )
                .replace("set $everpoll_until \"\"", &format!("set $everpoll_until {}", told(TOLD_UNTIL)))
        };
        let to_daemon = WebServer::nginx_with(daemon.address(), &socket("nobody.sock"), edit);
        let to_fallback = WebServer::nginx_with(&socket("nobody.sock"), fallback.address(), edit);
        let credentials = match &signer {
            Some(signer) => Credentials::tokens(signer),
            None if mode == Mode::Proxy => Credentials::Proxy,
            None => Credentials::Open,
        };
        wait::until("the daemon has all in its window", wait::PATIENCE, || {
            let reply = http::get("/e/nobody?last_event_id=now&flavor=short-poll")
                .header(TOLD_CHANNELS, "*")
                .header("Authorization", &format!("Bearer {}", credentials.good()))
                .send(to_daemon.address());
            reply.cursor() == newest
        });
        Self {
            mode,
            to_daemon,
            to_fallback,
            fallback,
            daemon,
            credentials,
            newest,
            store,
            _directory: directory,
            _signer: signer,
        }
    }

    /// What both say.
    fn ask(&self, bytes: &[u8]) -> io::Result<(Essence, Essence)> {
        let mut case = Case { name: String::new(), request: request::request(bytes.to_vec()), stream: false };
        let got = case.request.try_send(self.to_fallback.address())?;
        case.stream = is_stream(&got);
        let (mut daemon, mut fallback) = ask_daemon(&case, self.to_daemon.address(), &got)?;
        if request::may_be_held(bytes) {
            Essence::level(&mut daemon, &mut fallback);
        }
        Ok((daemon, fallback))
    }

    /// In what the answers differ, where they should not.
    fn differ(&self, bytes: &[u8]) -> Option<String> {
        match self.ask(bytes) {
            Ok((daemon, fallback)) if daemon == fallback => None,
            Ok((daemon, fallback))
                if DIFFERENCES.iter().any(|entry| (entry.is)(bytes, &daemon, &fallback)) =>
            {
                None
            }
            Ok((daemon, fallback)) => {
                Some(format!("    daemon {}\n    fallback {}", daemon.shown(), fallback.shown()))
            }
            // Once more: a connection may break for reasons of its own.
            Err(_) => match self.ask(bytes) {
                Ok(_) => None,
                Err(error) => Some(format!("    {error}")),
            },
        }
    }

    /// Draws and compares, until `enough`.
    fn draw(&self, seed: u64, enough: &dyn Fn(usize) -> bool, tally: &mut Tally) -> Vec<String> {
        let (mut numbers, mut found) = (Numbers(seed), Vec::new());
        for number in 0.. {
            if enough(number) || found.len() >= 20 {
                break;
            }
            let drawn = Drawn::next(&mut numbers, self.newest, &self.credentials);
            if let Some(how) = self.differ(&drawn.bytes()) {
                let small = self.shrink(drawn);
                let how = self.differ(&small.bytes()).unwrap_or(how);
                found.push(format!("    (Mode::{:?}, {}),\n{how}", self.mode, literal(&small.bytes())));
            }
            tally.requests += 1;
        }
        found
    }

    /// The smallest request that still differs.
    fn shrink(&self, mut drawn: Drawn) -> Drawn {
        while let Some(smaller) = drawn.smaller().into_iter().find(|one| self.differ(&one.bytes()).is_some())
        {
            drawn = smaller;
        }
        drawn
    }
}

/// What was done.
#[derive(Default)]
struct Tally {
    requests: usize,
}

/// Draws from all seeds at one site.
fn run(mode: Mode, store: Store, share: usize) {
    let doors = Doors::open(mode, store);
    let name = format!(
        "{mode:?} on {}",
        if doors.store.url().starts_with("sqlite") { "SQLite" } else { "PostgreSQL" }
    );
    let mut found: Vec<_> = FIXED
        .iter()
        .filter(|(of, _)| *of == mode)
        .filter_map(|(_, bytes)| Some(format!("    {}\n{}", literal(bytes), doors.differ(bytes)?)))
        .collect();
    let (start, mut tally) = (Instant::now(), Tally::default());
    let is_long = std::env::var_os("EVERPOLL_TEST_LONG").is_some();
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_micros() as u64);
    let given = std::env::var("EVERPOLL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let new: Option<u64> = given.or_else(|| is_long.then(now));
    if let Some(new) = new {
        eprintln!("{name}: EVERPOLL_TEST_SEED={new}");
    }
    for seed in SEEDS.into_iter().chain(new) {
        found.extend(doors.draw(seed, &|number| number >= COUNT / share, &mut tally));
    }
    if let (true, Some(new)) = (is_long, new) {
        for round in 1.. {
            if start.elapsed() >= LONG || found.len() >= 20 {
                break;
            }
            let seed = new.wrapping_add(round);
            let enough = |number| number >= 1000 || start.elapsed() >= LONG;
            let more = doors.draw(seed, &enough, &mut tally);
            if !more.is_empty() {
                eprintln!("{name}: EVERPOLL_TEST_SEED={seed}\n{}", more.join("\n"));
            }
            found.extend(more);
        }
    }
    let requests = tally.requests;
    eprintln!("{name}: {requests} requests in {:.0?}, {} differ", start.elapsed(), found.len());
    let count = found.len();
    assert!(
        count == 0,
        "{name}: {count} differ:\n{}\n{}{}",
        found.join("\n"),
        doors.daemon.log(),
        doors.fallback.log()
    );
    if mode == Mode::Open {
        check_differences(&doors);
    }
}

/// What may differ does.
fn check_differences(doors: &Doors) {
    for entry in DIFFERENCES {
        // A WebSocket that comes to a connection over which something else was asked before is refused, and the next is not.
        wait::until(entry.what, wait::PATIENCE, || {
            doors
                .ask(entry.sample)
                .is_ok_and(|(daemon, fallback)| (entry.is)(entry.sample, &daemon, &fallback))
        });
    }
}

#[test]
fn drawn_requests_are_answered_the_same_by_both_programs() {
    thread::scope(|scope| {
        let sites = [
            scope.spawn(|| run(Mode::Open, Store::sqlite(), 1)),
            scope.spawn(|| run(Mode::Token, Store::sqlite(), 1)),
            scope.spawn(|| run(Mode::Proxy, Store::sqlite(), 1)),
            scope.spawn(|| run(Mode::Open, Store::postgres(), 3)),
        ];
        let results = sites.map(|site| site.join());
        for result in results {
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
