//! Frames of a WebSocket (RFC 6455 section 5.2), as far as a lot reads and writes them.
//!
//! Only what is short, whole and usual is read here; `tungstenite` reads the rest, and says what is wrong with it.

/// A frame of text.
pub(crate) const TEXT: u8 = 1;

/// A frame that asks for a [`PONG`].
pub(crate) const PING: u8 = 9;

/// The answer to a [`PING`].
pub(crate) const PONG: u8 = 10;

/// Appends a whole message in one frame, as servers send it.
pub(crate) fn write(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => out.push(length as u8),
        Ok(length) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// What a client's frames call for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// These bytes are to be sent; perhaps none.
    Reply(Vec<u8>),
    /// They are not so simple.
    Else,
}

/// Reads the frames of a client. Messages are of no interest; pings are answered.
pub(crate) fn read(mut bytes: &[u8]) -> Read {
    let mut reply = Vec::new();
    while !bytes.is_empty() {
        let &[first, second, a, b, c, d, ref rest @ ..] = bytes else { return Read::Else };
        let length = usize::from(second & 0x7f);
        // A whole message, and masked, as a client's must be; the length stands right here.
        if first & 0xf0 != 0x80 || second & 0x80 == 0 || length > 125 || rest.len() < length {
            return Read::Else;
        }
        let mask = [a, b, c, d];
        let payload: Vec<u8> =
            rest[..length].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        match first & 0x0f {
            TEXT if std::str::from_utf8(&payload).is_ok() => {}
            PING => write(PONG, &payload, &mut reply),
            2 | PONG => {}
            _ => return Read::Else,
        }
        bytes = &rest[length..];
    }
    Read::Reply(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [0x80 | opcode, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
    }

    #[test]
    fn pings_are_answered_and_messages_are_passed_over() {
        let bytes = [client(PONG, b""), client(TEXT, b"hi"), client(PING, b"abc")].concat();
        assert_eq!(read(&bytes), Read::Reply(b"\x8a\x03abc".to_vec()));
        assert_eq!(read(b""), Read::Reply(Vec::new()));
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        let whole = client(TEXT, b"hi");
        for bytes in [
            &whole[..3],
            &whole[..7],
            &client(8, b""),
            &client(0, b"x"),
            &client(TEXT, b"\xff"),
            b"\x81\x02hi",
        ] {
            assert_eq!(read(bytes), Read::Else, "{bytes:?}");
        }
        let first_of_two = [&[0x01, 0x81][..], &whole[2..7]].concat();
        assert_eq!(read(&first_of_two), Read::Else);
    }

    #[test]
    fn length_has_the_size_it_needs() {
        let head = |length: usize| {
            let mut out = Vec::new();
            write(TEXT, &vec![0; length], &mut out);
            out[..out.len() - length].to_vec()
        };
        assert_eq!(head(125), [0x81, 125]);
        assert_eq!(head(126), [0x81, 126, 0, 126]);
        assert_eq!(head(65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}
