//! The FastCGI server over real sockets, with a service that does what the test says: what is slow, idle, too large or
//! broken must not disturb the others, and memory stays bounded.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use everpoll_fallback::fastcgi::listener::Listener;
use everpoll_fallback::fastcgi::params::Params;
use everpoll_fallback::fastcgi::receiver::{Fault, Request};
use everpoll_fallback::fastcgi::record::{Kind, write};
use everpoll_fallback::fastcgi::server::{Limits, serve_until};
use everpoll_fallback::fastcgi::service::Service;
use everpoll_fallback::variables::Variables;
use everpoll_protocol::Live;
use everpoll_settings::Listen;
use support::{Client, PATIENCE, raise_file_limit, request, wait_until};

/// Does what the variable `DO` says; without it, sends the body back.
#[derive(Default)]
struct Echo {
    gate: Mutex<bool>,
    opened: Condvar,
    /// Requests that stand before the gate.
    waiting: AtomicUsize,
    workers: AtomicUsize,
}

impl Echo {
    fn wait_at_the_gate(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap();
        drop(self.opened.wait_while(gate, |open| !*open).unwrap());
    }

    fn open_the_gate(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// A request, taken apart.
struct Asked {
    to_do: String,
    detail: String,
    body: Vec<u8>,
}

impl Service for Echo {
    type Worker = ();
    type Asked = Asked;
    type Same = String;

    fn worker(&self) {
        self.workers.fetch_add(1, Ordering::SeqCst);
    }

    fn understand(&self, request: &Request, _: u32) -> Result<Asked, Vec<u8>> {
        let to_do = String::from_utf8(request.params.text("DO").into_owned()).unwrap();
        assert!(to_do != "panic at once", "as the test wants it");
        let (to_do, detail) = to_do.split_once(' ').unwrap_or((&to_do, ""));
        Ok(Asked { to_do: to_do.to_owned(), detail: detail.to_owned(), body: request.body.clone() })
    }

    /// `look` is answered here, with how many are looked at; `look slowly` only once the gate is open.
    fn look(&self, (): &mut (), asked: &[&Asked], _: u32) -> Vec<Option<Vec<u8>>> {
        let told = asked.iter().map(|asked| {
            (asked.to_do == "look").then(|| {
                match asked.detail.as_str() {
                    "slowly" => self.wait_at_the_gate(),
                    "panic" => panic!("as the test wants it"),
                    _ => {}
                }
                asked.body.clone()
            })
        });
        told.collect()
    }

    fn same(&self, asked: &Asked) -> Option<String> {
        (asked.to_do == "count").then(|| asked.detail.clone())
    }

    fn answer(&self, (): &mut (), asked: &[&Asked], _: u32) -> Vec<Vec<u8>> {
        let answer = |one: &&Asked| match one.to_do.as_str() {
            "send" => vec![b'x'; one.detail.parse().unwrap()],
            "count" => asked.len().to_string().into_bytes(),
            "panic" => panic!("as the test wants it"),
            "wait" => {
                self.wait_at_the_gate();
                b"waited".to_vec()
            }
            _ => one.body.clone(),
        };
        asked.iter().map(answer).collect()
    }

    fn refuse(&self, fault: Fault, _: u32) -> Vec<u8> {
        format!("{fault:?}").into_bytes()
    }

    fn body_max(&self, _: &Params) -> usize {
        100_000
    }
}

struct Server {
    path: PathBuf,
    echo: Arc<Echo>,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
}

fn limits() -> Limits {
    let long = 2 * PATIENCE;
    Limits {
        workers: 2,
        connections: 10_000,
        waiting: 10_000,
        memory: 8 << 20,
        idle: long,
        params: long,
        write: long,
        drain: long,
    }
}

/// A path for a socket of this test's own.
fn socket_path() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    std::env::temp_dir().join(format!("everpoll-server-{}-{number}.sock", std::process::id()))
}

impl Server {
    fn start(limits: Limits) -> Self {
        raise_file_limit();
        let path = socket_path();
        let listener = Listener::bind(&Listen::Unix(path.clone()), 0o600).unwrap();
        let echo = Arc::new(Echo::default());
        let (stop, stopped) = UnixStream::pair().unwrap();
        stopped.set_nonblocking(true).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (service, has_ended) = (echo.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            serve_until(listener, &Live::new(limits), service, stopped).unwrap();
            has_ended.store(true, Ordering::SeqCst);
        });
        Self { path, echo, stop, thread: Some(thread), ended }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.path)
    }

    fn stop(&self) {
        use std::io::Write as _;
        // It may have ended already.
        let _ = (&self.stop).write_all(b"x");
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn wait_for_waiting(&self, requests: usize) {
        wait_until("requests wait", || self.echo.waiting.load(Ordering::SeqCst) == requests);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.echo.open_the_gate();
        self.stop();
        self.stop();
        let ended = self.thread.take().expect("it is joined here only").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
    }
}

#[test]
fn connection_that_is_kept_serves_one_request_after_the_other() {
    let server = Server::start(limits());
    let mut client = server.connect();
    for number in 0..100 {
        let body = format!("body {number}");
        let response = client.ask(&[], body.as_bytes());
        assert_eq!((response.text(), response.protocol_status), (body, 0));
    }
}

#[test]
fn connection_that_is_not_to_be_kept_ends_behind_the_answer() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send(&request(9, false, &[], b"body"));
    let response = client.receive();
    assert_eq!((response.request_id, response.text()), (9, "body".to_owned()));
    client.wait_for_the_end();
}

#[test]
fn requests_sent_without_waiting_are_answered_in_their_order() {
    let server = Server::start(limits());
    let mut client = server.connect();
    let mut all = Vec::new();
    for id in 1..=50 {
        all.extend(request(id, true, &[], id.to_string().as_bytes()));
    }
    client.send(&all);
    for id in 1..=50 {
        let response = client.receive();
        assert_eq!((response.request_id, response.text()), (id, id.to_string()));
    }
}

#[test]
fn request_behind_one_that_is_being_served_waits_in_the_kernel() {
    let server = Server::start(limits());
    let mut client = server.connect();
    client.send(&request(1, true, &[("DO", "wait")], b""));
    server.wait_for_waiting(1);
    client.send(&request(2, true, &[], b"second"));
    // The other worker would have answered it by now.
    for _ in 0..100 {
        assert_eq!(server.connect().ask(&[("DO", "look")], b"x").text(), "x");
    }
    server.echo.open_the_gate();
    assert_eq!(client.receive().text(), "waited");
    assert_eq!(client.receive().text(), "second");
}

#[test]
fn idle_connections_and_slow_senders_do_not_starve_a_request() {
    let server = Server::start(limits());
    let idle: Vec<_> = (0..500).map(|_| server.connect()).collect();
    let bytes = request(1, true, &[], &[b'x'; 1000]);
    let slow: Vec<_> = (0..500)
        .map(|number| {
            let mut client = server.connect();
            client.send(&bytes[..1 + number]);
            client
        })
        .collect();
    assert_eq!(server.connect().ask(&[], b"body").text(), "body");
    for (number, mut client) in slow.into_iter().enumerate() {
        client.send(&bytes[1 + number..]);
        assert_eq!(client.receive().stdout.len(), 1000);
    }
    drop(idle);
    assert_eq!(server.echo.workers.load(Ordering::SeqCst), 2);
}

#[test]
fn thousands_of_requests_in_the_same_moment_are_all_answered() {
    let server = Server::start(limits());
    let mut clients: Vec<_> = (0..3000).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(&request(1, false, &[("REQUEST_METHOD", "GET")], b"body"));
    }
    for client in &mut clients {
        assert_eq!(client.receive().text(), "body");
    }
}

#[test]
fn requests_beyond_the_queue_are_refused_at_once() {
    // One of them is kept for looks.
    let server = Server::start(Limits { waiting: 3, workers: 3, ..limits() });
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&request(1, true, &[("DO", "wait")], b""));
        server.wait_for_waiting((number + 1).min(2));
    }
    // Two are with the workers, three wait.
    for client in &mut clients[5..] {
        assert_eq!(client.receive().text(), "Overloaded");
    }
    server.echo.open_the_gate();
    for client in &mut clients[..5] {
        assert_eq!(client.receive().text(), "waited");
    }
    assert_eq!(clients[9].ask(&[], b"later").text(), "later");
}

#[test]
fn client_that_does_not_read_disturbs_nobody_and_is_given_up() {
    let server = Server::start(Limits { write: Duration::from_secs(1), ..limits() });
    let mut deaf: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut deaf {
        client.send(&request(1, true, &[("DO", "send 10000000")], b""));
    }
    let mut reader = server.connect();
    assert_eq!(reader.ask(&[("DO", "send 10000000")], b"").stdout.len(), 10_000_000);
    wait_until("all of them are cut off", || deaf.iter().all(is_cut_off));
    assert_eq!(reader.ask(&[], b"body").text(), "body");
}

/// Whether the other end has closed, although its data was not read.
fn is_cut_off(client: &Client) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(&client.0, PollFlags::empty())];
    poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[test]
fn body_over_the_limit_is_refused_and_the_connection_goes_on() {
    let server = Server::start(limits());
    let mut client = server.connect();
    assert_eq!(client.ask(&[], &vec![0; 2_000_000]).text(), "BodyTooLarge(100000)");
    assert_eq!(client.ask(&[("LONG", &"x".repeat(270_000))], b"").text(), "ParamsTooLarge");
    assert_eq!(client.ask(&[], &[b'x'; 100_000]).stdout.len(), 100_000);
}

#[test]
fn bodies_of_all_requests_together_are_bounded() {
    let server = Server::start(limits());
    let bytes = request(1, true, &[], &[b'x'; 100_000]);
    let (most, end) = bytes.split_at(bytes.len() - 8);
    let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(most);
    }
    // The last one must have been read before the first is complete.
    let refused = clients.iter_mut().rev().filter_map(|client| {
        client.send(end);
        (client.receive().text() == "NoMemory").then_some(())
    });
    let refused = refused.count();
    // 8 MiB hold 83 of them.
    assert!((100..150).contains(&refused), "{refused} were refused");
}

#[test]
fn request_that_comes_too_slowly_is_told_and_its_connection_ends() {
    let server = Server::start(Limits { params: Duration::from_secs(1), ..limits() });
    let bytes = request(1, true, &[("A", "b")], b"body");
    let mut client = server.connect();
    client.send(&bytes[..25]);
    assert_eq!(client.receive().text(), "ParamsTimeout");
    client.wait_for_the_end();
    let mut client = server.connect();
    client.send(&bytes[..bytes.len() - 8]);
    assert_eq!(client.receive().text(), "BodyTimeout");
    client.wait_for_the_end();
}

#[test]
fn idle_connection_is_closed_in_the_end() {
    let server = Server::start(Limits { idle: Duration::from_secs(1), ..limits() });
    let mut client = server.connect();
    assert_eq!(client.ask(&[], b"body").text(), "body");
    assert!(client.wait_for_the_end() > Duration::from_millis(500));
}

#[test]
fn garbage_ends_its_own_connection_only() {
    let server = Server::start(limits());
    let mut other = server.connect();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0; 100],
        &[1, 1, 0, 1, 0, 9, 0, 0],
        &[1, 1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    ] {
        let mut client = server.connect();
        client.send(garbage);
        client.wait_for_the_end();
        assert_eq!(other.ask(&[], b"body").text(), "body");
    }
}

#[test]
fn questions_without_end_are_answered_only_as_fast_as_the_answers_are_read() {
    let server = Server::start(limits());
    let mut client = server.connect();
    let mut question = Vec::new();
    write(Kind::GetValues, 0, b"\x0e\x00FCGI_MAX_CONNS", &mut question);
    let questions = question.repeat(1000);
    client.0.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // What the kernel takes for both directions is all that can be sent.
    while let Ok(bytes) = std::io::Write::write(&mut client.0, &questions) {
        sent += bytes;
        assert!(sent < 64 << 20, "it reads and reads");
        assert_eq!(server.connect().ask(&[], b"x").text(), "x");
    }
    assert_eq!(server.connect().ask(&[], b"body").text(), "body");
}

#[test]
fn request_that_panics_is_refused_and_the_worker_goes_on() {
    let server = Server::start(limits());
    let mut client = server.connect();
    for _ in 0..5 {
        assert_eq!(client.ask(&[("DO", "panic")], b"").text(), "Panicked");
        assert_eq!(client.ask(&[], b"body").text(), "body");
    }
}

#[test]
fn request_that_panics_does_not_harm_those_beside_it() {
    let server = Server::start(limits());
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let panics = |number: usize| number.is_multiple_of(4);
    for (number, client) in clients.iter_mut().enumerate() {
        let to_do = if panics(number) { "panic at once" } else { "look" };
        client.send(&request(1, true, &[("DO", to_do)], b"body"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.receive().text(), if panics(number) { "Panicked" } else { "body" });
    }
    assert_eq!(clients[0].ask(&[("DO", "look panic")], b"").text(), "Panicked");
    assert_eq!(clients[1].ask(&[("DO", "look")], b"body").text(), "body");
}

#[test]
fn look_that_takes_long_does_not_hold_back_those_who_come_later() {
    let server = Server::start(limits());
    let mut slow = server.connect();
    slow.send(&request(1, true, &[("DO", "look slowly")], b"slow"));
    server.wait_for_waiting(1);
    for _ in 0..20 {
        assert_eq!(server.connect().ask(&[("DO", "look")], b"quick").text(), "quick");
        assert_eq!(server.connect().ask(&[], b"own").text(), "own");
    }
    server.echo.open_the_gate();
    assert_eq!(slow.receive().text(), "slow");
}

#[test]
fn slow_reads_leave_a_worker_for_looks() {
    let server = Server::start(Limits { workers: 4, ..limits() });
    let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send(&request(1, true, &[("DO", "wait")], b""));
    }
    server.wait_for_waiting(3);
    for _ in 0..20 {
        assert_eq!(server.connect().ask(&[("DO", "look")], b"quick").text(), "quick");
    }
    server.wait_for_waiting(3);
    server.echo.open_the_gate();
    for client in &mut slow {
        assert_eq!(client.receive().text(), "waited");
    }
}

#[test]
fn requests_that_ask_the_same_share_a_read_if_they_came_before_it() {
    let server = Server::start(limits());
    let mut slow = server.connect();
    slow.send(&request(1, true, &[("DO", "wait")], b""));
    server.wait_for_waiting(1);
    // The only other worker is kept for looks, so these wait together.
    let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let to_do = if number == 0 { "count other" } else { "count these" };
        client.send(&request(1, true, &[("DO", to_do)], b""));
    }
    // It is looked at behind them, so they stand in the list by then.
    assert_eq!(server.connect().ask(&[("DO", "look")], b"behind").text(), "behind");
    server.echo.open_the_gate();
    assert_eq!(slow.receive().text(), "waited");
    let counts: Vec<_> = clients.iter_mut().map(|client| client.receive().text()).collect();
    assert_eq!(counts[0], "1");
    // 64 at a time, however many there are.
    assert_eq!(counts[1..].iter().filter(|count| *count == "64").count(), 64);
    assert_eq!(counts[1..].iter().filter(|count| *count == "35").count(), 35);
}

#[test]
fn connections_beyond_the_limit_wait_until_one_ends() {
    let server = Server::start(Limits { connections: 4, ..limits() });
    let mut first: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut first {
        client.ask(&[], b"x");
    }
    let mut fifth = server.connect();
    fifth.send(&request(1, true, &[], b"fifth"));
    fifth.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(fifth.try_receive().is_none(), "it was served beyond the limit");
    fifth.0.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(first.pop());
    assert_eq!(fifth.receive().text(), "fifth");
}

#[test]
fn stop_finishes_the_requests_in_hand_and_removes_the_socket() {
    let server = Server::start(Limits { workers: 3, ..limits() });
    let (mut idle, mut busy, mut sending) = (server.connect(), server.connect(), server.connect());
    idle.ask(&[], b"x");
    let bytes = request(1, true, &[], b"body");
    sending.send(&bytes[..20]);
    busy.send(&request(1, true, &[("DO", "wait")], b""));
    server.wait_for_waiting(1);
    server.stop();
    idle.wait_for_the_end();
    wait_until("the socket is gone", || !server.path.exists());
    assert!(!server.has_ended());
    sending.send(&bytes[20..]);
    assert_eq!(sending.receive().text(), "body");
    sending.wait_for_the_end();
    server.echo.open_the_gate();
    assert_eq!(busy.receive().text(), "waited");
    busy.wait_for_the_end();
    wait_until("the server has ended", || server.has_ended());
}

#[test]
fn stop_serves_those_who_have_connected_already() {
    let server = Server::start(Limits { connections: 1, ..limits() });
    let mut first = server.connect();
    first.ask(&[], b"x");
    // It waits in the kernel.
    let mut second = server.connect();
    second.send(&request(1, true, &[], b"second"));
    server.stop();
    assert_eq!(second.receive().text(), "second");
    wait_until("the server has ended", || server.has_ended());
}

#[test]
fn stop_does_not_wait_longer_than_it_was_told() {
    let server = Server::start(Limits { drain: Duration::from_millis(300), ..limits() });
    let mut busy = server.connect();
    busy.send(&request(1, true, &[("DO", "wait")], b""));
    server.wait_for_waiting(1);
    server.stop();
    wait_until("the server has ended", || server.has_ended());
    busy.wait_for_the_end();
}

#[test]
fn socket_of_a_process_that_is_gone_is_replaced_but_a_living_one_is_not() {
    let path = socket_path();
    let address = Listen::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = Listener::bind(&address, 0o640).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let error = Listener::bind(&address, 0o640).unwrap_err();
    assert!(error.contains("another process is listening there"), "{error}");
    assert!(UnixStream::connect(&path).is_ok(), "the living one was hurt");
    drop(first);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&address, 0o640).unwrap_err();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn only_named_web_servers_may_connect_over_tcp() {
    let bind = || Listener::bind(&Listen::parse("127.0.0.1:0").unwrap(), 0).unwrap();
    assert!(bind().only_from("127.0.0.1, nobody").unwrap_err().contains("nobody"));
    for (peers, served) in [("192.0.2.1", false), ("192.0.2.1, 127.0.0.1", true)] {
        let listener = bind().only_from(peers).unwrap();
        let address = listener.address();
        let (stop, stopped) = UnixStream::pair().unwrap();
        stopped.set_nonblocking(true).unwrap();
        let server = std::thread::spawn(move || {
            serve_until(listener, &Live::new(limits()), Arc::new(Echo::default()), stopped).unwrap();
        });
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = std::io::Write::write_all(&mut tcp, &request(1, false, &[], b"body"));
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut tcp, &mut all);
        assert_eq!(!all.is_empty(), served);
        std::io::Write::write_all(&mut &stop, b"xx").unwrap();
        server.join().unwrap();
    }
}
