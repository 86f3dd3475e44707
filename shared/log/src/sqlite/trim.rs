//! Retention, and what a reader does about a log that went back.

use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{SqliteLog, file, read, signed, unsigned};
use crate::{LogError, Retention};

/// What has to go by count. Counting reads a whole index, so it is done once for all batches, and not while publishers wait;
/// events that come meanwhile only make it keep a few more than wanted, until it is found again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surplus {
    keep: u64,
    up_to: i64,
    /// How often the log had been restored. In an older copy of it, nothing may have to go.
    restores: i64,
}

/// What does not stay: what is older than this, and what is in surplus.
#[derive(Clone, Copy)]
struct Old {
    cutoff: i64,
    surplus: Option<Surplus>,
}

impl SqliteLog {
    pub(crate) fn trim(&mut self, keep: &Retention, batch: u32) -> Result<u64, LogError> {
        let known = self.surplus.filter(|surplus| Some(surplus.keep) == keep.max_events);
        let surplus = match (known, keep.max_events) {
            (None, Some(count)) => self.run(|connection| Ok(find_surplus(connection, count)?))?,
            _ => known,
        };
        self.surplus = surplus;
        let removed = self.remove(Old { cutoff: cutoff(keep), surplus }, batch)?;
        if removed == 0 || removed < u64::from(batch) {
            self.surplus = None;
        }
        // What was known may be from long ago; nothing to do means that there is nothing to do now.
        if removed == 0 && known.is_some() { self.trim(keep, batch) } else { Ok(removed) }
    }

    fn remove(&mut self, old: Old, batch: u32) -> Result<u64, LogError> {
        self.run(|connection| {
            // Looked at without the lock first: most of the time there is nothing to do.
            if oldest(connection, old, batch)?.is_none() {
                return Ok(0);
            }
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let Some((mark, mark_ts)) = oldest(&transaction, old, batch)? else { return Ok(0) };
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

fn cutoff(keep: &Retention) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let cutoff = keep.max_age.and_then(|age| now.checked_sub(age));
    cutoff.map_or(i64::MIN, |time| signed(u64::try_from(time.as_micros()).unwrap_or(0)))
}

fn find_surplus(connection: &mut Connection, keep: u64) -> rusqlite::Result<Option<Surplus>> {
    let snapshot = connection.transaction()?;
    let number = |sql: &str| snapshot.query_row(sql, [], |row| row.get::<_, i64>(0));
    let surplus = unsigned(number("select count(*) from events")?).saturating_sub(keep);
    if surplus == 0 {
        return Ok(None);
    }
    let sql = "select id from events where id > (select low from log) order by id limit 1 offset ?1";
    let up_to = snapshot.query_row(sql, [signed(surplus - 1)], |row| row.get(0)).optional()?;
    let restores = restores(&snapshot)?;
    Ok(up_to.map(|up_to| Surplus { keep, up_to, restores }))
}

fn restores(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("select count(*) from rifts")?.query_row([], |row| row.get(0))
}

/// The newest id that goes in this batch, and the latest time of what goes. Ids, not times, decide what is oldest: the
/// first event that stays keeps all that follow it.
fn oldest(connection: &Connection, old: Old, batch: u32) -> rusqlite::Result<Option<(i64, i64)>> {
    let up_to = match old.surplus {
        Some(surplus) if surplus.restores == restores(connection)? => surplus.up_to,
        _ => 0,
    };
    let mut statement = connection
        .prepare_cached("select id, ts from events where id > (select low from log) order by id limit ?1")?;
    let mut rows = statement.query(params![batch])?;
    let mut mark = None;
    while let Some(row) = rows.next()? {
        let (id, ts): (i64, i64) = (row.get(0)?, row.get(1)?);
        if id > up_to && ts >= old.cutoff {
            break;
        }
        mark = Some((id, mark.map_or(ts, |(_, latest): (i64, i64)| latest.max(ts))));
    }
    Ok(mark)
}
