//! What clients send over a WebSocket, as the daemon reads it.
//!
//! The first byte says where the bytes behind it are cut into pieces. While they are simple, the daemon answers them without
//! a WebSocket's state (`daemon/src/transport/frame.rs`); from the first piece that is not, `tungstenite` goes on with it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

#[path = "../../../daemon/src/transport/frame.rs"]
mod frame;

/// Largest message that the daemon takes.
const MESSAGE_MAX: usize = 4096;

/// How much the daemon reads at once from a stream that waits.
const READ: usize = 4096;

/// A client's bytes mean the same in any pieces, and make nobody keep more than a small message.
pub(crate) fn check(input: &[u8]) {
    let Some((cuts, bytes)) = input.split_first() else { return };
    let simple = simple(bytes);
    let read = frame::read(bytes);
    match &simple {
        Some(pongs) => assert_eq!(read, frame::Read::Reply(pongs.clone())),
        None => assert_eq!(read, frame::Read::Else),
    }
    for end in [1, 2, 6, 7, bytes.len() / 2, usize::from(*cuts)].map(|end| end.min(bytes.len())) {
        let both = (frame::read(&bytes[..end]), frame::read(&bytes[end..]));
        if let (frame::Read::Reply(first), frame::Read::Reply(second)) = both {
            assert_eq!(read, frame::Read::Reply([first, second].concat()), "cut at {end}");
        }
    }
    let whole = serve(bytes, READ);
    for piece in [1, 3, 64, usize::from(*cuts).max(1)] {
        assert_eq!(serve(bytes, piece), whole, "in pieces of {piece}");
    }
    if let Some(pongs) = simple {
        assert_eq!((whole.sent, whole.end), (pongs, None));
    }
}

/// What a client got that sent this, and why it was the last thing that it got.
#[derive(Debug, PartialEq)]
struct Served {
    sent: Vec<u8>,
    end: Option<String>,
}

/// Serves bytes that come in pieces as the daemon does.
fn serve(bytes: &[u8], piece: usize) -> Served {
    let mut pieces: VecDeque<_> = bytes.chunks(piece).collect();
    let mut sent = Vec::new();
    while let Some(piece) = pieces.front() {
        match frame::read(piece) {
            frame::Read::Reply(reply) => sent.extend_from_slice(&reply),
            frame::Read::Else => break,
        }
        pieces.pop_front();
    }
    if pieces.is_empty() {
        return Served { sent, end: None };
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(256)
        .write_buffer_size(64 * 1024)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let client = Client { pieces, sent };
    let mut socket = WebSocket::from_raw_socket(client, Role::Server, Some(config));
    let end = loop {
        match socket.read() {
            Ok(message) => assert!(message.len() <= MESSAGE_MAX || matches!(message, Message::Close(_))),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                // It waits for more, and not for more than it would take.
                assert!(waits_for(bytes) <= MESSAGE_MAX + 14, "it waits for {} bytes", waits_for(bytes));
                break None;
            }
            Err(error) => break Some(error.to_string()),
        }
    };
    Served { sent: std::mem::take(&mut socket.get_mut().sent), end }
}

/// A connection from which these pieces come, and then nothing.
struct Client<'a> {
    pieces: VecDeque<&'a [u8]>,
    sent: Vec<u8>,
}

impl Read for Client<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.pieces.front_mut() else { return Err(ErrorKind::WouldBlock.into()) };
        let length = piece.len().min(into.len());
        into[..length].copy_from_slice(&piece[..length]);
        *piece = &piece[length..];
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        Ok(length)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.sent.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A frame's head: its first byte, whether it is masked, the length of the head, that of the payload.
fn head(bytes: &[u8]) -> Option<(u8, bool, usize, u64)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (extended, length) = match second & 0x7f {
        126 => (2, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into()),
        127 => (8, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        length => (0, length.into()),
    };
    let masked = second & 0x80 != 0;
    let head = 2 + extended + if masked { 4 } else { 0 };
    (bytes.len() >= head).then_some((first, masked, head, length))
}

/// The pongs for frames that are all whole messages, short, masked and usual; `None` for others.
fn simple(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut pongs = Vec::new();
    while !bytes.is_empty() {
        let (first, masked, head, length) = head(bytes)?;
        let end = head + usize::try_from(length).ok().filter(|length| *length <= 125)?;
        // A length that stands right there, and a mask behind it.
        let masked_payload = bytes.get(head..end).filter(|_| masked && head == 6)?;
        let mask = &bytes[head - 4..head];
        let payload: Vec<u8> = (0..masked_payload.len()).map(|n| masked_payload[n] ^ mask[n % 4]).collect();
        match first {
            0x81 => drop(String::from_utf8(payload).ok()?),
            0x82 | 0x8a => {}
            0x89 => pongs.extend([&[0x8a, length as u8], payload.as_slice()].concat()),
            _ => return None,
        }
        bytes = &bytes[end..];
    }
    Some(pongs)
}

/// How many bytes the last frame has, which has not come as a whole; of one whose head has not, those of the longest head.
fn waits_for(mut bytes: &[u8]) -> usize {
    while let Some((_, _, head, length)) = head(bytes) {
        let length = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(head);
        match bytes.get(length..) {
            Some(rest) => bytes = rest,
            None => return length,
        }
    }
    14
}
