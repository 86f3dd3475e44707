//! The named stream that an event belongs to, and the channels of one request.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode;

use crate::RequestError;

/// Longest channel name, in bytes of UTF-8.
pub const MAX_CHANNEL_BYTES: usize = 200;

/// Most channels that one request may name, whatever the settings say.
pub const MAX_CHANNELS: usize = 64;

/// A channel name: 1–200 bytes of UTF-8 without control characters, `/` or `,`.
///
/// Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

impl Channel {
    /// Parses a name that is not percent-encoded, as publishers give it.
    ///
    /// # Errors
    ///
    /// [`RequestError::ChannelEmpty`], [`RequestError::ChannelTooLong`] or
    /// [`RequestError::ChannelCharacter`]; each names the limit.
    pub fn parse(name: &str) -> Result<Self, RequestError> {
        if name.is_empty() {
            return Err(RequestError::ChannelEmpty);
        }
        if name.len() > MAX_CHANNEL_BYTES {
            return Err(RequestError::ChannelTooLong { bytes: name.len() });
        }
        match name.chars().find(|c| c.is_control() || matches!(c, '/' | ',')) {
            Some(character) => Err(RequestError::ChannelCharacter { character }),
            None => Ok(Self(name.into())),
        }
    }

    /// Parses one name as it stands in a path, percent-encoded.
    fn parse_encoded(encoded: &[u8]) -> Result<Self, RequestError> {
        let decoded = percent_decode(encoded).decode_utf8().map_err(|_| RequestError::ChannelNotUtf8)?;
        Self::parse(&decoded)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The channels of one request: 1–64 different ones, in ascending order, so that equal sets are equal.
///
/// Cloning shares them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channels(Arc<[Channel]>);

impl Channels {
    /// Parses the path segment that names them: percent-encoded names joined by `,`. Naming one twice is
    /// naming it once.
    ///
    /// # Errors
    ///
    /// As [`Channel::parse`]; [`RequestError::ChannelNotUtf8`]; [`RequestError::TooManyChannels`].
    pub fn parse_segment(segment: &[u8]) -> Result<Self, RequestError> {
        Self::parse_at_most(segment, MAX_CHANNELS)
    }

    /// As [`parse_segment`](Self::parse_segment), with a limit of the settings.
    pub(crate) fn parse_at_most(segment: &[u8], limit: usize) -> Result<Self, RequestError> {
        let named = segment.split(|b| *b == b',').count();
        if named > limit {
            return Err(RequestError::TooManyChannels { named, limit });
        }
        let mut channels =
            segment.split(|b| *b == b',').map(Channel::parse_encoded).collect::<Result<Vec<_>, _>>()?;
        channels.sort();
        channels.dedup();
        Ok(Self(channels.into()))
    }

    /// The names, ascending.
    pub fn as_slice(&self) -> &[Channel] {
        &self.0
    }

    /// Whether `channel` is one of them.
    pub fn contains(&self, channel: &Channel) -> bool {
        self.0.binary_search(channel).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_200_bytes_is_accepted_and_201_is_refused_with_the_limit() {
        assert!(Channel::parse(&"x".repeat(200)).is_ok());
        let error = Channel::parse(&"x".repeat(201)).unwrap_err();
        assert_eq!(error.code(), "channel_too_long");
        assert!(error.to_string().contains("201") && error.to_string().contains("200"));
    }

    #[test]
    fn segment_is_split_before_it_is_decoded() {
        let channels = Channels::parse_segment(b"b%C3%A4r,cheese,cheese").unwrap();
        let names: Vec<_> = channels.as_slice().iter().map(Channel::as_str).collect();
        assert_eq!(names, ["b\u{e4}r", "cheese"]);
        assert_eq!(Channels::parse_segment(b"a%2Cb").unwrap_err().code(), "channel_character");
    }

    #[test]
    fn segment_with_an_empty_name_is_refused() {
        assert_eq!(Channels::parse_segment(b"a,,b").unwrap_err().code(), "channel_empty");
        assert_eq!(Channels::parse_segment(b"").unwrap_err().code(), "channel_empty");
    }

    #[test]
    fn sixty_five_names_are_refused_even_when_they_are_the_same() {
        let segment = vec!["a"; 65].join(",");
        assert_eq!(Channels::parse_segment(segment.as_bytes()).unwrap_err().code(), "too_many_channels");
    }
}
