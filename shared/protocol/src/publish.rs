//! What a publishing request says. [Who may](crate::Publisher) is another matter.

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
}
