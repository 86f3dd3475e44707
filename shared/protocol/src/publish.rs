//! Publishing over HTTP: who may, and what it says.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Headers, NewEvent, RequestError};

/// Most events of one publishing request.
pub const MAX_PUBLISH_EVENTS: usize = 1000;

/// Events that are to be appended together, in this order: all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// At least one event.
    pub events: Vec<NewEvent>,
}

/// Who may publish over HTTP.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Publisher {
    /// What must be presented as `Authorization: Bearer`. Without it, only this machine may publish.
    pub key: Option<String>,
    /// Whether the program listens only where this machine alone can reach it.
    pub listens_locally: bool,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publisher {{ key: {}, listens_locally: {} }}", self.key.is_some(), self.listens_locally)
    }
}

impl Publisher {
    /// Whether a request from this peer may publish.
    ///
    /// Without a key, a request that a proxy passed on for somebody else is not from this machine, and neither is one
    /// that a browser sends for a page of another site.
    pub(crate) fn admit(&self, headers: &dyn Headers, peer_is_local: bool) -> Result<(), RequestError> {
        if let Some(key) = &self.key {
            let presented = headers.header("authorization").unwrap_or_default();
            let scheme = presented.get(..7).unwrap_or_default();
            if scheme.eq_ignore_ascii_case(b"bearer ") && same(presented[7..].trim_ascii(), key.as_bytes()) {
                return Ok(());
            }
            return Err(RequestError::PublishKeyWrong);
        }
        let local = peer_is_local
            && self.listens_locally
            && headers.header("forwarded").is_none()
            && ["x-forwarded-for", "x-real-ip"].iter().all(|name| {
                headers.header(name).is_none_or(|all| {
                    all.split(|b| *b == b',').all(|address| is_local_address(address.trim_ascii()))
                })
            })
            && headers.header("origin").is_none_or(|origin| is_local_origin(&origin));
        if local { Ok(()) } else { Err(RequestError::PublishNotLocal) }
    }
}

/// Compares without telling by its time how much was right. The length may be told.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
}

fn is_local_address(text: &[u8]) -> bool {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<std::net::IpAddr>().ok());
    parsed.is_some_and(|address| address.to_canonical().is_loopback())
}

/// Whether a page's origin, such as `http://localhost:8377`, is this machine.
fn is_local_origin(origin: &[u8]) -> bool {
    let Some(rest) = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://")) else {
        return false;
    };
    let host = match rest.strip_prefix(b"[") {
        Some(rest) => rest.split(|b| *b == b']').next(),
        None => rest.split(|b| *b == b':').next(),
    };
    host.is_some_and(|host| host.eq_ignore_ascii_case(b"localhost") || is_local_address(host))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventInput<'a> {
    channel: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    data: &'a RawValue,
    key: Option<String>,
    exclude: Option<String>,
}

impl PublishRequest {
    /// Parses a body: one event, or an array of 1–1,000.
    pub(crate) fn parse(headers: &dyn Headers, body: &[u8]) -> Result<Self, RequestError> {
        let content_type = headers.header("content-type").unwrap_or_default();
        let media_type = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        // A page of another site can send text/plain without asking first; this type it cannot (WHATWG Fetch,
        // "CORS-safelisted request-header").
        if !media_type.eq_ignore_ascii_case(b"application/json") {
            return Err(RequestError::NotJsonContent);
        }
        let malformed =
            |error: serde_json::Error| RequestError::PublishMalformed { reason: error.to_string() };
        let body = std::str::from_utf8(body)
            .map_err(|error| RequestError::PublishMalformed { reason: error.to_string() })?;
        if !body.trim_ascii_start().starts_with('[') {
            return Ok(Self { events: vec![parse_event(body).map_err(|error| error.0)?] });
        }
        let parts: Vec<&RawValue> = serde_json::from_str(body).map_err(malformed)?;
        match parts.len() {
            0 => return Err(RequestError::PublishEmpty),
            events if events > MAX_PUBLISH_EVENTS => return Err(RequestError::PublishTooMany { events }),
            _ => {}
        }
        let event = |(index, part): (usize, &&RawValue)| {
            parse_event(part.get())
                .map_err(|error| RequestError::InEvent { index, source: Box::new(error.0) })
        };
        Ok(Self { events: parts.iter().enumerate().map(event).collect::<Result<_, _>>()? })
    }
}

struct EventError(RequestError);

fn parse_event(json: &str) -> Result<NewEvent, EventError> {
    let input: EventInput<'_> = serde_json::from_str(json)
        .map_err(|error| EventError(RequestError::PublishMalformed { reason: error.to_string() }))?;
    let (key, exclude) = (input.key.as_deref(), input.exclude.as_deref());
    NewEvent::parse(&input.channel, &input.kind, input.data.get(), key, exclude).map_err(EventError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;

    struct Authorization(&'static str);

    impl Headers for Authorization {
        fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
            (name == "authorization").then(|| self.0.as_bytes().into())
        }
    }

    const JSON: TestHeaders = TestHeaders(&[("content-type", "application/json; charset=utf-8")]);

    fn code(body: &str) -> &'static str {
        PublishRequest::parse(&JSON, body.as_bytes()).unwrap_err().code()
    }

    #[test]
    fn body_is_one_event_or_an_array() {
        let one = r#"{"channel":"cheese","type":"made","data":{"a": 1},"key":"k","exclude":"w"}"#;
        let request = PublishRequest::parse(&JSON, one.as_bytes()).unwrap();
        assert_eq!(request.events[0].data.as_str(), r#"{"a": 1}"#);
        assert_eq!(request.events[0].key.as_deref(), Some("k"));
        let many = format!(" [{}]", vec![one; 1000].join(","));
        assert_eq!(PublishRequest::parse(&JSON, many.as_bytes()).unwrap().events.len(), 1000);
        let too_many = format!("[{}]", vec![one; 1001].join(","));
        assert_eq!(code(&too_many), "publish_too_many");
    }

    #[test]
    fn bad_bodies_are_refused_with_the_place() {
        assert_eq!(code("[]"), "publish_empty");
        assert_eq!(code("x"), "publish_malformed");
        assert_eq!(code(r#"{"channel":"c","type":"t"}"#), "publish_malformed");
        assert_eq!(code(r#"{"chanel":"c","type":"t","data":1}"#), "publish_malformed");
        assert_eq!(code(r#"{"channel":"","type":"t","data":1}"#), "channel_empty");
        let error = PublishRequest::parse(
            &JSON,
            br#"[{"channel":"c","type":"t","data":1},{"channel":"a/b","type":"t","data":1}]"#,
        )
        .unwrap_err();
        assert!(error.to_string().starts_with("event 1 "), "{error}");
        assert_eq!((error.code(), error.status()), ("channel_character", 400));
        let plain = TestHeaders(&[("content-type", "text/plain")]);
        assert_eq!(PublishRequest::parse(&plain, b"{}").unwrap_err().status(), 415);
    }

    #[test]
    fn key_admits_from_anywhere_and_nothing_else_does() {
        let publisher = Publisher { key: Some("secret-0123456789".into()), listens_locally: true };
        let admit = |value| publisher.admit(&Authorization(value), false).is_ok();
        assert!(admit("Bearer secret-0123456789"));
        assert!(admit("bearer secret-0123456789"));
        assert!(!admit("Bearer secret-012345678"));
        assert!(!admit("Bearer secret-0123456788"));
        assert!(!admit("Basic secret-0123456789"));
        assert!(!admit(""));
        assert!(publisher.admit(&TestHeaders(&[]), true).is_err());
    }

    #[test]
    fn without_a_key_only_this_machine_itself_is_admitted() {
        let publisher = Publisher { key: None, listens_locally: true };
        let admit = |headers: &'static [(&'static str, &'static str)]| {
            publisher.admit(&TestHeaders(headers), true).is_ok()
        };
        assert!(admit(&[]));
        assert!(admit(&[("x-forwarded-for", "127.0.0.1, ::1")]));
        assert!(!admit(&[("x-forwarded-for", "127.0.0.1, 192.0.2.7")]));
        assert!(!admit(&[("x-real-ip", "192.0.2.7")]));
        assert!(!admit(&[("forwarded", "for=127.0.0.1")]));
        assert!(admit(&[("origin", "http://localhost:8377")]));
        assert!(admit(&[("origin", "http://[::1]:8377")]));
        assert!(!admit(&[("origin", "http://localhost.example")]));
        assert!(!admit(&[("origin", "https://shop.example")]));
        assert!(!admit(&[("origin", "null")]));
        assert!(publisher.admit(&TestHeaders(&[]), false).is_err());
        let elsewhere = Publisher { key: None, listens_locally: false };
        assert!(elsewhere.admit(&TestHeaders(&[]), true).is_err());
    }
}
