//! What hostile clients can do to the real programs: nothing.
//!
//! Each kind of attack is a file of its own. It is made at each *door*: the daemon itself, nginx with the daemon behind it, and
//! nginx with the fallback; beside it [`Bystanders`] go on reading, and the memory of the programs is watched. All of it is on
//! this machine, and bounded: `EVERPOLL_TEST_LONG=1` makes it more.

mod bodies;
mod forged;
mod frames;
mod heads;
mod injection;
mod names;
mod pages;
mod paths;
mod slow;
mod smuggling;
mod sql;
mod tokens;

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use everpoll_tests::bystanders::{self, Bystanders};
use everpoll_tests::http::{Address, ReplyParser};
use everpoll_tests::{Daemon, Fallback, Reply, TestDir, WebServer};

use crate::site::{self, Store};

/// Most memory that either program may take while it is attacked, in KB. A debug build begins with some 20 MB.
const MEMORY_MAX: u64 = 150_000;

/// How soon the programs and nginx give up what does not arrive, in seconds.
const TIMEOUT: u64 = 2;

/// Both programs, each behind an nginx of its own with the shipped configuration. Fields are dropped from top to bottom.
struct Stage {
    to_daemon: WebServer,
    to_fallback: WebServer,
    fallback: Fallback,
    daemon: Daemon,
    store: Store,
    _nobody: TestDir,
}

impl Stage {
    /// On a fresh log, with these settings for both programs.
    fn with(store: Store, settings: &[(&str, &str)]) -> Self {
        let timeout = TIMEOUT.to_string();
        let own = [
            ("EVERPOLL_HEAD_TIMEOUT", &*timeout),
            ("EVERPOLL_HOLD_MAX", "1"),
            // Attackers and bystanders have one address here; `limits_of_clients` is about those who have not.
            ("EVERPOLL_CONNECTIONS_PER_ADDRESS", "100000"),
            ("EVERPOLL_REQUESTS_PER_ADDRESS", "100000"),
        ];
        let settings = [&own[..], settings].concat();
        let (daemon, fallback) = site::programs(&store, &settings);
        let nobody = TestDir::new();
        let away = Address::Unix(nobody.join("nobody.sock"));
        let nginx = |daemon: &Address| {
            WebServer::nginx_edited(daemon, fallback.address(), str::to_owned, |main| {
                let given_up = [
                    "client_header_timeout",
                    "client_body_timeout",
                    "send_timeout",
                    "lingering_timeout",
                    "lingering_time",
                ];
                let timeouts = given_up.map(|name| format!("{name} {TIMEOUT}s; ")).concat();
                main.replace("http {", &format!("http {{ {timeouts}"))
            })
        };
        let (to_daemon, to_fallback) = (nginx(daemon.address()), nginx(&away));
        Self { to_daemon, to_fallback, fallback, daemon, store, _nobody: nobody }
    }

    fn new() -> Self {
        Self::with(Store::sqlite(), &[])
    }

    /// Where a client can ask.
    fn doors(&self) -> [(&'static str, &Address); 3] {
        [
            ("daemon", self.daemon.address()),
            ("nginx and daemon", self.to_daemon.address()),
            ("nginx and fallback", self.to_fallback.address()),
        ]
    }

    /// Ordinary clients at each door.
    fn bystanders(&mut self) -> Bystanders {
        self.bystanders_with("")
    }

    /// The same, with these parameters in each request.
    fn bystanders_with(&mut self, query: &str) -> Bystanders {
        let watched = [("daemon", self.daemon.process().id()), ("fallback", self.fallback.process().id())];
        Bystanders::start(&bystanders::Start {
            doors: &self.doors(),
            publish: self.daemon.address(),
            query: query.to_owned(),
            watched: &watched,
        })
    }

    /// What the programs have written, and nginx about requests. Into its log of errors it writes requests as they are.
    fn logs(&self) -> String {
        let nginx = [self.to_daemon.access_log(), self.to_fallback.access_log()].concat();
        [self.daemon.log(), self.fallback.log(), nginx].concat()
    }

    /// Both programs run, and no thread of theirs has panicked.
    fn assert_well(&mut self) {
        for process in [self.daemon.process(), self.fallback.process()] {
            assert!(process.is_running());
            assert!(!process.log().contains("panicked"), "{}", process.log());
        }
    }
}

/// A connection on which an attacker says what he likes.
struct Attacker {
    stream: everpoll_tests::http::Stream,
    bytes: Vec<u8>,
}

/// What came back until the other side closed, or nothing more came.
struct Answer {
    bytes: Vec<u8>,
    closed: bool,
}

impl Attacker {
    fn at(address: &Address) -> Self {
        let stream = address.connect().expect("it still listens");
        Self { stream, bytes: Vec::new() }
    }

    /// Sends as much as the other side takes; whether that was all.
    fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads until the other side closes, at most so long after the last byte.
    fn read(mut self, patience: Duration) -> Answer {
        self.stream.set_deadline(patience).expect("not zero");
        let mut some = vec![0; 64 * 1024];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => return Answer { bytes: self.bytes, closed: true },
                Ok(read) => self.bytes.extend_from_slice(&some[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Answer { bytes: self.bytes, closed: false };
                }
                // Reset: closed with bytes unread.
                Err(_) => return Answer { bytes: self.bytes, closed: true },
            }
        }
    }
}

impl Answer {
    /// The replies that it is made of; what follows the last complete one must be nothing.
    #[track_caller]
    fn replies(&self) -> Vec<Reply> {
        let mut parser = ReplyParser::default();
        parser.push(&self.bytes);
        let mut replies = Vec::new();
        loop {
            match parser.next(false, self.closed) {
                Ok(Some(reply)) if reply.status == 100 => {}
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => return replies,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Sends bytes and reads what comes back.
fn attack(address: &Address, bytes: &[u8]) -> Answer {
    let mut attacker = Attacker::at(address);
    // It may be answered, and closed, before all is sent.
    attacker.send(bytes);
    attacker.read(Duration::from_secs(20))
}

/// The only reply to bytes behind which the connection is closed.
#[track_caller]
fn refusal(what: &str, address: &Address, bytes: &[u8]) -> Reply {
    let answer = attack(address, bytes);
    let mut replies = answer.replies();
    assert!(answer.closed, "{what}: the connection is kept behind {}", answer.text());
    assert_eq!(replies.len(), 1, "{what}: {}", answer.text());
    replies.remove(0)
}

/// What is wrong, in a word, if Everpoll says it.
fn code(reply: &Reply) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(&reply.body).ok();
    problem.and_then(|problem| problem["code"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Does something with each, eight at a time: much of an attack is waiting.
fn each<T: Sync>(all: &[T], action: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    action(one);
                }
            });
        }
    });
}

/// How many there are to be: more in the long form of the tests.
fn count(usual: usize, long: usize) -> usize {
    if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { long } else { usual }
}
