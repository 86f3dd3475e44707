//! Replies, parsed strictly from bytes that come in pieces.
//!
//! Strict means: lines end in CR LF, `Content-Length` is a number and the body that long, chunks are well formed.
//! A browser would forgive more; a test should not.

use std::io::{self, ErrorKind};

use serde_json::Value;

/// Longest head that is looked at: more than any server sends.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: String,
    /// Such as 200.
    pub status: u16,
    /// What follows the status.
    pub reason: String,
    /// Names and values as they came, in order.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
}

/// One record of a batch, as a page sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: u64,
    /// Its channel.
    pub channel: String,
    /// Its type; `everpoll:gap` for a gap.
    pub kind: String,
    /// Its data.
    pub data: Value,
}

impl Reply {
    /// The value of a header, if it is there; the name in any case.
    ///
    /// # Panics
    /// When the header came twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} came twice: {self:?}");
        value
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body in UTF-8")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {self:#?} {}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// The events of a batch or an envelope, gaps included.
    ///
    /// # Panics
    /// When it is not 200 with a batch.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        match self.try_events() {
            Some(events) => events,
            None => panic!("not a batch: {}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// The events of a batch or an envelope; `None` when the body is something else.
    pub fn try_events(&self) -> Option<Vec<Event>> {
        let value: Value = serde_json::from_slice(&self.body).ok()?;
        let records = value.get("events").unwrap_or(&value).as_array()?;
        records
            .iter()
            .map(|record| {
                Some(Event {
                    id: record["id"].as_u64()?,
                    channel: record["channel_id"].as_str()?.to_owned(),
                    kind: record["data"]["type"].as_str()?.to_owned(),
                    data: record["data"]["data"].clone(),
                })
            })
            .collect()
    }

    /// When the client is to come back, in seconds.
    ///
    /// # Panics
    /// When the header is missing or not a whole number.
    #[track_caller]
    pub fn reconnect_in(&self) -> u32 {
        let value = self.header("x-ps-reconnect-in").and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no x-ps-reconnect-in: {self:?}"))
    }

    /// Where the client goes on.
    ///
    /// # Panics
    /// When the header is missing or not a number.
    #[track_caller]
    pub fn cursor(&self) -> u64 {
        let value = self.header("x-ps-cursor").and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no x-ps-cursor: {self:?}"))
    }

    /// Whether the connection can take another request after it.
    pub fn keeps_connection(&self) -> bool {
        let says =
            |word: &str| self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case(word));
        if self.version == "HTTP/1.0" { says("keep-alive") } else { !says("close") }
    }
}

/// Takes bytes as they come and gives complete replies.
#[derive(Debug, Default)]
pub struct ReplyParser {
    bytes: Vec<u8>,
}

impl ReplyParser {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing came since the last reply.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next reply if it is complete. `head_only` when it answers a HEAD; `ended` when the other side has closed.
    ///
    /// # Errors
    /// When the bytes are no HTTP reply.
    pub fn next(&mut self, head_only: bool, ended: bool) -> io::Result<Option<Reply>> {
        let searched = &self.bytes[..self.bytes.len().min(MAX_HEAD_BYTES)];
        let Some(end) = searched.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if searched.len() == MAX_HEAD_BYTES {
                Err(self.malformed("head too long"))
            } else {
                Ok(None)
            };
        };
        let mut reply = self.head(end)?;
        let rest = &self.bytes[end + 4..];
        let number =
            |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<usize>().ok());
        let length = match reply.header("content-length") {
            Some(text) => Some(number(text).flatten().ok_or_else(|| self.malformed("Content-Length"))?),
            None => None,
        };
        let chunked =
            reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let bodiless = head_only || matches!(reply.status, 100..=199 | 204 | 304);
        let used = match length {
            _ if bodiless => 0,
            Some(_) if chunked => return Err(self.malformed("both Content-Length and chunks")),
            Some(length) if rest.len() < length => return Ok(None),
            Some(length) => {
                reply.body = rest[..length].to_vec();
                length
            }
            None if chunked => match unchunk(rest).map_err(|what| self.malformed(what))? {
                Some((body, used)) => {
                    reply.body = body;
                    used
                }
                None => return Ok(None),
            },
            None if !ended => return Ok(None),
            None => {
                reply.body = rest.to_vec();
                rest.len()
            }
        };
        self.bytes.drain(..end + 4 + used);
        Ok(Some(reply))
    }

    fn head(&self, end: usize) -> io::Result<Reply> {
        // Header values may hold any byte; Latin-1 shows each as one character.
        let head: String = self.bytes[..end].iter().map(|&byte| char::from(byte)).collect();
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let mut words = status_line.splitn(3, ' ');
        let version = words.next().filter(|word| matches!(*word, "HTTP/1.1" | "HTTP/1.0"));
        let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse().ok());
        let (Some(version), Some(status)) = (version, status) else {
            return Err(self.malformed("status line"));
        };
        let headers = lines.map(|line| match line.split_once(':') {
            Some((name, value))
                if !name.is_empty() && !name.contains([' ', '\t']) && !line.contains('\n') =>
            {
                Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
            }
            _ => Err(self.malformed("header line")),
        });
        Ok(Reply {
            version: version.to_owned(),
            status,
            reason: words.next().unwrap_or_default().to_owned(),
            headers: headers.collect::<io::Result<_>>()?,
            body: Vec::new(),
        })
    }

    fn malformed(&self, what: &str) -> io::Error {
        let excerpt = String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(500)]).into_owned();
        io::Error::new(ErrorKind::InvalidData, format!("no proper HTTP reply ({what}): {excerpt:?}"))
    }
}

/// The body and how many bytes it took, when the last chunk is there.
fn unchunk(mut bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let whole = bytes.len();
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[..end]).map_err(|_| "chunk size")?;
        let size = size.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| "chunk size")?;
        bytes = &bytes[end + 2..];
        if bytes.len() < size + 2 {
            return Ok(None);
        }
        // No server in these tests sends trailers.
        if &bytes[size..size + 2] != b"\r\n" {
            return Err("end of a chunk");
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
        if size == 0 {
            return Ok(Some((body, whole - bytes.len())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `text` byte by byte, as the slowest server would send it, and at once; both must agree.
    fn parse(text: &str, head_only: bool) -> io::Result<Option<Reply>> {
        let mut at_once = ReplyParser::default();
        at_once.push(text.as_bytes());
        let at_once = at_once.next(head_only, true);
        let mut slow = ReplyParser::default();
        for byte in text.as_bytes() {
            slow.push(&[*byte]);
            if let Some(reply) = slow.next(head_only, false)? {
                assert_eq!(Some(&reply), at_once.as_ref().unwrap().as_ref());
                return Ok(Some(reply));
            }
        }
        at_once
    }

    #[test]
    fn replies_of_all_framings_are_read_to_their_end() {
        let plain =
            parse("HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 2\r\n\r\n[]more", false).unwrap().unwrap();
        assert_eq!((plain.status, plain.reason.as_str(), plain.body.as_slice()), (200, "OK", &b"[]"[..]));
        assert_eq!(plain.header("x"), Some("1"));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n";
        assert_eq!(parse(chunked, false).unwrap().unwrap().body, b"[]");
        let until_end = "HTTP/1.0 200 OK\r\n\r\n[]";
        assert_eq!(parse(until_end, false).unwrap().unwrap().body, b"[]");
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(parse(head, true).unwrap().unwrap().body, b"");
        assert_eq!(parse(head, false).unwrap(), None);
    }

    #[test]
    fn malformed_replies_are_errors() {
        for text in [
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            assert!(parse(text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn batch_and_envelope_have_events() {
        let record =
            r#"{"id":4,"channel_id":"c","ts":"2014-07-23T14:25:22.123Z","data":{"type":"t","data":[1]}}"#;
        for body in [format!("[{record}]"), format!("{{\"events\":[{record}],\"cursor\":\"4\",\"end\":1}}")] {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let events = parse(&text, false).unwrap().unwrap().events();
            assert_eq!((events[0].id, events[0].channel.as_str(), events[0].kind.as_str()), (4, "c", "t"));
        }
    }
}
