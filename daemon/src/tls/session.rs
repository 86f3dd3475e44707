//! One connection's encryption, without the socket.
//!
//! It keeps no buffer while nothing happens: of a thousand that wait, each costs its keys only. So rustls is used in the form
//! that owns no buffers, and what is here belongs to a record that has come in part, or to bytes that the socket did not take.
//!
//! What a newcomer gets wrong: bytes that are encrypted cannot be taken back. Where the socket takes only a part of a record,
//! [`Session::write`] says that the record is not written, remembers that it *owes* these bytes, and passes over them when
//! they come again. So whoever goes on writing must go on with what was not written, as everybody here does.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus,
};

/// The largest record (RFC 8446 section 5.2, and what TLS 1.2 allows beyond it): nothing larger is kept.
const RECORD_MAX: usize = 5 + 16 * 1024 + 2048;

/// What is encrypted at a time: as much as one record takes.
const PART: usize = 16 * 1024;

/// What a record may have beside its content.
const AROUND: usize = 256;

/// How often a client's bytes are read while none of them has any content.
const READS: usize = 64;

/// One connection's encryption.
pub(crate) struct Session {
    connection: UnbufferedServerConnection,
    /// What was read and is not a whole record yet.
    records: Vec<u8>,
    /// What was decrypted and not asked for yet.
    plaintext: Vec<u8>,
    /// What was encrypted and not taken by the socket yet.
    unsent: Vec<u8>,
    /// How many bytes of the next write are in `unsent` already.
    owed: usize,
    open: bool,
    ended: bool,
    closed: bool,
}

impl Session {
    /// One that begins.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            records: Vec::new(),
            plaintext: Vec::new(),
            unsent: Vec::new(),
            owed: 0,
            open: false,
            ended: false,
            closed: false,
        })
    }

    /// Whether the handshake is over.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether nothing more will come.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether there is something to read of which the socket knows nothing any more.
    pub(crate) fn has_plaintext(&self) -> bool {
        !self.plaintext.is_empty()
    }

    /// Reads as much as there is and as `buffer` takes; 0 when nothing more will come.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is nothing; what the socket said; `InvalidData` when what came is not TLS.
    pub(crate) fn read(&mut self, socket: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        for _ in 0..READS {
            read += self.give(&mut buffer[read..]);
            if read == buffer.len() || self.ended {
                return Ok(read);
            }
            match self.take_in(socket) {
                Ok(()) => {}
                // An error is told again.
                Err(_) if read > 0 => return Ok(read),
                Err(error) => return Err(error),
            }
        }
        let nothing = || io::Error::new(ErrorKind::InvalidData, "the client sends records without content");
        if read > 0 { Ok(read) } else { Err(nothing()) }
    }

    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let given = buffer.len().min(self.plaintext.len());
        buffer[..given].copy_from_slice(&self.plaintext[..given]);
        if given == self.plaintext.len() {
            self.plaintext = Vec::new();
        } else {
            self.plaintext.drain(..given);
        }
        given
    }

    /// Reads once from the socket, and answers what is not content: handshakes, new keys, alerts.
    pub(super) fn take_in(&mut self, socket: &mut (impl Read + Write)) -> io::Result<()> {
        let mut records = [0; RECORD_MAX];
        let kept = self.records.len();
        let Some(room) = records.get_mut(kept..).filter(|room| !room.is_empty()) else {
            return Err(ErrorKind::InvalidData.into());
        };
        let read = match socket.read(room) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        if read == 0 {
            // Without a word of farewell; HTTP knows itself where its messages end.
            self.ended = true;
            return Ok(());
        }
        records[..kept].copy_from_slice(&self.records);
        let records = &mut records[..kept + read];
        let (used, processed) = self.process(records);
        match processed {
            Ok(open) => self.open = open,
            Err(error) => {
                self.fail(&mut records[used..]);
                let _ = self.flush(socket);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        }
        self.records = if self.ended { Vec::new() } else { records[used..].to_vec() };
        self.flush(socket).map(|_| ())
    }

    /// Ends it after an error, with what rustls has to say to the client about that. Once: it does not bear another look.
    fn fail(&mut self, records: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(mut alert)) =
            self.connection.process_tls_records(records).state
        {
            encode(&mut alert, &mut self.unsent);
        }
        (self.open, self.ended) = (false, true);
    }

    /// Processes what was read: how much of it is done with, and whether content may be written now.
    fn process(&mut self, records: &mut [u8]) -> (usize, Result<bool, rustls::Error>) {
        let Self { connection, plaintext, unsent, ended, .. } = self;
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                connection.process_tls_records(&mut records[used..]);
            let open = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                plaintext.extend_from_slice(record.payload);
                            }
                            Err(error) => return (used, Err(error)),
                        }
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, unsent);
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    // It is in `unsent`, and goes out before anything else.
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    *ended = true;
                    None
                }
                Ok(ConnectionState::WriteTraffic(_)) => Some(true),
                Ok(ConnectionState::Closed) => {
                    *ended = true;
                    Some(false)
                }
                // More is needed; there is no early data, since none is asked for.
                Ok(_) => Some(false),
                Err(error) => return (used + discard, Err(error)),
            };
            used += discard;
            if let Some(open) = open {
                return (used, Ok(open));
            }
        }
    }

    /// Writes as many of these bytes as the socket takes.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when it takes none; what the socket said.
    pub(crate) fn write(&mut self, socket: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<usize> {
        if !self.flush(socket)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut written = std::mem::take(&mut self.owed).min(bytes.len());
        while written < bytes.len() {
            let part = &bytes[written..bytes.len().min(written + PART)];
            self.encrypt(part)?;
            if !self.flush(socket)? {
                self.owed = part.len();
                return if written > 0 { Ok(written) } else { Err(ErrorKind::WouldBlock.into()) };
            }
            written += part.len();
        }
        Ok(written)
    }

    fn encrypt(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.with_traffic(|traffic, unsent| {
            let start = unsent.len();
            unsent.resize(start + plaintext.len() + AROUND, 0);
            let written = traffic.encrypt(plaintext, &mut unsent[start..]).map_err(io::Error::other)?;
            unsent.truncate(start + written);
            Ok(())
        })
    }

    /// Says that nothing more will be written, as far as the socket takes that at once.
    pub(super) fn close(&mut self, socket: &mut (impl Read + Write)) {
        if std::mem::replace(&mut self.closed, true) || !self.open || !matches!(self.flush(socket), Ok(true))
        {
            return;
        }
        let told = self.with_traffic(|traffic, unsent| {
            unsent.resize(AROUND, 0);
            let written = traffic.queue_close_notify(unsent).map_err(io::Error::other)?;
            unsent.truncate(written);
            Ok(())
        });
        if told.is_ok() {
            let _ = self.flush(socket);
        }
    }

    /// Lets `write` encrypt something.
    fn with_traffic(
        &mut self,
        write: impl FnOnce(
            &mut rustls::unbuffered::WriteTraffic<'_, ServerConnectionData>,
            &mut Vec<u8>,
        ) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.open {
            return Err(ErrorKind::NotConnected.into());
        }
        // Not without the beginning of a record that is there: rustls counts on it.
        let mut records = std::mem::take(&mut self.records);
        let (used, processed) = self.process(&mut records);
        records.drain(..used);
        let may_write = match processed {
            Ok(open) => open,
            Err(error) => {
                self.fail(&mut records);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        };
        let status = self.connection.process_tls_records(&mut records);
        let written = match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) if may_write => {
                write(&mut traffic, &mut self.unsent)
            }
            _ => Err(ErrorKind::NotConnected.into()),
        };
        self.records = records;
        written
    }

    /// Writes what is encrypted; `false` when the socket does not take all of it now.
    pub(crate) fn flush(&mut self, socket: &mut (impl Read + Write)) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match socket.write(&self.unsent[sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.drain(..sent);
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.unsent = Vec::new();
        Ok(true)
    }
}

/// Appends a part of a handshake.
fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, unsent: &mut Vec<u8>) {
    let start = unsent.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut [])
    {
        unsent.resize(start + required_size, 0);
        // It fits now.
        let written = data.encode(&mut unsent[start..]).unwrap_or(0);
        unsent.truncate(start + written);
    }
}

#[cfg(test)]
mod tests {
    use everpoll_tests::tls::Authority;
    use rustls::ClientConnection;

    use super::*;

    /// A socket that takes so much at a time, and has what was put into it.
    #[derive(Default)]
    struct Narrow {
        room: usize,
        sent: Vec<u8>,
        come: Vec<u8>,
    }

    impl Read for Narrow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let some = buffer.len().min(self.come.len());
            if some == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            buffer[..some].copy_from_slice(&self.come[..some]);
            self.come.drain(..some);
            Ok(some)
        }
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let some = bytes.len().min(std::mem::take(&mut self.room));
            self.sent.extend_from_slice(&bytes[..some]);
            if some == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(some) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Both ends, after the handshake.
    fn open() -> (Session, Narrow, ClientConnection) {
        let authority = Authority::new();
        let certificate = authority.sign("server");
        let config = super::super::read(&certificate.chain, &certificate.key).unwrap();
        let mut session = Session::new(config.0.into()).unwrap();
        let (mut socket, mut client) = (Narrow::default(), certificate.trust.client());
        while client.is_handshaking() || !session.is_open() {
            // Byte by byte, as the slowest network brings it.
            for byte in sent_by(&mut client) {
                socket.come.push(byte);
                socket.room = usize::MAX;
                session.take_in(&mut socket).unwrap();
            }
            take(&mut client, &mut socket);
        }
        (session, socket, client)
    }

    fn sent_by(client: &mut ClientConnection) -> Vec<u8> {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Lets the client have what the server has sent, and returns what it reads.
    fn take(client: &mut ClientConnection, socket: &mut Narrow) -> Vec<u8> {
        let (mut sent, mut text) = (std::mem::take(&mut socket.sent), Vec::new());
        let mut sent = &sent.as_mut_slice()[..];
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets().unwrap();
            // Nothing more is there; the connection goes on.
            let _ = client.reader().read_to_end(&mut text);
        }
        text
    }

    fn is_empty(session: &Session) -> bool {
        let Session { records, plaintext, unsent, .. } = session;
        [records, plaintext, unsent].iter().all(|kept| kept.capacity() == 0)
    }

    #[test]
    fn what_a_narrow_socket_takes_in_part_arrives_once() {
        let (mut session, mut socket, mut client) = open();
        let text: Vec<_> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut written, mut got) = (0, Vec::new());
        for step in 0.. {
            if written == text.len() {
                break;
            }
            socket.room = step * 977 % 40_000;
            match session.write(&mut socket, &text[written..]) {
                Ok(more) => written += more,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            got.extend(take(&mut client, &mut socket));
        }
        assert!(got == text, "{} bytes arrived of {}", got.len(), text.len());
        assert!(is_empty(&session), "it waits, and keeps nothing");
    }

    #[test]
    fn record_in_pieces_is_read_when_it_is_whole_and_in_parts() {
        let (mut session, mut socket, mut client) = open();
        client.writer().write_all(b"GET /e/cheese").unwrap();
        // New keys, in the middle of what is going on.
        client.refresh_traffic_keys().unwrap();
        client.writer().write_all(b" HTTP/1.1").unwrap();
        let (bytes, mut read, mut some) = (sent_by(&mut client), Vec::new(), [0; 4]);
        for byte in bytes {
            socket.come.push(byte);
            socket.room = usize::MAX;
            while let Ok(more) = session.read(&mut socket, &mut some) {
                read.extend_from_slice(&some[..more]);
            }
            // While half a record is there, others are written.
            socket.room = usize::MAX;
            assert_eq!(session.write(&mut socket, b"!").unwrap(), 1);
        }
        assert_eq!(read, b"GET /e/cheese HTTP/1.1");
        let got = take(&mut client, &mut socket);
        assert!(got.len() > 40 && got.iter().all(|byte| *byte == b'!'), "{got:?}");
        assert!(is_empty(&session));
        client.writer().write_all(b"more than that").unwrap();
        socket.come = sent_by(&mut client);
        assert_eq!(session.read(&mut socket, &mut some).unwrap(), 4);
        assert!(session.has_plaintext(), "of which the socket knows nothing");
        client.send_close_notify();
        socket.come = sent_by(&mut client);
        let mut rest = [0; 64];
        assert_eq!(session.read(&mut socket, &mut rest).unwrap(), 10);
        assert_eq!(session.read(&mut socket, &mut rest).unwrap(), 0, "it has said farewell");
    }

    #[test]
    fn what_is_not_tls_is_an_error_that_the_client_is_told() {
        let (mut session, mut socket, mut client) = open();
        socket.come = b"\x17\x03\x03\x00\x20 these are no encrypted bytes at all".to_vec();
        socket.room = usize::MAX;
        let error = session.read(&mut socket, &mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let alert = std::mem::take(&mut socket.sent);
        client.read_tls(&mut &alert[..]).unwrap();
        assert!(client.process_new_packets().unwrap_err().to_string().contains("alert"), "{alert:?}");
        // It stays so.
        assert!(session.write(&mut socket, b"x").is_err());
        assert_eq!(session.read(&mut socket, &mut [0; 64]).unwrap(), 0);
    }
}
