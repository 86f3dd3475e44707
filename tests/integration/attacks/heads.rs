//! Heads that are too large: one giant field, ten thousand fields, an endless target.

use everpoll_tests::Reply;
use everpoll_tests::http::Address;

use super::{MEMORY_MAX, Stage, attack, code};

/// A head with this target and these fields.
fn head(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n").into_bytes()
}

/// What is said to such a head. A server that has seen enough may reset the connection while it is still being sent, and then
/// not even its answer arrives.
fn said(address: &Address, bytes: &[u8]) -> Option<Reply> {
    let answer = attack(address, bytes);
    assert!(answer.closed, "the connection is kept behind {}", answer.text());
    answer.replies().into_iter().next()
}

#[test]
fn giant_heads_are_refused() {
    let mut stage = Stage::new();
    let mut bystanders = stage.bystanders();
    let poll = "/e/cheese?flavor=short-poll";
    let fields = |count: usize| (0..count).map(|n| format!("X-Field-{n}: v\r\n")).collect::<String>();
    let attacks = [
        // Just what nginx lets through: it is the programs that refuse it, both alike.
        ("1,500 fields", head(poll, &fields(1500)), 431, "head_too_large"),
        (
            "three large fields",
            head(poll, &format!("X: {}\r\n", "y".repeat(12_000)).repeat(3)),
            431,
            "head_too_large",
        ),
        ("10,000 fields", head(poll, &fields(10_000)), 431, "head_too_large"),
        ("one of 4 MiB", head(poll, &format!("Cookie: {}\r\n", "y".repeat(4 << 20))), 431, "head_too_large"),
        ("10,000 cookies", head(poll, &"Cookie: a=b\r\n".repeat(10_000)), 431, "head_too_large"),
        (
            "a target of 9,000 bytes",
            head(&format!("/e/cheese?{}", "x".repeat(9000)), ""),
            414,
            "target_too_long",
        ),
        ("one of 4 MiB", head(&format!("/e/{}", "x".repeat(4 << 20)), ""), 414, "target_too_long"),
        ("a name without end", head(poll, &"x".repeat(4 << 20)), 431, "head_too_large"),
        ("a method without end", vec![b'G'; 4 << 20], 414, "target_too_long"),
        ("nothing but empty lines", b"\r\n".repeat(1 << 20), 431, "head_too_large"),
    ];
    for (name, address) in stage.doors() {
        let mut answered = 0;
        bystanders.during(&format!("giant heads at the {name}"), MEMORY_MAX, || {
            for (what, bytes, status, expected) in &attacks {
                let Some(reply) = said(address, bytes) else { continue };
                answered += 1;
                // FastCGI has room for more: 64 KiB of variables.
                let taken =
                    name == "nginx and fallback" && *what == "three large fields" && reply.status == 200;
                let of_nginx =
                    name != "daemon" && [400, 414].contains(&reply.status) && code(&reply).is_empty();
                assert!(
                    taken || of_nginx || (reply.status, &*code(&reply)) == (*status, expected),
                    "{what} at the {name}: {reply:?} {}",
                    String::from_utf8_lossy(&reply.body)
                );
            }
        });
        // Those that fit into a socket's buffer are told in any case.
        assert!(answered >= 3, "only {answered} were answered by the {name}");
    }
    bystanders.finish();
    stage.assert_well();
}

#[test]
fn what_fits_is_served_although_it_is_large() {
    let stage = Stage::new();
    for (name, address) in stage.doors() {
        let fields = (0..90).map(|n| format!("X-Field-{n}: {}\r\n", "v".repeat(100))).collect::<String>();
        let reply = said(address, &head("/e/cheese?flavor=short-poll", &fields)).expect("it is served");
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
    }
}
