//! Namespaces: channels whose names begin alike, with rules of their own.
//!
//! What a newcomer gets wrong: one request brings one credential. Where its channels lie in several namespaces, the rules of each
//! have to let it in, and a token that only one of them knows opens nothing in the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::parameters::Parameters;
use crate::{Access, Channel, Channels, Limits, NewEvent, PublishSizes, RawRequest, RequestError};

/// What a namespace's prefix ends with.
pub const SPACE_END: char = ':';

/// What holds for the channels of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// How readers are told apart.
    pub access: Access,
    /// The largest data of an event, in bytes of JSON text.
    pub event_max: usize,
}

/// The namespaces by their prefixes, such as `shop:`. The longest one that a channel's name begins with is the channel's; what has none
/// follows the rules for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spaces(Arc<HashMap<Box<str>, Space>>);

/// The prefixes of all namespaces that a channel of this name could be in, longest first: however many namespaces there are, these are
/// few.
pub fn prefixes_of(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SPACE_END).rev().map(|(at, end)| &name[..at + end.len()])
}

impl Spaces {
    /// These. Each prefix ends with [`SPACE_END`].
    #[must_use]
    pub fn new(spaces: impl IntoIterator<Item = (Box<str>, Space)>) -> Self {
        Self(Arc::new(spaces.into_iter().collect()))
    }

    /// The namespace of a channel with this name, and its prefix.
    #[must_use]
    pub fn of<'a, 'n>(&'a self, name: &'n str) -> Option<(&'n str, &'a Space)> {
        if self.0.is_empty() {
            return None;
        }
        prefixes_of(name).find_map(|prefix| Some((prefix, self.0.get(prefix)?)))
    }

    fn prefix_of<'n>(&self, channel: &'n Channel) -> Option<&'n str> {
        self.of(channel.as_str()).map(|(prefix, _)| prefix)
    }

    fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }
}

impl Limits {
    /// The rules for readers of the channel with this name.
    fn access_to(&self, name: &str) -> &Access {
        self.spaces.of(name).map_or(&self.access, |(_, space)| &space.access)
    }

    /// The largest data of an event on this channel, in bytes.
    #[must_use]
    pub fn event_max(&self, channel: &Channel) -> usize {
        let space = self.spaces.of(channel.as_str());
        space.map_or(self.publish_sizes.event_max, |(_, space)| space.event_max)
    }

    /// Whether the data of each of these is as small as its namespace says.
    ///
    /// # Errors
    ///
    /// [`RequestError::DataTooLarge`] of the first that is not, with its place where there are several.
    pub(crate) fn check_sizes(&self, events: &[NewEvent]) -> Result<(), RequestError> {
        for (index, event) in events.iter().enumerate() {
            let (bytes, limit) = (event.data.as_str().len(), self.event_max(&event.channel));
            if bytes > limit {
                let error = RequestError::DataTooLarge { bytes, limit };
                return Err(match events.len() {
                    1 => error,
                    _ => RequestError::InEvent { index, source: Box::new(error) },
                });
            }
        }
        Ok(())
    }

    /// How much a publishing request may bring, whatever its channels are.
    pub(crate) fn largest_sizes(&self) -> PublishSizes {
        let largest = self.spaces.0.values().map(|space| space.event_max).max().unwrap_or(0);
        PublishSizes { event_max: self.publish_sizes.event_max.max(largest), ..self.publish_sizes }
    }

    /// Whether a poll may read these channels, and how long from now on; `None` is without end.
    ///
    /// # Errors
    ///
    /// Why it may not; with the channel, where not all are of one namespace.
    pub(crate) fn admit(
        &self,
        raw: &RawRequest<'_>,
        parameters: &Parameters,
        channels: &Channels,
    ) -> Result<Option<Duration>, RequestError> {
        let all = channels.as_slice();
        let mut valid_for = None;
        // They are in order, so those of a namespace stand together, but for those around one inside it, which are asked about twice.
        for some in all.chunk_by(|one, other| self.spaces.prefix_of(one) == self.spaces.prefix_of(other)) {
            let Some(first) = some.first() else { continue };
            let access = self.access_to(first.as_str());
            let until = access.admit(raw, parameters, some).map_err(|error| match error {
                error @ RequestError::ChannelForbidden { .. } => error,
                error if some.len() == all.len() => error,
                error => RequestError::InNamespace { channel: first.clone(), source: Box::new(error) },
            })?;
            valid_for = match (valid_for, until) {
                (Some(one), Some(other)) => Some(std::cmp::min::<Duration>(one, other)),
                (one, other) => one.or(other),
            };
        }
        Ok(valid_for)
    }

    /// Whether all that were let in by these rules may go on under `new` ones.
    pub(crate) fn readers_go_on_under(&self, new: &Self) -> bool {
        let prefixes = self.spaces.prefixes().chain(new.spaces.prefixes());
        self.access.goes_on_under(&new.access)
            && prefixes.into_iter().all(|prefix| self.access_to(prefix).goes_on_under(new.access_to(prefix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaces(prefixes: &[(&str, usize)]) -> Spaces {
        let space = |(prefix, event_max): &(&str, usize)| {
            (Box::from(*prefix), Space { access: Access::Open, event_max: *event_max })
        };
        Spaces::new(prefixes.iter().map(space))
    }

    #[test]
    fn longest_beginning_wins() {
        let spaces = spaces(&[("shop:", 1), ("shop:eu:", 2), ("b\u{e4}r:", 3)]);
        let of = |name: &str| spaces.of(name).map(|(prefix, space)| (prefix.to_owned(), space.event_max));
        assert_eq!(of("shop:1"), Some(("shop:".into(), 1)));
        assert_eq!(of("shop:eu:1"), Some(("shop:eu:".into(), 2)));
        assert_eq!(of("shop:eu:x:1"), Some(("shop:eu:".into(), 2)));
        assert_eq!(of("shop:us:1"), Some(("shop:".into(), 1)));
        assert_eq!(of("b\u{e4}r:1"), Some(("b\u{e4}r:".into(), 3)));
        for name in ["shop", "shops:1", "Shop:1", "xshop:1", ":", "a:shop:1"] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
