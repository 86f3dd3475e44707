//! What is gone of each namespace: the low-water marks.

use everpoll_protocol::{Channel, LowMarks};
use rusqlite::{Connection, params};

use super::unsigned;
use crate::Part;

/// All namespaces of which something is known; the one with the empty prefix is always among them.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// Longest prefix first.
    all: Vec<Namespace>,
    /// Whether some are not in the file yet.
    pub(super) has_new: bool,
}

/// One of them, as it is in the file.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    pub(super) prefix: String,
    pub(super) low: i64,
    pub(super) low_ts: i64,
    pub(super) seen: i64,
    /// Whether it belongs to the part that is trimmed.
    pub(super) is_mine: bool,
}

impl Namespaces {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached(
            "select prefix, low, low_ts, seen from namespaces order by length(prefix) desc, prefix",
        )?;
        let all = statement.query_map([], |row| {
            let (prefix, low, low_ts, seen) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Namespace { prefix, low, low_ts, seen, is_mine: false })
        })?;
        Ok(Self { all: all.collect::<Result<_, _>>()?, has_new: false })
    }

    /// The place of the one that a channel with this name is in.
    pub(super) fn place_of(&self, name: &str) -> usize {
        let place = self.all.iter().position(|namespace| name.starts_with(&namespace.prefix));
        place.unwrap_or(self.all.len() - 1)
    }

    /// The low-water mark and the latest time of what is gone; the highest where the channels are in several namespaces.
    pub(super) fn low_of(&self, channels: &[Channel]) -> (i64, i64) {
        let marks = channels.iter().map(|channel| &self.all[self.place_of(channel.as_str())]);
        marks.fold((0, 0), |(low, low_ts), one| (low.max(one.low), low_ts.max(one.low_ts)))
    }

    /// The lowest mark: all events that there are have higher ids.
    pub(super) fn lowest(&self) -> u64 {
        unsigned(self.all.iter().map(|namespace| namespace.low).min().unwrap_or(0))
    }

    pub(super) fn low_marks(&self) -> LowMarks {
        LowMarks::new(self.all.iter().map(|one| (one.prefix.as_str().into(), unsigned(one.low))))
    }

    /// Adds those that the part names and the file does not have yet, and notes which ones are the part's.
    pub(super) fn part(mut self, part: &Part) -> Self {
        let own = || part.own.iter().map(AsRef::as_ref);
        for prefix in own() {
            let around = &self.all[self.place_of(prefix)];
            if around.prefix != prefix {
                // What was gone of the namespace around it, is gone of it.
                let new = Namespace { prefix: prefix.to_owned(), ..around.clone() };
                let behind = self.all.partition_point(|other| other.prefix.len() > prefix.len());
                self.all.insert(behind, new);
                self.has_new = true;
            }
        }
        for namespace in &mut self.all {
            // Those for which nothing is set any more go with what is around them.
            let set = own().filter(|prefix| namespace.prefix.starts_with(prefix));
            let set = set.max_by_key(|prefix| prefix.len()).unwrap_or("");
            namespace.is_mine = part.prefixes.iter().any(|prefix| **prefix == *set);
        }
        self
    }

    pub(super) fn mine(&mut self) -> impl Iterator<Item = &mut Namespace> {
        self.all.iter_mut().filter(|namespace| namespace.is_mine)
    }

    /// Up to here, no channel of the part has any events.
    pub(super) fn start(&self) -> i64 {
        let mine = self.all.iter().filter(|namespace| namespace.is_mine);
        mine.map(|namespace| namespace.seen).min().unwrap_or(0)
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "insert into namespaces (prefix, low, low_ts, seen) values (?1, ?2, ?3, ?4)
            on conflict (prefix) do update set low = excluded.low, low_ts = excluded.low_ts, seen = excluded.seen",
        )?;
        for Namespace { prefix, low, low_ts, seen, .. } in &self.all {
            statement.execute(params![prefix, low, low_ts, seen])?;
        }
        Ok(())
    }
}

impl std::ops::Index<usize> for Namespaces {
    type Output = Namespace;

    fn index(&self, place: usize) -> &Namespace {
        &self.all[place]
    }
}

impl std::ops::IndexMut<usize> for Namespaces {
    fn index_mut(&mut self, place: usize) -> &mut Namespace {
        &mut self.all[place]
    }
}
