//! RFC 6455 from the client's side: what a client may send does no harm, and what it may not ends the connection.
//!
//! These are the cases of the Autobahn test suite, by its numbers, as far as they apply to a server that ignores what its
//! clients say: where that suite waits for an echo, here a ping must be answered afterwards. Its cases 9 and 10 (large
//! messages) are above the limit, 12 and 13 (compression) are not negotiated. Each case is played in three ways: in one
//! write, a write for each frame, and a write for each byte.

use std::time::Duration;

use everpoll_tests::http::Address;
use everpoll_tests::websocket::{Frame, Received, opcode};
use everpoll_tests::{Daemon, Sqlite, WebSocket};

use opcode::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};

/// The longest message that a client may send.
const LIMIT: usize = 4096;

/// Longest wait for an answer. Shorter than usual, since one mistake fails many cases.
const PATIENCE: Duration = Duration::from_secs(10);

const PROTOCOL_ERROR: u16 = 1002;
const NOT_UTF_8: u16 = 1007;
const TOO_LARGE: u16 = 1009;

/// What the server must do.
#[derive(Debug)]
enum Then {
    /// Answer these pings and nothing else, and go on.
    Pong(Vec<Vec<u8>>),
    /// Close with this code, after those pongs.
    Close(Vec<Vec<u8>>, u16),
}

struct Case {
    name: String,
    frames: Vec<Vec<u8>>,
    then: Then,
}

fn lives(name: impl Into<String>, frames: impl IntoIterator<Item = Frame>) -> Case {
    case(name, frames, Then::Pong(Vec::new()))
}

fn pongs(name: impl Into<String>, frames: impl IntoIterator<Item = Frame>, payloads: &[&[u8]]) -> Case {
    case(name, frames, Then::Pong(payloads.iter().map(|payload| payload.to_vec()).collect()))
}

fn closes(name: impl Into<String>, frames: impl IntoIterator<Item = Frame>, code: u16) -> Case {
    case(name, frames, Then::Close(Vec::new(), code))
}

fn fails(name: impl Into<String>, frames: impl IntoIterator<Item = Frame>) -> Case {
    closes(name, frames, PROTOCOL_ERROR)
}

fn case(name: impl Into<String>, frames: impl IntoIterator<Item = Frame>, then: Then) -> Case {
    Case { name: name.into(), frames: frames.into_iter().map(|frame| frame.masked()).collect(), then }
}

fn text(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(TEXT, payload)
}

fn ping(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(PING, payload)
}

fn more(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(CONTINUATION, payload)
}

/// 1.x messages, 2.x pings and pongs, 3.x reserved bits, 4.x reserved opcodes.
fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 1000, LIMIT] {
        cases.push(lives(format!("1.1 text of {length}"), [text(vec![b'*'; length])]));
        cases.push(lives(format!("1.2 binary of {length}"), [Frame::new(BINARY, vec![0xfe; length])]));
    }
    for length in [LIMIT + 1, 65535, 65536] {
        cases.push(closes(format!("1.1 text of {length}"), [text(vec![b'*'; length])], TOO_LARGE));
    }
    let many: Vec<_> = (0..10).map(|n| format!("payload-{n}").into_bytes()).collect();
    let all: Vec<_> = many.iter().map(Vec::as_slice).collect();
    let binary = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    cases.extend([
        pongs("2.1 ping without payload", [ping("")], &[b""]),
        pongs("2.2 ping", [ping("Hello, world!")], &[b"Hello, world!"]),
        pongs("2.3 ping of bytes", [ping(&binary[..])], &[binary]),
        pongs("2.4 longest ping", [ping(vec![0xfe; 125])], &[&[0xfe; 125]]),
        fails("2.5 ping too long", [ping(vec![0xfe; 126])]),
        lives("2.7 pong that nobody asked for", [Frame::new(PONG, "")]),
        lives("2.8 the same with payload", [Frame::new(PONG, "unsolicited")]),
        pongs("2.9 the same and a ping", [Frame::new(PONG, "unsolicited"), ping("p")], &[b"p"]),
        pongs("2.10 ten pings", many.iter().map(|payload| ping(payload.as_slice())), &all),
        fails("3.1 reserved bits of a text", [text("x").reserved(1)]),
        fails("3.2 of a second text", [text("x"), text("y").reserved(2), ping("")]),
        fails("3.5 of a binary", [Frame::new(BINARY, "x").reserved(5)]),
        fails("3.6 of a ping", [ping("x").reserved(6)]),
        fails("3.7 of a close", [Frame::new(CLOSE, "").reserved(7)]),
        // As a client would compress that did not look whether it may.
        fails("3.x compression that was not agreed on", [text("\u{2}\0").reserved(4)]),
    ]);
    for reserved in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(fails(format!("4 opcode {reserved}"), [Frame::new(reserved, "")]));
        cases.push(fails(
            format!("4 opcode {reserved} behind a text"),
            [text("x"), Frame::new(reserved, "y"), ping("")],
        ));
    }
    cases
}

/// 5.x messages in pieces.
fn fragments() -> Vec<Case> {
    let (half, begin) = (LIMIT / 2, || text("fragment1").unfinished());
    let last = || more("fragment2");
    vec![
        fails("5.1 ping in pieces", [ping("a").unfinished(), more("b")]),
        fails("5.2 pong in pieces", [Frame::new(PONG, "a").unfinished(), more("b")]),
        lives("5.3 text in two pieces", [begin(), last()]),
        pongs("5.6 ping between them", [begin(), ping("p"), last()], &[b"p"]),
        fails("5.9 continuation of nothing", [more("x"), text("y")]),
        fails("5.10 the same, unfinished", [more("x").unfinished(), text("y")]),
        fails("5.15 continuation behind the end", [begin(), last(), more("z").unfinished(), text("y")]),
        fails("5.18 two beginnings", [begin(), text("fragment2")]),
        pongs(
            "5.19 five pieces with pings",
            [
                begin(),
                more("2").unfinished(),
                ping("1"),
                more("3").unfinished(),
                more("4").unfinished(),
                ping("2"),
                more("5"),
            ],
            &[b"1", b"2"],
        ),
        lives("5.x empty pieces", [text("").unfinished(), more("").unfinished(), more("")]),
        lives(
            "5.x two messages in pieces",
            [begin(), last(), Frame::new(BINARY, [0xff]).unfinished(), more([0xfe])],
        ),
        lives("5.x as long as it may be", [text(vec![b'*'; half]).unfinished(), more(vec![b'*'; half])]),
        closes(
            "5.x too long together",
            [text(vec![b'*'; half]).unfinished(), more(vec![b'*'; half]).unfinished(), more("*")],
            TOO_LARGE,
        ),
    ]
}

/// 6.x UTF-8.
fn utf_8() -> Vec<Case> {
    let cheese = "k\u{e4}se \u{1f9c0}".as_bytes();
    let mut cases = vec![lives("6.1 empty", [text("")])];
    for at in 1..cheese.len() {
        let pieces = [text(&cheese[..at]).unfinished(), more(&cheese[at..])];
        cases.push(lives(format!("6.2 characters cut at {at}"), pieces));
    }
    let valid = [
        "\u{0}",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
    ];
    cases.extend(valid.iter().map(|valid| lives(format!("6.5 {valid:?}"), [text(*valid)])));
    let invalid: [&[u8]; 20] = [
        b"\x80",
        b"\xbf",
        b"\x80\xbf\x80",
        b"\xc0 ",
        b"\xc0\xaf",
        b"\xc1\xbf",
        b"\xe0\x80\xaf",
        b"\xe0\x9f\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\xaf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xce",
        b"\xf0\x9f\xa7",
        b"abc\xffdef",
        b"\xed\xa0\x80\xed\xb0\x80",
    ];
    for invalid in invalid {
        cases.push(closes(format!("6.3 {invalid:02x?}"), [text(invalid)], NOT_UTF_8));
        let (begin, end) = invalid.split_at(invalid.len() / 2);
        cases.push(closes(
            format!("6.4 {invalid:02x?} in pieces"),
            [text(begin).unfinished(), more(end)],
            NOT_UTF_8,
        ));
        cases.push(lives(format!("6.x {invalid:02x?} as bytes"), [Frame::new(BINARY, invalid)]));
    }
    cases
}

/// 7.x the end.
fn closing() -> Vec<Case> {
    let reason = |length| "*".repeat(length);
    let mut cases = vec![
        closes("7.1.1 text and close", [text("x"), Frame::close(1000, "")], 1000),
        closes("7.1.2 two closes", [Frame::close(1000, ""), Frame::close(1000, "")], 1000),
        closes("7.1.3 close and ping", [Frame::close(1000, ""), ping("")], 1000),
        closes("7.1.4 close and text", [Frame::close(1000, ""), text("x")], 1000),
        closes(
            "7.1.5 close within a message",
            [text("x").unfinished(), Frame::close(1000, ""), more("y")],
            1000,
        ),
        // A close without a code is answered without one.
        closes("7.3.1 close without a code", [Frame::new(CLOSE, "")], 1005),
        fails("7.3.2 half a code", [Frame::new(CLOSE, [3])]),
        closes("7.3.3 close with a code", [Frame::close(1000, "")], 1000),
        closes("7.3.4 and a reason", [Frame::close(1000, "bye")], 1000),
        closes("7.3.5 the longest reason", [Frame::close(1000, &reason(123))], 1000),
        fails("7.3.6 a longer one", [Frame::close(1000, &reason(124))]),
        closes(
            "7.5.1 a reason that is no UTF-8",
            [Frame::new(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80".as_slice())],
            NOT_UTF_8,
        ),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(closes(format!("7.7 code {code}"), [Frame::close(code, "")], code));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push(fails(format!("7.9 code {code}"), [Frame::close(code, "")]));
        cases.push(fails(format!("7.9 code {code} with a reason"), [Frame::close(code, "reason")]));
    }
    cases
}

/// What the suite does not have: a client may not send unmasked frames, and may announce what it likes.
fn masking() -> Vec<Case> {
    let raw =
        |name: &str, bytes: Vec<u8>, then: Then| Case { name: name.to_owned(), frames: vec![bytes], then };
    let broken = || Then::Close(Vec::new(), PROTOCOL_ERROR);
    let too_large = || Then::Close(Vec::new(), TOO_LARGE);
    let announced = |head: &[u8], sent: &[u8]| [head, &[0; 4], sent].concat();
    vec![
        raw("unmasked text", text("x").unmasked(), broken()),
        raw("unmasked ping", ping("x").unmasked(), broken()),
        raw("unmasked close", Frame::close(1000, "").unmasked(), broken()),
        // Longer than need be: only whoever sends it breaks a rule, and it does no harm.
        raw("5 in two bytes", announced(&[0x81, 0xfe, 0, 5], b"Hello"), Then::Pong(Vec::new())),
        raw(
            "5 in eight bytes",
            announced(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 5], b"Hello"),
            Then::Pong(Vec::new()),
        ),
        // Refused by its head, before anything is kept for it.
        raw("2^62 bytes", announced(&[0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0], b"Hello"), too_large()),
        raw("2^63 bytes", announced(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], b"Hello"), too_large()),
        raw("4097 bytes", announced(&[0x82, 0xfe, 0x10, 0x01], b"Hello"), too_large()),
    ]
}

/// Plays one case; an error says what was wrong.
fn play(address: &Address, case: &Case, writes: &[&[u8]]) -> Result<(), String> {
    let mut socket = WebSocket::open(address, "/e/nothing?flavor=websocket");
    socket.expect("everpoll:hello");
    for bytes in writes {
        // A server that has seen enough may close before the rest is sent.
        if socket.send_bytes(bytes).is_err() {
            break;
        }
    }
    let (payloads, close) = match &case.then {
        Then::Pong(payloads) => (payloads, None),
        Then::Close(payloads, code) => (payloads, Some(*code)),
    };
    let mut next = || match socket.receive(PATIENCE) {
        Ok(Received::Frame(frame)) => Ok(frame),
        other => Err(format!("{other:?}")),
    };
    for payload in payloads {
        let frame = next()?;
        if frame != Frame::new(PONG, payload.as_slice()) {
            return Err(format!("{frame:?} is not the pong"));
        }
    }
    match close {
        Some(code) => {
            let frame = next()?;
            if frame.opcode != CLOSE || frame.close_code().0 != code {
                return Err(format!("{frame:?} is not the close"));
            }
            socket.assert_end();
        }
        None => {
            let _ = socket.send(&ping("still there?"));
            match socket.receive(PATIENCE) {
                Ok(Received::Frame(frame)) if frame == Frame::new(PONG, "still there?") => {}
                other => return Err(format!("{other:?}, and it should live")),
            }
            // A client that means well closes and waits for the answer.
            let _ = socket.send(&Frame::close(1000, ""));
            let closed = socket.closed();
            if closed.0 != 1000 {
                return Err(format!("{closed:?}"));
            }
        }
    }
    Ok(())
}

#[track_caller]
fn play_all(cases: Vec<Case>) {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    let mut failures = Vec::new();
    for case in &cases {
        let whole = case.frames.concat();
        let mut ways = vec![("at once", vec![whole.as_slice()])];
        ways.push(("frame by frame", case.frames.iter().map(Vec::as_slice).collect()));
        // A byte a packet: the daemon gets them in any grouping. Only short ones, for time.
        if whole.len() < 300 {
            ways.push(("byte by byte", whole.chunks(1).collect()));
        }
        for (way, writes) in ways {
            if let Err(error) = play(daemon.address(), case, &writes) {
                failures.push(format!("{}, {way}: {error}", case.name));
            }
        }
    }
    let (count, all) = (failures.len(), cases.len());
    assert!(failures.is_empty(), "{count} failures in {all} cases:\n{}", failures.join("\n"));
    let reply = daemon.get("/e/nothing?flavor=short-poll");
    assert_eq!(reply.status, 200, "the daemon lives");
}

#[test]
fn frames_pings_and_reserved_parts() {
    play_all(framing());
}

#[test]
fn messages_in_pieces() {
    play_all(fragments());
}

#[test]
fn texts_are_utf_8() {
    play_all(utf_8());
}

#[test]
fn closing_is_answered_and_its_codes_are_checked() {
    play_all(closing());
}

#[test]
fn frames_that_only_a_hostile_client_sends() {
    play_all(masking());
}
