//! How much of the log is gone, for each namespace whose events stay for longer or shorter than the others.

use std::collections::HashMap;
use std::sync::Arc;

use crate::{Channel, prefixes_of};

/// The low-water marks: up to which id events are gone, by the beginning of their channels' names. The longest one that a name begins
/// with is the channel's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LowMarks {
    /// Of the channels that are in no namespace.
    rest: u64,
    namespaces: Arc<HashMap<Box<str>, u64>>,
}

impl LowMarks {
    /// One mark for all channels.
    #[must_use]
    pub fn of_all(low: u64) -> Self {
        Self { rest: low, namespaces: Arc::default() }
    }

    /// These, by their prefixes; the empty one has all channels that are in no other.
    pub fn new(marks: impl IntoIterator<Item = (Box<str>, u64)>) -> Self {
        let mut namespaces: HashMap<_, _> = marks.into_iter().collect();
        let rest = namespaces.remove("").unwrap_or(0);
        Self { rest, namespaces: Arc::new(namespaces) }
    }

    /// That of one channel.
    #[must_use]
    pub fn of(&self, channel: &Channel) -> u64 {
        self.of_name(channel.as_str())
    }

    /// The highest of these channels: below it, some of their events are gone.
    #[must_use]
    pub fn highest_of(&self, channels: &[Channel]) -> u64 {
        channels.iter().map(|channel| self.of(channel)).max().unwrap_or(0)
    }

    /// Takes in marks that were read at about the same time: they only rise, so the higher ones are the later ones.
    pub fn raise(&mut self, others: &Self) {
        if self == others {
            return;
        }
        // A namespace that only one of them knows has in the other what is around it.
        let all = self.namespaces.keys().chain(others.namespaces.keys());
        let higher = |name: &str| self.of_name(name).max(others.of_name(name));
        let namespaces = all.map(|prefix| (prefix.clone(), higher(prefix))).collect();
        *self = Self { rest: self.rest.max(others.rest), namespaces: Arc::new(namespaces) };
    }

    fn of_name(&self, name: &str) -> u64 {
        if self.namespaces.is_empty() {
            return self.rest;
        }
        prefixes_of(name).find_map(|prefix| self.namespaces.get(prefix)).copied().unwrap_or(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(marks: &[(&str, u64)]) -> LowMarks {
        LowMarks::new(marks.iter().map(|(prefix, low)| ((*prefix).into(), *low)))
    }

    fn channels(names: &[&str]) -> Vec<Channel> {
        names.iter().map(|name| Channel::parse(name).unwrap()).collect()
    }

    #[test]
    fn longest_prefix_decides_and_several_channels_have_the_highest() {
        let marks = marks(&[("", 5), ("shop:eu:", 3), ("shop:", 9)]);
        for (name, low) in [("news", 5), ("shop", 5), ("shop:a", 9), ("shop:eu", 9), ("shop:eu:a", 3)] {
            assert_eq!(marks.highest_of(&channels(&[name])), low, "{name}");
        }
        assert_eq!(marks.highest_of(&channels(&["shop:eu:a", "news"])), 5);
        assert_eq!(LowMarks::of_all(7).highest_of(&channels(&["shop:a"])), 7);
    }

    #[test]
    fn marks_rise_also_where_only_one_side_knows_a_namespace() {
        let mut known = marks(&[("", 5), ("shop:", 2)]);
        known.raise(&marks(&[("", 4), ("shop:", 3), ("shop:eu:", 3), ("crm:", 6)]));
        assert_eq!(known, marks(&[("", 5), ("shop:", 3), ("shop:eu:", 3), ("crm:", 6)]));
        known.raise(&LowMarks::of_all(6));
        assert_eq!(known, marks(&[("", 6), ("shop:", 6), ("shop:eu:", 6), ("crm:", 6)]));
    }
}
