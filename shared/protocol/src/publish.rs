//! What a publishing request says. [Who may](crate::Publisher) is another matter.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::brief;
use crate::{Headers, MAX_DATA_BYTES, NewEvent, RequestError};

/// Most events of one publishing request, whatever the settings say, and of one transaction.
pub const MAX_PUBLISH_EVENTS: usize = 1000;

/// How much one publishing request may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishSizes {
    /// The largest data of an event, in bytes of JSON text, at most [`MAX_DATA_BYTES`](crate::MAX_DATA_BYTES).
    pub event_max: usize,
    /// Most events, at most [`MAX_PUBLISH_EVENTS`].
    pub batch_max: usize,
}

impl Default for PublishSizes {
    /// As much as there may ever be.
    fn default() -> Self {
        Self { event_max: MAX_DATA_BYTES, batch_max: MAX_PUBLISH_EVENTS }
    }
}

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
    /// Parses a body: one event, or an array of them.
    pub(crate) fn parse(
        headers: &dyn Headers,
        body: &[u8],
        sizes: PublishSizes,
    ) -> Result<Self, RequestError> {
        Self::check_content(headers)?;
        let body = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
        if !body.trim_ascii_start().starts_with('[') {
            return Ok(Self { events: vec![parse_event(body, sizes).map_err(|error| error.0)?] });
        }
        let parts: Vec<&RawValue> = serde_json::from_str(body).map_err(|error| malformed(&error))?;
        match parts.len() {
            0 => return Err(RequestError::PublishEmpty),
            events if events > sizes.batch_max => {
                return Err(RequestError::PublishTooMany { events, limit: sizes.batch_max });
            }
            _ => {}
        }
        let event = |(index, part): (usize, &&RawValue)| {
            parse_event(part.get(), sizes)
                .map_err(|error| RequestError::InEvent { index, source: Box::new(error.0) })
        };
        Ok(Self { events: parts.iter().enumerate().map(event).collect::<Result<_, _>>()? })
    }

    /// Whether a body is what its headers must say of it.
    pub(crate) fn check_content(headers: &dyn Headers) -> Result<(), RequestError> {
        let content_type = headers.header("content-type").unwrap_or_default();
        let media_type = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        // A page of another site can send text/plain without asking first; this type it cannot (WHATWG Fetch,
        // "CORS-safelisted request-header").
        if !media_type.eq_ignore_ascii_case(b"application/json") {
            return Err(RequestError::NotJsonContent);
        }
        check_encoding(headers)
    }
}

/// A body must not be compressed: a few bytes could become gigabytes, and nobody needs it for bodies this small.
///
/// # Errors
///
/// [`RequestError::BodyEncoded`].
pub(crate) fn check_encoding(headers: &dyn Headers) -> Result<(), RequestError> {
    match headers.header("content-encoding") {
        Some(encoding) if !encoding.trim_ascii().eq_ignore_ascii_case(b"identity") => {
            let encoding = String::from_utf8_lossy(&encoding).chars().take(20).collect();
            Err(RequestError::BodyEncoded { encoding })
        }
        _ => Ok(()),
    }
}

fn malformed(why: &impl ToString) -> RequestError {
    RequestError::PublishMalformed { reason: brief(why) }
}

struct EventError(RequestError);

fn parse_event(json: &str, sizes: PublishSizes) -> Result<NewEvent, EventError> {
    // `serde` would take an array of an event's fields in their order as well.
    if !json.trim_ascii_start().starts_with('{') {
        return Err(EventError(malformed(&"it is no object")));
    }
    let input: EventInput<'_> = serde_json::from_str(json).map_err(|error| EventError(malformed(&error)))?;
    let bytes = input.data.get().len();
    if bytes > sizes.event_max {
        return Err(EventError(RequestError::DataTooLarge { bytes, limit: sizes.event_max }));
    }
    let (key, exclude) = (input.key.as_deref(), input.exclude.as_deref());
    NewEvent::parse(&input.channel, &input.kind, input.data.get(), key, exclude).map_err(EventError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;

    const SIZES: PublishSizes = PublishSizes { event_max: MAX_DATA_BYTES, batch_max: MAX_PUBLISH_EVENTS };

    const JSON: TestHeaders = TestHeaders(&[("content-type", "application/json; charset=utf-8")]);

    fn code(body: &str) -> &'static str {
        PublishRequest::parse(&JSON, body.as_bytes(), SIZES).unwrap_err().code()
    }

    #[test]
    fn body_is_one_event_or_an_array() {
        let one = r#"{"channel":"cheese","type":"made","data":{"a": 1},"key":"k","exclude":"w"}"#;
        let request = PublishRequest::parse(&JSON, one.as_bytes(), SIZES).unwrap();
        assert_eq!(request.events[0].data.as_str(), r#"{"a": 1}"#);
        assert_eq!(request.events[0].key.as_deref(), Some("k"));
        let many = format!(" [{}]", vec![one; 1000].join(","));
        assert_eq!(PublishRequest::parse(&JSON, many.as_bytes(), SIZES).unwrap().events.len(), 1000);
        let too_many = format!("[{}]", vec![one; 1001].join(","));
        assert_eq!(code(&too_many), "publish_too_many");
    }

    #[test]
    fn sizes_of_the_settings_hold_before_those_of_the_log() {
        let sizes = PublishSizes { event_max: 10, batch_max: 2 };
        let parse = |body: &str| PublishRequest::parse(&JSON, body.as_bytes(), sizes);
        let event = |data: &str| format!(r#"{{"channel":"c","type":"t","data":{data}}}"#);
        assert!(parse(&format!("[{0},{0}]", event("\"12345678\""))).is_ok());
        let error = parse(&event("\"123456789\"")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "data is 11 bytes long, the limit is 10; publish a reference to it instead"
        );
        let error = parse(&format!("[{0},{0},{0}]", event("1"))).unwrap_err();
        assert_eq!(error.to_string(), "array has 3 events, the limit is 2; send several requests");
    }

    #[test]
    fn bad_bodies_are_refused_with_the_place() {
        assert_eq!(code("[]"), "publish_empty");
        assert_eq!(code("x"), "publish_malformed");
        assert_eq!(code(r#"{"channel":"c","type":"t"}"#), "publish_malformed");
        assert_eq!(code(r#"{"chanel":"c","type":"t","data":1}"#), "publish_malformed");
        assert_eq!(code(r#"{"channel":"","type":"t","data":1}"#), "channel_empty");
        assert_eq!(code(r#"[["c","t",1,null,null]]"#), "publish_malformed");
        let long = format!(r#"{{"{}":1}}"#, "x".repeat(5000));
        assert!(PublishRequest::parse(&JSON, long.as_bytes(), SIZES).unwrap_err().to_string().len() < 1000);
        let error = PublishRequest::parse(
            &JSON,
            br#"[{"channel":"c","type":"t","data":1},{"channel":"a/b","type":"t","data":1}]"#,
            SIZES,
        )
        .unwrap_err();
        assert!(error.to_string().starts_with("event 1 "), "{error}");
        assert_eq!((error.code(), error.status()), ("channel_character", 400));
        let plain = TestHeaders(&[("content-type", "text/plain")]);
        assert_eq!(PublishRequest::parse(&plain, b"{}", SIZES).unwrap_err().status(), 415);
        let packed = TestHeaders(&[("content-type", "application/json"), ("content-encoding", "gzip")]);
        assert_eq!(PublishRequest::parse(&packed, b"{}", SIZES).unwrap_err().code(), "body_encoded");
    }
}
