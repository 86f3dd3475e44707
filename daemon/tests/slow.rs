//! Clients on bad lines: slow, but they take what they get.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use everpoll_tests::http::Address;
use everpoll_tests::{Daemon, Sqlite, TestDir, wait};

/// What the client under test takes at a time, and how long that takes it.
const PIECE: usize = 64 * 1024;
const PAUSE: Duration = Duration::from_millis(150);

/// A unix socket has a buffer of some 200 KB, so most of a mebibyte waits for the client.
fn daemon_with_a_mebibyte(place: &TestDir, log: &Sqlite) -> (Daemon, UnixStream) {
    let socket = place.join("daemon.sock");
    let daemon =
        Daemon::on(log.url()).setting("EVERPOLL_WRITE_TIMEOUT", 1).at(&Address::Unix(socket.clone())).start();
    let data = "x".repeat(1024 * 1024 - 2);
    daemon.publish(&format!(r#"{{"channel":"cheese","type":"made","data":"{data}"}}"#));
    let mut client = UnixStream::connect(socket).expect("the daemon listens");
    client.set_read_timeout(Some(wait::PATIENCE)).expect("it is not zero");
    client
        .write_all(b"GET /e/cheese?last_event_id=0 HTTP/1.0\r\n\r\n")
        .expect("a request fits into the buffer");
    (daemon, client)
}

#[test]
fn client_that_keeps_taking_a_little_gets_all_of_its_reply() {
    let (place, log) = (TestDir::new(), Sqlite::new());
    let (_daemon, mut client) = daemon_with_a_mebibyte(&place, &log);
    let (mut reply, mut piece, start) = (Vec::new(), vec![0; PIECE], Instant::now());
    loop {
        // The line is slow; nothing is waited for.
        std::thread::sleep(PAUSE);
        match client.read(&mut piece).unwrap() {
            0 => break,
            length => reply.extend_from_slice(&piece[..length]),
        }
    }
    assert!(reply.len() > 1024 * 1024 && reply.ends_with(b"}}]"), "the reply was cut at {}", reply.len());
    assert!(start.elapsed() > Duration::from_secs(1), "this was not slow");
}

#[test]
fn client_that_takes_nothing_is_closed() {
    let (place, log) = (TestDir::new(), Sqlite::new());
    let (mut daemon, client) = daemon_with_a_mebibyte(&place, &log);
    // Once the daemon has given up, nothing keeps it from stopping at once.
    let mut probe = client.try_clone().unwrap();
    wait::until("the daemon has closed", wait::PATIENCE, || {
        probe.write_all(b"GET").is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    });
    assert!(daemon.stop().success());
}
