//! What the text of a wake-up says: nothing, or that it is a canary.
//!
//! A canary is sent over the path of the wake-ups, from another connection, only to see that it arrives. It goes through
//! the very channel that it is to test, so all daemons hear each other's; the key tells whose it is.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// What every canary's text begins with.
const CANARY: &str = "canary:";

/// Tells one listener from all others. Not a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

/// What a wake-up's text says to whoever has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// There may be news.
    News,
    /// One's own canary has arrived.
    Canary(u64),
    /// A canary of somebody else, or one's own wake-up: no reason to look.
    Other,
}

impl Key {
    /// A key that nobody else has: each `RandomState` has keys of its own.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two default values should be equal")]
    pub fn new() -> Self {
        Self(format!("{:016x}", RandomState::new().hash_one(0)))
    }

    /// The text of a canary.
    #[must_use]
    pub fn canary(&self, number: u64) -> String {
        format!("{CANARY}{}:{number}", self.0)
    }

    /// The text of a wake-up that oneself needs not hear.
    #[must_use]
    pub fn news(&self) -> String {
        format!("news:{}", self.0)
    }

    /// What a wake-up with this text says.
    #[must_use]
    pub fn read(&self, text: &str) -> Signal {
        let Some(canary) = text.strip_prefix(CANARY) else {
            return if text == self.news() { Signal::Other } else { Signal::News };
        };
        let number =
            canary.strip_prefix(self.0.as_str()).and_then(|rest| rest.strip_prefix(':')?.parse().ok());
        number.map_or(Signal::Other, Signal::Canary)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canaries_are_told_apart_and_everything_else_is_news() {
        let (ours, other) = (Key::new(), Key::new());
        assert_ne!(ours, other);
        assert_eq!(ours.read(&ours.canary(7)), Signal::Canary(7));
        assert_eq!(ours.read(&other.canary(7)), Signal::Other);
        assert_eq!(ours.read("canary:"), Signal::Other);
        assert_eq!(ours.read(&ours.news()), Signal::Other);
        for text in ["", "434", "{\"id\":434}", &other.news(), "canar"] {
            assert_eq!(ours.read(text), Signal::News, "{text}");
        }
    }
}
