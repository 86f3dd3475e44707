//! The newest events of the log, in memory.
//!
//! A poll whose cursor lies in the window is answered, or held, without touching the database; so the database's load
//! follows the number of events and not that of clients. The window is contiguous: it has *every* event with
//! `floor < id <= newest`, of all channels. What a newcomer gets wrong: a cursor below the floor does not have to mean
//! a look into the database. For channels that were looked up before, the window remembers since when they are quiet.
//! And a cursor in the window may mean one: what the log has trimmed since is still here, but the fallback, which reads
//! the log, tells a gap, and both must tell the same.
//!
//! No IO and no clock here; [`crate::tailer`] fills it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use everpoll_log::Latest;
use everpoll_protocol::{BATCH_EVENTS, Bounds, Channel, Channels, Cursor, LowMarks, Page, Record, Timestamp};

mod quiet;

use quiet::QuietChannels;

/// What a record costs beside its JSON: itself, its places in two queues, its share of a channel's entry.
const RECORD_OVERHEAD: usize = 256;

/// What the window says to a poll.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All that the log has for it, up to the newest event.
    Found(Page),
    /// Only the database knows.
    Miss,
}

/// The newest events.
#[derive(Debug)]
pub(crate) struct Window {
    /// Whether it is known what the log has. Until then an empty window would look like an empty log.
    filled: bool,
    floor: u64,
    newest: u64,
    /// What of the log is gone, of whatever channel: cursors below may have to be told.
    low: u64,
    /// What of each channel is gone.
    low_marks: LowMarks,
    origin: u64,
    bytes_max: usize,
    bytes: usize,
    records: VecDeque<Placed>,
    channels: HashMap<Channel, VecDeque<Arc<Record>>>,
    quiet: QuietChannels,
    /// The time of the latest event that was ever in the window or just below it, if known.
    latest: Timestamp,
    generation: u64,
    /// How often the window began again.
    begun: u64,
    /// How many events were ever appended.
    appended: u64,
}

/// Below what the window begins. As long as it is the same, what was learned of the log below still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    /// All later events are in the window.
    pub(crate) floor: u64,
    begun: u64,
}

impl Base {
    /// Whether the window has not begun again between the two: it is the same log.
    pub(crate) fn is_of_the_log_of(&self, other: &Self) -> bool {
        self.begun == other.begun
    }
}

/// A record and the latest time up to it. Times may step back with the database's clock; this one does not, so that
/// it can be searched.
#[derive(Debug)]
struct Placed {
    latest: Timestamp,
    record: Arc<Record>,
}

impl Window {
    /// An empty window of at most `bytes_max` bytes that begins behind the event `floor`. Only the database knows
    /// anything until the window is [`filled`](Self::filled).
    pub(crate) fn new(bytes_max: usize, floor: u64) -> Self {
        Self {
            filled: false,
            floor,
            newest: floor,
            low: 0,
            low_marks: LowMarks::default(),
            origin: 0,
            bytes_max,
            bytes: 0,
            records: VecDeque::new(),
            channels: HashMap::new(),
            quiet: QuietChannels::default(),
            latest: Timestamp::default(),
            generation: 0,
            begun: 0,
            appended: 0,
        }
    }

    /// The id of the newest event that the tailer has seen.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Changes with every change of the window's events.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// How many events there are, and how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.records.len(), self.bytes)
    }

    /// How many events were ever appended.
    pub(crate) fn appended(&self) -> u64 {
        self.appended
    }

    /// Forgets everything and begins again behind `floor`.
    pub(crate) fn reset(&mut self, floor: u64) {
        let (generation, begun) = (self.generation + 1, self.begun + 1);
        let Self { appended, filled, .. } = *self;
        *self = Self { generation, begun, appended, filled, ..Self::new(self.bytes_max, floor) };
    }

    /// From now on the window has all that the log has behind the floor.
    pub(crate) fn filled(&mut self) {
        self.filled = true;
    }

    /// Below what it begins; `None` until it is filled.
    pub(crate) fn base(&self) -> Option<Base> {
        self.filled.then_some(Base { floor: self.floor, begun: self.begun })
    }

    /// Up to where events are gone from the log.
    pub(crate) fn low_marks(&self) -> &LowMarks {
        &self.low_marks
    }

    /// Takes in what of the log is gone.
    pub(crate) fn bound(&mut self, bounds: &Bounds, low_marks: &LowMarks) {
        (self.low, self.origin) = (bounds.low, bounds.origin);
        self.low_marks = low_marks.clone();
    }

    /// Appends the next events, ascending, and says up to where the log is known now.
    pub(crate) fn append(&mut self, records: Vec<Arc<Record>>, newest: u64) {
        self.generation += 1;
        self.appended += records.len() as u64;
        for record in records {
            debug_assert!(record.id > self.newest);
            self.newest = record.id;
            self.latest = self.latest.max(record.ts);
            self.bytes += cost(&record);
            self.channels.entry(record.channel.clone()).or_default().push_back(record.clone());
            self.records.push_back(Placed { latest: self.latest, record });
        }
        self.newest = self.newest.max(newest);
        while self.bytes > self.bytes_max {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let Some(Placed { latest, record }) = self.records.pop_front() else { return };
        self.bytes -= cost(&record);
        self.floor = record.id;
        if let Some(queue) = self.channels.get_mut(&record.channel) {
            queue.pop_front();
            if queue.is_empty() {
                self.channels.remove(&record.channel);
            }
        }
        self.quiet.evicted(&record.channel, record.id, latest);
    }

    /// Takes in that the database, read for all of `channels` from `cursor` on, gave `page`. `low_marks` were
    /// [the window's](Self::low_marks) before that read.
    pub(crate) fn learn(&mut self, channels: &Channels, cursor: Cursor, page: &Page, low_marks: &LowMarks) {
        // Only a read to the end of the log, made at or after the window's floor, says that nothing lies between.
        if page.more || page.gap.is_some() || page.next < self.floor {
            return;
        }
        self.quiet.learn(channels, cursor, page, self.floor, low_marks);
    }

    /// Takes in the newest event up to the window's floor of these channels, as the database told it. Of no use when the window does
    /// not begin at `base` any more.
    pub(crate) fn learn_latest(&mut self, base: Base, channels: &[Channel], latest: &Latest) {
        if self.base() != Some(base) {
            return;
        }
        // What was trimmed before this snapshot is not in it. The tailer may have seen a later one.
        self.low = self.low.max(latest.bounds.low);
        self.low_marks.raise(&latest.low_marks);
        self.origin = self.origin.max(latest.bounds.origin);
        for (channel, after) in channels.iter().zip(&latest.ids) {
            self.quiet.learn_latest(channel, *after);
        }
    }

    /// What there is for a poll. One that is `held` was there all the time: it missed nothing of what was trimmed
    /// meanwhile.
    pub(crate) fn look(&self, channels: &Channels, cursor: Cursor, held: bool) -> Look {
        if !self.filled {
            return Look::Miss;
        }
        let after = match cursor {
            Cursor::Now => return Look::Found(Page { next: self.newest, ..Page::default() }),
            // Perhaps the database is ahead of the window, perhaps the cursor is of another log.
            Cursor::After(after) if after > self.newest => return Look::Miss,
            Cursor::After(after) => after,
            Cursor::Since(since) => match self.first_since(channels, since) {
                Some(after) => after,
                None => return Look::Miss,
            },
        };
        // A cursor from before a restore may have been given by the lost part of the log, also on a quiet channel.
        let is_trimmed = || after < self.low && after < self.low_marks.highest_of(channels.as_slice());
        if after < self.origin || (!held && is_trimmed()) {
            return Look::Miss;
        }
        if after < self.floor
            && !channels.as_slice().iter().all(|channel| self.quiet.is_quiet(channel, after))
        {
            return Look::Miss;
        }
        Look::Found(self.collect(channels, after))
    }

    /// The id of the last event before the first that was placed later than `since`; `None` where the window does not
    /// reach back so far.
    fn first_since(&self, channels: &Channels, since: Timestamp) -> Option<u64> {
        let index = self.records.partition_point(|placed| placed.latest <= since);
        let quiet_since =
            |channel: &Channel| self.quiet.is_quiet_since(channel, since, self.low_marks.of(channel));
        // Where the first event of the window is early enough, or the log had none before it, all later ones are here.
        if index == 0 && self.floor > 0 && !channels.as_slice().iter().all(quiet_since) {
            return None;
        }
        Some(match index {
            0 => self.floor,
            _ => self.records[index - 1].record.id,
        })
    }

    fn collect(&self, channels: &Channels, after: u64) -> Page {
        let mut records = Vec::new();
        for channel in channels.as_slice() {
            if let Some(queue) = self.channels.get(channel) {
                let first = queue.partition_point(|record| record.id <= after);
                records.extend(queue.range(first..).take(BATCH_EVENTS + 1).cloned());
            }
        }
        if channels.as_slice().len() > 1 {
            records.sort_unstable_by_key(|record| record.id);
        }
        let more = records.len() > BATCH_EVENTS;
        records.truncate(BATCH_EVENTS);
        let next = match records.last() {
            Some(last) if more => last.id,
            _ => self.newest,
        };
        Page { gap: None, records, next, more }
    }
}

fn cost(record: &Record) -> usize {
    record.json.len() + record.channel.as_str().len() + RECORD_OVERHEAD
}

#[cfg(test)]
mod tests;
