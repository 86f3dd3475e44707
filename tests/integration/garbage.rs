//! Garbage, half and slow requests against both real programs, over real sockets: none of it ends them, makes them large,
//! or keeps others from being served.
//!
//! The parsers are looked at from inside by `tests/fuzz`, whose corpora are sent here again.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address, Connection, Stream};
use everpoll_tests::{Daemon, Fallback, process, wait};

use crate::site::Store;

/// Most memory that either program may take in these tests, in KB. A debug build begins with some 20 MB.
const MEMORY_MAX: u64 = 150_000;

/// Files of a fuzz target's corpus.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files.map(|file| std::fs::read(file.expect("it can be listed").path()).expect("it can be read")).collect()
}

/// Sends bytes, says that nothing follows, and reads whatever comes until the other side closes.
fn throw(address: &Address, bytes: &[u8]) {
    let mut stream = address.connect().expect("it still listens");
    // It may hang up in the middle.
    let _ = stream.write_all(bytes);
    let _ = stream.finish_sending();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
}

/// Variants of some bytes: cut, repeated, changed.
fn variants(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![bytes.to_vec(), bytes.repeat(3)];
    for part in 1..8 {
        all.push(bytes[..bytes.len() * part / 8].to_vec());
        let mut changed = bytes.to_vec();
        if let Some(byte) = changed.get_mut(bytes.len() * part / 9) {
            *byte ^= 1 << (part % 8);
        }
        all.push(changed);
    }
    all
}

fn daemon(store: &Store) -> Daemon {
    // Short, so that what is never completed is over soon, and longer than what the tests do meanwhile.
    Daemon::on(store.url()).setting("EVERPOLL_HEAD_TIMEOUT", 20).start()
}

fn fallback(store: &Store) -> Fallback {
    // It makes the tables.
    drop(Daemon::on(store.url()).start());
    Fallback::on(store.url()).start()
}

/// Asks the daemon something normal.
#[track_caller]
fn assert_daemon_serves(address: &Address) {
    let start = Instant::now();
    assert_eq!(http::get("/e/cheese?flavor=short-poll").send(address).status, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}

/// A FastCGI record.
fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0], content].concat()
}

/// A short-poll as FastCGI, the connection to be kept.
fn fastcgi_poll() -> Vec<u8> {
    let mut params = Vec::new();
    for (name, value) in
        [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/e/cheese"), ("REMOTE_ADDR", "127.0.0.1")]
    {
        params.extend([u8::try_from(name.len()).expect("short"), u8::try_from(value.len()).expect("short")]);
        params.extend([name, value].concat().bytes());
    }
    [record(1, &[0, 1, 1, 0, 0, 0, 0, 0]), record(4, &params), record(4, b""), record(5, b"")].concat()
}

/// Asks the fallback something normal on this connection.
fn try_fastcgi(stream: &mut Stream) -> std::io::Result<bool> {
    stream.write_all(&fastcgi_poll())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    // Ends with a record of type 3.
    while answer.len() < 16 || answer[answer.len() - 16 + 1] != 3 {
        match stream.read(&mut piece)? {
            0 => return Ok(false),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    Ok(answer.windows(14).any(|window| window == b"Status: 200 OK"))
}

#[track_caller]
fn assert_fallback_serves(address: &Address) {
    let start = Instant::now();
    let mut stream = address.connect().expect("it still listens");
    assert!(try_fastcgi(&mut stream).expect("an answer"), "no 200");
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
}

#[track_caller]
fn assert_small(what: &str, process: &mut everpoll_tests::Process) {
    let kilobytes = process::resident_kilobytes(process.id());
    println!("{what}: {kilobytes} KB");
    assert!(process.is_running());
    assert!(kilobytes < MEMORY_MAX, "{what}: {kilobytes} KB");
    assert!(!process.log().contains("panicked"), "{}", process.log());
}

#[test]
fn daemon_outlives_garbage() {
    let store = Store::sqlite();
    // Some of the garbage is a poll that is held, with more behind it, so that hyper does not see its sender leave.
    let mut daemon = Daemon::on(store.url()).setting("EVERPOLL_HOLD_MAX", 1).start();
    let address = daemon.address().clone();
    let mut all = [corpus("http"), corpus("fastcgi"), corpus("publish")].concat();
    // What a fast sender of nonsense would send.
    all.extend([vec![0; 1 << 20], vec![b'\n'; 1 << 20], vec![b'A'; 1 << 20], vec![0xff; 1 << 20]]);
    all.push([b"GET /e/c HTTP/1.1\r\nHost: a\r\nX: ".to_vec(), vec![b'x'; 4 << 20]].concat());
    all.push(
        b"GET /e/c HTTP/1.1\r\nHost: a\r\n".iter().copied().chain(b"a: b\r\n".repeat(200_000)).collect(),
    );
    // Bodies whose length is a lie.
    for length in ["-1", "+1", "0x10", "18446744073709551616", "9223372036854775807", "1, 2", "", "8388609"] {
        all.push(format!("POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{").into());
    }
    for chunk in ["ffffffffffffffff", "-1", "zz", "7fffffff", "1\r\nxx", "0\r\nX: y"] {
        all.push(
            format!("POST /e/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}\r\n").into(),
        );
    }
    for bytes in &all {
        let variants = if bytes.len() < 10_000 { variants(bytes) } else { vec![bytes.clone()] };
        for bytes in variants {
            throw(&address, &bytes);
        }
        assert_daemon_serves(&address);
    }
    println!("{} kinds of garbage", all.len());
    assert_small("daemon after garbage", daemon.process());
}

#[test]
fn fallback_outlives_garbage() {
    let store = Store::sqlite();
    let mut fallback = fallback(&store);
    let address = fallback.address().clone();
    // The first byte of these is for the fuzz target.
    let mut all: Vec<_> = corpus("fastcgi").into_iter().map(|bytes| bytes[1..].to_vec()).collect();
    all.extend([corpus("http"), corpus("publish")].concat());
    all.extend([vec![0; 1 << 20], vec![1; 1 << 20], vec![0xff; 1 << 20]]);
    let begin = record(1, &[0, 1, 1, 0, 0, 0, 0, 0]);
    // 64 MiB of variables, of body, of questions, of other requests, of empty records.
    all.push([begin.clone(), record(4, &[0; 65_535]).repeat(64)].concat());
    all.push([begin.clone(), record(4, b""), record(5, &[b'x'; 65_535]).repeat(300)].concat());
    all.push(record(9, &[0; 65_535]).repeat(64));
    all.push(begin.repeat(50_000));
    all.push([begin.clone(), record(4, &[0, 0])].concat().repeat(10_000));
    all.push([begin, record(4, &[0xff; 64])].concat());
    for bytes in &all {
        let variants = if bytes.len() < 10_000 { variants(bytes) } else { vec![bytes.clone()] };
        for bytes in variants {
            throw(&address, &bytes);
        }
        assert_fallback_serves(&address);
    }
    println!("{} kinds of garbage", all.len());
    assert_small("fallback after garbage", fallback.process());
}

#[test]
fn a_thousand_slow_clients_do_not_keep_the_daemon_from_serving() {
    let store = Store::sqlite();
    let mut daemon = daemon(&store);
    let address = daemon.address().clone();
    let head = b"GET /e/cheese HTTP/1.1\r\nHost: a\r\nX-Slow: ";
    let mut slow: Vec<_> = (0..1000).map(|_| Connection::open(&address).expect("it listens")).collect();
    // One byte at a time, to all of them; every few bytes somebody else asks.
    for (n, byte) in head.iter().enumerate() {
        for connection in &mut slow {
            connection.send(&[*byte]).expect("it reads");
        }
        if n % 8 == 0 {
            assert_daemon_serves(&address);
        }
    }
    let held = http::get("/e/cheese?last_event_id=0").begin(&address);
    let id = daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#)[0];
    assert_eq!(held.reply().events()[0].id, id);
    assert_small("daemon with 1000 slow clients", daemon.process());
    // Their time ends although a byte comes now and then.
    wait::until("they are answered with 408", Duration::from_secs(60), || {
        slow.retain_mut(|connection| {
            let _ = connection.send(b"y");
            connection.stream().set_deadline(Duration::from_millis(1)).expect("not zero");
            // What is behind a 408 is closed; an error other than that nothing came yet is the end as well.
            match connection.read_reply(false) {
                Ok(reply) => {
                    assert_eq!(reply.status, 408);
                    false
                }
                Err(error) => error.kind() == std::io::ErrorKind::TimedOut,
            }
        });
        slow.is_empty()
    });
    assert_daemon_serves(&address);
}

#[test]
fn five_hundred_idle_connections_do_not_starve_the_fallback() {
    let store = Store::sqlite();
    let mut fallback = fallback(&store);
    let address = fallback.address().clone();
    // As a web server keeps them: each has served a request, or none yet.
    let mut idle: Vec<_> = (0..500).map(|_| address.connect().expect("it listens")).collect();
    for stream in idle.iter_mut().step_by(2) {
        assert!(try_fastcgi(stream).expect("an answer"));
    }
    let start = Instant::now();
    for _ in 0..50 {
        assert_fallback_serves(&address);
    }
    println!("50 requests beside 500 idle connections took {:?}", start.elapsed());
    assert_small("fallback with 500 idle connections", fallback.process());
    // And they are still good.
    for stream in &mut idle {
        assert!(try_fastcgi(stream).expect("an answer"));
    }
}

#[test]
fn five_hundred_half_requests_do_not_starve_the_fallback() {
    let store = Store::sqlite();
    let mut fallback = fallback(&store);
    let address = fallback.address().clone();
    let request = fastcgi_poll();
    let mut slow: Vec<_> = (0..500).map(|_| address.connect().expect("it listens")).collect();
    for (n, byte) in request[..request.len() - 1].iter().enumerate() {
        for stream in &mut slow {
            // Given up meanwhile, on a very slow machine.
            let _ = stream.write_all(&[*byte]);
        }
        if n % 16 == 0 {
            assert_fallback_serves(&address);
        }
    }
    assert_small("fallback with 500 half requests", fallback.process());
    // Whoever sends the last byte in time is answered; the others have been told that they are late.
    let answered = slow.iter_mut().filter_map(|stream| {
        stream.write_all(&request[request.len() - 1..]).ok()?;
        let mut answer = [0; 64];
        let read = stream.read(&mut answer).ok()?;
        (answer[..read].windows(7).any(|window| window == b"Status:")).then_some(())
    });
    println!("{} of 500 half requests were answered", answered.count());
    assert_fallback_serves(&address);
}

#[test]
fn clients_that_vanish_in_the_middle_leave_nothing_behind() {
    let store = Store::sqlite();
    let mut fallback = fallback(&store);
    let Address::Unix(path) = fallback.address().clone() else { panic!("a unix socket") };
    let request = fastcgi_poll();
    for n in 0..2000 {
        let mut stream = UnixStream::connect(&path).expect("it still listens");
        stream.write_all(&request[..n % (request.len() + 1)]).expect("a short one fits");
        let _ = stream.shutdown(if n % 2 == 0 { Shutdown::Both } else { Shutdown::Read });
    }
    assert_fallback_serves(fallback.address());
    assert_small("fallback after 2000 clients that vanished", fallback.process());
}
