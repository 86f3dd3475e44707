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
    Channels, Client, Cursor, Cut, Failure, Form, Limits, Network, PublishRequest, RequestError, Route,
    Sender, ServeError, Timestamp, WaitId, upgrade,
};

/// Longest request target (path and query), in bytes. Longer ones do not pass all proxies anyway: squid, haproxy,
/// Apache and nginx stop between 8,000 and 16,000.
pub const MAX_TARGET_BYTES: usize = 8192;

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
    /// [rate](crate::Publisher::with_rate) of its own.
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
pub(crate) mod tests;
