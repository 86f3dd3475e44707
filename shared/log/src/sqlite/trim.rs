//! Retention, and what a reader does about a log that went back.

use std::time::SystemTime;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{SqliteLog, file, read, signed, unsigned};
use crate::{LogError, Retention};

impl SqliteLog {
    pub(crate) fn trim(&mut self, keep: &Retention, batch: u32) -> Result<u64, LogError> {
        self.run(|connection| {
            // Looked at without the lock first: most of the time there is nothing to do.
            if oldest(connection, keep, batch)?.is_none() {
                return Ok(0);
            }
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let Some((mark, mark_ts)) = oldest(&transaction, keep, batch)? else { return Ok(0) };
            // The mark first: the trigger on events lets go only what lies below it.
            transaction.execute("update log set low = ?1, low_ts = max(low_ts, ?2)", [mark, mark_ts])?;
            let removed = transaction.execute("delete from events where id <= ?1", [mark])?;
            transaction.commit()?;
            Ok(removed as u64)
        })
    }

    pub(crate) fn declare_rift(&mut self, seen: u64) -> Result<(), LogError> {
        self.run(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let newest = read::bounds(&transaction)?.newest;
            // Browsers count exactly to 2^53 only. Nothing near it was ever an id.
            if newest < seen && seen <= 1 << 52 {
                file::open_rift(&transaction, newest, seen)?;
            }
            transaction.commit()?;
            Ok(())
        })
    }
}

/// The newest id that goes in this batch, and the latest time of what goes. Ids, not times, decide what is oldest: the
/// first event that stays keeps all that follow it.
fn oldest(connection: &Connection, keep: &Retention, batch: u32) -> rusqlite::Result<Option<(i64, i64)>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let cutoff = keep.max_age.and_then(|age| now.checked_sub(age));
    let cutoff = cutoff.map_or(i64::MIN, |time| signed(u64::try_from(time.as_micros()).unwrap_or(0)));
    let mut surplus = match keep.max_events {
        Some(most) => {
            let count: i64 =
                connection.prepare_cached("select count(*) from events")?.query_row([], |row| row.get(0))?;
            unsigned(count).saturating_sub(most)
        }
        None => 0,
    };
    let mut statement = connection
        .prepare_cached("select id, ts from events where id > (select low from log) order by id limit ?1")?;
    let mut rows = statement.query(params![batch])?;
    let mut mark = None;
    while let Some(row) = rows.next()? {
        let (id, ts): (i64, i64) = (row.get(0)?, row.get(1)?);
        if surplus == 0 && ts >= cutoff {
            break;
        }
        surplus = surplus.saturating_sub(1);
        mark = Some((id, mark.map_or(ts, |(_, latest): (i64, i64)| latest.max(ts))));
    }
    Ok(mark)
}
