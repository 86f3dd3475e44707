//! How long events stay, and which of them stay equally long.

use std::sync::Arc;
use std::time::Duration;

/// How long events stay in the log. Both may be set; neither set keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Older events go.
    pub max_age: Option<Duration>,
    /// When there are more events, the oldest go.
    pub max_events: Option<u64>,
}

/// A part of the log: the channels whose events stay equally long.
///
/// Parts do not overlap: the longest prefix for which something of its own is set is the channel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// All prefixes for which something of their own is set, in whatever part.
    pub(crate) own: Arc<[Box<str>]>,
    /// Those that are in this one; the empty one has the channels that begin with none. A single one where events are counted.
    pub(crate) prefixes: Vec<Box<str>>,
    pub(crate) keep: Retention,
}

/// What [`Log::trim`](crate::Log::trim) did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// How many events went.
    pub removed: u64,
    /// Whether there may be more that has to go, now: the batch was full.
    pub more: bool,
}

impl Part {
    /// All channels alike.
    #[must_use]
    pub fn whole(keep: Retention) -> Self {
        Self { own: Arc::default(), prefixes: vec![Box::default()], keep }
    }

    /// What has to be looked at, where `namespaces`, by their prefixes (such as `shop:`), have a retention of their own, and `rest` holds
    /// for all other channels. Without those that keep everything.
    #[must_use]
    pub fn split(rest: Retention, namespaces: impl IntoIterator<Item = (Box<str>, Retention)>) -> Vec<Self> {
        let all: Vec<_> = namespaces.into_iter().collect();
        let own: Arc<[_]> = all.iter().map(|(prefix, _)| prefix.clone()).collect();
        let mut parts: Vec<Self> = Vec::new();
        for (prefix, keep) in std::iter::once((Box::default(), rest)).chain(all) {
            // One walk through the log is enough for all that let go at the same age.
            match parts.iter_mut().find(|part| part.keep == keep && keep.max_events.is_none()) {
                _ if keep == Retention::default() => {}
                Some(part) => part.prefixes.push(prefix),
                None => parts.push(Self { own: own.clone(), prefixes: vec![prefix], keep }),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_that_keep_equally_long_are_one_part_and_those_that_count_are_not() {
        let age = |seconds| Retention { max_age: Some(Duration::from_secs(seconds)), max_events: None };
        let count = Retention { max_events: Some(5), ..age(60) };
        let all =
            [("a:", age(60)), ("b:", age(9)), ("c:", count), ("d:", count), ("e:", Retention::default())];
        let parts = Part::split(age(60), all.map(|(prefix, keep)| (prefix.into(), keep)));
        let found: Vec<_> = parts.iter().map(|part| (part.prefixes.join(","), part.keep)).collect();
        let expected = [(",a:", age(60)), ("b:", age(9)), ("c:", count), ("d:", count)];
        assert_eq!(found, expected.map(|(prefixes, keep)| (prefixes.to_owned(), keep)));
        assert!(parts.iter().all(|part| part.own.len() == 5));
        assert!(Part::split(Retention::default(), []).is_empty());
    }
}
