//! "Seen up to here": what a client sends to say where it goes on.

use std::time::Duration;

use crate::{RequestError, Timestamp};

/// How much earlier than asked an `rt-` cursor begins: the clocks of browser and server differ, and a page must
/// rather see an event twice at load than miss it.
const TIME_SLACK: Duration = Duration::from_secs(2);

/// Longest cursor that is looked at, in bytes.
const MAX_CURSOR_BYTES: usize = 64;

/// Where a client goes on. Opaque to clients, ordered inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cursor {
    /// Everything after the event with this id.
    After(u64),
    /// Everything placed after this time. The slack of 2 s is already taken off.
    Since(Timestamp),
    /// Only what is placed from now on.
    Now,
}

impl Cursor {
    /// Parses what a client sent: an event id, `rt-<unix seconds>` with an optional fraction, or `now`. Nothing at
    /// all, or an empty text, is `now`.
    ///
    /// # Errors
    ///
    /// [`RequestError::CursorMalformed`].
    pub fn parse(text: &[u8]) -> Result<Self, RequestError> {
        let malformed = || RequestError::CursorMalformed { cursor: excerpt(text) };
        if text.len() > MAX_CURSOR_BYTES {
            return Err(malformed());
        }
        let text = std::str::from_utf8(text).map_err(|_| malformed())?.trim_matches([' ', '\t']);
        match text {
            "" | "now" => Ok(Self::Now),
            _ => match text.strip_prefix("rt-") {
                Some(seconds) => {
                    let micros = parse_seconds(seconds).ok_or_else(malformed)?;
                    Ok(Self::Since(Timestamp::from_micros(micros).minus(TIME_SLACK)))
                }
                None => parse_digits(text).map(Self::After).ok_or_else(malformed),
            },
        }
    }
}

/// The beginning of what was sent, for an error text.
fn excerpt(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().take(40).collect()
}

/// Only digits, up to `i64::MAX`: the log's own limit. `u64::from_str` would take a leading `+` as well.
fn parse_digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| i64::try_from(*id).is_ok())
}

/// `1406125522` or `1406125522.123` to microseconds; digits after the sixth are dropped.
fn parse_seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    // Past the year 9999 nothing was placed.
    let whole = parse_digits(whole)?.min(253_402_300_799);
    Some(whole * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<Cursor> {
        Cursor::parse(text.as_bytes()).ok()
    }

    #[test]
    fn cursor_has_four_forms() {
        assert_eq!(parsed("434"), Some(Cursor::After(434)));
        assert_eq!(parsed(""), Some(Cursor::Now));
        assert_eq!(parsed("now"), Some(Cursor::Now));
        let since = |micros| Some(Cursor::Since(Timestamp::from_micros(micros)));
        assert_eq!(parsed("rt-1406125522"), since(1_406_125_520_000_000));
        assert_eq!(parsed("rt-1406125522.1234567"), since(1_406_125_520_123_456));
        assert_eq!(parsed("rt-1"), since(0));
    }

    #[test]
    fn anything_else_is_malformed() {
        for text in [
            "-1",
            "+1",
            "1.5",
            "rt-",
            "rt-x",
            "rt-1.",
            "rt--1",
            "rt-1e9",
            "x",
            "NOW",
            "1 2",
            "9223372036854775808",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert_eq!(Cursor::parse(b"\xff").unwrap_err().code(), "cursor_malformed");
        assert_eq!(Cursor::parse(&[b'1'; 65]).unwrap_err().code(), "cursor_malformed");
    }
}
