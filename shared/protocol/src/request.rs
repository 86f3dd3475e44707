//! From a path, a query, headers and a body to what is wanted.
//!
//! Both programs feed this with the bytes as they came: the request target is split before it is decoded, so that an
//! encoded `/` or `,` never becomes a separator.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode;

use crate::parameters::Parameters;
use crate::{Channels, Cursor, Form, PublishRequest, Publisher, RequestError, Route, WaitId};

/// Longest request target (path and query), in bytes. Longer ones do not pass all proxies anyway: squid, haproxy,
/// Apache and nginx stop between 8,000 and 16,000.
pub const MAX_TARGET_BYTES: usize = 8192;

/// Largest body of a poll, in bytes: it holds the same parameters as a query.
const MAX_POLL_BODY_BYTES: usize = 64 * 1024;

const POLL_METHODS: &str = "GET, HEAD, POST, OPTIONS";
const PUBLISH_METHODS: &str = "POST, OPTIONS";

/// The headers of a request.
pub trait Headers {
    /// The value of a header, by its name in lower case; several of one name are joined by `", "`
    /// (RFC 9110 section 5.3). An empty value may be given as none.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// A request as an edge has read it.
#[derive(Clone, Copy)]
pub struct RawRequest<'a> {
    /// The method, in the case in which it came.
    pub method: &'a str,
    /// Path and query, percent-encoded as they came.
    pub target: &'a [u8],
    /// The headers.
    pub headers: &'a dyn Headers,
    /// The whole body, not larger than [`Limits::body`].
    pub body: &'a [u8],
    /// Whether the other end of the connection is this machine.
    pub peer_is_local: bool,
}

/// What the settings say about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest hold.
    pub hold_max: Duration,
    /// The largest body of a publishing request, in bytes.
    pub publish_body_max: usize,
    /// Who may publish.
    pub publisher: Publisher,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The events after a cursor.
    Poll(PollRequest),
    /// To append events.
    Publish(PublishRequest),
    /// Which methods are allowed.
    Options {
        /// The methods.
        allow: &'static str,
    },
}

/// How a client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// Held until there is news.
    LongPoll,
    /// Answered at once.
    ShortPoll,
}

/// Tells a request from its own ghost: a tab's key and the number of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tab {
    /// The tab's key, 1–64 bytes.
    pub key: Box<str>,
    /// Grows from request to request.
    pub n: u64,
}

/// A poll, with all parts checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollRequest {
    /// The channels.
    pub channels: Channels,
    /// The browser.
    pub wait_id: Option<WaitId>,
    /// Where it goes on.
    pub cursor: Cursor,
    /// Whether it may be held.
    pub flavor: Flavor,
    /// The longest hold that the client wants.
    pub hold: Option<Duration>,
    /// Whether the reply is an object.
    pub envelope: bool,
    /// Whether only the reply's head is wanted. Such a poll is never held.
    pub head_only: bool,
    /// The tab.
    pub tab: Option<Tab>,
}

impl Limits {
    /// The largest body that a request to `target` may have, in bytes.
    pub fn body(&self, target: &[u8]) -> usize {
        match Route::of(target) {
            Route::Poll(_) => MAX_POLL_BODY_BYTES,
            Route::Publish => self.publish_body_max,
            Route::Elsewhere => 0,
        }
    }
}

impl PollRequest {
    /// In which form the reply is wanted.
    pub fn form(&self) -> Form {
        Form { envelope: self.envelope, head_only: self.head_only }
    }
}

impl Request {
    /// Parses a request.
    ///
    /// # Errors
    ///
    /// What is wrong with it, the first thing found.
    pub fn parse(raw: &RawRequest<'_>, limits: &Limits) -> Result<Self, RequestError> {
        if raw.target.len() > MAX_TARGET_BYTES {
            return Err(RequestError::TargetTooLong);
        }
        let route = Route::of(raw.target);
        if raw.body.len() > limits.body(raw.target) {
            return Err(RequestError::BodyTooLarge { limit: limits.body(raw.target) });
        }
        match (route, raw.method) {
            (Route::Poll(path), "GET" | "HEAD" | "POST") => Self::parse_poll(raw, path),
            (Route::Poll(_), "OPTIONS") => Ok(Self::Options { allow: POLL_METHODS }),
            (Route::Poll(_), _) => Err(RequestError::MethodNotAllowed { allow: POLL_METHODS }),
            (Route::Publish, "POST") => {
                limits.publisher.admit(raw.headers, raw.peer_is_local)?;
                PublishRequest::parse(raw.headers, raw.body).map(Self::Publish)
            }
            (Route::Publish, "OPTIONS") => Ok(Self::Options { allow: PUBLISH_METHODS }),
            (Route::Publish, _) => Err(RequestError::MethodNotAllowed { allow: PUBLISH_METHODS }),
            (Route::Elsewhere, _) => Err(RequestError::NotFound),
        }
    }

    fn parse_poll(raw: &RawRequest<'_>, path: &[u8]) -> Result<Self, RequestError> {
        let mut segments = path.split(|b| *b == b'/');
        let channels = segments.next().unwrap_or_default();
        let wait_id = segments.next().unwrap_or_default();
        if segments.next().is_some() {
            return Err(RequestError::NotFound);
        }
        let channels = Channels::parse_segment(channels)?;
        let wait_id: Cow<'_, [u8]> = percent_decode(wait_id).into();
        // `/e/cheese/` is what a page without a wait_id makes of its URL.
        let wait_id = (!wait_id.is_empty()).then(|| WaitId::parse(&wait_id)).transpose()?;

        let parameters = Parameters::of(raw)?;
        Ok(Self::Poll(PollRequest {
            channels,
            wait_id,
            cursor: parameters.cursor()?,
            flavor: parameters.flavor()?,
            hold: parameters.hold()?,
            envelope: parameters.envelope()?,
            head_only: raw.method == "HEAD",
            tab: parameters.tab()?,
        }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::parameters::MAX_HOLD_SECONDS;

    pub(crate) struct TestHeaders(pub(crate) &'static [(&'static str, &'static str)]);

    impl Headers for TestHeaders {
        fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
            let value = self.0.iter().find(|header| header.0 == name)?.1;
            Some(value.as_bytes().into())
        }
    }

    fn limits() -> Limits {
        Limits {
            hold_max: Duration::from_secs(25),
            publish_body_max: 1000,
            publisher: Publisher { key: None, listens_locally: true },
        }
    }

    fn parse(
        method: &str,
        target: &str,
        headers: &'static [(&'static str, &'static str)],
        body: &str,
    ) -> Result<Request, RequestError> {
        let headers = TestHeaders(headers);
        let (target, body) = (target.as_bytes(), body.as_bytes());
        Request::parse(
            &RawRequest { method, target, headers: &headers, body, peer_is_local: true },
            &limits(),
        )
    }

    fn poll(parsed: Result<Request, RequestError>) -> PollRequest {
        match parsed {
            Ok(Request::Poll(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn code(parsed: Result<Request, RequestError>) -> &'static str {
        parsed.unwrap_err().code()
    }

    pub(crate) fn poll_request(target: &str) -> PollRequest {
        poll(parse("GET", target, &[], ""))
    }

    #[test]
    fn path_names_channels_and_browser() {
        let request = poll_request("/e/cheese,b%C3%A4r/browser%2F1?_=17");
        let names: Vec<_> = request.channels.as_slice().iter().map(crate::Channel::as_str).collect();
        assert_eq!(names, ["b\u{e4}r", "cheese"]);
        assert_eq!(request.wait_id.as_ref().map(WaitId::as_str), Some("browser/1"));
        assert_eq!(poll_request("/e.php/cheese/").wait_id, None);
        assert_eq!(poll_request("http://shop.example/e/cheese").channels.as_slice()[0].as_str(), "cheese");
        assert_eq!(code(parse("GET", "/e/cheese/w/x", &[], "")), "not_found");
        assert_eq!(code(parse("GET", "/e", &[], "")), "not_found");
        assert_eq!(code(parse("GET", "/e/", &[], "")), "channel_empty");
        assert_eq!(code(parse("GET", "/", &[], "")), "not_found");
    }

    #[test]
    fn header_wins_over_query_and_query_over_body() {
        let headers = &[("last-event-id", "1")];
        assert_eq!(
            poll(parse("POST", "/e/c?last_event_id=2", headers, "last_event_id=3")).cursor,
            Cursor::After(1)
        );
        assert_eq!(
            poll(parse("POST", "/e/c?last_event_id=2", &[], "last_event_id=3")).cursor,
            Cursor::After(2)
        );
        assert_eq!(poll(parse("POST", "/e/c", &[], "last_event_id=3")).cursor, Cursor::After(3));
        assert_eq!(
            poll(parse("POST", "/e/c", &[], r#"{"last_event_id":3,"x":[]}"#)).cursor,
            Cursor::After(3)
        );
        assert_eq!(
            poll(parse("GET", "/e/c?last_event_id=2", &[("last-event-id", "")], "")).cursor,
            Cursor::After(2)
        );
    }

    #[test]
    fn parameters_are_checked() {
        let request = poll_request("/e/c/w?hold=12.5&envelope=1&tab=a+b&n=7&flavor=short-poll");
        assert_eq!(request.hold, Some(Duration::from_millis(12_500)));
        assert!(request.envelope);
        assert_eq!(request.tab, Some(Tab { key: "a b".into(), n: 7 }));
        assert_eq!(request.flavor, Flavor::ShortPoll);
        for (query, expected) in [
            ("hold=-1", "hold_malformed"),
            ("hold=1e3", "hold_malformed"),
            ("hold=NaN", "hold_malformed"),
            ("hold=.", "hold_malformed"),
            ("envelope=yes", "envelope_malformed"),
            ("tab=a", "tab_malformed"),
            ("n=1", "tab_malformed"),
            ("tab=a&n=-1", "tab_malformed"),
            ("flavor=eventsource", "flavor_unknown"),
            ("last_event_id=x", "cursor_malformed"),
        ] {
            assert_eq!(code(parse("GET", &format!("/e/c?{query}"), &[], "")), expected, "{query}");
        }
        assert_eq!(code(parse("GET", "/e/c", &[("accept", "text/event-stream")], "")), "flavor_unknown");
        assert_eq!(code(parse("GET", "/e/c", &[("upgrade", "WebSocket")], "")), "flavor_unknown");
        assert_eq!(
            code(parse("POST", "/e/c", &[("content-type", "application/json")], "[1]")),
            "body_malformed"
        );
    }

    #[test]
    fn post_that_lost_its_body_is_not_taken_for_a_page_that_starts_now() {
        const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");
        assert_eq!(code(parse("POST", "/e/c", &[FORM], "")), "body_lost");
        assert_eq!(code(parse("POST", "/e/c", &[("content-type", "application/json")], " ")), "body_lost");
        // The cursor is elsewhere, or nothing says that there was a body.
        assert!(parse("POST", "/e/c?last_event_id=7", &[FORM], "").is_ok());
        assert!(parse("POST", "/e/c", &[FORM, ("last-event-id", "7")], "").is_ok());
        assert!(parse("POST", "/e/c", &[FORM], "hold=5").is_ok());
        assert!(parse("POST", "/e/c", &[], "").is_ok());
    }

    #[test]
    fn enormous_hold_is_no_overflow() {
        let hold = poll_request(&format!("/e/c?hold={}", "9".repeat(400))).hold;
        assert_eq!(hold, Some(Duration::from_secs(MAX_HOLD_SECONDS)));
    }

    #[test]
    fn methods_sizes_and_paths_have_their_errors() {
        assert_eq!(parse("DELETE", "/e/c", &[], "").unwrap_err().status(), 405);
        assert_eq!(parse("GET", "/publish", &[], "").unwrap_err().status(), 405);
        assert_eq!(parse("get", "/e/c", &[], "").unwrap_err().status(), 405);
        assert_eq!(parse("OPTIONS", "/e/c", &[], ""), Ok(Request::Options { allow: POLL_METHODS }));
        assert_eq!(parse("GET", &format!("/e/{}", "x".repeat(9000)), &[], "").unwrap_err().status(), 414);
        assert_eq!(parse("POST", "/publish", &[], &" ".repeat(1001)).unwrap_err().status(), 413);
        assert!(poll(parse("HEAD", "/e/c", &[], "")).head_only);
    }
}
