//! What a publisher appends to the log, and what a subscriber gets from it.

use std::fmt;
use std::sync::Arc;

use crate::{Channel, Data, RequestError, Timestamp, WaitId};

/// Largest data of one event, in bytes of JSON text: 1 MiB. The database refuses more; `event_max` may be less.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

/// Longest event type, in bytes of UTF-8.
pub const MAX_KIND_BYTES: usize = 200;

/// Longest publishing key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 200;

/// Types that begin like this are Everpoll's own, such as `everpoll:gap`.
const RESERVED_KIND: &str = "everpoll:";

/// The type of an event, such as `cheese_created`: 1–200 bytes of UTF-8 without control characters. What begins with
/// `everpoll:` is reserved.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Kind(Arc<str>);

impl Kind {
    /// Parses what a publisher gave.
    ///
    /// # Errors
    ///
    /// [`RequestError::KindEmpty`], [`RequestError::KindTooLong`], [`RequestError::KindCharacter`] or
    /// [`RequestError::KindReserved`].
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        if text.is_empty() {
            return Err(RequestError::KindEmpty);
        }
        if text.len() > MAX_KIND_BYTES {
            return Err(RequestError::KindTooLong { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(RequestError::KindCharacter);
        }
        if text.starts_with(RESERVED_KIND) {
            return Err(RequestError::KindReserved);
        }
        Ok(Self(text.into()))
    }

    /// Takes what a log has already checked.
    pub fn from_log(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One event of the log. It never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log: ascending in commit order, above 0, with holes.
    pub id: u64,
    /// The channel it belongs to.
    pub channel: Channel,
    /// Its type.
    pub kind: Kind,
    /// Its data.
    pub data: Data,
    /// When it was given its place.
    pub ts: Timestamp,
    /// The `wait_id` that does not get it.
    pub exclude: Option<WaitId>,
}

/// An event that is to be appended to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The channel it belongs to.
    pub channel: Channel,
    /// Its type.
    pub kind: Kind,
    /// Its data.
    pub data: Data,
    /// Publishing the same key on the same channel again is no second event, for as long as the first is in the log.
    pub key: Option<String>,
    /// The `wait_id` that shall not get it: "everyone but me".
    pub exclude: Option<WaitId>,
}

impl NewEvent {
    /// Checks all parts of an event, as a publisher gave them.
    ///
    /// # Errors
    ///
    /// As [`Channel::parse`], [`Kind::parse`], [`Data::parse`] and [`WaitId::parse`]; [`RequestError::KeyLength`].
    pub fn parse(
        channel: &str,
        kind: &str,
        data: &str,
        key: Option<&str>,
        exclude: Option<&str>,
    ) -> Result<Self, RequestError> {
        if let Some(key) = key
            && (key.is_empty() || key.len() > MAX_KEY_BYTES)
        {
            return Err(RequestError::KeyLength { bytes: key.len() });
        }
        if key.is_some_and(|key| key.contains('\0')) {
            return Err(RequestError::KeyCharacter);
        }
        Ok(Self {
            channel: Channel::parse(channel)?,
            kind: Kind::parse(kind)?,
            data: Data::parse(data)?,
            key: key.map(str::to_owned),
            exclude: exclude.map(|id| WaitId::parse(id.as_bytes())).transpose()?,
        })
    }
}
