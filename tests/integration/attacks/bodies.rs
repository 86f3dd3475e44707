//! Bodies that are too large, without end, never sent, or compressed.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use everpoll_tests::http::{self, Address};
use everpoll_tests::process;

use super::{Attacker, MEMORY_MAX, Stage, attack, code, count};

/// Sends a head, and then pieces of a body for as long as they are taken, 32 MiB at most. How much was sent, and what came back.
fn pour(address: &Address, head: &str, piece: &[u8]) -> (usize, super::Answer) {
    let mut attacker = Attacker::at(address);
    let (mut sent, most) = (0, 32 << 20);
    attacker.send(head.as_bytes());
    while sent < most && attacker.send(piece) {
        sent += piece.len();
    }
    (sent, attacker.read(Duration::from_secs(20)))
}

#[test]
fn giant_bodies_are_refused_and_not_kept() {
    let mut stage = Stage::new();
    let mut bystanders = stage.bystanders();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let head = |target: &str, length: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{length}\r\n\r\n")
    };
    for (name, address) in stage.doors() {
        bystanders.during(&format!("giant bodies at the {name}"), MEMORY_MAX, || {
            for target in ["/e/cheese", "/publish", "/nothing", "/everpoll.js"] {
                for (length, piece) in [
                    ("Content-Length: 1000000000000", "x".repeat(0x10000)),
                    ("Transfer-Encoding: chunked", chunk.clone()),
                ] {
                    let (sent, answer) = pour(address, &head(target, length), piece.as_bytes());
                    let what =
                        format!("{target} with {length} at the {name}: {sent} bytes, {}", answer.text());
                    // The sockets' buffers take some megabytes by themselves. nginx takes the rest for a while, and forgets it.
                    assert!(name != "daemon" || sent < 32 << 20, "{what}");
                    assert!(answer.closed, "{what}");
                    // Where it is reset, not even the answer may arrive.
                    for reply in answer.replies() {
                        assert!([404, 405, 413].contains(&reply.status), "{what}");
                    }
                }
            }
        });
    }
    bystanders.finish();
    stage.assert_well();
}

#[test]
fn body_that_is_only_announced_is_refused_before_it_is_sent() {
    let stage = Stage::new();
    for (name, address) in stage.doors() {
        let head = "POST /e/cheese HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\nExpect: 100-continue\r\n\r\n";
        let answer = attack(address, head.as_bytes());
        assert!(!answer.text().starts_with("HTTP/1.1 100"), "{name}: {}", answer.text());
        assert_eq!(answer.replies()[0].status, 413, "{name}");
        // What may come is asked for, and taken.
        let head = "POST /e/cheese?hold=0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        let answer = attack(address, &[head.as_bytes(), b"x=yyy"].concat());
        assert_eq!(answer.replies()[0].status, 200, "{name}: {}", answer.text());
    }
}

/// Whoever may not publish cannot make the daemon keep a body for it.
#[test]
fn bodies_of_those_who_may_not_publish_are_not_kept() {
    let mut stage = Stage::with(crate::site::Store::sqlite(), &[]);
    let mut bystanders = stage.bystanders();
    let connections = count(60, 300);
    // As a web server in front says it of a client far away.
    let head = "POST /publish HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\nContent-Length: 8000000\r\n\r\n";
    bystanders.during(&format!("{connections} bodies of 7.9 MB that stay unfinished"), MEMORY_MAX, || {
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut attacker = Attacker::at(stage.daemon.address());
            assert!(attacker.send(head.as_bytes()) && attacker.send(&vec![b'x'; 7_900_000]), "it is read");
            open.push(attacker);
        }
        // And the last bytes of one: it is told why it is refused.
        let mut last = open.pop().expect("there are several");
        assert!(last.send(&[b'x'; 100_000]));
        let reply = last.read(Duration::from_secs(3)).replies().remove(0);
        assert_eq!((reply.status, &*code(&reply)), (403, "publish_not_local"));
    });
    bystanders.finish();
    stage.assert_well();
}

/// So many zeros, compressed.
fn bomb(megabytes: usize) -> Vec<u8> {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("head -c {megabytes}000000 /dev/zero | gzip -9 | od -An -v -tx1")]);
    let (status, hex, errors) = process::run(command, b"");
    assert!(status.success(), "{errors}");
    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("od writes hex")).collect()
}

#[test]
fn compressed_bombs_are_refused_unopened() {
    let mut stage = Stage::new();
    let mut bystanders = stage.bystanders();
    let bomb = bomb(50);
    for (name, address) in stage.doors() {
        let what = format!("compressed bombs of {} bytes at the {name}", bomb.len());
        bystanders.during(&what, MEMORY_MAX, || {
            for encoding in ["gzip", "deflate, gzip", "br", "zstd", "x-gzip"] {
                for (target, kind) in [
                    ("/publish", "application/json"),
                    ("/e/cheese?hold=0", "application/json"),
                    ("/e/cheese?hold=0", "application/x-www-form-urlencoded"),
                ] {
                    let request = http::request("POST", target).header("Content-Type", kind);
                    let request = request.header("Content-Encoding", encoding).body(bomb.clone());
                    let reply = request.send(address);
                    // The fallback and the daemon take 64 KiB for a poll.
                    assert_eq!(
                        (reply.status, &*code(&reply)),
                        (415, "body_encoded"),
                        "{name}, {target}: {reply:?}"
                    );
                }
            }
            // A coding of the transfer is no better.
            let mut bytes =
                b"POST /e/cheese?hold=0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
                    .to_vec();
            let mut size = String::new();
            let _ = write!(size, "{:x}\r\n", bomb.len());
            bytes.extend_from_slice(&[size.as_bytes(), &bomb, b"\r\n0\r\n\r\n"].concat());
            let answer = attack(address, &bytes);
            assert!(answer.closed, "{name}: {}", answer.text());
            for reply in answer.replies() {
                assert!([400, 501].contains(&reply.status), "{name}: {reply:?}");
            }
        });
        let reply = http::post_json("/publish", r#"{"channel":"a","type":"b","data":1}"#);
        assert_eq!(reply.header("Content-Encoding", "identity").send(address).status, 201, "{name}");
    }
    bystanders.finish();
    stage.assert_well();
}
