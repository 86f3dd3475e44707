//! Requests and answers as a proxy sees them: a first line, headers, a body.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer heads are refused, as real proxies do.
const HEAD_MAX: usize = 64 * 1024;

/// What belongs to one connection and is never passed on.
const HOP_BY_HOP: [&str; 4] = ["connection", "keep-alive", "proxy-connection", "upgrade"];

/// What a careful proxy of the nineties lets through; nothing about caching, and nothing that begins with `x-`.
const KNOWN: [&str; 11] = [
    "accept",
    "accept-language",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "host",
    "location",
    "set-cookie",
    "transfer-encoding",
    "user-agent",
];

/// The first line and the headers of a request or of an answer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    /// Reads one; whatever was read behind it is the beginning of the body.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(Self, Vec<u8>)> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = end_of_head(&bytes) {
                let rest = bytes.split_off(end);
                return Ok((Self::parse(&bytes), rest));
            }
            if bytes.len() > HEAD_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
            if from.read_buf(&mut bytes).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes apart what was read to its end; `None` when it has none.
    pub(super) fn split(answer: &[u8]) -> Option<(Self, &[u8])> {
        let (head, body) = answer.split_at(end_of_head(answer)?);
        Some((Self::parse(head), body))
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Self { line, headers }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Drops what belongs to this connection, and says that it carries this one message only.
    #[must_use]
    pub(super) fn alone(mut self) -> Self {
        self.headers.retain(|(name, _)| !is_one_of(&HOP_BY_HOP, name));
        self.headers.push(("Connection".to_owned(), "close".to_owned()));
        self
    }

    /// Drops what is not known.
    #[must_use]
    pub(super) fn stripped(mut self) -> Self {
        self.headers.retain(|(name, _)| is_one_of(&KNOWN, name));
        self
    }

    /// Speaks HTTP/1.0, which has no connection to speak of.
    #[must_use]
    pub(super) fn http10(mut self) -> Self {
        self.line = self.line.replace("HTTP/1.1", "HTTP/1.0");
        self.headers.retain(|(name, _)| !is_one_of(&HOP_BY_HOP, name));
        self
    }

    /// Says another length, and no longer that there are chunks.
    #[must_use]
    pub(super) fn with_length(mut self, length: usize) -> Self {
        self.headers.retain(|(name, _)| !is_one_of(&["content-length", "transfer-encoding"], name));
        self.headers.push(("Content-Length".to_owned(), length.to_string()));
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let headers = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        format!("{}\r\n{}\r\n", self.line, headers.collect::<String>()).into_bytes()
    }

    /// `GET`, `POST` …
    pub(super) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// Of a request: where it goes.
    pub(super) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|start| start + 4)
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}
