//! Frames (RFC 6455, section 5): made for the client's side, also such as no client may send, and read strictly.
//!
//! Strict means that whatever a browser would fail the connection for is an error here: masked frames from a server, reserved
//! bits without an extension, lengths that are longer than they need to be, control frames in pieces.

use std::io;

/// The opcodes that the RFC names.
pub mod opcode {
    /// Goes on with the message before.
    pub const CONTINUATION: u8 = 0;
    /// UTF-8.
    pub const TEXT: u8 = 1;
    /// Bytes.
    pub const BINARY: u8 = 2;
    /// The end.
    pub const CLOSE: u8 = 8;
    /// Asks for a pong.
    pub const PING: u8 = 9;
    /// The answer.
    pub const PONG: u8 = 10;
}

/// What all masked frames of a test are masked with: any four bytes will do, but not zeros, which would hide a server
/// that forgets to unmask.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether the message ends with it.
    pub last: bool,
    /// The three reserved bits, as a number from 0 to 7.
    pub reserved: u8,
    /// See [`opcode`].
    pub opcode: u8,
    /// Unmasked.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole message or control frame.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { last: true, reserved: 0, opcode, payload: payload.into() }
    }

    /// A close with a code and a reason.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        Self::new(opcode::CLOSE, payload)
    }

    /// The same, with more of the message to come.
    #[must_use]
    pub fn unfinished(mut self) -> Self {
        self.last = false;
        self
    }

    /// The same, with reserved bits.
    #[must_use]
    pub fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    /// As a client sends it.
    pub fn masked(&self) -> Vec<u8> {
        let mut bytes = self.head(0x80);
        bytes.extend_from_slice(&MASK);
        bytes.extend(self.payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// As only a server may send it.
    pub fn unmasked(&self) -> Vec<u8> {
        let mut bytes = self.head(0);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    fn head(&self, mask_bit: u8) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.last) << 7 | self.reserved << 4 | self.opcode];
        match u16::try_from(self.payload.len()) {
            Ok(length @ ..126) => bytes.push(mask_bit | length as u8),
            Ok(length) => {
                bytes.push(mask_bit | 126);
                bytes.extend(length.to_be_bytes());
            }
            Err(_) => {
                bytes.push(mask_bit | 127);
                bytes.extend((self.payload.len() as u64).to_be_bytes());
            }
        }
        bytes
    }

    /// The code and the reason of a close; 1005 stands for none, as in the RFC.
    ///
    /// # Panics
    /// When it is another frame, or its payload is malformed.
    #[track_caller]
    pub fn close_code(&self) -> (u16, &str) {
        assert_eq!(self.opcode, opcode::CLOSE, "{self:?}");
        match self.payload.split_first_chunk() {
            Some((code, reason)) => {
                (u16::from_be_bytes(*code), std::str::from_utf8(reason).expect("a reason in UTF-8"))
            }
            None => {
                assert!(self.payload.is_empty(), "a code has two bytes: {self:?}");
                (1005, "")
            }
        }
    }

    /// Takes a server's frame off the front of `bytes`, if it is complete.
    ///
    /// # Errors
    /// When a browser would fail the connection for it.
    pub fn take(bytes: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let [first, second, rest @ ..] = &bytes[..] else { return Ok(None) };
        let bad =
            |what: &str| Err(io::Error::other(format!("{what}: {:02x?}", &bytes[..bytes.len().min(20)])));
        let (last, reserved, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 15);
        if second & 0x80 != 0 {
            return bad("a masked frame from a server");
        }
        if reserved != 0 {
            return bad("reserved bits");
        }
        let (length, used) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            length => (u64::from(length), 2),
        };
        if (used == 4 && length < 126) || (used == 10 && length < 65536) {
            return bad("a length that is not the shortest");
        }
        match opcode {
            opcode::CONTINUATION | opcode::TEXT | opcode::BINARY => {}
            opcode::CLOSE | opcode::PING | opcode::PONG if last && length < 126 => {}
            opcode::CLOSE | opcode::PING | opcode::PONG => {
                return bad("a control frame too long or in pieces");
            }
            _ => return bad("an unknown opcode"),
        }
        let end = usize::try_from(length).map_err(io::Error::other)? + used;
        if bytes.len() < end {
            return Ok(None);
        }
        let payload = bytes[used..end].to_vec();
        bytes.drain(..end);
        Ok(Some(Self { last, reserved, opcode, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc_are_made_and_read() {
        let hello = Frame::new(opcode::TEXT, "Hello");
        assert_eq!(hello.unmasked(), b"\x81\x05Hello");
        assert_eq!(hello.masked(), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(Frame::new(opcode::TEXT, "Hel").unfinished().unmasked(), b"\x01\x03Hel");
        assert_eq!(Frame::new(opcode::BINARY, vec![0; 256]).unmasked()[..4], [0x82, 0x7e, 0x01, 0x00]);
        let large = Frame::new(opcode::BINARY, vec![0; 65536]).unmasked();
        assert_eq!(large[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(Frame::close(1001, "bye").close_code(), (1001, "bye"));
        assert_eq!(Frame::new(opcode::CLOSE, "").close_code(), (1005, ""));
    }

    #[test]
    fn frame_is_taken_when_it_is_complete() {
        for length in [0, 1, 125, 126, 65535, 65536] {
            let frame = Frame::new(opcode::TEXT, vec![b'x'; length]);
            let whole = frame.unmasked();
            for part in [0, 1, 2, 3, whole.len() - 1] {
                if part < whole.len() {
                    assert_eq!(Frame::take(&mut whole[..part].to_vec()).unwrap(), None, "{length} {part}");
                }
            }
            let mut bytes = [whole, b"\x81".to_vec()].concat();
            assert_eq!((Frame::take(&mut bytes).unwrap(), bytes.as_slice()), (Some(frame), &b"\x81"[..]));
        }
    }

    #[test]
    fn what_a_browser_would_not_take_is_an_error() {
        let masked = Frame::new(opcode::TEXT, "x").masked();
        let reserved = Frame::new(opcode::TEXT, "x").reserved(4).unmasked();
        let in_pieces = Frame::new(opcode::PING, "x").unfinished().unmasked();
        let long = Frame::new(opcode::CLOSE, vec![0; 126]).unmasked();
        let unknown = Frame::new(3, "").unmasked();
        let not_shortest = [b"\x81\x7e\x00\x05Hello".to_vec(), b"\x81\x7f\0\0\0\0\0\0\x01\0".to_vec()];
        for mut bytes in [masked, reserved, in_pieces, long, unknown].into_iter().chain(not_shortest) {
            assert!(Frame::take(&mut bytes).is_err(), "{bytes:02x?}");
        }
    }
}
