//! WebSockets that are used for something else: floods of pings, messages that never end, compression that nobody agreed on.
//!
//! What each single frame does is told by `websocket::conformance`; here many come from many, beside bystanders.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use everpoll_tests::WebSocket;
use everpoll_tests::http::Address;
use everpoll_tests::websocket::{self, Frame, Received, opcode};

use super::{MEMORY_MAX, Stage, count};

fn open(address: &Address) -> WebSocket {
    // As a client asks that would compress; the answer does not agree to it, which `WebSocket` looks at.
    let offer =
        "permessage-deflate; client_max_window_bits; server_no_context_takeover, x-webkit-deflate-frame";
    let request = websocket::request("/e/nothing?flavor=websocket").header("Sec-WebSocket-Extensions", offer);
    let mut socket = WebSocket::try_open(address, &request).expect("it agrees");
    socket.expect("everpoll:hello");
    socket
}

/// Sends these bytes again and again, `rounds` times, as long as they are taken, and reads nothing; how much was taken.
fn flood(socket: &mut WebSocket, bytes: &[u8], rounds: usize) -> usize {
    socket.stream().set_deadline(Duration::from_millis(300)).expect("not zero");
    (0..rounds).take_while(|_| socket.send_bytes(bytes).is_ok()).count() * bytes.len()
}

/// Sends pings without a pause for a second, and takes all that is answered.
fn ping_and_read(address: &Address, pings: &[u8]) {
    let mut socket = open(address);
    let (mut some, end) = (vec![0; 64 * 1024], Instant::now() + Duration::from_secs(1));
    let stream = socket.stream();
    stream.set_deadline(Duration::from_millis(20)).expect("not zero");
    while Instant::now() < end {
        let _ = stream.write_all(pings);
        let _ = stream.read(&mut some);
    }
}

/// The close that comes after whatever else comes, if one does.
fn close_code(socket: &mut WebSocket) -> Option<u16> {
    loop {
        match socket.receive(Duration::from_secs(15)) {
            Ok(Received::Frame(frame)) if frame.opcode == opcode::CLOSE => return Some(frame.close_code().0),
            Ok(Received::Frame(_)) => {}
            _ => return None,
        }
    }
}

#[test]
fn floods_of_frames_are_bounded() {
    let mut stage = Stage::new();
    let mut bystanders = stage.bystanders();
    let sockets = count(20, 200);
    let many = |frame: Frame, times: usize| frame.masked().repeat(times);
    let ping = many(Frame::new(opcode::PING, vec![b'p'; 125]), 500);
    let pong = many(Frame::new(opcode::PONG, vec![b'p'; 125]), 500);
    let text = many(Frame::new(opcode::TEXT, "{\"x\":1}"), 4000);
    let pieces = many(Frame::new(opcode::CONTINUATION, "").unfinished(), 8000);
    let begin = Frame::new(opcode::TEXT, "").unfinished().masked();
    for (name, address) in &stage.doors()[..2] {
        // 2 MiB from each, whose pongs nobody reads.
        bystanders.during(&format!("{sockets} floods of pings at the {name}"), MEMORY_MAX, || {
            let mut open: Vec<_> = (0..sockets).map(|_| open(address)).collect();
            for socket in &mut open {
                flood(socket, &ping, 32);
            }
        });
        // From those who read the pongs as well, so that nothing stops them.
        bystanders.during(&format!("floods of pings, answered, at the {name}"), MEMORY_MAX, || {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| ping_and_read(address, &ping));
                }
            });
        });
        // Behind nginx it is the same daemon that reads the frames.
        if *name != "daemon" {
            continue;
        }
        for (what, first, bytes) in [
            ("pongs that nobody asked for", &[][..], &pong),
            ("texts that nobody reads", &[][..], &text),
            ("a message of nothing that never ends", &begin[..], &pieces),
        ] {
            bystanders.during(&format!("{what} at the {name}"), MEMORY_MAX, || {
                let mut socket = open(address);
                let _ = socket.send_bytes(first);
                flood(&mut socket, bytes, 16);
            });
        }
        bystanders.during(&format!("endless messages at the {name}"), MEMORY_MAX, || {
            for endless in
                [Frame::new(opcode::TEXT, vec![b'x'; 1000]), Frame::new(opcode::BINARY, vec![0; 1000])]
            {
                let mut socket = open(address);
                let _ = socket.send(&endless.unfinished());
                flood(
                    &mut socket,
                    &many(Frame::new(opcode::CONTINUATION, vec![b'x'; 1000]).unfinished(), 64),
                    64,
                );
                // Where the connection is reset, the close itself may not arrive.
                assert!(matches!(close_code(&mut socket), None | Some(1009)));
            }
        });
        bystanders.during(&format!("compressed frames at the {name}"), MEMORY_MAX, || {
            // A mebibyte of zeros as a message of permessage-deflate, and its first frame.
            let mut zeros = vec![0xec, 0xc1, 0x01, 0x01, 0, 0, 0, 0x80, 0x90, 0xfe, 0xaf, 0xee, 0x08, 0x0a];
            zeros.resize(1034, 0);
            for frame in [Frame::new(opcode::TEXT, zeros.clone()), Frame::new(opcode::BINARY, zeros)] {
                for frame in [frame.clone().reserved(4), frame.reserved(4).unfinished()] {
                    let mut socket = open(address);
                    let _ = socket.send(&frame);
                    assert_eq!(close_code(&mut socket), Some(1002));
                }
            }
        });
        bystanders.during(&format!("announced gigabytes at the {name}"), MEMORY_MAX, || {
            let mut announced = Vec::new();
            for length in [1_u64 << 20, 1 << 31, 1 << 40, 1 << 62, 1 << 63, u64::MAX] {
                let mut socket = open(address);
                let head = [&[0x82, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4], &[0; 1000]].concat();
                let _ = socket.send_bytes(&head);
                announced.push((length, close_code(&mut socket)));
            }
            assert!(announced.iter().all(|(_, code)| matches!(code, Some(1002 | 1009))), "{announced:?}");
        });
        bystanders.during(&format!("unmasked and half frames at the {name}"), MEMORY_MAX, || {
            let mut halves: Vec<_> = (0..sockets).map(|_| open(address)).collect();
            let frame = Frame::new(opcode::PING, "ping").masked();
            for (n, socket) in halves.iter_mut().enumerate() {
                socket.send_bytes(&frame[..1 + n % (frame.len() - 1)]).expect("it is open");
            }
            let mut unmasked = open(address);
            unmasked.send_bytes(&Frame::new(opcode::TEXT, "x").unmasked()).expect("it is open");
            assert_eq!(close_code(&mut unmasked), Some(1002));
            // The other half comes late, and counts.
            for (n, socket) in halves.iter_mut().enumerate() {
                socket.send_bytes(&frame[1 + n % (frame.len() - 1)..]).expect("it is open");
                let pong = socket.receive(everpoll_tests::wait::PATIENCE).expect("an answer");
                assert_eq!(pong, Received::Frame(Frame::new(opcode::PONG, "ping")));
            }
        });
    }
    bystanders.finish();
    stage.assert_well();
}
