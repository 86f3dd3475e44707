//! Single FastCGI records, to and from bytes.
//!
//! A record is a header of 8 bytes, up to 65,535 bytes of content, and padding that means nothing. Numbers are
//! big-endian. What the records of one connection mean together is [`receiver`](super::receiver)'s.
//!
//! The specification is at <https://fastcgi-archives.github.io/FastCGI_Specification.html>; its names are kept, so that
//! the two can be read side by side.

use thiserror::Error;

use super::params::{self, Params};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 8;

/// Bytes of the content of `FCGI_BEGIN_REQUEST`, `FCGI_END_REQUEST` and `FCGI_UNKNOWN_TYPE`.
pub const BODY_BYTES: usize = 8;

/// Most bytes of content in one record.
pub const CONTENT_MAX: usize = 65_535;

const VERSION_1: u8 = 1;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the specification, section 8")]
pub enum Kind {
    BeginRequest,
    AbortRequest,
    EndRequest,
    Params,
    Stdin,
    Stdout,
    Stderr,
    Data,
    GetValues,
    GetValuesResult,
    UnknownType,
    /// A number that the specification does not have.
    Other(u8),
}

impl Kind {
    /// The kind with this number.
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::BeginRequest,
            2 => Self::AbortRequest,
            3 => Self::EndRequest,
            4 => Self::Params,
            5 => Self::Stdin,
            6 => Self::Stdout,
            7 => Self::Stderr,
            8 => Self::Data,
            9 => Self::GetValues,
            10 => Self::GetValuesResult,
            11 => Self::UnknownType,
            other => Self::Other(other),
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Self::BeginRequest => 1,
            Self::AbortRequest => 2,
            Self::EndRequest => 3,
            Self::Params => 4,
            Self::Stdin => 5,
            Self::Stdout => 6,
            Self::Stderr => 7,
            Self::Data => 8,
            Self::GetValues => 9,
            Self::GetValuesResult => 10,
            Self::UnknownType => 11,
            Self::Other(number) => number,
        }
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the record is.
    pub kind: Kind,
    /// The request that it belongs to; 0 belongs to the connection itself.
    pub request_id: u16,
    /// Bytes of content behind the header.
    pub content: u16,
    /// Bytes of padding behind the content.
    pub padding: u8,
}

/// How a request ended, in `FCGI_END_REQUEST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolStatus {
    /// It was answered.
    RequestComplete = 0,
    /// This program serves one request of a connection at a time.
    CantMultiplex = 1,
    /// Too much to do. Not used: a reply of 503 tells the client when to come back.
    Overloaded = 2,
    /// This program is a responder, neither authorizer nor filter.
    UnknownRole = 3,
}

/// What came is not FastCGI, so that nothing behind it can be understood: the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the text of each says it")]
pub enum RecordError {
    #[error("record has version {0}, FastCGI has 1; is the web server set to FastCGI?")]
    Version(u8),
    #[error("record of type {kind} has {bytes} bytes of content, it must have 8")]
    Length { kind: u8, bytes: u16 },
    #[error("request {0} begins with id 0, which is reserved for the connection")]
    RequestId(u16),
    #[error("record of type {kind} came before the end of the parameters, or they ended twice")]
    OutOfOrder { kind: u8 },
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    ///
    /// [`RecordError::Version`].
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, RecordError> {
        let [version, kind, id1, id0, content1, content0, padding, _reserved] = bytes;
        if version != VERSION_1 {
            return Err(RecordError::Version(version));
        }
        Ok(Self {
            kind: Kind::from_number(kind),
            request_id: u16::from_be_bytes([id1, id0]),
            content: u16::from_be_bytes([content1, content0]),
            padding,
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn bytes(self) -> [u8; HEADER_BYTES] {
        let [id1, id0] = self.request_id.to_be_bytes();
        let [content1, content0] = self.content.to_be_bytes();
        [VERSION_1, self.kind.number(), id1, id0, content1, content0, self.padding, 0]
    }
}

/// Appends a record without padding.
///
/// # Panics
///
/// When `content` is longer than [`CONTENT_MAX`].
pub fn write(kind: Kind, request_id: u16, content: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(content.len()).expect("callers cut content into records");
    out.extend_from_slice(&Header { kind, request_id, content: length, padding: 0 }.bytes());
    out.extend_from_slice(content);
}

/// A whole response in one piece, to be sent by one write: `stdout` in as many records as it needs, and its end. Small
/// writes one after the other were seen to cost a hundredfold (Nagle's algorithm waits between them).
#[must_use]
pub fn response(request_id: u16, stdout: &[u8]) -> Vec<u8> {
    let records = stdout.len().div_ceil(CONTENT_MAX) + 2;
    let mut out = Vec::with_capacity(stdout.len() + records * HEADER_BYTES + BODY_BYTES);
    for piece in stdout.chunks(CONTENT_MAX) {
        write(Kind::Stdout, request_id, piece, &mut out);
    }
    // The end of the stream, as the specification has it; nginx does without.
    write(Kind::Stdout, request_id, b"", &mut out);
    end_request(request_id, ProtocolStatus::RequestComplete, &mut out);
    out
}

/// Appends the end of a request.
pub fn end_request(request_id: u16, status: ProtocolStatus, out: &mut Vec<u8>) {
    // The first four bytes are the exit status that a CGI program would have had.
    write(Kind::EndRequest, request_id, &[0, 0, 0, 0, status as u8, 0, 0, 0], out);
}

/// Appends the answer to a record for the connection of a type that is not known.
pub fn unknown_type(kind: Kind, out: &mut Vec<u8>) {
    write(Kind::UnknownType, 0, &[kind.number(), 0, 0, 0, 0, 0, 0, 0], out);
}

/// Appends the answer to `FCGI_GET_VALUES`: of the names that `asked` has, those that are known.
pub fn values(asked: &Params, connections_max: usize, out: &mut Vec<u8>) {
    let connections = connections_max.to_string();
    let known =
        [("FCGI_MAX_CONNS", connections.as_str()), ("FCGI_MAX_REQS", &connections), ("FCGI_MPXS_CONNS", "0")];
    let mut pairs = Vec::new();
    for (name, value) in known {
        if asked.pairs().any(|(asked, _)| asked == name.as_bytes()) {
            params::write_pair(name.as_bytes(), value.as_bytes(), &mut pairs);
        }
    }
    write(Kind::GetValuesResult, 0, &pairs, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn header_survives_its_bytes(kind: u8, request_id: u16, content: u16, padding: u8) {
            let header = Header { kind: Kind::from_number(kind), request_id, content, padding };
            prop_assert_eq!(header.kind.number(), kind);
            prop_assert_eq!(Header::parse(header.bytes()), Ok(header));
        }
    }

    #[test]
    fn header_of_another_version_is_refused() {
        assert_eq!(Header::parse(*b"GET / HT"), Err(RecordError::Version(b'G')));
    }

    #[test]
    fn response_of_any_length_is_cut_into_records_and_ends() {
        for bytes in [0, 1, CONTENT_MAX, CONTENT_MAX + 1, 3 * CONTENT_MAX + 7] {
            let body: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
            let sent = response(7, &body);
            let (mut at, mut stdout, mut kinds) = (0, Vec::new(), Vec::new());
            while at < sent.len() {
                let header = Header::parse(sent[at..at + 8].try_into().unwrap()).unwrap();
                assert_eq!(header.request_id, 7);
                let content = &sent[at + 8..at + 8 + usize::from(header.content)];
                if header.kind == Kind::Stdout {
                    stdout.extend_from_slice(content);
                }
                kinds.push((header.kind, content.len()));
                at += 8 + content.len();
            }
            assert_eq!(stdout, body);
            assert_eq!(kinds[kinds.len() - 2..], [(Kind::Stdout, 0), (Kind::EndRequest, 8)]);
            assert_eq!(kinds.len(), bytes.div_ceil(CONTENT_MAX) + 2);
        }
    }

    #[test]
    fn values_that_are_asked_for_are_told_and_others_are_not() {
        let mut asked = Vec::new();
        params::write_pair(b"FCGI_MPXS_CONNS", b"", &mut asked);
        params::write_pair(b"FCGI_MAX_CONNS", b"", &mut asked);
        params::write_pair(b"FCGI_LUCK", b"", &mut asked);
        let mut out = Vec::new();
        values(&Params::parse(asked).unwrap(), 500, &mut out);
        let told = Params::parse(out[8..].to_vec()).unwrap();
        let told: Vec<_> = told.pairs().collect();
        assert_eq!(told, [(&b"FCGI_MAX_CONNS"[..], &b"500"[..]), (b"FCGI_MPXS_CONNS", b"0")]);
    }
}
