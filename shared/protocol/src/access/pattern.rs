//! Which channels are meant: exact names, and beginnings of names.

use std::fmt;

use crate::{Channel, RequestError};

/// A channel's name, or the beginning of one with a `*` behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    name: Box<str>,
    /// Whether the name may go on.
    open: bool,
}

impl Pattern {
    /// Parses `shop-7`, `shop-*` or `*`. A `*` in front of the end is refused: nobody should believe that it is one.
    ///
    /// # Errors
    ///
    /// The rest of a sentence that begins with what was given.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, open) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        if name.contains('*') {
            return Err("has a * that is not its end; give a whole name, or a beginning and one *".into());
        }
        match Channel::parse(name) {
            Ok(_) => {}
            Err(RequestError::ChannelEmpty) if open => {}
            Err(error) => return Err(format!("fits no channel: {error}")),
        }
        Ok(Self { name: name.into(), open })
    }

    /// Whether it means this channel.
    #[must_use]
    pub fn matches(&self, channel: &Channel) -> bool {
        match self.open {
            true => channel.as_str().starts_with(&*self.name),
            false => channel.as_str() == &*self.name,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        f.write_str(if self.open { "*" } else { "" })
    }
}

/// Several patterns; a channel is meant when one of them means it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Box<[Pattern]>);

impl Patterns {
    /// Parses each.
    ///
    /// # Errors
    ///
    /// The first that is none, and why.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let pattern = |text: &str| Pattern::parse(text).map_err(|wrong| format!("{text:?} {wrong}"));
        Ok(Self(texts.into_iter().map(pattern).collect::<Result<_, _>>()?))
    }

    /// Every channel.
    #[must_use]
    pub fn all() -> Self {
        Self([Pattern { name: "".into(), open: true }].into())
    }

    /// Whether one of them means this channel.
    #[must_use]
    pub fn matches(&self, channel: &Channel) -> bool {
        self.0.iter().any(|pattern| pattern.matches(channel))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, pattern) in self.0.iter().enumerate() {
            write!(f, "{}{pattern}", if n > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_means_a_name_or_its_beginning() {
        let matches = |pattern: &str, name: &str| {
            Pattern::parse(pattern).unwrap().matches(&Channel::parse(name).unwrap())
        };
        assert!(matches("shop", "shop") && !matches("shop", "shop-1") && !matches("shop", "Shop"));
        assert!(matches("shop-*", "shop-1") && matches("shop-*", "shop-") && !matches("shop-*", "shop"));
        assert!(matches("*", "anything"));
        // A channel may be called so.
        assert!(matches("a*", "a*b"));
    }

    #[test]
    fn pattern_that_would_mean_less_than_it_seems_is_refused() {
        for (wrong, says) in
            [("*-shop", "not its end"), ("a**", "not its end"), ("", "empty"), ("a,b", "','")]
        {
            let text = Pattern::parse(wrong).unwrap_err();
            assert!(text.contains(says), "{wrong}: {text}");
        }
        assert!(Pattern::parse(&"x".repeat(201)).is_err());
        let text = Patterns::parse(["a", "b/c"]).unwrap_err();
        assert!(text.starts_with("\"b/c\" fits no channel"), "{text}");
    }

    #[test]
    fn patterns_are_shown_as_they_were_written() {
        let patterns = Patterns::parse(["shop-*", "user-17"]).unwrap();
        assert_eq!(patterns.to_string(), "shop-*, user-17");
        assert!(!patterns.matches(&Channel::parse("user-18").unwrap()) && !patterns.is_empty());
    }
}
