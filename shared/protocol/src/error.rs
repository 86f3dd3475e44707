//! What can go wrong, sorted by whose fault it is.
//!
//! [`RequestError`] is the sender's: a status of 4xx, and repeating the same request does not help. [`ServeError`] is
//! ours or a backend's: 5xx, or 429 where it came too early or is what others from the same address do; the same request may well
//! succeed later.

use thiserror::Error;

use crate::access::MAX_TOKEN_BYTES;
use crate::channel::MAX_CHANNEL_BYTES;
use crate::event::{MAX_KEY_BYTES, MAX_KIND_BYTES};
use crate::parameters::{MAX_CALLBACK_BYTES, MAX_TAB_BYTES};
use crate::request::MAX_TARGET_BYTES;
use crate::wait::MAX_WAIT_ID_BYTES;
use crate::{Channel, Timestamp};

/// The request cannot be served as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the text of each says it, and docs/reference/errors.md lists them")]
pub enum RequestError {
    #[error("channel name is empty; name a channel of 1 to {MAX_CHANNEL_BYTES} bytes, as in /e/cheese")]
    ChannelEmpty,
    #[error("channel name is {bytes} bytes long, the limit is {MAX_CHANNEL_BYTES}; shorten the name")]
    ChannelTooLong { bytes: usize },
    #[error("channel name contains {character:?}; control characters, '/' and ',' are not allowed")]
    ChannelCharacter { character: char },
    #[error("channel name is not UTF-8; percent-encode the name's UTF-8 bytes")]
    ChannelNotUtf8,
    #[error("request names {named} channels, the limit is {limit}; ask for fewer")]
    TooManyChannels { named: usize, limit: usize },
    #[error("wait_id is {bytes} bytes long; choose one of 1 to {MAX_WAIT_ID_BYTES} bytes")]
    WaitIdLength { bytes: usize },
    #[error("wait_id is not UTF-8 or contains a control character; choose letters and digits")]
    WaitIdCharacter,
    #[error(
        "cursor {cursor:?} is not understood; send an event id such as 434, rt-<unix seconds> such as rt-1406125522.5, or now"
    )]
    CursorMalformed { cursor: String },
    #[error("flavor {flavor:?} is not served; use long-poll, short-poll, eventsource or websocket")]
    FlavorUnknown { flavor: String },
    #[error("hold={hold:?} is not a number of seconds; send one from 0 up, such as 25")]
    HoldMalformed { hold: String },
    #[error("envelope={envelope:?} is not understood; send 1 or 0")]
    EnvelopeMalformed { envelope: String },
    #[error(
        "tab and n belong together: tab is a key of 1 to {MAX_TAB_BYTES} bytes, n a whole number that grows"
    )]
    TabMalformed,
    #[error("pad={pad:?} is not a number of bytes from 1024 to 65536; send one, such as 4096")]
    PadMalformed { pad: String },
    #[error("beat={beat:?} is not a number of seconds from 1 to 60; send one, such as 10")]
    BeatMalformed { beat: String },
    #[error("cut={cut:?} is not understood; send <milliseconds>.<status>, such as 20013.504")]
    CutMalformed { cut: String },
    #[error("ct={content_type:?} is not known; send text for text/plain, or leave it out")]
    ContentTypeUnknown { content_type: String },
    #[error(
        "cb is not the name of a function; use 1 to {MAX_CALLBACK_BYTES} letters, digits, underscores and dots"
    )]
    CallbackMalformed,
    #[error("polls are not answered as scripts here; the operator can set jsonp = true")]
    JsonpOff,
    #[error("streams are read by GET; send the parameters in the query")]
    StreamNeedsGet,
    #[error(
        "a WebSocket cannot be opened here: the request asks for none (a proxy may have dropped its Upgrade header), or the daemon is away; use long-poll"
    )]
    UpgradeRequired,
    #[error("WebSocket version is not 13, the only one there is; update the client")]
    WebSocketVersion,
    #[error(
        "Sec-WebSocket-Key is missing or is not 16 bytes in base64; open the WebSocket with a client for it"
    )]
    WebSocketKeyMalformed,
    #[error("pages of this origin may not open a WebSocket here; the operator can add it to allow_origins")]
    OriginNotAllowed,
    #[error("request body is neither a form nor a JSON object of parameters: {reason}")]
    BodyMalformed { reason: String },
    #[error("request body was lost on the way: {reason}; send the request again")]
    BodyLost { reason: String },
    #[error("type is empty; give one of 1 to {MAX_KIND_BYTES} bytes, such as cheese_created")]
    KindEmpty,
    #[error("type is {bytes} bytes long, the limit is {MAX_KIND_BYTES}; shorten it")]
    KindTooLong { bytes: usize },
    #[error("type contains a control character; use printable ones")]
    KindCharacter,
    #[error("types that begin with \"everpoll:\" are reserved; choose another")]
    KindReserved,
    #[error("data is {bytes} bytes long, the limit is {limit}; publish a reference to it instead")]
    DataTooLarge { bytes: usize, limit: usize },
    #[error("data is not JSON: {reason}")]
    DataNotJson { reason: String },
    #[error("data is nested deeper than 128 levels; flatten it")]
    DataTooDeep,
    #[error("key is {bytes} bytes long; give one of 1 to {MAX_KEY_BYTES} bytes, or none")]
    KeyLength { bytes: usize },
    #[error("key contains a NUL character; use printable ones")]
    KeyCharacter,
    #[error("content type is not application/json; send the events as JSON with that Content-Type")]
    NotJsonContent,
    #[error("body is compressed with {encoding:?}, which is not understood here; send it as it is")]
    BodyEncoded { encoding: String },
    #[error("body is not an event or an array of events: {reason}")]
    PublishMalformed { reason: String },
    #[error("array is empty; send at least one event")]
    PublishEmpty,
    #[error("array has {events} events, the limit is {limit}; send several requests")]
    PublishTooMany { events: usize, limit: usize },
    #[error("event {index} (counted from 0): {source}")]
    InEvent { index: usize, source: Box<Self> },
    #[error("channel {channel:?}: {source}")]
    InNamespace { channel: Channel, source: Box<Self> },
    #[error("publishing key is missing or wrong; send it as Authorization: Bearer")]
    PublishKeyWrong,
    #[error(
        "publishing without a key is allowed from this machine only; set publish_key or publish_keys and send it as Authorization: Bearer"
    )]
    PublishNotLocal,
    #[error(
        "publishing key {key:?} is not for channel {channel:?}; use another key, or add a pattern that fits it to the key's channels"
    )]
    PublishChannel { key: Box<str>, channel: Channel },
    #[error(
        "{who} may publish {per_second} events a second; nothing of this was published, send it again in {seconds} s, or raise publish_rate"
    )]
    PublishRate { who: Box<str>, per_second: u32, seconds: u32 },
    #[error(
        "a token is needed to read here; send one as Authorization: Bearer, as token= in the query, or in the site's cookie"
    )]
    TokenMissing,
    #[error(
        "token is {bytes} bytes long, the limit is {MAX_TOKEN_BYTES}; name fewer channels in it, or patterns"
    )]
    TokenTooLarge { bytes: usize },
    #[error("token is not understood: {reason}")]
    TokenMalformed { reason: String },
    #[error(
        "token is signed with {algorithm:?}, which is not the algorithm of its key; sign it as the key's settings say"
    )]
    TokenAlgorithm { algorithm: String },
    #[error(
        "token is signed with a key {id:?} that is not known here; add it to token_keys, or sign with one of those"
    )]
    TokenKeyUnknown { id: String },
    #[error("token's signature is not that of its key; sign it with the key that the settings have")]
    TokenSignature,
    #[error("token was valid until {at}; get a new one")]
    TokenExpired { at: Timestamp },
    #[error("token is not valid before {at}; wait, or set the clock of the machine that makes tokens")]
    TokenNotYet { at: Timestamp },
    #[error(
        "token is valid for more than {seconds} s from now; make one with an earlier exp, or raise token_valid_max"
    )]
    TokenTooLong { seconds: u64 },
    #[error(
        "token is not meant for this site: its aud does not name it; make one with the aud that token_audience has"
    )]
    TokenAudience,
    #[error("token is not from the right issuer; make one with the iss that token_issuer has")]
    TokenIssuer,
    #[error(
        "who may read is decided by the web server in front, and this request does not come from there; ask it, or list its address in access_peers"
    )]
    AccessUntrusted,
    #[error(
        "the web server in front says nothing about what may be read (its {header}); log in, or look at its auth_request"
    )]
    AccessMissing { header: Box<str> },
    #[error("what the web server in front says about what may be read is not understood: {reason}")]
    AccessMalformed { reason: String },
    #[error("the right to read was valid until {at}; ask again")]
    AccessExpired { at: Timestamp },
    #[error(
        "host {host:?} is no name of this machine's own, and access is not set; ask for localhost or an address, or write access = \"open\" (EVERPOLL_ACCESS=open)"
    )]
    HostNotLocal { host: String },
    #[error("channel {channel:?} may not be read with these rights; leave it out, or get rights for it")]
    ChannelForbidden { channel: Channel },
    #[error("the log refused the event: {reason}")]
    Refused { reason: String },
    #[error(
        "metrics and readiness are not for everybody; ask from this machine or over its unix socket, or list your address in status_peers"
    )]
    StatusPrivate,
    #[error("nothing is served at this path; polls go to /e/{{channel}}/{{wait_id}}, publishing to /publish")]
    NotFound,
    #[error("method is not allowed here; use {allow}")]
    MethodNotAllowed { allow: &'static str },
    #[error("body is larger than {limit} bytes; send less at a time")]
    BodyTooLarge { limit: usize },
    #[error("body did not arrive within {seconds} s; send it again, faster")]
    BodyTimeout { seconds: u64 },
    #[error("request target is longer than {MAX_TARGET_BYTES} bytes; name fewer channels")]
    TargetTooLong,
    #[error("request head is larger than {limit} bytes or has more than {fields} fields; send fewer cookies")]
    HeadTooLarge { limit: usize, fields: usize },
    #[error("request is not HTTP/1.1 as RFC 9112 has it: {reason}")]
    HeadMalformed { reason: String },
    #[error("request head did not arrive within {seconds} s; send it again, faster")]
    HeadTimeout { seconds: u64 },
    #[error("this port speaks HTTPS, and the request came without TLS; ask for https:// instead of http://")]
    TlsExpected,
}

/// Why something is not understood, cut to what a person reads: what parsers say repeats what they were given.
pub(crate) fn brief(why: &impl ToString) -> String {
    const LONG: usize = 300;
    let why = why.to_string();
    match why.char_indices().nth(LONG) {
        Some((end, _)) => format!("{}\u{2026}", &why[..end]),
        None => why,
    }
}

/// Why a request was not served, by whose fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The sender's.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Ours.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl Failure {
    /// The name of this error for programs: it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code(),
            Self::Serve(error) => error.code(),
        }
    }

    /// The setting whose limit the request is above, if it is above one.
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Request(error) => error.limit(),
            Self::Serve(ServeError::TooManyRequests) => Some("requests_per_address"),
            Self::Serve(ServeError::TooManyConnections) => Some("connections_per_address"),
            Self::Serve(_) => None,
        }
    }
}

/// Bodies of polls may be allowed so much, in bytes, and those of publishing requests always are allowed more.
const POLL_BODY_MOST: usize = 1 << 20;

impl RequestError {
    fn limit(&self) -> Option<&'static str> {
        match self {
            Self::TooManyChannels { .. } => Some("channels_max"),
            Self::DataTooLarge { .. } => Some("event_max"),
            Self::PublishTooMany { .. } => Some("batch_max"),
            Self::PublishRate { .. } => Some("publish_rate"),
            // Nothing is taken in there, by no setting.
            Self::BodyTooLarge { limit: 0 } => None,
            Self::BodyTooLarge { limit: ..=POLL_BODY_MOST } => Some("poll_body_max"),
            Self::BodyTooLarge { .. } => Some("body_max"),
            Self::HeadTooLarge { .. } => Some("head_max"),
            Self::HeadTimeout { .. } => Some("head_timeout"),
            Self::InEvent { source, .. } | Self::InNamespace { source, .. } => source.limit(),
            _ => None,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::HeadTimeout { .. } | Self::BodyTimeout { .. } => 408,
            Self::BodyTooLarge { .. } | Self::DataTooLarge { .. } => 413,
            Self::TargetTooLong => 414,
            Self::NotJsonContent | Self::BodyEncoded { .. } => 415,
            Self::PublishRate { .. } => 429,
            Self::HeadTooLarge { .. } => 431,
            Self::PublishKeyWrong
            | Self::PublishNotLocal
            | Self::PublishChannel { .. }
            | Self::TokenMissing
            | Self::TokenTooLarge { .. }
            | Self::TokenMalformed { .. }
            | Self::TokenAlgorithm { .. }
            | Self::TokenKeyUnknown { .. }
            | Self::TokenSignature
            | Self::TokenExpired { .. }
            | Self::TokenNotYet { .. }
            | Self::TokenTooLong { .. }
            | Self::TokenAudience
            | Self::TokenIssuer
            | Self::AccessUntrusted
            | Self::AccessMissing { .. }
            | Self::AccessMalformed { .. }
            | Self::AccessExpired { .. }
            | Self::HostNotLocal { .. }
            | Self::ChannelForbidden { .. }
            | Self::StatusPrivate
            | Self::JsonpOff
            | Self::OriginNotAllowed => 403,
            Self::UpgradeRequired | Self::WebSocketVersion => 426,
            Self::InEvent { source, .. } | Self::InNamespace { source, .. } => source.status(),
            _ => 400,
        }
    }

    /// The name of this error for programs: it never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ChannelEmpty => "channel_empty",
            Self::ChannelTooLong { .. } => "channel_too_long",
            Self::ChannelCharacter { .. } => "channel_character",
            Self::ChannelNotUtf8 => "channel_not_utf8",
            Self::TooManyChannels { .. } => "too_many_channels",
            Self::WaitIdLength { .. } => "wait_id_length",
            Self::WaitIdCharacter => "wait_id_character",
            Self::CursorMalformed { .. } => "cursor_malformed",
            Self::FlavorUnknown { .. } => "flavor_unknown",
            Self::HoldMalformed { .. } => "hold_malformed",
            Self::EnvelopeMalformed { .. } => "envelope_malformed",
            Self::TabMalformed => "tab_malformed",
            Self::PadMalformed { .. } => "pad_malformed",
            Self::BeatMalformed { .. } => "beat_malformed",
            Self::CutMalformed { .. } => "cut_malformed",
            Self::ContentTypeUnknown { .. } => "content_type_unknown",
            Self::CallbackMalformed => "callback_malformed",
            Self::JsonpOff => "jsonp_off",
            Self::StreamNeedsGet => "stream_needs_get",
            Self::UpgradeRequired => "upgrade_required",
            Self::WebSocketVersion => "websocket_version",
            Self::WebSocketKeyMalformed => "websocket_key_malformed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::BodyMalformed { .. } => "body_malformed",
            Self::BodyLost { .. } => "body_lost",
            Self::KindEmpty => "type_empty",
            Self::KindTooLong { .. } => "type_too_long",
            Self::KindCharacter => "type_character",
            Self::KindReserved => "type_reserved",
            Self::DataTooLarge { .. } => "data_too_large",
            Self::DataNotJson { .. } => "data_not_json",
            Self::DataTooDeep => "data_too_deep",
            Self::KeyLength { .. } => "key_length",
            Self::KeyCharacter => "key_character",
            Self::NotJsonContent => "not_json_content",
            Self::BodyEncoded { .. } => "body_encoded",
            Self::PublishMalformed { .. } => "publish_malformed",
            Self::PublishEmpty => "publish_empty",
            Self::PublishTooMany { .. } => "publish_too_many",
            Self::InEvent { source, .. } | Self::InNamespace { source, .. } => source.code(),
            Self::PublishKeyWrong => "publish_key_wrong",
            Self::PublishNotLocal => "publish_not_local",
            Self::PublishChannel { .. } => "publish_channel",
            Self::PublishRate { .. } => "publish_rate",
            Self::TokenMissing => "token_missing",
            Self::TokenTooLarge { .. } => "token_too_large",
            Self::TokenMalformed { .. } => "token_malformed",
            Self::TokenAlgorithm { .. } => "token_algorithm",
            Self::TokenKeyUnknown { .. } => "token_key_unknown",
            Self::TokenSignature => "token_signature",
            Self::TokenExpired { .. } => "token_expired",
            Self::TokenNotYet { .. } => "token_not_yet",
            Self::TokenTooLong { .. } => "token_too_long",
            Self::TokenAudience => "token_audience",
            Self::TokenIssuer => "token_issuer",
            Self::AccessUntrusted => "access_untrusted",
            Self::AccessMissing { .. } => "access_missing",
            Self::AccessMalformed { .. } => "access_malformed",
            Self::AccessExpired { .. } => "access_expired",
            Self::HostNotLocal { .. } => "host_not_local",
            Self::ChannelForbidden { .. } => "channel_forbidden",
            Self::Refused { .. } => "refused",
            Self::StatusPrivate => "status_private",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyTimeout { .. } => "body_timeout",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge { .. } => "head_too_large",
            Self::HeadMalformed { .. } => "head_malformed",
            Self::HeadTimeout { .. } => "head_timeout",
            Self::TlsExpected => "tls_expected",
        }
    }
}

/// The request is fine, but cannot be served now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the text of each says it, and docs/reference/errors.md lists them")]
pub enum ServeError {
    #[error("the log's database cannot be reached; come back as x-ps-reconnect-in says, nothing is lost")]
    LogUnavailable,
    #[error(
        "the connection to the database broke while publishing: the events may or may not be in the log; publish them again with the same key"
    )]
    OutcomeUnknown,
    #[error("the log's disk is full; nothing was published, publish again when the operator has made room")]
    LogFull,
    #[error("too many requests wait for the log; come back as x-ps-reconnect-in says, nothing is lost")]
    Overloaded,
    #[error(
        "too many requests come from this address; come back as x-ps-reconnect-in says, nothing is lost (requests_per_address)"
    )]
    TooManyRequests,
    #[error(
        "too many connections come from this address; come back as x-ps-reconnect-in says, nothing is lost (connections_per_address)"
    )]
    TooManyConnections,
    #[error(
        "what the web server in front says about what may be read is over, and it is soon to ask again; come back as x-ps-reconnect-in says, nothing is lost"
    )]
    AccessStale,
    #[error("the log has not the layout that this version needs; the operator runs: everpoll migrate")]
    NotMigrated,
    #[error("the server stops; come back as x-ps-reconnect-in says, nothing is lost")]
    Draining,
    #[error("the log gave an unexpected answer; the server's diagnostics tell more")]
    Internal,
}

impl ServeError {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::LogFull => 507,
            Self::TooManyRequests | Self::TooManyConnections | Self::AccessStale => 429,
            _ => 503,
        }
    }

    /// The name of this error for programs: it never changes.
    pub fn code(self) -> &'static str {
        match self {
            Self::LogUnavailable => "log_unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::LogFull => "log_full",
            Self::Overloaded => "overloaded",
            Self::TooManyRequests => "too_many_requests",
            Self::TooManyConnections => "too_many_connections",
            Self::AccessStale => "access_stale",
            Self::NotMigrated => "not_migrated",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }
}
