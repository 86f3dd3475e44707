//! From a path, a query, headers and a body to what is wanted.
//!
//! Both programs feed this with the bytes as they came: the request target is split before it is decoded, so that an
//! encoded `/` or `,` never becomes a separator. Whatever a header says, a query parameter can say as well, since
//! some proxies drop headers that they do not know; where both speak, the header wins, since EventSource reconnects
//! with an old URL and a new header.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

use crate::{Channels, Cursor, Form, PublishRequest, Publisher, RequestError, WaitId};

/// Longest request target (path and query), in bytes. Longer ones do not pass all proxies anyway: squid, haproxy,
/// Apache and nginx stop between 8,000 and 16,000.
pub const MAX_TARGET_BYTES: usize = 8192;

/// Longest key of a tab, in bytes.
pub(crate) const MAX_TAB_BYTES: usize = 64;

/// Longest hold that can be asked for, in seconds; more is taken as this. The server's own limit is lower.
const MAX_HOLD_SECONDS: u64 = 86_400;

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

/// Where a target leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// To `/e/…` or `/e.php/…`; what follows, without the query.
    Poll(&'a [u8]),
    /// To `/publish`.
    Publish,
    /// To nothing that is served by both programs.
    Elsewhere,
}

impl<'a> Route<'a> {
    /// Where `target` leads.
    pub fn of(target: &'a [u8]) -> Self {
        let (path, _) = split_target(target);
        match path.strip_prefix(b"/e/").or_else(|| path.strip_prefix(b"/e.php/")) {
            Some(rest) => Self::Poll(rest),
            None if matches!(path, b"/publish" | b"/publish.php") => Self::Publish,
            None => Self::Elsewhere,
        }
    }
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

        let mut parameters = Parameters::default();
        let header = |name| raw.headers.header(name).filter(|value| !value.trim_ascii().is_empty());
        parameters.last_event_id = header("last-event-id").map(Cow::into_owned);
        parameters.flavor = header("flavor").map(Cow::into_owned);
        parameters.take_form(split_target(raw.target).1);
        if raw.method == "POST" {
            parameters.take_body(raw.headers, raw.body)?;
        }
        // Clients that ask for another transport by a header do not understand a poll's reply, so a held poll would only
        // keep them waiting.
        if header("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket")) {
            parameters.flavor = Some(b"websocket".to_vec());
        } else if parameters.flavor.is_none() && header("accept").is_some_and(|accept| wants_stream(&accept))
        {
            parameters.flavor = Some(b"eventsource".to_vec());
        }

        Ok(Self::Poll(PollRequest {
            channels,
            wait_id,
            cursor: Cursor::parse(parameters.last_event_id.as_deref().unwrap_or_default())?,
            flavor: parse_flavor(parameters.flavor.as_deref())?,
            hold: parameters.hold.as_deref().map(parse_hold).transpose()?,
            envelope: parse_envelope(parameters.envelope.as_deref())?,
            head_only: raw.method == "HEAD",
            tab: parse_tab(parameters.tab.as_deref(), parameters.n.as_deref())?,
        }))
    }
}

/// The request target of a request that came by CGI.
///
/// `REQUEST_URI` has it raw, but not all hosts set it, and the program may be mounted anywhere: as `/e.php`, as
/// `/cgi-bin/everpoll-fallback` with `/e/…` behind it, or below a folder. Where only `PATH_INFO` is there, which is
/// decoded, it is encoded again; an encoded `/` or `,` in a name is lost then.
#[must_use]
pub fn cgi_target(request_uri: &[u8], script_name: &[u8], path_info: &[u8], query_string: &[u8]) -> Vec<u8> {
    const PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');
    // Mounted as `/shop/e.php`, the folder is no business of ours, but the last segment is.
    let last_slash = script_name.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let (folder, last) = script_name.split_at(last_slash);
    let mount =
        if matches!(last, b"/e" | b"/e.php" | b"/publish" | b"/publish.php") { folder } else { script_name };

    let uri = without_origin(request_uri);
    let unmounted = uri.strip_prefix(mount).filter(|rest| rest.starts_with(b"/"));
    for target in [unmounted, Some(uri)].into_iter().flatten() {
        if Route::of(target) != Route::Elsewhere {
            return target.to_vec();
        }
    }
    let mut target = script_name[mount.len()..].to_vec();
    target.extend_from_slice(percent_encode(path_info, PATH).to_string().as_bytes());
    if target.is_empty() {
        target = uri.to_vec();
    } else if !query_string.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query_string);
    }
    target
}

/// Path and query of a target; one in absolute form (RFC 9112 section 3.2.2) is as good as its path.
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let target = without_origin(target);
    match target.iter().position(|b| *b == b'?') {
        Some(mark) => (&target[..mark], &target[mark + 1..]),
        None => (target, b""),
    }
}

fn without_origin(target: &[u8]) -> &[u8] {
    let rest = target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://"));
    match rest {
        Some(rest) => rest.iter().position(|b| *b == b'/').map_or(b"/", |slash| &rest[slash..]),
        None => target,
    }
}

/// What a poll's headers, query and body say, still as bytes. The first word counts.
#[derive(Default)]
struct Parameters {
    last_event_id: Option<Vec<u8>>,
    flavor: Option<Vec<u8>>,
    hold: Option<Vec<u8>>,
    envelope: Option<Vec<u8>>,
    tab: Option<Vec<u8>>,
    n: Option<Vec<u8>>,
}

impl Parameters {
    /// Unknown names are passed over: pages add some to make each URL unique.
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        Some(match name {
            b"last_event_id" => &mut self.last_event_id,
            b"flavor" => &mut self.flavor,
            b"hold" => &mut self.hold,
            b"envelope" => &mut self.envelope,
            b"tab" => &mut self.tab,
            b"n" => &mut self.n,
            _ => return None,
        })
    }

    fn set(&mut self, name: &[u8], value: impl FnOnce() -> Vec<u8>) {
        if let Some(slot) = self.slot(name)
            && slot.is_none()
        {
            *slot = Some(value()).filter(|value| !value.is_empty());
        }
    }

    /// Takes `a=1&b=2` (WHATWG URL, "application/x-www-form-urlencoded parsing").
    fn take_form(&mut self, form: &[u8]) {
        for pair in form.split(|b| *b == b'&') {
            let equals = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            let value = pair.get(equals + 1..).unwrap_or_default();
            let name = form_decode(&pair[..equals]);
            self.set(&name, || form_decode(value));
        }
    }

    fn take_body(&mut self, headers: &dyn Headers, body: &[u8]) -> Result<(), RequestError> {
        let malformed = |reason: &str| RequestError::BodyMalformed { reason: reason.into() };
        let body = body.trim_ascii();
        let content_type = headers.header("content-type").unwrap_or_default().to_ascii_lowercase();
        // XDomainRequest cannot say what it sends, so the first character tells.
        if !content_type.starts_with(b"application/json") && !body.starts_with(b"{") {
            if content_type.starts_with(b"multipart/") {
                return Err(malformed("multipart forms are not read"));
            }
            self.take_form(body);
            return Ok(());
        }
        if body.is_empty() {
            return Ok(());
        }
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
        for (name, value) in fields {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::Bool(on) => u8::from(on).to_string(),
                serde_json::Value::Null => continue,
                // Of an unknown parameter it is nobody's business what it is.
                _ if self.slot(name.as_bytes()).is_none() => continue,
                _ => return Err(malformed(&format!("{name} is neither text nor number"))),
            };
            self.set(name.as_bytes(), || text.into_bytes());
        }
        Ok(())
    }
}

fn form_decode(encoded: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = encoded.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_decode(&spaced).collect()
}

/// Whether an `Accept` header names `text/event-stream`, as EventSource sends it.
fn wants_stream(accept: &[u8]) -> bool {
    accept.split(|b| *b == b',').any(|range| {
        let media_type = range.split(|b| *b == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

fn parse_flavor(flavor: Option<&[u8]>) -> Result<Flavor, RequestError> {
    match flavor {
        None | Some(b"long-poll") => Ok(Flavor::LongPoll),
        Some(b"short-poll") => Ok(Flavor::ShortPoll),
        Some(other) => Err(RequestError::FlavorUnknown { flavor: excerpt(other) }),
    }
}

fn parse_hold(text: &[u8]) -> Result<Duration, RequestError> {
    let seconds = std::str::from_utf8(text).ok().and_then(|text| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        plain.then(|| text.parse::<f64>().ok()).flatten()
    });
    match seconds {
        Some(seconds) => Ok(Duration::from_secs_f64(seconds.min(MAX_HOLD_SECONDS as f64))),
        None => Err(RequestError::HoldMalformed { hold: excerpt(text) }),
    }
}

fn parse_envelope(text: Option<&[u8]>) -> Result<bool, RequestError> {
    match text {
        None | Some(b"0") => Ok(false),
        Some(b"1") => Ok(true),
        Some(other) => Err(RequestError::EnvelopeMalformed { envelope: excerpt(other) }),
    }
}

fn parse_tab(key: Option<&[u8]>, n: Option<&[u8]>) -> Result<Option<Tab>, RequestError> {
    let (key, n) = match (key, n) {
        (None, None) => return Ok(None),
        (Some(key), Some(n)) => (key, n),
        _ => return Err(RequestError::TabMalformed),
    };
    let key = std::str::from_utf8(key).ok().filter(|key| key.len() <= MAX_TAB_BYTES);
    let n = std::str::from_utf8(n).ok().filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    match (key, n.and_then(|n| n.parse().ok())) {
        (Some(key), Some(n)) => Ok(Some(Tab { key: key.into(), n })),
        _ => Err(RequestError::TabMalformed),
    }
}

/// The beginning of what was sent, for an error text.
fn excerpt(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(40).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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

    #[test]
    fn cgi_hosts_are_understood_wherever_the_program_is_mounted() {
        let target = |uri: &str, script: &str, info: &str, query: &str| {
            let target = cgi_target(uri.as_bytes(), script.as_bytes(), info.as_bytes(), query.as_bytes());
            String::from_utf8(target).unwrap()
        };
        assert_eq!(target("/e/a%2Cb/w?x=1", "", "", "x=1"), "/e/a%2Cb/w?x=1");
        assert_eq!(target("/e.php/a/w?x", "/e.php", "/a/w", "x"), "/e.php/a/w?x");
        assert_eq!(target("/shop/e.php/a%20b", "/shop/e.php", "/a b", ""), "/e.php/a%20b");
        assert_eq!(target("/cgi-bin/ep/e/a?x", "/cgi-bin/ep", "/e/a", "x"), "/e/a?x");
        assert_eq!(target("/cgi-bin/ep/publish", "/cgi-bin/ep", "/publish", ""), "/publish");
        assert_eq!(target("", "/cgi-bin/ep", "/e/a b%", "x=1"), "/e/a%20b%25?x=1");
        assert_eq!(target("", "/cgi-bin/e.php", "/a/w", ""), "/e.php/a/w");
        assert_eq!(target("/rewritten", "/cgi-bin/ep", "/e/a", ""), "/e/a");
        assert_eq!(target("/other", "", "", ""), "/other");
    }
}
