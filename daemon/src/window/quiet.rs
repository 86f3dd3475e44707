//! What the window remembers of the log below itself: which channels are quiet there, and since when.

use std::collections::HashMap;

use everpoll_protocol::{Channel, Channels, Cursor, LowMarks, Page, Timestamp};

/// Most channels that are remembered. Forgetting one costs a look into the database.
const CHANNELS_MAX: usize = 100_000;

/// Channels that are quiet below the window.
#[derive(Debug, Default)]
pub(super) struct QuietChannels {
    channels: HashMap<Channel, Quiet>,
}

/// The channel has no event with `after < id <= floor`, and, where that is known, none placed later than a time with an id
/// up to the floor.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    after: u64,
    since: Option<QuietSince>,
}

/// Since when a channel is quiet, as long as no more than up to `low` is trimmed of its namespace: what goes after that, of whatever
/// channel there, may have been placed later than `time`, and a gap must be told.
#[derive(Clone, Copy, Debug)]
struct QuietSince {
    time: Timestamp,
    low: u64,
}

impl QuietSince {
    /// What is known from both. What no longer holds is the one of the lower mark.
    fn and(self, other: Self) -> Self {
        match self.low.cmp(&other.low) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => Self { time: self.time.min(other.time), low: self.low },
            std::cmp::Ordering::Greater => self,
        }
    }
}

impl QuietChannels {
    /// An event has left the window: below it, the channel is known. `latest` is the latest time up to it.
    pub(super) fn evicted(&mut self, channel: &Channel, id: u64, latest: Timestamp) {
        let since = QuietSince { time: latest, low: id };
        self.remember(channel.clone(), Quiet { after: id, since: Some(since) });
    }

    /// The database, read for all of `channels` from `cursor` to its end, gave `page`; the window began behind `floor` at that
    /// time at the latest. `low_marks` were the low-water marks before that read.
    pub(super) fn learn(
        &mut self,
        channels: &Channels,
        cursor: Cursor,
        page: &Page,
        floor: u64,
        low_marks: &LowMarks,
    ) {
        for channel in channels.as_slice() {
            let below = page.records.iter().filter(|r| r.channel == *channel && r.id <= floor);
            let last = below.fold(None, |last: Option<(u64, Timestamp)>, record| {
                Some((record.id, last.map_or(record.ts, |last| last.1.max(record.ts))))
            });
            let (after, since) = match (last, cursor) {
                (Some((id, latest)), _) => (id, Some(latest)),
                (None, Cursor::After(after)) => (after, None),
                // Ids below the floor are unknown then, but none of them was placed after that time.
                (None, Cursor::Since(since)) => (floor, Some(since)),
                (None, Cursor::Now) => continue,
            };
            let since = since.map(|time| QuietSince { time, low: low_marks.of(channel) });
            let known = self.channels.get(channel).copied();
            let after = known.map_or(after, |known| known.after.min(after));
            let since = match known.and_then(|known| known.since) {
                Some(known) => Some(since.map_or(known, |since| since.and(known))),
                None => since,
            };
            self.remember(channel.clone(), Quiet { after, since });
        }
    }

    /// The channel's newest event up to the window is this one.
    pub(super) fn learn_latest(&mut self, channel: &Channel, after: u64) {
        let since = self.channels.get(channel).and_then(|known| known.since);
        self.remember(channel.clone(), Quiet { after, since });
    }

    /// Whether the channel has nothing between this id and the window.
    pub(super) fn is_quiet(&self, channel: &Channel, after: u64) -> bool {
        self.channels.get(channel).is_some_and(|quiet| quiet.after <= after)
    }

    /// Whether the channel has nothing below the window that was placed later than `since`; events up to `low` are gone of its
    /// namespace.
    pub(super) fn is_quiet_since(&self, channel: &Channel, since: Timestamp, low: u64) -> bool {
        let quiet = self.channels.get(channel).and_then(|quiet| quiet.since);
        quiet.is_some_and(|quiet| quiet.time <= since && low <= quiet.low)
    }

    fn remember(&mut self, channel: Channel, quiet: Quiet) {
        if self.channels.len() >= CHANNELS_MAX && !self.channels.contains_key(&channel) {
            self.channels.clear();
        }
        self.channels.insert(channel, quiet);
    }
}
