//! What a log is, as its readers may see it, and what each of them must be told. Written from the protocol's page and not
//! from the code.

use std::collections::BTreeMap;

use crate::gap::Told;
use crate::writers::Random;

/// Everything that was ever placed in the present history of the log, what was trimmed of it, and where it went back.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// Also those that were trimmed.
    events: BTreeMap<u64, Placed>,
    /// What was trimmed of the namespaces of which something ever was.
    namespaces: Namespaces,
    /// Where the log was restored: the newest id that the copy had, and the first that it may give since.
    rifts: Vec<(u64, u64)>,
}

/// One event.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) channel: String,
    /// Microseconds since 1970.
    pub(super) ts: u64,
    pub(super) is_gone: bool,
}

/// By the prefixes of their channels; the empty one has what is in no other.
#[derive(Clone, Debug)]
struct Namespaces(BTreeMap<&'static str, Trimmed>);

/// The last event that was trimmed of a namespace; zeros when none was.
#[derive(Clone, Copy, Debug, Default)]
struct Trimmed {
    id: u64,
    ts: u64,
}

impl Namespaces {
    /// The one that a channel is in.
    fn of(&self, channel: &str) -> &'static str {
        let fits = self.0.keys().filter(|prefix| channel.starts_with(**prefix));
        fits.max_by_key(|prefix| prefix.len()).expect("one fits all")
    }

    fn trimmed(&self, channels: &[&str]) -> Trimmed {
        let each = channels.iter().map(|channel| self.0[self.of(channel)]);
        each.fold(Trimmed::default(), |one, other| Trimmed {
            id: one.id.max(other.id),
            ts: one.ts.max(other.ts),
        })
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self([("", Trimmed::default())].into())
    }
}

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    /// An id, whether there is such an event or not.
    After(u64),
    /// A time, in microseconds since 1970, before the slack is taken off.
    Since(u64),
    Now,
}

/// How much earlier than asked a time begins.
const SLACK: u64 = 2_000_000;

impl Model {
    /// The newest place that anybody can have seen.
    pub(super) fn newest(&self) -> u64 {
        let event = self.events.keys().next_back().copied().unwrap_or(0);
        let rift = self.rifts.last().map_or(0, |rift| rift.1 - 1);
        event.max(rift)
    }

    /// How many events are there whose channels begin so.
    pub(super) fn len(&self, namespace: &str) -> usize {
        let events = self.events.values();
        events.filter(|event| !event.is_gone && event.channel.starts_with(namespace)).count()
    }

    pub(super) fn append(&mut self, id: u64, placed: Placed) {
        let newest = self.newest();
        assert!(id > newest, "{id} was given, which is not after {newest}");
        self.events.insert(id, placed);
    }

    /// Keeps the newest `keep` of a namespace, or of all channels, where it is empty; returns how many go.
    pub(super) fn trim(&mut self, namespace: &'static str, keep: usize) -> usize {
        let around = self.namespaces.0[self.namespaces.of(namespace)];
        self.namespaces.0.entry(namespace).or_insert(around);
        let go = self.len(namespace).saturating_sub(keep);
        let there = self.events.iter_mut().filter(|(_, event)| !event.is_gone);
        for (id, event) in there.filter(|(_, event)| event.channel.starts_with(namespace)).take(go) {
            event.is_gone = true;
            let trimmed = Trimmed { id: *id, ts: event.ts };
            self.namespaces.0.insert(self.namespaces.of(&event.channel), trimmed);
        }
        go
    }

    /// The log is a copy now, and goes on at `before`. `highest` is the highest id that was ever given.
    pub(super) fn open_rift(&mut self, after: u64, before: u64, highest: u64) {
        assert_eq!(after, self.newest(), "the copy ends there");
        assert!(before > highest, "{before} may be given again: {highest} was given");
        self.rifts.push((after, before));
    }

    pub(super) fn rifts(&self) -> usize {
        self.rifts.len()
    }

    /// What a client must be told.
    pub(super) fn expected(&self, cursor: Cursor, channels: &[&str]) -> Told {
        let newest = self.newest();
        let trimmed = self.namespaces.trimmed(channels);
        let after = |start: u64| -> Vec<u64> {
            let events = self.events.range(start.max(trimmed.id) + 1..).filter(|(_, event)| !event.is_gone);
            let mine = events.filter(|(_, event)| channels.contains(&event.channel.as_str()));
            mine.map(|(id, _)| *id).collect()
        };
        let told = |gap, start| Told { gap, ids: after(start), cursor: newest };
        let gap = |cursor, start: u64, reason: &str| Some((cursor, start + 1, reason.to_owned()));
        match cursor {
            Cursor::Now => told(None, newest),
            Cursor::After(seen) => {
                // The client saw events that this log does not have: those of the lost part, or of another log.
                let lost = self.rifts.iter().rev().find(|(last, first)| *last < seen && seen < first - 1);
                let foreign = (seen > newest).then_some(trimmed.id);
                if let Some(start) = lost.map(|rift| (rift.1 - 1).max(trimmed.id)).or(foreign) {
                    return told(gap(seen, start, "ahead"), start);
                }
                // Some of those that it did not see are gone: exactly up to the last one that was trimmed.
                let missing = self.events.range(seen + 1..).any(|(id, _)| *id <= trimmed.id);
                if missing {
                    return told(gap(seen, trimmed.id, "trimmed"), trimmed.id);
                }
                told(None, seen)
            }
            Cursor::Since(time) => {
                let since = time.saturating_sub(SLACK);
                if trimmed.ts > since {
                    return told(gap(0, trimmed.id, "trimmed"), trimmed.id);
                }
                let there = self.events.iter().filter(|(_, event)| !event.is_gone);
                let first = there.filter(|(_, event)| event.ts > since).map(|(id, _)| *id).next();
                told(None, first.map_or(newest, |first| first - 1))
            }
        }
    }

    /// A cursor worth asking: near the places where something changes, or anywhere. `given` are ids of all histories.
    pub(super) fn cursor(&self, given: &[u64], random: &mut Random) -> Cursor {
        let near = |place: u64, random: &mut Random| match random.below(5) {
            0 => place.saturating_sub(2),
            1 => place.saturating_sub(1),
            2 => place,
            3 => place + 1,
            _ => place + 2,
        };
        let any = |random: &mut Random| match given.len() as u64 {
            0 => 0,
            count => given[random.below(count) as usize],
        };
        match random.below(16) {
            0 => Cursor::After(0),
            1 => Cursor::Now,
            2..4 => {
                let all: Vec<_> = self.namespaces.0.values().collect();
                let trimmed = all[random.below(all.len() as u64) as usize];
                Cursor::After(near(trimmed.id, random))
            }
            4 => Cursor::After(near(self.newest(), random)),
            5 => Cursor::After(self.newest() + 1 + random.below(1 << 40)),
            6 => Cursor::After(i64::MAX as u64),
            7..9 => match self.rifts.get(random.below(self.rifts.len().max(1) as u64) as usize) {
                Some((after, before)) => {
                    let place = if random.below(2) == 0 { *after } else { *before };
                    Cursor::After(near(place, random))
                }
                None => Cursor::After(any(random)),
            },
            9..12 => {
                // The time of an event, exactly, a microsecond before it, and a second from it.
                let count = self.events.len() as u64;
                let event = self.events.values().nth(random.below(count.max(1)) as usize);
                let time = event.map_or(SLACK, |event| event.ts + SLACK);
                Cursor::Since(
                    *[time, time - 1, time + 1_000_000, 0, SLACK]
                        .get(random.below(5) as usize)
                        .expect("one of five"),
                )
            }
            _ => Cursor::After(any(random)),
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::After(id) => write!(f, "{id}"),
            Self::Since(micros) => write!(f, "rt-{}.{:06}", micros / 1_000_000, micros % 1_000_000),
            Self::Now => f.write_str("now"),
        }
    }
}
