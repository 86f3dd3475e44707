//! What a poll says beside its path: by headers, in its query, in its body.
//!
//! Whatever a header says, a query parameter can say as well, since some proxies drop headers that they do not know;
//! where both speak, the header wins, since EventSource reconnects with an old URL and a new header.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode;

use crate::publish::check_encoding;
use crate::target::split_target;
use crate::{Cursor, Cut, Flavor, Headers, RawRequest, RequestError, Tab};

/// Longest key of a tab, in bytes.
pub(crate) const MAX_TAB_BYTES: usize = 64;

/// Longest hold that can be asked for, in seconds; more is taken as this. The server's own limit is lower.
pub(crate) const MAX_HOLD_SECONDS: u64 = 86_400;

/// How long a padded reply may be, in bytes. Most polls find room in the least, and nothing is gained by more than the
/// most: a larger batch waits for the next poll.
const PAD_BYTES: std::ops::RangeInclusive<u32> = 1024..=65_536;

/// How often there can be a sign of life, in seconds.
const BEAT_SECONDS: std::ops::RangeInclusive<f64> = 1.0..=60.0;

/// Longest name of a script's function, in bytes.
pub(crate) const MAX_CALLBACK_BYTES: usize = 64;

/// What a poll's headers, query and body say, still as bytes. The first word counts.
#[derive(Default)]
pub(crate) struct Parameters {
    last_event_id: Option<Vec<u8>>,
    flavor: Option<Vec<u8>>,
    hold: Option<Vec<u8>>,
    envelope: Option<Vec<u8>>,
    tab: Option<Vec<u8>>,
    n: Option<Vec<u8>>,
    pad: Option<Vec<u8>>,
    beat: Option<Vec<u8>>,
    padding: Option<Vec<u8>>,
    cut: Option<Vec<u8>>,
    content_type: Option<Vec<u8>>,
    callback: Option<Vec<u8>>,
    token: Option<Vec<u8>>,
}

impl Parameters {
    /// Collects what a request says.
    ///
    /// # Errors
    ///
    /// [`RequestError::BodyMalformed`], [`RequestError::BodyLost`] and [`RequestError::BodyEncoded`].
    pub(crate) fn of(raw: &RawRequest<'_>) -> Result<Self, RequestError> {
        let mut parameters = Self::default();
        let header = |name| raw.headers.header(name).filter(|value| !value.trim_ascii().is_empty());
        parameters.last_event_id = header("last-event-id").map(Cow::into_owned);
        parameters.flavor = header("flavor").map(Cow::into_owned);
        parameters.take_form(split_target(raw.target).1);
        if raw.method == "POST" {
            parameters.take_body(raw.headers, raw.body)?;
        }
        // A WebSocket client understands nothing else, whatever its URL says.
        if header("upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket")) {
            parameters.flavor = Some(b"websocket".to_vec());
        } else if parameters.flavor.is_none() && header("accept").is_some_and(|accept| wants_stream(&accept))
        {
            parameters.flavor = Some(b"eventsource".to_vec());
        }
        Ok(parameters)
    }

    /// Where the client goes on.
    pub(crate) fn cursor(&self) -> Result<Cursor, RequestError> {
        Cursor::parse(self.last_event_id.as_deref().unwrap_or_default())
    }

    /// Whether it may be held.
    pub(crate) fn flavor(&self) -> Result<Flavor, RequestError> {
        match self.flavor.as_deref() {
            None | Some(b"long-poll") => Ok(Flavor::LongPoll),
            Some(b"short-poll") => Ok(Flavor::ShortPoll),
            Some(b"eventsource") => Ok(Flavor::EventSource),
            Some(b"websocket") => Ok(Flavor::WebSocket),
            Some(other) => Err(RequestError::FlavorUnknown { flavor: excerpt(other) }),
        }
    }

    /// The longest hold that the client wants.
    pub(crate) fn hold(&self) -> Result<Option<Duration>, RequestError> {
        let Some(text) = self.hold.as_deref() else { return Ok(None) };
        match seconds(text) {
            Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds.min(MAX_HOLD_SECONDS as f64)))),
            None => Err(RequestError::HoldMalformed { hold: excerpt(text) }),
        }
    }

    /// Whether the reply is an object.
    pub(crate) fn envelope(&self) -> Result<bool, RequestError> {
        match self.envelope.as_deref() {
            None | Some(b"0") => Ok(false),
            Some(b"1") => Ok(true),
            Some(other) => Err(RequestError::EnvelopeMalformed { envelope: excerpt(other) }),
        }
    }

    /// What tells the request from its own ghost.
    pub(crate) fn tab(&self) -> Result<Option<Tab>, RequestError> {
        let (key, n) = match (self.tab.as_deref(), self.n.as_deref()) {
            (None, None) => return Ok(None),
            (Some(key), Some(n)) => (key, n),
            _ => return Err(RequestError::TabMalformed),
        };
        let key = std::str::from_utf8(key).ok().filter(|key| key.len() <= MAX_TAB_BYTES);
        match (key, digits(n)) {
            (Some(key), Some(n)) => Ok(Some(Tab { key: key.into(), n })),
            _ => Err(RequestError::TabMalformed),
        }
    }

    /// The length of a padded reply, in bytes.
    pub(crate) fn pad(&self) -> Result<Option<u32>, RequestError> {
        let Some(text) = self.pad.as_deref() else { return Ok(None) };
        let bytes = digits(text).and_then(|bytes| u32::try_from(bytes).ok());
        match bytes.filter(|bytes| PAD_BYTES.contains(bytes)) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(RequestError::PadMalformed { pad: excerpt(text) }),
        }
    }

    /// How often there is to be a sign of life.
    pub(crate) fn beat(&self) -> Result<Option<Duration>, RequestError> {
        let Some(text) = self.beat.as_deref() else { return Ok(None) };
        match seconds(text).filter(|seconds| BEAT_SECONDS.contains(seconds)) {
            Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
            None => Err(RequestError::BeatMalformed { beat: excerpt(text) }),
        }
    }

    /// Whether a stream is to begin with padding.
    pub(crate) fn padding(&self) -> bool {
        self.padding.as_deref().is_some_and(|value| value != b"0")
    }

    /// What the client's last hold met with.
    pub(crate) fn cut(&self) -> Result<Option<Cut>, RequestError> {
        let Some(text) = self.cut.as_deref() else { return Ok(None) };
        let dot = text.iter().position(|b| *b == b'.');
        let parsed = dot.and_then(|dot| Some((digits(&text[..dot])?, digits(&text[dot + 1..])?)));
        match parsed {
            Some((milliseconds, status)) if milliseconds <= MAX_HOLD_SECONDS * 1000 && status < 100_000 => {
                Ok(Some(Cut { after: Duration::from_millis(milliseconds) }))
            }
            _ => Err(RequestError::CutMalformed { cut: excerpt(text) }),
        }
    }

    /// Whether the reply is to pass for plain text.
    pub(crate) fn plain_text(&self) -> Result<bool, RequestError> {
        match self.content_type.as_deref() {
            None => Ok(false),
            Some(b"text") => Ok(true),
            Some(other) => Err(RequestError::ContentTypeUnknown { content_type: excerpt(other) }),
        }
    }

    /// The function that a script is to call with the reply.
    pub(crate) fn callback(&self) -> Result<Option<Box<str>>, RequestError> {
        let Some(name) = self.callback.as_deref() else { return Ok(None) };
        let valid = name.len() <= MAX_CALLBACK_BYTES
            && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
        match std::str::from_utf8(name) {
            Ok(name) if valid => Ok(Some(name.into())),
            _ => Err(RequestError::CallbackMalformed),
        }
    }

    /// What says who asks.
    pub(crate) fn token(&self) -> Option<&[u8]> {
        self.token.as_deref()
    }

    /// Whether the reply is to be a script.
    pub(crate) fn is_script(&self) -> bool {
        self.callback.is_some()
    }

    /// Unknown names are passed over: pages add some to make each URL unique.
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Vec<u8>>> {
        Some(match name {
            b"last_event_id" => &mut self.last_event_id,
            b"flavor" => &mut self.flavor,
            b"hold" => &mut self.hold,
            b"envelope" => &mut self.envelope,
            b"tab" => &mut self.tab,
            b"n" => &mut self.n,
            b"pad" => &mut self.pad,
            b"beat" => &mut self.beat,
            b"padding" => &mut self.padding,
            b"cut" => &mut self.cut,
            b"ct" => &mut self.content_type,
            b"cb" => &mut self.callback,
            b"token" => &mut self.token,
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
        let of_parameters = [&b"application/json"[..], b"application/x-www-form-urlencoded"]
            .iter()
            .any(|kind| content_type.starts_with(kind));
        if !body.is_empty() {
            check_encoding(headers)?;
        }
        // Apache hands a request without its body to the second server when the first is away, and old Internet Explorers
        // repeat a POST without it. Taken for a page that starts now, it would skip events without a word.
        if body.is_empty() && of_parameters && self.last_event_id.is_none() {
            let reason = "it is empty, though its Content-Type says that it holds parameters, and nothing else has a cursor";
            return Err(RequestError::BodyLost { reason: reason.into() });
        }
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

/// A number of seconds with an optional fraction; `f64::from_str` alone would take `1e9` and `inf` as well.
fn seconds(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

fn digits(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
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

/// The beginning of what was sent, for an error text.
fn excerpt(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(40).collect()
}
