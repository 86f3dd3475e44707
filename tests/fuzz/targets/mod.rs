//! What must hold for any bytes from the network.
//!
//! Each target takes bytes, hands them to the code that reads them in production, and panics when a promise is broken.
//! libFuzzer looks for such bytes (`fuzz_targets/`); a normal test goes through the corpora (`replay.rs`), so that what
//! was found once stays found.
//!
//! That a parser does not panic is the least. What is asked beyond that: bytes that come in pieces mean what they mean
//! in one piece, memory stays bounded, and whatever is answered is well-formed.

#![allow(dead_code, reason = "each fuzz target uses its own part")]

pub(crate) mod access;
pub(crate) mod cgi;
pub(crate) mod cursor;
pub(crate) mod eventsource;
pub(crate) mod fastcgi;
pub(crate) mod frames;
pub(crate) mod handshake;
pub(crate) mod http;
pub(crate) mod publish;
mod replies;
pub(crate) mod request;
pub(crate) mod settings;
pub(crate) mod token;

#[path = "../../harness/sse/parser.rs"]
#[allow(unreachable_pub, reason = "it is the harness' own, where others use it")]
mod parser;

use std::time::Duration;

use everpoll_protocol::{
    Access, Fronts, Headers, Limits, Origins, PublishSizes, Publisher, Rates, RawRequest, Spaces, Timestamp,
};

/// A target: its name, which is that of its corpus, and the check.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All targets.
pub(crate) const ALL: [Target; 12] = [
    ("http", http::check),
    ("request", request::check),
    ("publish", publish::check),
    ("cursor", cursor::check),
    ("cgi", cgi::check),
    ("fastcgi", fastcgi::check),
    ("eventsource", eventsource::check),
    ("handshake", handshake::check),
    ("token", token::check),
    ("access", access::check),
    ("settings", settings::check),
    ("frames", frames::check),
];

/// A request of this machine over a connection that cannot be upgraded.
fn raw<'a>(method: &'a str, target: &'a [u8], headers: &'a dyn Headers, body: &'a [u8]) -> RawRequest<'a> {
    RawRequest {
        method,
        target,
        headers,
        body,
        peer_is_local: true,
        peer: None,
        may_upgrade: false,
        web_server: None,
        now: Timestamp::default(),
    }
}

/// The settings under which requests are read: small, so that limits are reached, and with all that can be switched on.
fn limits() -> Limits {
    Limits {
        hold_max: Duration::from_secs(25),
        padded_hold_max: Duration::from_secs(120),
        heartbeat: Duration::from_secs(15),
        origins: Origins::parse("https://shop.example http://[::1]:8080").expect("two origins"),
        jsonp: true,
        channels_max: 64,
        head_max: 16 * 1024,
        poll_body_max: 64 * 1024,
        publish_body_max: 20_000,
        publish_sizes: PublishSizes::default(),
        access: Access::Open,
        spaces: Spaces::default(),
        publisher: Publisher::new(Vec::new(), true),
        fronts: Fronts::new(Vec::new()),
        rates: Rates::new(None, 0),
        status_peers: Vec::new(),
        judged: 0,
    }
}
