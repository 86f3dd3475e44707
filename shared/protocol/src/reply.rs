//! What goes on the wire, to the byte.
//!
//! Every answer to a poll, errors included, forbids caching in all the ways that proxies were seen to heed, has a
//! `Content-Length`, and is never empty: a body of no bytes cannot be told from one that was cut off.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::dress::Dress;
use crate::origins::Admitted;
use crate::script::{SCRIPT, SCRIPT_HASH, ScriptRequest};
use crate::{
    Answer, Batch, Channels, Failure, Flavor, Limits, Pad, RawRequest, Request, RequestError, ServeError,
    Timestamp, json, steer,
};

const JSON: &str = "application/json; charset=utf-8";
const PROBLEM: &str = "application/problem+json";
const SCRIPT_TYPE: &str = "application/javascript; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// How long a browser keeps the script before it asks whether there is a new one, and how long under the script's own hash.
const SCRIPT_CACHE: (&str, &str) = ("public, max-age=3600", "public, max-age=31536000, immutable");

/// Headers of every reply that must not be kept. `no-transform` keeps haproxy from compressing; hostile caches were seen to ignore a bare
/// `no-store`, and to heed it together with the others.
pub const UNCACHED: [(&str, &str); 5] = [
    ("Cache-Control", "private, no-cache, no-store, must-revalidate, max-age=0, no-transform"),
    ("Pragma", "no-cache"),
    ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("X-Accel-Buffering", "no"),
    ("X-Content-Type-Options", "nosniff"),
];

/// In which form a client wants its reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// The body is an object with all that the headers say.
    pub envelope: bool,
    /// The head alone (`HEAD`).
    pub head_only: bool,
    pub(crate) dress: Option<Arc<Dress>>,
}

/// A whole reply. The edges write it out and add nothing that belongs to the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Bytes,
    head_only: bool,
}

/// What an HTTP/1 edge adds to a reply's head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The connection stays open for the next request.
    pub keep_alive: bool,
    /// The request was HTTP/1.0, where staying open has to be said.
    pub http10: bool,
    /// The time, as RFC 9110 section 5.6.7 has it.
    pub date: &'a str,
}

impl Reply {
    pub(crate) fn batch(
        batch: &Batch,
        channels: &Channels,
        form: &Form,
        reconnect_in: u32,
        at_once: bool,
        hold: u32,
        now: Timestamp,
    ) -> Self {
        let bytes: usize = batch.records.iter().map(|record| record.json.len() + 1).sum();
        let mut body = Vec::with_capacity(bytes + 256);
        if form.envelope {
            body.extend_from_slice(b"{\"events\":");
        }
        body.push(b'[');
        if let Some(gap) = &batch.gap {
            body.extend_from_slice(&gap.record(&channels.as_slice()[0], now).json);
        }
        for record in &batch.records {
            if body.last() == Some(&b'}') {
                body.push(b',');
            }
            body.extend_from_slice(&record.json);
        }
        body.push(b']');
        if form.envelope {
            let cursor = batch.cursor;
            // `end` comes last: a body that was cut short does not parse.
            body.extend_from_slice(
                format!(
                    ",\"cursor\":\"{cursor}\",\"reconnect_in\":{reconnect_in},\"hold\":{hold},\"short_poll\":{at_once},\"end\":1}}"
                )
                .as_bytes(),
            );
        }
        let mut reply = Self::new(200, JSON, body, form.head_only);
        reply.headers.push(("x-ps-reconnect-in", reconnect_in.to_string().into()));
        reply.headers.push(("x-shortpoll-info", if at_once { "true" } else { "false" }.into()));
        reply.headers.push(("x-ps-cursor", batch.cursor.to_string().into()));
        reply.dressed(form)
    }

    /// The answer to a request that was not taken in, dressed as far as it was understood. `reconnect_in` says when it may
    /// come again, where that is a matter of time.
    #[must_use]
    pub fn refused(
        failure: &Failure,
        raw: &RawRequest<'_>,
        limits: &Limits,
        reconnect_in: impl FnOnce() -> u32,
    ) -> Self {
        if let Failure::Serve(error) = failure
            && let Ok(Request::Poll(request)) = Request::parse(raw, limits)
            && request.flavor == Flavor::EventSource
        {
            // A browser would give up for good on any status but 200.
            let seconds = after(*error, reconnect_in);
            return Answer::Error(*error).reply(&request, 0, raw.now, |_| seconds);
        }
        let reply = Self::failure(failure, reconnect_in, raw.method == "HEAD");
        let dress = Dress::of(raw, limits).shared();
        reply.dressed(&Form { dress, ..Form::default() })
    }

    /// The answer to a request that cannot be served as it is.
    #[must_use]
    pub fn request_error(error: &RequestError, head_only: bool) -> Self {
        let reconnect_in = match error {
            RequestError::BodyLost { .. }
            | RequestError::BodyTimeout { .. }
            | RequestError::HeadTimeout { .. } => steer::AFTER_LOST_REQUEST,
            RequestError::PublishRate { seconds, .. } => *seconds,
            _ => steer::AFTER_REQUEST_ERROR,
        };
        let mut reply =
            Self::problem(error.status(), error.code(), &error.to_string(), reconnect_in, head_only);
        match error {
            RequestError::MethodNotAllowed { allow } => reply.headers.push(("Allow", (*allow).into())),
            RequestError::WebSocketVersion => reply.headers.push(("Sec-WebSocket-Version", "13".into())),
            // RFC 9110 section 15.5.22: whoever is told to upgrade must be told to what.
            RequestError::UpgradeRequired => reply.headers.push(("Upgrade", "websocket".into())),
            _ => {}
        }
        reply
    }

    /// The answer when the log or the server cannot serve now; `reconnect_in` seconds later it may.
    #[must_use]
    pub fn serve_error(error: ServeError, reconnect_in: u32, head_only: bool) -> Self {
        Self::problem(error.status(), error.code(), &error.to_string(), reconnect_in, head_only)
    }

    /// The answer to a request that was not served; `reconnect_in` says when it may be, where that is a matter of time.
    #[must_use]
    pub fn failure(failure: &Failure, reconnect_in: impl FnOnce() -> u32, head_only: bool) -> Self {
        match failure {
            Failure::Request(error) => Self::request_error(error, head_only),
            Failure::Serve(error) => Self::serve_error(*error, after(*error, reconnect_in), head_only),
        }
    }

    /// The answer to a publish whose transaction committed: the ids, in the order of the events.
    #[must_use]
    pub fn published(ids: &[u64]) -> Self {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        Self::new(201, JSON, format!("{{\"ids\":[{}]}}", ids.join(",")).into_bytes(), false)
    }

    /// The answer to `OPTIONS`, and to the question of a browser whether a page of another host may ask.
    #[must_use]
    pub fn options(allow: &'static str, form: &Form) -> Self {
        let mut reply = Self::new(200, JSON, format!("{{\"allow\":\"{allow}\"}}").into_bytes(), false);
        reply.headers.push(("Allow", allow.into()));
        if form.dress.as_ref().is_some_and(|dress| dress.admitted.is_some()) {
            reply.headers.push(("Access-Control-Allow-Methods", allow.into()));
            let headers =
                "Last-Event-ID, Flavor, Content-Type, Authorization, X-Requested-With, Cache-Control";
            reply.headers.push(("Access-Control-Allow-Headers", headers.into()));
            // A day; browsers take less if they like.
            reply.headers.push(("Access-Control-Max-Age", "86400".into()));
        }
        reply.dressed(form)
    }

    /// The browser client. Unlike all that has to do with events, it may be kept.
    #[must_use]
    pub fn script(request: ScriptRequest) -> Self {
        let cache = if request.immutable { SCRIPT_CACHE.1 } else { SCRIPT_CACHE.0 };
        let mut headers = vec![
            ("Cache-Control", Cow::Borrowed(cache)),
            ("ETag", format!("\"{SCRIPT_HASH}\"").into()),
            ("X-Content-Type-Options", "nosniff".into()),
            // Pages of other hosts may check what they load (integrity=), and then the browser wants this.
            ("Access-Control-Allow-Origin", "*".into()),
        ];
        if request.known {
            return Self { status: 304, headers, body: Bytes::new(), head_only: true };
        }
        headers.insert(0, ("Content-Type", SCRIPT_TYPE.into()));
        headers.insert(1, ("Content-Length", SCRIPT.len().to_string().into()));
        Self { status: 200, headers, body: Bytes::from_static(SCRIPT), head_only: request.head_only }
    }

    /// A stream of events: all of it, or, with an empty `body`, the head of one that
    /// [never ends](Self::open_http1).
    pub(crate) fn event_stream(body: Vec<u8>, form: &Form) -> Self {
        let mut reply = Self::new(200, EVENT_STREAM, body, false);
        // EventSource takes no script.
        if let Some(dress) = &form.dress {
            reply.dress(&Dress { callback: None, ..Dress::clone(dress) });
        }
        reply
    }

    /// The head of a padded reply. Nobody knows yet what the body will say.
    pub(crate) fn padded(pad: Pad, form: &Form) -> Self {
        let mut reply = Self::new(200, JSON, Vec::new(), false);
        reply.headers.push(("x-ps-reconnect-in", "0".into()));
        reply.headers.push(("x-shortpoll-info", "false".into()));
        let mut reply = reply.dressed(form);
        reply.body = Bytes::new();
        reply.set_header("Content-Length", pad.bytes.to_string());
        reply
    }

    /// A text for programs, such as metrics.
    pub fn text(body: String, content_type: &'static str, head_only: bool) -> Self {
        Self::new(200, content_type, body.into_bytes(), head_only)
    }

    /// A reply of a health check: `status` is 200 or 503, `state` a word for it, `detail` more in words.
    #[must_use]
    pub fn health(status: u16, state: &str, detail: &str, head_only: bool) -> Self {
        let mut body = b"{\"status\":".to_vec();
        json::write_string(state, &mut body);
        body.extend_from_slice(b",\"detail\":");
        json::write_string(detail, &mut body);
        body.push(b'}');
        Self::json(status, body, head_only)
    }

    /// A reply with this JSON.
    pub(crate) fn json(status: u16, body: Vec<u8>, head_only: bool) -> Self {
        Self::new(status, JSON, body, head_only)
    }

    /// RFC 9457.
    fn problem(status: u16, code: &str, detail: &str, reconnect_in: u32, head_only: bool) -> Self {
        let mut body =
            format!("{{\"title\":\"{}\",\"status\":{status},\"code\":\"{code}\",\"detail\":", reason(status))
                .into_bytes();
        json::write_string(detail, &mut body);
        // Also here, for clients whose proxies drop headers that they do not know.
        body.extend_from_slice(format!(",\"reconnect_in\":{reconnect_in}}}").as_bytes());
        let mut reply = Self::new(status, PROBLEM, body, head_only);
        reply.headers.push(("x-ps-reconnect-in", reconnect_in.to_string().into()));
        if status == 429 {
            // RFC 6585 section 4: what clients of others know.
            reply.headers.push(("Retry-After", reconnect_in.to_string().into()));
        }
        reply
    }

    /// Dresses the reply in the form that the client wants.
    #[must_use]
    pub(crate) fn dressed(mut self, form: &Form) -> Self {
        if let Some(dress) = &form.dress {
            self.dress(dress);
        }
        self
    }

    fn dress(&mut self, dress: &Dress) {
        if let Some(callback) = &dress.callback {
            // The comment keeps the name from being read as the beginning of another format. Scripts see no status.
            let body = [b"/**/", callback.as_bytes(), b"(", &self.body, b");"].concat();
            self.status = 200;
            self.body = body.into();
            self.set_header("Content-Type", SCRIPT_TYPE);
            self.set_header("Content-Length", self.body.len().to_string());
        } else if dress.plain_text {
            self.set_header("Content-Type", PLAIN_TEXT);
        }
        let Some(admitted) = &dress.admitted else { return };
        let origin = match admitted {
            Admitted::Any => "*".into(),
            Admitted::Origin(origin) => origin.to_string(),
        };
        self.headers.push(("Access-Control-Allow-Origin", origin.into()));
        let exposed = "x-ps-reconnect-in, x-shortpoll-info, x-ps-cursor";
        self.headers.push(("Access-Control-Expose-Headers", exposed.into()));
        if *admitted != Admitted::Any {
            self.headers.push(("Access-Control-Allow-Credentials", "true".into()));
            self.headers.push(("Vary", "Origin".into()));
        }
    }

    fn set_header(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        if let Some(header) = self.headers.iter_mut().find(|header| header.0 == name) {
            header.1 = value.into();
        }
    }

    fn new(status: u16, content_type: &'static str, body: Vec<u8>, head_only: bool) -> Self {
        let mut headers = Vec::with_capacity(UNCACHED.len() + 5);
        headers.push(("Content-Type", Cow::Borrowed(content_type)));
        headers.push(("Content-Length", body.len().to_string().into()));
        headers.extend(UNCACHED.map(|(name, value)| (name, Cow::Borrowed(value))));
        Self { status, headers, body: body.into(), head_only }
    }

    /// The headers, in the order in which they are written.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_ref()))
    }

    /// The body as it goes out: nothing where only the head was asked for.
    #[must_use]
    pub fn body(&self) -> Bytes {
        if self.head_only { Bytes::new() } else { self.body.clone() }
    }

    /// The whole reply as HTTP/1, in one piece.
    #[must_use]
    pub fn to_http1(&self, head: Head<'_>) -> Bytes {
        let mut out = Vec::with_capacity(self.body.len() + 640);
        out.extend_from_slice(format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).as_bytes());
        self.write_headers(&mut out);
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(head.date.as_bytes());
        out.extend_from_slice(match (head.keep_alive, head.http10) {
            (true, false) => b"\r\n\r\n".as_slice(),
            (true, true) => b"\r\nConnection: keep-alive\r\n\r\n",
            (false, _) => b"\r\nConnection: close\r\n\r\n",
        });
        self.write_body(&mut out);
        out.into()
    }

    /// The head of a reply whose body comes later. Without `length`, the body ends with the connection, which every HTTP/1
    /// proxy understands.
    pub(crate) fn open_http1(mut self, head: Head<'_>, length: bool) -> Bytes {
        if !length {
            self.headers.retain(|header| header.0 != "Content-Length");
        }
        self.head_only = true;
        self.to_http1(Head { keep_alive: head.keep_alive && length, ..head })
    }

    /// The whole reply as a CGI document response (RFC 3875 section 6.2.1), in one piece.
    #[must_use]
    pub fn to_cgi(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 512);
        out.extend_from_slice(format!("Status: {} {}\r\n", self.status, reason(self.status)).as_bytes());
        self.write_headers(&mut out);
        out.extend_from_slice(b"\r\n");
        self.write_body(&mut out);
        out
    }

    fn write_headers(&self, out: &mut Vec<u8>) {
        for (name, value) in self.headers() {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        if !self.head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

/// When to come back after this.
fn after(error: ServeError, reconnect_in: impl FnOnce() -> u32) -> u32 {
    match error {
        ServeError::AccessStale => steer::AFTER_STALE_ACCESS,
        _ => reconnect_in(),
    }
}

/// RFC 9110 section 15.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        304 => "Not Modified",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::record;
    use crate::{Gap, GapReason};

    fn reply(batch: &Batch, form: Form) -> Reply {
        let channels = Channels::parse_segment(b"cheese").unwrap();
        Reply::batch(batch, &channels, &form, 5, true, 25, Timestamp::from_micros(0))
    }

    fn text(reply: &Reply) -> String {
        String::from_utf8(reply.body().to_vec()).unwrap()
    }

    #[test]
    fn reply_is_written_to_the_byte() {
        let date = "Thu, 01 Jan 2026 00:00:00 GMT";
        let written = reply(&Batch::empty(434), Form::default()).to_http1(Head {
            keep_alive: true,
            http10: false,
            date,
        });
        assert_eq!(
            std::str::from_utf8(&written).unwrap(),
            "HTTP/1.1 200 OK\r\n\
             Content-Type: application/json; charset=utf-8\r\n\
             Content-Length: 2\r\n\
             Cache-Control: private, no-cache, no-store, must-revalidate, max-age=0, no-transform\r\n\
             Pragma: no-cache\r\n\
             Expires: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
             X-Accel-Buffering: no\r\n\
             X-Content-Type-Options: nosniff\r\n\
             x-ps-reconnect-in: 5\r\n\
             x-shortpoll-info: true\r\n\
             x-ps-cursor: 434\r\n\
             Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             \r\n\
             []"
        );
    }

    #[test]
    fn envelope_says_all_that_the_headers_say_and_ends_with_end() {
        let envelope = Form { envelope: true, ..Form::default() };
        assert_eq!(
            text(&reply(&Batch::empty(434), envelope)),
            r#"{"events":[],"cursor":"434","reconnect_in":5,"hold":25,"short_poll":true,"end":1}"#
        );
    }

    #[test]
    fn gap_stands_first_and_its_id_is_where_the_client_goes_on() {
        let gap = Gap { after: 434, before: 901, reason: GapReason::Trimmed };
        let batch = Batch {
            gap: Some(gap),
            records: vec![record(901, 1, None), record(902, 1, None)],
            cursor: 902,
            more: false,
        };
        let body: serde_json::Value = serde_json::from_str(&text(&reply(&batch, Form::default()))).unwrap();
        assert_eq!(
            body[0],
            serde_json::json!({"id": 900, "channel_id": "cheese", "ts": "1970-01-01T00:00:00.000Z",
                "data": {"type": "everpoll:gap", "data": {"after": 434, "before": 901, "reason": "trimmed"}}})
        );
        assert_eq!((&body[1]["id"], &body[2]["id"]), (&901.into(), &902.into()));
    }

    #[test]
    fn head_has_the_length_of_the_body_that_it_leaves_out() {
        let head = reply(&Batch::empty(434), Form { head_only: true, ..Form::default() });
        assert!(head.headers().any(|header| header == ("Content-Length", "2")));
        assert_eq!(head.body(), "");
    }

    #[test]
    fn reply_is_dressed_as_the_client_wants_it() {
        let dress = Dress {
            plain_text: false,
            callback: Some("a.b_1".into()),
            admitted: Some(Admitted::Origin("https://shop.example".into())),
        };
        let form = Form { envelope: true, head_only: false, dress: dress.shared() };
        let reply = reply(&Batch::empty(434), form);
        let body = r#"/**/a.b_1({"events":[],"cursor":"434","reconnect_in":5,"hold":25,"short_poll":true,"end":1});"#;
        assert_eq!(text(&reply), body);
        let length = body.len().to_string();
        for header in [
            ("Content-Type", "application/javascript; charset=utf-8"),
            ("Content-Length", &length),
            ("Access-Control-Allow-Origin", "https://shop.example"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        ] {
            assert!(reply.headers().any(|found| found == header), "{header:?}");
        }
    }

    #[test]
    fn script_is_kept_under_its_hash_and_asked_for_again_without() {
        let request = ScriptRequest { immutable: true, known: false, head_only: false };
        let reply = Reply::script(request);
        assert!(reply.headers().any(|header| header == ("Cache-Control", SCRIPT_CACHE.1)));
        assert_eq!(reply.body(), SCRIPT);
        let known = Reply::script(ScriptRequest { immutable: false, known: true, head_only: false });
        assert_eq!((known.status, known.body().len()), (304, 0));
    }

    #[test]
    fn error_names_code_and_remedy() {
        let reply = Reply::request_error(&RequestError::ChannelTooLong { bytes: 412 }, false);
        assert_eq!(reply.status, 400);
        let problem: serde_json::Value = serde_json::from_str(&text(&reply)).unwrap();
        assert_eq!(problem["code"], "channel_too_long");
        assert_eq!(problem["detail"], "channel name is 412 bytes long, the limit is 200; shorten the name");
        assert!(reply.headers().any(|header| header == ("x-ps-reconnect-in", "60")));
        let reply = Reply::serve_error(ServeError::LogUnavailable, 7, false);
        assert!(reply.headers().any(|header| header == ("x-ps-reconnect-in", "7")));
    }
}
