//! What is gone of each namespace: the low-water marks.

use std::collections::BTreeMap;

use everpoll_protocol::{Channel, LowMarks, prefixes_of};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::unsigned;
use crate::Part;

/// All namespaces of which something is known, by their prefixes; the empty one is always among them.
#[derive(Debug)]
pub(super) struct Namespaces {
    all: BTreeMap<String, Namespace>,
    /// Whether some are not in the file yet.
    pub(super) has_new: bool,
}

/// One of them, as it is in the file.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    pub(super) low: i64,
    pub(super) low_ts: i64,
    pub(super) seen: i64,
    /// Whether it belongs to the part that is trimmed.
    pub(super) is_mine: bool,
}

impl Namespaces {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("select prefix, low, low_ts, seen from namespaces")?;
        let all = statement.query_map([], |row| {
            let (low, low_ts, seen) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get(0)?, Namespace { low, low_ts, seen, is_mine: false }))
        })?;
        Ok(Self { all: all.collect::<Result<_, _>>()?, has_new: false })
    }

    /// The one that a channel with this name is in.
    pub(super) fn of(&mut self, name: &str) -> Option<&mut Namespace> {
        let prefix = prefixes_of(name).find(|prefix| self.all.contains_key(*prefix)).unwrap_or("");
        self.all.get_mut(prefix)
    }

    /// Adds those that the part names and the file does not have yet, and notes which ones are the part's.
    pub(super) fn part(mut self, part: &Part) -> Self {
        // Those around come before those inside.
        let mut own: Vec<&str> = part.own.iter().map(AsRef::as_ref).collect();
        own.sort_unstable();
        for prefix in &own {
            if !self.all.contains_key(*prefix)
                && let Some(around) = self.of(prefix)
            {
                // What was gone of the namespace around it, is gone of it.
                let new = around.clone();
                self.all.insert((*prefix).to_owned(), new);
                self.has_new = true;
            }
        }
        for (prefix, namespace) in &mut self.all {
            // Those for which nothing is set any more go with what is around them.
            let set = prefixes_of(prefix).find(|prefix| own.binary_search(prefix).is_ok()).unwrap_or("");
            namespace.is_mine = part.prefixes.iter().any(|prefix| **prefix == *set);
        }
        self
    }

    pub(super) fn mine(&mut self) -> impl Iterator<Item = &mut Namespace> {
        self.all.values_mut().filter(|namespace| namespace.is_mine)
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "insert into namespaces (prefix, low, low_ts, seen) values (?1, ?2, ?3, ?4)
            on conflict (prefix) do update set low = excluded.low, low_ts = excluded.low_ts, seen = excluded.seen
            where (low, low_ts, seen) <> (excluded.low, excluded.low_ts, excluded.seen)",
        )?;
        for (prefix, Namespace { low, low_ts, seen, .. }) in &self.all {
            statement.execute(params![prefix, low, low_ts, seen])?;
        }
        Ok(())
    }
}

/// The low-water marks of all.
pub(super) fn low_marks(connection: &Connection) -> rusqlite::Result<LowMarks> {
    let mut statement = connection.prepare_cached("select prefix, low from namespaces")?;
    let marks = statement.query_map([], |row| Ok((row.get::<_, Box<str>>(0)?, unsigned(row.get(1)?))))?;
    Ok(LowMarks::new(marks.collect::<Result<Vec<_>, _>>()?))
}

/// The low-water mark of these channels and the latest time of what is gone; the highest where they are in several namespaces.
pub(super) fn low_of(connection: &Connection, channels: &[Channel]) -> rusqlite::Result<(i64, i64)> {
    let mut statement = connection.prepare_cached("select low, low_ts from namespaces where prefix = ?1")?;
    let (mut low, mut low_ts) = (0, 0);
    for channel in channels {
        if let Some(found) = find(&mut statement, channel)? {
            (low, low_ts) = (low.max(found.0), low_ts.max(found.1));
        }
    }
    Ok((low, low_ts))
}

fn find(statement: &mut CachedStatement<'_>, channel: &Channel) -> rusqlite::Result<Option<(i64, i64)>> {
    for prefix in prefixes_of(channel.as_str()).chain([""]) {
        let found = statement.query_row([prefix], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
