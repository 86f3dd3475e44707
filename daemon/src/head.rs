//! One HTTP/1 request head, as far as a poll needs it.
//!
//! The parser is `httparse`, which is hyper's own. Whatever is not a plain poll is left to hyper, with the bytes read.

use std::borrow::Cow;
use std::time::Duration;

use everpoll_protocol::{Headers, MAX_HEAD_FIELDS, MAX_TARGET_BYTES, RequestError, Route};

/// The usual largest head, in bytes; what is kept of a client's chatter, too.
pub(crate) const HEAD_MAX: usize = 16 * 1024;

/// What the bytes read so far are.
pub(crate) enum Parsed<'a> {
    /// A head that is not complete yet.
    Partial,
    /// A poll without a body.
    Poll(PollHead<'a>),
    /// Something that hyper serves: so many bytes with its body, or `None` where its end is not known before it has come.
    Other(Option<u64>),
}

/// How long a body is.
enum BodyLength {
    Known(u64),
    /// Its end comes with it.
    Chunked,
}

/// The head of a poll.
pub(crate) struct PollHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a [u8],
    pub(crate) fields: Fields<'a>,
    /// The length of the head, in bytes.
    pub(crate) length: usize,
    pub(crate) keep_alive: bool,
    pub(crate) http10: bool,
}

/// Header fields as they came.
pub(crate) struct Fields<'a>(Vec<httparse::Header<'a>>);

impl Headers for Fields<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values =
            self.0.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |all, value| [&all, b", ".as_slice(), value].concat().into()))
    }
}

/// Parses what was read; a head may have `limit` bytes.
///
/// # Errors
///
/// [`RequestError::HeadMalformed`], [`RequestError::HeadTooLarge`] or [`RequestError::TargetTooLong`]; the connection
/// is of no use any more then.
pub(crate) fn parse(bytes: &[u8], limit: usize) -> Result<Parsed<'_>, RequestError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEAD_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            // The target is known to be too long before its head is complete.
            let line = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
            if line > MAX_TARGET_BYTES + 32 {
                return Err(RequestError::TargetTooLong);
            }
            return if bytes.len() >= limit { Err(too_large(limit)) } else { Ok(Parsed::Partial) };
        }
        Err(httparse::Error::TooManyHeaders) => return Err(too_large(limit)),
        Err(error) => return Err(RequestError::HeadMalformed { reason: error.to_string() }),
    };
    if length > limit {
        return Err(too_large(limit));
    }
    let http10 = request.version == Some(0);
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default().as_bytes());
    let fields = Fields(request.headers.to_vec());
    // RFC 9112 section 3.2: a server must refuse what has not exactly one Host.
    let hosts = fields.0.iter().filter(|field| field.name.eq_ignore_ascii_case("host")).count();
    if hosts > 1 || (hosts == 0 && !http10) {
        return Err(RequestError::HeadMalformed { reason: format!("it has {hosts} Host fields") });
    }
    let body = body_length(&fields, http10)?;
    let has_body = !matches!(body, BodyLength::Known(0));
    let plain_poll = matches!(Route::of(target), Route::Poll(_)) && method != "POST" && !has_body;
    if !plain_poll {
        return Ok(Parsed::Other(match body {
            BodyLength::Known(body) => Some(length as u64 + body),
            BodyLength::Chunked => None,
        }));
    }
    let connection = fields.header("connection").unwrap_or_default().to_ascii_lowercase();
    let says = |word: &[u8]| connection.split(|b| *b == b',').any(|token| token.trim_ascii() == word);
    let keep_alive = if http10 { says(b"keep-alive") } else { !says(b"close") };
    Ok(Parsed::Poll(PollHead { method, target, fields, length, keep_alive, http10 }))
}

/// How long the request's body is; refused where its end can be told in more than one way (RFC 9112 section 6.3). A server in
/// front may have read it in another way, and what is a body to one would be the next request to the other.
fn body_length(fields: &Fields<'_>, http10: bool) -> Result<BodyLength, RequestError> {
    let values = |name: &'static str| {
        fields.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let (mut encodings, mut lengths) = (values("transfer-encoding"), values("content-length"));
    let reason = match (encodings.next(), lengths.next()) {
        (None, None) => return Ok(BodyLength::Known(0)),
        (Some(_), Some(_)) => "it has both Content-Length and Transfer-Encoding",
        (Some(_), None) if http10 => "HTTP/1.0 has no Transfer-Encoding",
        (Some(encoding), None) => match encodings.next() {
            None if encoding.eq_ignore_ascii_case(b"chunked") => return Ok(BodyLength::Chunked),
            _ => "its Transfer-Encoding is not chunked alone",
        },
        (None, Some(length)) => match lengths.next() {
            // With more digits it is beyond all limits, and soon beyond all numbers.
            None if (1..=18).contains(&length.len()) && length.iter().all(u8::is_ascii_digit) => {
                let number = length.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
                return Ok(BodyLength::Known(number));
            }
            _ => "its Content-Length is not one number",
        },
    };
    Err(RequestError::HeadMalformed { reason: reason.into() })
}

/// What is said to a client that takes too long.
pub(crate) fn timeout(patience: Duration) -> RequestError {
    RequestError::HeadTimeout { seconds: patience.as_secs() }
}

fn too_large(limit: usize) -> RequestError {
    RequestError::HeadTooLarge { limit, fields: MAX_HEAD_FIELDS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: &[u8]) -> &'static str {
        match parse(bytes, HEAD_MAX) {
            Ok(_) => "ok",
            Err(error) => error.code(),
        }
    }

    #[test]
    fn poll_is_told_from_what_hyper_serves() {
        let poll =
            b"GET /e/cheese/w?x HTTP/1.1\r\nHost: a\r\nLast-Event-Id: 4\r\nLAST-EVENT-ID: 5\r\n\r\nrest";
        let Ok(Parsed::Poll(head)) = parse(poll, HEAD_MAX) else { panic!() };
        assert_eq!((head.method, head.target, head.keep_alive), ("GET", b"/e/cheese/w?x".as_slice(), true));
        assert_eq!(head.length, poll.len() - 4);
        assert_eq!(head.fields.header("last-event-id").unwrap(), b"4, 5".as_slice());
        for (other, body) in [
            ("POST /e/c HTTP/1.1\r\nHost: a\r\n\r\n", Some(0)),
            ("GET /e/c HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Some(1)),
            ("POST /publish HTTP/1.1\r\nHost: a\r\nContent-Length: 0012\r\n\r\n", Some(12)),
            ("GET /e/c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            ("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n", Some(0)),
        ] {
            let Ok(Parsed::Other(length)) = parse(other.as_bytes(), HEAD_MAX) else { panic!("{other}") };
            assert_eq!(length, body.map(|body| other.len() as u64 + body), "{other}");
        }
    }

    #[test]
    fn connection_stays_open_as_http_has_it() {
        let keeps = |head: &str| match parse(format!("{head}\r\n\r\n").as_bytes(), HEAD_MAX) {
            Ok(Parsed::Poll(head)) => head.keep_alive,
            _ => panic!("{head}"),
        };
        assert!(keeps("GET /e/c HTTP/1.1\r\nHost: a"));
        assert!(!keeps("GET /e/c HTTP/1.1\r\nHost: a\r\nConnection: x, Close"));
        assert!(!keeps("GET /e/c HTTP/1.0"));
        assert!(keeps("GET /e/c HTTP/1.0\r\nConnection: Keep-Alive"));
    }

    #[test]
    fn malformed_and_oversized_heads_are_refused() {
        assert_eq!(code(b"GET /e/c HTTP/1.1\r\n\r\n"), "head_malformed");
        assert_eq!(code(b"GET /e/c HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), "head_malformed");
        assert_eq!(code(b"\x16\x03\x01\x02\x00"), "head_malformed");
        assert_eq!(code(b"GET /e/c HTTP/2.0\r\n\r\n"), "head_malformed");
        assert_eq!(code(b"GET /e/c HTTP/1.1\r\nHost : a\r\n\r\n"), "head_malformed");
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: 18446744073709551616",
            "Content-Length:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding:",
        ] {
            let head = format!("POST /e/c HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            assert_eq!(code(head.as_bytes()), "head_malformed", "{fields}");
        }
        assert_eq!(code(b"POST /e/c HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), "head_malformed");
        assert_eq!(code(&[b"GET /e/".as_slice(), &[b'x'; 9000]].concat()), "target_too_long");
        let many = format!("GET /e/c HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(100));
        assert_eq!(code(many.as_bytes()), "head_too_large");
        let large = format!("GET /e/c HTTP/1.1\r\nHost: a\r\nx: {}", "y".repeat(HEAD_MAX));
        assert_eq!(code(large.as_bytes()), "head_too_large");
    }
}
