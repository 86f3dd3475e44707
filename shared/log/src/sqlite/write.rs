//! Publishing, trimming, and noting that the log went back.

use std::time::{SystemTime, UNIX_EPOCH};

use everpoll_protocol::NewEvent;
use rusqlite::{OptionalExtension, Transaction};

use super::failure::failed;
use super::{SqliteLog, identity, read};
use crate::{LogError, Retention};

impl SqliteLog {
    pub(crate) fn publish(&mut self, events: &[NewEvent]) -> Result<Vec<u64>, LogError> {
        let path = self.path.clone();
        self.write(|transaction| {
            events.iter().map(|event| append(transaction, event).map_err(|error| failed(&path, &error))).collect()
        })
    }

    pub(crate) fn trim(&mut self, keep: &Retention, batch: u32) -> Result<u64, LogError> {
        let path = self.path.clone();
        let surplus = match keep.max_events {
            None => None,
            Some(keep) => self.surplus(keep)?,
        };
        let cutoff = keep.max_age.map(|age| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(now.saturating_sub(age).as_micros()).unwrap_or(i64::MAX)
        });
        if cutoff.is_none() && surplus.is_none() {
            return Ok(0);
        }
        self.write(|transaction| {
            remove(transaction, surplus, cutoff, batch).map_err(|error| failed(&path, &error))
        })
    }

    /// The newest id that has to go so that `keep` events stay, as found now or before, if not all up to it are gone.
    fn surplus(&mut self, keep: u64) -> Result<Option<u64>, LogError> {
        let path = self.path.clone();
        let known = self.surplus;
        let connection = self.connection()?;
        let low = read::bounds(connection).map_err(|error| failed(&path, &error))?.low;
        let surplus = match known {
            Some(known) if known > low => Some(known),
            _ => connection
                .query_row(
                    "select id from events order by id desc limit 1 offset ?1",
                    [i64::try_from(keep).unwrap_or(i64::MAX)],
                    |row| row.get::<_, i64>(0),
                )
                .optional()
                .map_err(|error| failed(&path, &error))?
                .map(i64::cast_unsigned),
        };
        self.surplus = surplus;
        Ok(surplus)
    }

    pub(crate) fn declare_rift(&mut self, seen: u64) -> Result<(), LogError> {
        let path = self.path.clone();
        self.write(|transaction| {
            let declare = || match read::bounds(transaction)?.newest < seen {
                true => identity::open_rift(transaction, seen),
                false => Ok(()),
            };
            declare().map_err(|error| failed(&path, &error))
        })
    }
}

/// Appends an event and returns its id, or that of the event with its key.
fn append(transaction: &Transaction<'_>, event: &NewEvent) -> rusqlite::Result<u64> {
    let mut insert = transaction.prepare_cached(
        "insert into events (channel, type, data, key, exclude) values (?1, ?2, ?3, ?4, ?5) \
         on conflict (channel, key) where key is not null do nothing",
    )?;
    let exclude = event.exclude.as_ref().map(|exclude| exclude.as_str());
    let inserted = insert.execute((
        event.channel.as_str(),
        event.kind.as_str(),
        event.data.as_str(),
        event.key.as_deref(),
        exclude,
    ))?;
    if inserted == 1 {
        return Ok(transaction.last_insert_rowid().cast_unsigned());
    }
    transaction
        .prepare_cached("select id from events where channel = ?1 and key = ?2")?
        .query_row((event.channel.as_str(), event.key.as_deref()), |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

/// Removes the oldest events up to the first that stays: ids, not times, decide what is oldest.
fn remove(
    transaction: &Transaction<'_>,
    surplus: Option<u64>,
    cutoff: Option<i64>,
    batch: u32,
) -> rusqlite::Result<u64> {
    let mut oldest = transaction.prepare_cached("select id, ts from events order by id limit ?1")?;
    let mut rows = oldest.query([batch])?;
    let (mut removed, mut mark, mut mark_ts) = (0, 0_i64, -1_i64);
    while let Some(row) = rows.next()? {
        let (id, ts): (i64, i64) = (row.get(0)?, row.get(1)?);
        let goes = surplus.is_some_and(|surplus| id.cast_unsigned() <= surplus) || cutoff.is_some_and(|cutoff| ts < cutoff);
        if !goes {
            break;
        }
        (removed, mark, mark_ts) = (removed + 1, id, mark_ts.max(ts));
    }
    drop(rows);
    if removed > 0 {
        transaction.execute("update log set trimming = 1", ())?;
        transaction.execute("delete from events where id <= ?1", [mark])?;
        transaction.execute(
            "update log set low = ?1, low_ts = max(low_ts, ?2), trimming = 0",
            [mark, mark_ts],
        )?;
    }
    Ok(removed)
}
