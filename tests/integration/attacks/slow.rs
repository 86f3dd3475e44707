//! Clients that send a byte now and then, to keep a place that others need.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use everpoll_tests::bystanders::{self, Bystanders};
use everpoll_tests::http::Address;
use everpoll_tests::tls::Authority;
use everpoll_tests::{Daemon, wait};

use super::{MEMORY_MAX, Stage, count};
use crate::site::Store;

/// Sends `bytes` over `connections`, one byte a second over each, until all have been closed by the other side. The bytes of
/// different connections go out at different moments, as those of many clients would.
fn drip(address: &Address, connections: usize, bytes: &[u8]) -> String {
    let Address::Tcp(address) = address else { panic!("TCP") };
    let mut open: Vec<_> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(address).expect("it listens");
            stream.set_nonblocking(true).expect("it is a socket");
            Some(stream)
        })
        .collect();
    let began = Instant::now();
    let mut said = Vec::new();
    for &byte in bytes.iter().cycle() {
        let second = Instant::now();
        for stream in &mut open {
            let Some(socket) = stream else { continue };
            let mut some = [0; 2048];
            let sent = socket.write(&[byte]);
            let gone = match socket.read(&mut some) {
                Ok(0) => true,
                Ok(read) => {
                    said.extend_from_slice(&some[..read]);
                    false
                }
                Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
            };
            if gone || sent.is_err() {
                *stream = None;
            }
        }
        let left = open.iter().flatten().count();
        if left == 0 {
            break;
        }
        assert!(began.elapsed() < wait::PATIENCE, "{left} of {connections} slow clients are still there");
        thread::sleep(Duration::from_secs(1).saturating_sub(second.elapsed()));
    }
    println!("{connections} slow clients were gone after {:?}", began.elapsed());
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_thousand_slow_heads_end_and_keep_nobody_waiting() {
    let mut stage = Stage::new();
    let mut bystanders = stage.bystanders();
    let slow = count(1000, 4000);
    bystanders.during(&format!("{slow} slow heads at each door"), MEMORY_MAX, || {
        thread::scope(|scope| {
            for (name, address) in stage.doors() {
                scope.spawn(move || {
                    let said =
                        drip(address, slow, b"GET /e/cheese HTTP/1.1\r\nHost: a\r\nX-Slow: yyyyyyyyyy");
                    // nginx closes without a word.
                    assert!(name != "daemon" || said.contains("\"head_timeout\""), "{said}");
                });
            }
        });
    });
    bystanders.finish();
    stage.assert_well();
}

#[test]
fn a_thousand_slow_bodies_end_and_keep_nobody_waiting() {
    let mut stage = Stage::new();
    let mut bystanders = stage.bystanders();
    let slow = count(1000, 4000);
    bystanders.during(&format!("{slow} slow bodies at each door"), MEMORY_MAX, || {
        thread::scope(|scope| {
            for (_, address) in stage.doors() {
                scope.spawn(move || pause_in_the_body(address, slow));
            }
        });
    });
    bystanders.finish();
    stage.assert_well();
}

/// Begins as many requests, sends a little of their bodies, and then nothing, until all have been given up.
fn pause_in_the_body(address: &Address, requests: usize) {
    let Address::Tcp(address) = address else { panic!("TCP") };
    let head = "POST /e/cheese HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\nlast_event";
    let mut open: Vec<_> = (0..requests)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.write_all(head.as_bytes()).expect("a few bytes");
            stream.set_nonblocking(true).expect("it is a socket");
            stream
        })
        .collect();
    wait::until("all are gone", wait::PATIENCE, || {
        open.retain_mut(|stream| match stream.read(&mut [0; 2048]) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        open.is_empty()
    });
}

#[test]
fn a_thousand_slow_handshakes_end_and_keep_nobody_waiting() {
    let (authority, store) = (Authority::new(), Store::sqlite());
    let start = Daemon::on(store.url()).setting("EVERPOLL_HEAD_TIMEOUT", super::TIMEOUT);
    let start = start.setting("EVERPOLL_CONNECTIONS_PER_ADDRESS", 100_000);
    let mut daemon = start.tls(&authority.sign("localhost")).start();
    let address = daemon.address().clone();
    let Address::Tls(socket, trust) = &address else { panic!("TLS") };
    let mut hello = Vec::new();
    trust.client().write_tls(&mut hello).expect("into memory");
    let watched = [("daemon", daemon.process().id())];
    let mut bystanders = Bystanders::start(&bystanders::Start {
        doors: &[("daemon", &address)],
        publish: &address,
        query: String::new(),
        watched: &watched,
    });
    let slow = count(1000, 4000);
    bystanders.during(&format!("{slow} slow handshakes"), MEMORY_MAX, || {
        drip(&Address::Tcp(*socket), slow, &hello);
    });
    bystanders.finish();
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.process().is_running());
}
