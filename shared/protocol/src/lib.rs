//! What Everpoll says on the wire, decided without IO.
//!
//! The rule of this crate: **no sockets, no clock, no environment, no async**. Time, randomness and limits
//! come in as arguments; bytes go out. The daemon and the fallback both do only what is decided here, which is
//! why they cannot drift apart: the same request gets the same bytes from either.
//!
//! The nouns, each parsed once into a type:
//!
//! - [`Channel`]: the named stream that an event belongs to; [`Channels`]: those of one request.
//! - [`Event`] and [`NewEvent`]: what is in the log, and what a publisher wants to append to it.
//! - [`Cursor`]: "seen up to here".
//! - [`Bounds`], [`LowMarks`] and [`Gap`]: what of the log is still there, and what is told to a client that missed some.
//! - [`WaitId`] and [`Places`]: which request of one browser may be held.
//! - [`Sender`] and [`Rates`]: who sends a request, and how many a second.
//!
//! The way of a poll: an edge (socket or CGI) collects a [`RawRequest`]; [`Request::receive`] makes a
//! [`PollRequest`] of it; the edge reads the log and feeds what it found to a [`Poll`], which says whether to
//! hold or to reply; the [`Reply`] is written out. The way of a publish: [`Request::receive`] makes a
//! [`PublishRequest`], the edge appends its events to the log and answers [`Reply::published`].

pub mod access;
mod batch;
mod channel;
mod cursor;
mod dress;
mod error;
mod event;
mod gap;
mod json;
mod limits;
mod low_marks;
mod network;
mod origins;
mod parameters;
mod poll;
mod publish;
mod rate;
mod readiness;
mod reply;
mod request;
mod script;
mod sender;
mod steer;
mod stream;
mod target;
mod timestamp;
pub mod upgrade;
mod wait;

pub use access::{
    Access, Algorithm, Grant, Live, Pattern, Patterns, Proxies, PublishKey, Publisher, SPACE_END, Space,
    Spaces, Subnet, TokenKey, Tokens, Verified, prefixes_of,
};
pub use batch::{BATCH_BYTES, BATCH_EVENTS, Batch, Page, Record};
pub use channel::{Channel, Channels, MAX_CHANNEL_BYTES, MAX_CHANNELS};
pub use cursor::Cursor;
pub use error::{Failure, RequestError, ServeError};
pub use event::{Event, Kind, MAX_DATA_BYTES, MAX_KEY_BYTES, MAX_KIND_BYTES, NewEvent};
pub use gap::{Bounds, Gap, GapReason, Resume, Rift};
pub use json::Data;
pub use limits::{Limits, MAX_HEAD_FIELDS};
pub use low_marks::LowMarks;
pub use network::{Cut, Network, Networks};
pub use origins::Origins;
pub use poll::{Answer, Input, Poll, Reconnect, Step};
pub use publish::{MAX_PUBLISH_EVENTS, PublishRequest, PublishSizes};
pub use rate::{Rate, Rates};
pub use readiness::WakeupPath;
pub use reply::{Form, Head, Reply, UNCACHED};
pub use request::{Flavor, Headers, MAX_TARGET_BYTES, Pad, PollRequest, RawRequest, Request, Tab};
pub use script::{SCRIPT_HASH, ScriptRequest, content_hash};
pub use sender::{Client, Fronts, Sender};
pub use steer::{AFTER_STALE_ACCESS, HOLDER_ELSEWHERE, Steering};
pub use stream::{Ended, Stream, Wire};
pub use target::{Route, cgi_target};
pub use timestamp::Timestamp;
pub use wait::{Claim, MAX_WAIT_ID_BYTES, Place, Places, WaitId};
