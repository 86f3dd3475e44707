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

use everpoll_protocol::{BATCH_EVENTS, Bounds, Channel, Channels, Cursor, Page, Record, Timestamp};

/// What a record costs beside its JSON: itself, its places in two queues, its share of a channel's entry.
const RECORD_OVERHEAD: usize = 256;

/// Most channels that are remembered as quiet. Forgetting one costs a look into the database.
const QUIET_MAX: usize = 100_000;

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
    /// What of the log is gone: cursors below have to be told.
    low: u64,
    origin: u64,
    bytes_max: usize,
    bytes: usize,
    records: VecDeque<Placed>,
    channels: HashMap<Channel, VecDeque<Arc<Record>>>,
    quiet: HashMap<Channel, Quiet>,
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

/// A channel has no event with `after < id <= floor`, and, where that is known, none placed later than a time with an id
/// up to the floor.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    after: u64,
    since: Option<QuietSince>,
}

/// Since when a channel is quiet, as long as no more than up to `low` is trimmed: what goes after that, of whatever channel,
/// may have been placed later than `time`, and a gap must be told.
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

impl Window {
    /// An empty window of at most `bytes_max` bytes that begins behind the event `floor`. Only the database knows
    /// anything until the window is [`filled`](Self::filled).
    pub(crate) fn new(bytes_max: usize, floor: u64) -> Self {
        Self {
            filled: false,
            floor,
            newest: floor,
            low: 0,
            origin: 0,
            bytes_max,
            bytes: 0,
            records: VecDeque::new(),
            channels: HashMap::new(),
            quiet: HashMap::new(),
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

    /// Events up to this id are gone from the log.
    pub(crate) fn low(&self) -> u64 {
        self.low
    }

    /// Takes in what of the log is gone.
    pub(crate) fn bound(&mut self, bounds: &Bounds) {
        (self.low, self.origin) = (bounds.low, bounds.origin);
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
        let since = QuietSince { time: latest, low: record.id };
        self.remember(record.channel.clone(), Quiet { after: record.id, since: Some(since) });
    }

    fn remember(&mut self, channel: Channel, quiet: Quiet) {
        if self.quiet.len() >= QUIET_MAX && !self.quiet.contains_key(&channel) {
            self.quiet.clear();
        }
        self.quiet.insert(channel, quiet);
    }

    /// Takes in that the database, read for all of `channels` from `cursor` on, gave `page`. `low` was the
    /// [low-water mark](Self::low) before that read.
    pub(crate) fn learn(&mut self, channels: &Channels, cursor: Cursor, page: &Page, low: u64) {
        // Only a read to the end of the log, made at or after the window's floor, says that nothing lies between.
        if page.more || page.gap.is_some() || page.next < self.floor {
            return;
        }
        for channel in channels.as_slice() {
            let below = page.records.iter().filter(|r| r.channel == *channel && r.id <= self.floor);
            let last = below.fold(None, |last: Option<(u64, Timestamp)>, record| {
                Some((record.id, last.map_or(record.ts, |last| last.1.max(record.ts))))
            });
            let (after, since) = match (last, cursor) {
                (Some((id, latest)), _) => (id, Some(latest)),
                (None, Cursor::After(after)) => (after, None),
                // Ids below the floor are unknown then, but none of them was placed after that time.
                (None, Cursor::Since(since)) => (self.floor, Some(since)),
                (None, Cursor::Now) => continue,
            };
            let since = since.map(|time| QuietSince { time, low });
            let known = self.quiet.get(channel).copied();
            let after = known.map_or(after, |known| known.after.min(after));
            let since = match known.and_then(|known| known.since) {
                Some(known) => Some(since.map_or(known, |since| since.and(known))),
                None => since,
            };
            self.remember(channel.clone(), Quiet { after, since });
        }
    }

    /// Takes in the newest event up to the window's floor of some channels, as the database told it in one snapshot with
    /// `bounds`; 0 is none. Of no use when the window does not begin at `base` any more.
    pub(crate) fn learn_latest<'a>(
        &mut self,
        base: Base,
        bounds: &Bounds,
        latest: impl IntoIterator<Item = (&'a Channel, u64)>,
    ) {
        if self.base() != Some(base) {
            return;
        }
        // What was trimmed before this snapshot is not in it. The tailer may have seen a later one.
        self.low = self.low.max(bounds.low);
        self.origin = self.origin.max(bounds.origin);
        for (channel, after) in latest {
            let since = self.quiet.get(channel).and_then(|known| known.since);
            self.remember(channel.clone(), Quiet { after, since });
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
        if after < self.origin || (after < self.low && !held) {
            return Look::Miss;
        }
        let known = |channel: &Channel| self.quiet.get(channel).is_some_and(|quiet| quiet.after <= after);
        if after < self.floor && !channels.as_slice().iter().all(known) {
            return Look::Miss;
        }
        Look::Found(self.collect(channels, after))
    }

    /// The id of the last event before the first that was placed later than `since`; `None` where the window does not
    /// reach back so far.
    fn first_since(&self, channels: &Channels, since: Timestamp) -> Option<u64> {
        let index = self.records.partition_point(|placed| placed.latest <= since);
        let quiet_since = |channel: &Channel| {
            let quiet = self.quiet.get(channel).and_then(|quiet| quiet.since);
            quiet.is_some_and(|quiet| quiet.time <= since && self.low <= quiet.low)
        };
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
mod tests {
    use everpoll_protocol::{Data, Event, Kind};

    use super::*;

    fn record(id: u64, channel: &str) -> Arc<Record> {
        Arc::new(Record::from(&Event {
            id,
            channel: Channel::parse(channel).unwrap(),
            kind: Kind::parse("made").unwrap(),
            data: Data::parse("1").unwrap(),
            ts: Timestamp::from_micros(id * 1_000_000),
            exclude: None,
        }))
    }

    fn channels(names: &str) -> Channels {
        Channels::parse_segment(names.as_bytes()).unwrap()
    }

    fn since(seconds: u64) -> Cursor {
        Cursor::Since(Timestamp::from_micros(seconds * 1_000_000))
    }

    fn look(window: &Window, channels: &Channels, cursor: Cursor) -> Look {
        window.look(channels, cursor, false)
    }

    fn ids(look: Look) -> Option<(Vec<u64>, u64)> {
        match look {
            Look::Found(page) => Some((page.records.iter().map(|record| record.id).collect(), page.next)),
            Look::Miss => None,
        }
    }

    fn filled(bytes_max: usize, floor: u64) -> Window {
        let mut window = Window::new(bytes_max, floor);
        window.filled();
        window
    }

    /// Events 11 to 14 of a log of which 1 to 10 are not in memory; room for three.
    fn window() -> Window {
        let mut window = filled(3 * cost(&record(11, "a")), 10);
        window.append(vec![record(11, "a"), record(12, "b"), record(13, "a"), record(14, "b")], 14);
        window
    }

    #[test]
    fn cursor_in_the_window_is_served_from_memory() {
        let window = window();
        assert_eq!(ids(look(&window, &channels("a"), Cursor::After(11))), Some((vec![13], 14)));
        assert_eq!(ids(look(&window, &channels("a,b"), Cursor::After(12))), Some((vec![13, 14], 14)));
        assert_eq!(ids(look(&window, &channels("c"), Cursor::After(14))), Some((vec![], 14)));
        assert_eq!(ids(look(&window, &channels("a"), Cursor::Now)), Some((vec![], 14)));
    }

    #[test]
    fn window_that_is_being_filled_knows_nothing() {
        let mut window = Window::new(usize::MAX, 0);
        for _ in 0..2 {
            for cursor in [Cursor::Now, Cursor::After(0), Cursor::After(1), since(0)] {
                assert_eq!(window.look(&channels("a"), cursor, false), Look::Miss);
            }
            window.reset(0);
            window.append(vec![record(1, "a"), record(2, "a")], 2);
        }
        window.reset(0);
        window.append(vec![record(1, "a")], 1);
        window.filled();
        assert_eq!(ids(window.look(&channels("a"), Cursor::Now, false)), Some((vec![], 1)));
        window.reset(7);
        assert_eq!(ids(window.look(&channels("a"), Cursor::Now, false)), Some((vec![], 7)));
    }

    #[test]
    fn cursor_outside_the_window_is_a_miss() {
        let window = window();
        assert_eq!(look(&window, &channels("c"), Cursor::After(10)), Look::Miss);
        assert_eq!(look(&window, &channels("c"), Cursor::After(15)), Look::Miss);
        assert_eq!(look(&window, &channels("c"), since(11)), Look::Miss);
    }

    #[test]
    fn cursor_before_what_was_trimmed_is_a_miss_unless_the_poll_was_held_all_the_time() {
        let mut window = window();
        window.bound(&Bounds { low: 13, newest: 14, origin: 0 });
        assert_eq!(look(&window, &channels("b"), Cursor::After(12)), Look::Miss);
        assert_eq!(look(&window, &channels("b"), since(12)), Look::Miss);
        assert_eq!(ids(window.look(&channels("b"), Cursor::After(12), true)), Some((vec![14], 14)));
        assert_eq!(ids(look(&window, &channels("b"), Cursor::After(13))), Some((vec![14], 14)));
    }

    #[test]
    fn cursor_from_before_a_restore_is_a_miss_also_on_a_quiet_channel() {
        let mut window = window();
        window.bound(&Bounds { low: 0, newest: 14, origin: 10 });
        let page = Page { next: 14, records: vec![record(3, "c")], ..Page::default() };
        window.learn(&channels("c"), Cursor::After(2), &page, 0);
        for held in [false, true] {
            assert_eq!(window.look(&channels("c"), Cursor::After(7), held), Look::Miss);
        }
    }

    #[test]
    fn newest_event_below_the_window_answers_all_who_have_seen_it() {
        let mut window = window();
        let (base, bounds) = (window.base().unwrap(), Bounds { low: 2, newest: 14, origin: 0 });
        let (c, d) = (channels("c"), channels("d"));
        let latest = || [(&c.as_slice()[0], 7), (&d.as_slice()[0], 0)];
        window.learn_latest(base, &bounds, latest());
        assert_eq!(look(&window, &c, Cursor::After(6)), Look::Miss);
        assert_eq!(ids(look(&window, &c, Cursor::After(7))), Some((vec![], 14)));
        assert_eq!(ids(look(&window, &d, Cursor::After(2))), Some((vec![], 14)));
        // What was trimmed before is not among the newest.
        assert_eq!(look(&window, &d, Cursor::After(1)), Look::Miss);
        // Meanwhile events have left the window, or it has begun again: perhaps some of that channel.
        let mut later = self::window();
        later.append(vec![record(15, "c"), record(16, "a"), record(17, "a"), record(18, "a")], 18);
        later.learn_latest(base, &bounds, latest());
        assert_eq!(look(&later, &c, Cursor::After(7)), Look::Miss);
        let mut begun_again = self::window();
        begun_again.reset(base.floor);
        begun_again.learn_latest(base, &bounds, latest());
        assert_eq!(look(&begun_again, &c, Cursor::After(7)), Look::Miss);
    }

    #[test]
    fn evicted_channel_is_known_to_be_quiet_since() {
        let mut window = window();
        window.append(vec![record(15, "b"), record(16, "b"), record(17, "b")], 17);
        // 13 was the last of channel a, and was thrown out.
        assert_eq!(ids(look(&window, &channels("a"), Cursor::After(13))), Some((vec![], 17)));
        assert_eq!(look(&window, &channels("a"), Cursor::After(12)), Look::Miss);
        assert_eq!(ids(look(&window, &channels("a"), since(13))), Some((vec![], 17)));
    }

    #[test]
    fn channel_that_was_looked_up_is_not_looked_up_again() {
        let mut window = window();
        let nothing = Page { next: 14, ..Page::default() };
        window.learn(&channels("c"), Cursor::After(3), &nothing, 0);
        assert_eq!(ids(look(&window, &channels("c"), Cursor::After(3))), Some((vec![], 14)));
        assert_eq!(ids(look(&window, &channels("c"), Cursor::After(5))), Some((vec![], 14)));
        assert_eq!(look(&window, &channels("c"), Cursor::After(2)), Look::Miss);
        assert_eq!(look(&window, &channels("c,d"), Cursor::After(3)), Look::Miss);
        window.learn(&channels("d"), since(4), &nothing, 0);
        window.append(vec![record(15, "d")], 15);
        assert_eq!(ids(look(&window, &channels("d"), since(5))), Some((vec![15], 15)));
        assert_eq!(look(&window, &channels("d"), since(3)), Look::Miss);
    }

    #[test]
    fn read_that_did_not_reach_the_end_teaches_nothing() {
        let mut window = window();
        let page = Page { next: 5, more: true, records: vec![record(5, "c")], gap: None };
        window.learn(&channels("c"), Cursor::After(3), &page, 0);
        assert_eq!(look(&window, &channels("c"), Cursor::After(5)), Look::Miss);
        window.learn(&channels("c"), Cursor::After(3), &Page { next: 9, more: false, ..page }, 0);
        assert_eq!(look(&window, &channels("c"), Cursor::After(5)), Look::Miss);
    }

    #[test]
    fn time_before_what_was_trimmed_is_a_miss_although_the_channel_is_quiet() {
        let low = |window: &mut Window, low| window.bound(&Bounds { low, newest: 17, origin: 0 });
        let mut window = window();
        let nothing = Page { next: 14, ..Page::default() };
        window.learn(&channels("c"), since(4), &nothing, 0);
        assert_eq!(ids(look(&window, &channels("c"), since(5))), Some((vec![], 14)));
        low(&mut window, 9);
        assert_eq!(look(&window, &channels("c"), since(5)), Look::Miss);
        // Once it was looked up again.
        window.learn(&channels("c"), since(9), &nothing, 9);
        assert_eq!(ids(look(&window, &channels("c"), since(9))), Some((vec![], 14)));
        // Channel a was quiet when 13 was thrown out; what went later went from other channels.
        window.append(vec![record(15, "b"), record(16, "b"), record(17, "b")], 17);
        low(&mut window, 13);
        assert_eq!(ids(look(&window, &channels("a"), since(13))), Some((vec![], 17)));
        low(&mut window, 14);
        assert_eq!(look(&window, &channels("a"), since(13)), Look::Miss);
    }

    #[test]
    fn time_is_found_although_the_clock_stepped_back() {
        let mut window = filled(usize::MAX, 0);
        let mut stepped = Record::from(&Event {
            id: 2,
            channel: Channel::parse("a").unwrap(),
            kind: Kind::parse("made").unwrap(),
            data: Data::parse("1").unwrap(),
            ts: Timestamp::from_micros(500_000),
            exclude: None,
        });
        stepped.id = 2;
        window.append(vec![record(1, "a"), Arc::new(stepped), record(3, "a")], 3);
        assert_eq!(ids(look(&window, &channels("a"), since(0))), Some((vec![1, 2, 3], 3)));
        assert_eq!(ids(look(&window, &channels("a"), since(1))), Some((vec![3], 3)));
        assert_eq!(ids(look(&window, &channels("a"), since(3))), Some((vec![], 3)));
    }

    #[test]
    fn page_ends_at_a_thousand_events() {
        let mut window = filled(usize::MAX, 0);
        window.append((1..=1500).map(|id| record(id, if id % 2 == 0 { "a" } else { "b" })).collect(), 1500);
        let Look::Found(page) = look(&window, &channels("a,b"), Cursor::After(0)) else { panic!() };
        assert_eq!((page.records.len(), page.next, page.more), (1000, 1000, true));
    }
}
