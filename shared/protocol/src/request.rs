//! From a path, a query, headers and a body to what is wanted.
//!
//! Both programs feed this with the bytes as they came: the request target is split before it is decoded, so that an
//! encoded `/` or `,` never becomes a separator.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode;

use crate::dress::Dress;
use crate::parameters::Parameters;
use crate::script::{SCRIPT_HASH, ScriptRequest};
use crate::{
    Access, Channels, Client, Cursor, Cut, Failure, Form, Fronts, Network, Origins, PublishRequest,
    PublishSizes, Publisher, Rates, RequestError, Route, Sender, ServeError, Spaces, Subnet, Timestamp,
    WaitId, upgrade,
};

/// Longest request target (path and query), in bytes. Longer ones do not pass all proxies anyway: squid, haproxy,
/// Apache and nginx stop between 8,000 and 16,000.
pub const MAX_TARGET_BYTES: usize = 8192;

/// Most fields of a request's head.
pub const MAX_HEAD_FIELDS: usize = 100;

/// How often a padded hold sends a space when the client does not say. Proxies that cut what is silent were seen to wait
/// for 20 s and more.
const PAD_BEAT: Duration = Duration::from_secs(10);

const POLL_METHODS: &str = "GET, HEAD, POST, OPTIONS";
const PUBLISH_METHODS: &str = "POST, OPTIONS";
const SCRIPT_METHODS: &str = "GET, HEAD";

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
    /// The address of the other end, where it has one.
    pub peer: Option<IpAddr>,
    /// Whether the connection could become a WebSocket: HTTP/1.1, and a program that holds connections.
    pub may_upgrade: bool,
    /// What a web server says of itself, where that can be told from what clients say: under CGI and FastCGI.
    pub web_server: Option<&'a dyn Headers>,
    /// When it came, by the wall clock: for what is valid until then.
    pub now: Timestamp,
}

/// What the settings say about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest hold.
    pub hold_max: Duration,
    /// The longest padded hold; none at all when this is zero.
    pub padded_hold_max: Duration,
    /// How often a quiet stream gets a sign of life.
    pub heartbeat: Duration,
    /// Whose pages may read from another host.
    pub origins: Origins,
    /// Whether a poll may be answered as a script.
    pub jsonp: bool,
    /// The largest head of a request, in bytes.
    pub head_max: usize,
    /// Most channels that one request may name, at most [`MAX_CHANNELS`](crate::MAX_CHANNELS).
    pub channels_max: usize,
    /// The largest body of a poll, in bytes: it holds the same parameters as a query.
    pub poll_body_max: usize,
    /// The largest body of a publishing request, in bytes.
    pub publish_body_max: usize,
    /// How much of events it may bring.
    pub publish_sizes: PublishSizes,
    /// Who may read.
    pub access: Access,
    /// Namespaces with readers and sizes of their own.
    pub spaces: Spaces,
    /// Who may publish.
    pub publisher: Publisher,
    /// Whose word it is whom a request comes from.
    pub fronts: Fronts,
    /// How many requests may come from each address.
    pub rates: Rates,
    /// Who may see the daemon's metrics and whether it is ready, besides whoever connects to a unix socket.
    pub status_peers: Vec<Subnet>,
    /// Grows each time that rights are taken away from those who read.
    pub judged: u32,
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
        /// In which form the reply is wanted.
        form: Form,
    },
    /// The browser client.
    Script(ScriptRequest),
}

/// How a client wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// Held until there is news.
    LongPoll,
    /// Answered at once.
    ShortPoll,
    /// A stream of events, as `EventSource` reads it.
    EventSource,
    /// A stream of events in WebSocket frames.
    WebSocket,
}

/// Tells a request from its own ghost: a tab's key and the number of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tab {
    /// The tab's key, 1–64 bytes.
    pub key: Box<str>,
    /// Grows from request to request.
    pub n: u64,
}

/// How a held poll is kept from looking dead to the proxies on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pad {
    /// The length of the whole body, 1,024–65,536 bytes.
    pub bytes: u32,
    /// How often a space is sent.
    pub beat: Duration,
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
    /// How long from now on it may read; `None` is without end. Nothing at all where it [came too early](Self::came_too_early).
    pub valid_for: Option<Duration>,
    /// [`Limits::judged`] when it was let in. Under a higher one, what is held ends, and its client has to ask again.
    pub judged: u32,
    /// The longest hold that the client wants.
    pub hold: Option<Duration>,
    /// Whether the reply is an object, and a stream has whole records.
    pub envelope: bool,
    /// Whether only the reply's head is wanted. Such a poll is never held.
    pub head_only: bool,
    /// The tab.
    pub tab: Option<Tab>,
    /// How a hold is padded, if it is.
    pub pad: Option<Pad>,
    /// How often a stream sends a heartbeat that scripts can see.
    pub beat: Option<Duration>,
    /// Whether a stream begins with 2 KiB of padding.
    pub padding: bool,
    /// What the client's last hold met with.
    pub cut: Option<Cut>,
    /// Whence it comes, as far as proxies on the way are concerned.
    pub network: Network,
    /// Whose it is, where one connection has the requests of many, so that what is held is counted.
    pub client: Option<Client>,
    /// What a WebSocket's handshake is answered with depends on this.
    pub websocket_key: Option<upgrade::Key>,
    pub(crate) dress: Option<Arc<Dress>>,
}

impl Limits {
    /// The largest body that a request to `target` may have, in bytes.
    pub fn body(&self, target: &[u8]) -> usize {
        match Route::of(target) {
            Route::Poll(_) => self.poll_body_max,
            Route::Publish => self.publish_body_max,
            Route::Script(_) | Route::Probe(_) | Route::Elsewhere => 0,
        }
    }

    /// The same, in place of others that were in force until now.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let same_pages = before.origins == self.origins && (self.jsonp || !before.jsonp);
        let goes_on = same_pages && before.readers_go_on_under(&self);
        Self {
            judged: before.judged.wrapping_add(u32::from(!goes_on)),
            publisher: self.publisher.after(&before.publisher),
            // What each has left stays, where the rate does.
            rates: if self.rates == before.rates { before.rates.clone() } else { self.rates },
            ..self
        }
    }

    /// How long `request` may be held. `learned` is how long its network lets a silent request live, if known.
    #[must_use]
    pub fn longest_hold(&self, request: &PollRequest, learned: Option<Duration>) -> Duration {
        let valid_for = request.valid_for.unwrap_or(Duration::MAX);
        if request.pad.is_some() {
            return request.hold.unwrap_or(self.hold_max).min(self.padded_hold_max).min(valid_for);
        }
        let longest = learned.map_or(self.hold_max, |learned| learned.min(self.hold_max)).min(valid_for);
        request.hold.map_or(longest, |hold| hold.min(longest))
    }
}

impl Limits {
    /// Counts a request, if one more may come from there.
    ///
    /// # Errors
    ///
    /// [`ServeError::TooManyRequests`].
    pub fn count(&self, sender: Sender, now: Timestamp) -> Result<(), ServeError> {
        self.rates.take(sender.client(), now).map_err(|_| ServeError::TooManyRequests)
    }

    /// Checks a head of so many bytes, with so many fields.
    ///
    /// # Errors
    ///
    /// [`RequestError::HeadTooLarge`].
    pub fn check_head(&self, bytes: usize, fields: usize) -> Result<(), RequestError> {
        match bytes <= self.head_max && fields <= MAX_HEAD_FIELDS {
            true => Ok(()),
            false => Err(self.head_too_large()),
        }
    }

    /// What is wrong with a head that is larger.
    #[must_use]
    pub fn head_too_large(&self) -> RequestError {
        RequestError::HeadTooLarge { limit: self.head_max, fields: MAX_HEAD_FIELDS }
    }

    /// Whether this sender, over a connection from `peer`, may see how the daemon does. What a web server passes on is its client's
    /// question.
    ///
    /// # Errors
    ///
    /// [`RequestError::StatusPrivate`].
    pub fn may_see_status(&self, sender: Sender, peer: Option<IpAddr>) -> Result<(), RequestError> {
        match sender.address.or(peer) {
            Some(asks) if !self.status_peers.iter().any(|peers| peers.contains(asks)) => {
                Err(RequestError::StatusPrivate)
            }
            _ => Ok(()),
        }
    }
}

impl PollRequest {
    /// Whether its right is [over for a moment](ServeError::AccessStale), so that nothing may be read for it.
    #[must_use]
    pub fn came_too_early(&self) -> bool {
        self.valid_for == Some(Duration::ZERO)
    }

    /// In which form the reply is wanted.
    pub fn form(&self) -> Form {
        Form { envelope: self.envelope, head_only: self.head_only, dress: self.dress.clone() }
    }
}

impl Request {
    /// Takes a request in: counts it, and parses it. Publishing that is admitted is not counted, since that has a
    /// [rate](Publisher::with_rate) of its own.
    ///
    /// # Errors
    ///
    /// [`ServeError::TooManyRequests`], or as [`parse_of`](Self::parse_of).
    pub fn receive(raw: &RawRequest<'_>, limits: &Limits, sender: Sender) -> Result<Self, Failure> {
        let publishes = raw.method == "POST" && Route::of(raw.target) == Route::Publish;
        if !publishes {
            limits.count(sender, raw.now)?;
        }
        let parsed = Self::parse_of(raw, limits, sender);
        if publishes && parsed.is_err() {
            limits.count(sender, raw.now)?;
        }
        parsed
    }

    /// Parses a request of who is known to have sent it. A WebSocket that [came too early](PollRequest::came_too_early) is let
    /// through, since only its close can say when to come back.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), or [`ServeError::AccessStale`].
    pub fn parse_of(raw: &RawRequest<'_>, limits: &Limits, sender: Sender) -> Result<Self, Failure> {
        match Self::parse_any(raw, limits, sender)? {
            Self::Poll(poll) if poll.came_too_early() && poll.flavor != Flavor::WebSocket => {
                Err(ServeError::AccessStale.into())
            }
            request => Ok(request),
        }
    }

    /// Parses a request, also one that [came too early](PollRequest::came_too_early).
    ///
    /// # Errors
    ///
    /// What is wrong with it, the first thing found.
    pub fn parse(raw: &RawRequest<'_>, limits: &Limits) -> Result<Self, RequestError> {
        Self::parse_any(raw, limits, limits.fronts.sender_of(raw))
    }

    fn parse_any(raw: &RawRequest<'_>, limits: &Limits, sender: Sender) -> Result<Self, RequestError> {
        if raw.target.len() > MAX_TARGET_BYTES {
            return Err(RequestError::TargetTooLong);
        }
        let route = Route::of(raw.target);
        if raw.body.len() > limits.body(raw.target) {
            return Err(RequestError::BodyTooLarge { limit: limits.body(raw.target) });
        }
        match (route, raw.method) {
            (Route::Poll(path), "GET" | "HEAD" | "POST") => Self::parse_poll(raw, path, limits, sender),
            (Route::Poll(_), "OPTIONS") => {
                let form = Form { dress: Dress::of(raw, limits).shared(), ..Form::default() };
                Ok(Self::Options { allow: POLL_METHODS, form })
            }
            (Route::Poll(_), _) => Err(RequestError::MethodNotAllowed { allow: POLL_METHODS }),
            (Route::Publish, "POST") => {
                let key = limits.publisher.admit(raw.headers, raw.peer_is_local)?;
                let request = PublishRequest::parse(raw.headers, raw.body, limits.largest_sizes())?;
                limits.check_sizes(&request.events)?;
                if let Some(key) = &key {
                    key.check(&request.events)?;
                }
                limits.publisher.count(key.as_ref(), request.events.len(), raw.now)?;
                Ok(Self::Publish(request))
            }
            (Route::Publish, "OPTIONS") => {
                Ok(Self::Options { allow: PUBLISH_METHODS, form: Form::default() })
            }
            (Route::Publish, _) => Err(RequestError::MethodNotAllowed { allow: PUBLISH_METHODS }),
            (Route::Script(hash), "GET" | "HEAD") => Ok(Self::Script(ScriptRequest {
                // A page from before an update asks for a version that is no more, and gets this one.
                immutable: hash.is_some_and(|hash| hash.eq_ignore_ascii_case(SCRIPT_HASH.as_bytes())),
                known: raw.headers.header("if-none-match").is_some_and(|tags| {
                    tags.windows(SCRIPT_HASH.len()).any(|part| part == SCRIPT_HASH.as_bytes())
                }),
                head_only: raw.method == "HEAD",
            })),
            (Route::Script(_), _) => Err(RequestError::MethodNotAllowed { allow: SCRIPT_METHODS }),
            (Route::Probe(_) | Route::Elsewhere, _) => Err(RequestError::NotFound),
        }
    }

    /// Whether the body of a request makes a difference. Where it is refused in any case, nobody is to make a program keep a
    /// body for it.
    #[must_use]
    pub fn needs_body(raw: &RawRequest<'_>, limits: &Limits) -> bool {
        match (Route::of(raw.target), raw.method) {
            (Route::Publish, "POST") => {
                limits.publisher.admit(raw.headers, raw.peer_is_local).is_ok()
                    && PublishRequest::check_content(raw.headers).is_ok()
            }
            (Route::Poll(_), "POST") => true,
            _ => false,
        }
    }

    fn parse_poll(
        raw: &RawRequest<'_>,
        path: &[u8],
        limits: &Limits,
        sender: Sender,
    ) -> Result<Self, RequestError> {
        let mut segments = path.split(|b| *b == b'/');
        let channels = segments.next().unwrap_or_default();
        let wait_id = segments.next().unwrap_or_default();
        if segments.next().is_some() {
            return Err(RequestError::NotFound);
        }
        let channels = Channels::parse_at_most(channels, limits.channels_max)?;
        let wait_id: Cow<'_, [u8]> = percent_decode(wait_id).into();
        // `/e/cheese/` is what a page without a wait_id makes of its URL.
        let wait_id = (!wait_id.is_empty()).then(|| WaitId::parse(&wait_id)).transpose()?;

        let parameters = Parameters::of(raw)?;
        let valid_for = limits.admit(raw, &parameters, &channels)?;
        let head_only = raw.method == "HEAD";
        let mut flavor = parameters.flavor()?;
        match flavor {
            // What a stream's head looks like is seen by asking for the stream.
            Flavor::EventSource | Flavor::WebSocket if head_only => flavor = Flavor::ShortPoll,
            Flavor::EventSource | Flavor::WebSocket if raw.method == "POST" => {
                return Err(RequestError::StreamNeedsGet);
            }
            _ => {}
        }
        let dress = Dress::parse(&parameters, raw, limits)?;
        let beat = parameters.beat()?;
        let pad = parameters.pad()?;
        let padded = pad.is_some() && matches!(flavor, Flavor::LongPoll | Flavor::ShortPoll);
        let pad = match pad {
            // What comes by POST is read and answered in one piece.
            Some(bytes) if raw.method == "GET" && !limits.padded_hold_max.is_zero() => {
                Some(Pad { bytes, beat: beat.unwrap_or(PAD_BEAT) })
            }
            _ => None,
        };
        Ok(Self::Poll(PollRequest {
            channels,
            wait_id,
            cursor: parameters.cursor()?,
            flavor,
            valid_for,
            judged: limits.judged,
            hold: parameters.hold()?,
            // A script has nobody who reads headers, and the head of a padded hold is gone before the cursor is known.
            envelope: parameters.envelope()? || dress.callback.is_some() || padded,
            head_only,
            tab: parameters.tab()?,
            pad,
            beat,
            padding: parameters.padding(),
            cut: parameters.cut()?,
            network: Network::of(raw, sender),
            client: sender.forwarded_client(),
            // Last, so that whatever else is wrong is told alike where no WebSocket is to be had.
            websocket_key: match flavor {
                Flavor::WebSocket => Some(upgrade::check(raw, &limits.origins)?),
                _ => None,
            },
            dress: dress.shared(),
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

    pub(crate) fn limits() -> Limits {
        Limits {
            hold_max: Duration::from_secs(25),
            padded_hold_max: Duration::from_secs(120),
            heartbeat: Duration::from_secs(15),
            origins: Origins::default(),
            jsonp: false,
            channels_max: 64,
            poll_body_max: 64 * 1024,
            publish_body_max: 1000,
            publish_sizes: PublishSizes::default(),
            access: Access::Open,
            spaces: Spaces::default(),
            publisher: Publisher::new(Vec::new(), true),
            fronts: crate::sender::tests::fronts(&["127.0.0.0/8"]),
            rates: Rates::new(None, 0),
            head_max: 16 * 1024,
            status_peers: Vec::new(),
            judged: 0,
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
            &RawRequest {
                method,
                target,
                headers: &headers,
                body,
                peer_is_local: true,
                peer: None,
                may_upgrade: true,
                web_server: None,
                now: Timestamp::default(),
            },
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
            ("flavor=carrier-pigeon", "flavor_unknown"),
            ("flavor=websocket", "upgrade_required"),
            ("pad=100", "pad_malformed"),
            ("pad=4096&beat=0.5", "beat_malformed"),
            ("cut=20", "cut_malformed"),
            ("ct=html", "content_type_unknown"),
            ("cb=alert(1)", "callback_malformed"),
            ("cb=f", "jsonp_off"),
            ("last_event_id=x", "cursor_malformed"),
        ] {
            assert_eq!(code(parse("GET", &format!("/e/c?{query}"), &[], "")), expected, "{query}");
        }
        let pad = poll_request("/e/c?pad=4096&beat=5&hold=60").pad;
        assert_eq!(pad, Some(Pad { bytes: 4096, beat: Duration::from_secs(5) }));
        assert_eq!(
            code(parse("POST", "/e/c", &[("content-type", "application/json")], "[1]")),
            "body_malformed"
        );
    }

    #[test]
    fn streams_are_chosen_by_header_or_parameter() {
        let flavor = |target, headers| poll(parse("GET", target, headers, "")).flavor;
        assert_eq!(flavor("/e/c", &[("accept", "text/event-stream")]), Flavor::EventSource);
        assert_eq!(flavor("/e/c?flavor=eventsource", &[]), Flavor::EventSource);
        assert_eq!(flavor("/e/c?flavor=long-poll", &[("accept", "text/event-stream")]), Flavor::LongPoll);
        assert_eq!(poll(parse("HEAD", "/e/c?flavor=eventsource", &[], "")).flavor, Flavor::ShortPoll);
        assert_eq!(code(parse("POST", "/e/c?flavor=eventsource", &[], "")), "stream_needs_get");
    }

    #[test]
    fn script_is_known_by_its_hash() {
        let script = |target: &str| match parse("GET", target, &[], "") {
            Ok(Request::Script(script)) => script,
            other => panic!("{other:?}"),
        };
        assert!(!script("/everpoll.js").immutable);
        assert!(script(&format!("/everpoll.{SCRIPT_HASH}.js")).immutable);
        assert!(!script("/everpoll.0123456789abcdef.js").immutable);
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
        let form = Form::default();
        assert_eq!(parse("OPTIONS", "/e/c", &[], ""), Ok(Request::Options { allow: POLL_METHODS, form }));
        assert_eq!(parse("GET", &format!("/e/{}", "x".repeat(9000)), &[], "").unwrap_err().status(), 414);
        assert_eq!(parse("POST", "/publish", &[], &" ".repeat(1001)).unwrap_err().status(), 413);
        assert!(poll(parse("HEAD", "/e/c", &[], "")).head_only);
    }
}
