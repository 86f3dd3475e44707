//! Polls that come to the fallback at the same time share a look at the log. None of them may be answered from before it came,
//! wait for what another one reads, or go unanswered when the database goes in the middle.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use everpoll_fallback::fastcgi::params::write_pair;
use everpoll_fallback::fastcgi::record::{HEADER_BYTES, Header, Kind, write};
use everpoll_tests::{Address, Database, Fallback, Postgres, TestDir, wait};

use crate::site::Store;

/// Clients that ask again and again and have seen everything.
const CROWD: usize = 50;

/// Events that are published and asked for at once.
const EVENTS: u64 = 500;

/// A fallback and a place to connect to it.
struct Scene {
    fallback: Fallback,
    directory: TestDir,
}

/// A connection of a web server that keeps it.
struct Connection(UnixStream);

impl Scene {
    fn new(database: &str) -> Self {
        let directory = TestDir::new();
        let address = Address::Unix(directory.join("fallback.sock"));
        let fallback = Fallback::on(database).at(&address).start();
        Self { fallback, directory }
    }

    fn connect(&self) -> Connection {
        let stream = UnixStream::connect(self.directory.join("fallback.sock")).expect("it listens");
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("a limit");
        Connection(stream)
    }

    /// Polls that wait for their answers, each on a connection of its own.
    fn ask(&self, polls: usize, target: impl Fn(usize) -> String) -> Vec<Connection> {
        let ask = |number| {
            let mut connection = self.connect();
            connection.ask("GET", &target(number), b"");
            connection
        };
        (0..polls).map(ask).collect()
    }
}

impl Connection {
    fn ask(&mut self, method: &str, target: &str, body: &[u8]) {
        let length = body.len().to_string();
        let variables = [
            ("REQUEST_METHOD", method),
            ("REQUEST_URI", target),
            ("CONTENT_TYPE", "application/json"),
            ("CONTENT_LENGTH", &length),
            ("REMOTE_ADDR", "127.0.0.1"),
        ];
        let mut pairs = Vec::new();
        variables.iter().for_each(|(name, value)| write_pair(name.as_bytes(), value.as_bytes(), &mut pairs));
        let mut request = Vec::new();
        write(Kind::BeginRequest, 1, &[0, 1, 1, 0, 0, 0, 0, 0], &mut request);
        write(Kind::Params, 1, &pairs, &mut request);
        write(Kind::Params, 1, b"", &mut request);
        body.chunks(60_000).for_each(|piece| write(Kind::Stdin, 1, piece, &mut request));
        write(Kind::Stdin, 1, b"", &mut request);
        self.0.write_all(&request).expect("it is taken");
    }

    /// The answer as CGI programs write it.
    fn answer(&mut self) -> String {
        let mut stdout = Vec::new();
        loop {
            let mut header = [0; HEADER_BYTES];
            self.0.read_exact(&mut header).expect("an answer comes to its end");
            let header = Header::parse(header).expect("FastCGI");
            let mut content = vec![0; usize::from(header.content) + usize::from(header.padding)];
            self.0.read_exact(&mut content).expect("a record comes to its end");
            match header.kind {
                Kind::Stdout => stdout.extend_from_slice(&content[..usize::from(header.content)]),
                _ => return String::from_utf8(stdout).expect("answers are ASCII"),
            }
        }
    }

    fn get(&mut self, target: &str) -> String {
        self.ask("GET", target, b"");
        self.answer()
    }
}

/// The ids of the events in an answer.
fn ids(answer: &str) -> Vec<u64> {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends");
    assert!(head.starts_with("Status: 200"), "{answer}");
    let events: serde_json::Value = serde_json::from_str(body).expect("JSON");
    events.as_array().expect("a list").iter().map(|event| event["id"].as_u64().expect("an id")).collect()
}

fn cursor(answer: &str) -> u64 {
    let line = answer.lines().find_map(|line| line.strip_prefix("x-ps-cursor: "));
    line.and_then(|cursor| cursor.parse().ok()).unwrap_or_else(|| panic!("no cursor in {answer}"))
}

/// Publishes through one connection and asks at once through another, beside many that have nothing to get; one of these is on
/// the channel that gets the events and must get each of them once as well.
fn publish_and_ask(database: &str, mut publish: impl FnMut(&mut Connection) -> u64) {
    let scene = Scene::new(database);
    let start = cursor(&scene.connect().get("/e/cheese"));
    let (stop, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|threads| {
        for number in 0..CROWD {
            let (stop, answers, mut connection) = (&stop, &answers, scene.connect());
            threads.spawn(move || {
                let (mut at, mut seen) = (start, 0);
                while !stop.load(Ordering::Relaxed) {
                    // A few of them go on from where they were, and fall behind on a channel that has nothing.
                    let from = if number % 8 == 1 { start } else { at };
                    let channel = if number == 0 { "cheese" } else { "quiet" };
                    let answer = connection.get(&format!("/e/{channel}/b{number}?last_event_id={from}"));
                    seen += ids(&answer).len() as u64;
                    at = cursor(&answer);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                let rest = connection.get(&format!("/e/cheese/b{number}?last_event_id={at}"));
                match number {
                    0 => assert_eq!(seen + ids(&rest).len() as u64, EVENTS),
                    _ => assert_eq!(seen, 0),
                }
            });
        }
        let (mut publisher, mut reader, mut at) = (scene.connect(), scene.connect(), start);
        let stopped = StopOnDrop(&stop);
        for number in 0..EVENTS {
            let id = publish(&mut publisher);
            let answer = reader.get(&format!("/e/cheese/page?last_event_id={at}"));
            assert_eq!(ids(&answer), [id], "event {number} was acknowledged before it was asked for");
            at = cursor(&answer);
        }
        drop(stopped);
    });
    let answers = answers.into_inner();
    assert!(answers > EVENTS, "only {answers} answers beside them");
}

/// Ends the others also when a check fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn publish_by_http(connection: &mut Connection) -> u64 {
    connection.ask("POST", "/publish", br#"{"channel":"cheese","type":"made","data":1}"#);
    let answer = connection.answer();
    let id = answer.split("{\"ids\":[").nth(1).and_then(|rest| rest.trim_end_matches("]}").parse().ok());
    id.unwrap_or_else(|| panic!("not published: {answer}"))
}

#[test]
fn event_is_in_the_first_answer_after_its_publish_was_acknowledged_on_postgres() {
    let database = Database::shared();
    database.migrate();
    publish_and_ask(&database.url(), publish_by_http);
}

#[test]
fn event_is_in_the_first_answer_after_its_publish_was_acknowledged_on_sqlite() {
    let store = Store::sqlite();
    publish_and_ask(&store.url(), publish_by_http);
}

#[test]
fn event_is_in_the_first_answer_after_its_transaction_committed() {
    let database = Database::shared();
    database.migrate();
    let mut sql = database.connect();
    let mut newest = 0;
    publish_and_ask(&database.url(), |_| {
        let insert = "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '1')";
        sql.batch_execute(insert).expect("it commits");
        newest += 1;
        newest
    });
}

#[test]
fn polls_that_read_events_do_not_hold_back_those_that_have_none() {
    let database = Database::shared();
    database.migrate();
    database.psql("INSERT INTO everpoll.events (channel, type, data) SELECT 'c' || n, 't', '1' FROM generate_series(1, 40) n");
    let scene = Scene::new(&database.url());
    let newest = cursor(&scene.connect().get("/e/quiet"));
    let mut sql = database.connect();
    let mut lock = sql.transaction().expect("a transaction");
    // Reading events waits from here on; what is there can be seen.
    lock.batch_execute("LOCK TABLE everpoll.events IN ACCESS EXCLUSIVE MODE").expect("a lock");
    let mut behind = scene.ask(40, |number| format!("/e/c{}/b?last_event_id=0", number + 1));
    for _ in 0..20 {
        let mut empty = scene.ask(10, |_| format!("/e/quiet/b?last_event_id={newest}"));
        for connection in &mut empty {
            assert_eq!(cursor(&connection.answer()), newest);
        }
    }
    lock.rollback().expect("the lock goes");
    for connection in &mut behind {
        assert_eq!(ids(&connection.answer()).len(), 1);
    }
}

#[test]
fn database_that_goes_in_the_middle_of_a_shared_look_is_told_to_all_of_its_polls() {
    let postgres = Postgres::start();
    let database = postgres.create_database();
    database.migrate();
    let scene = Scene::new(&database.url());
    let newest = cursor(&scene.connect().get("/e/cheese"));
    let target = |_| format!("/e/cheese/b?last_event_id={newest}");
    let mut sql = database.connect();
    let mut lock = sql.transaction().expect("a transaction");
    lock.batch_execute("LOCK TABLE everpoll.log IN ACCESS EXCLUSIVE MODE").expect("a lock");
    let mut polls = scene.ask(100, target);
    // All of them are in one of a few looks, or wait for the next one.
    wait::until("a look waits for the lock", wait::PATIENCE, || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'everpoll-fallback'";
        database.psql(waiting).trim() != "0"
    });
    postgres.stop_immediate();
    for connection in &mut polls {
        let answer = connection.answer();
        assert!(answer.starts_with("Status: 503") && answer.contains("log_unavailable"), "{answer}");
        assert!(answer.contains("x-ps-reconnect-in: "), "{answer}");
    }
    postgres.start_again();
    wait::until("it answers again", Duration::from_secs(20), || {
        scene.connect().get(&target(0)).starts_with("Status: 200")
    });
    let mut polls = scene.ask(100, target);
    polls.iter_mut().for_each(|connection| assert_eq!(cursor(&connection.answer()), newest));
    assert!(scene.fallback.log().contains("lost the database"), "{}", scene.fallback.log());
}
