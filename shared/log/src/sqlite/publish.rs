//! Publishing: all events in one transaction.

use std::time::SystemTime;

use everpoll_protocol::{NewEvent, WaitId};
use rusqlite::{Connection, TransactionBehavior, params};

use super::{Failure, SqliteLog, signed, unsigned};
use crate::LogError;

impl SqliteLog {
    pub(crate) fn publish(&mut self, events: &[NewEvent]) -> Result<Vec<u64>, LogError> {
        let ids = self.run(|connection| {
            // Immediate: a transaction that begins as a reader may fail when it wants to write.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let ids = events.iter().map(|event| append(&transaction, event)).collect::<Result<_, _>>();
            let ids = ids.map_err(Failure::into_rejection)?;
            transaction.commit()?;
            Ok::<Vec<u64>, _>(ids)
        })?;
        self.mark(ids.iter().copied().max().unwrap_or(0));
        Ok(ids)
    }
}

/// The id of the event, or of the one with its key that is there.
fn append(transaction: &Connection, event: &NewEvent) -> Result<u64, Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let micros = signed(u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
    let channel = event.channel.as_str();
    let mut insert = transaction.prepare_cached(
        "insert into events (channel, type, data, key, exclude, ts) values (?1, ?2, ?3, ?4, ?5, ?6) on conflict do nothing",
    )?;
    let exclude = event.exclude.as_ref().map(WaitId::as_str);
    let inserted = insert.execute(params![
        channel,
        event.kind.as_str(),
        event.data.as_str(),
        event.key,
        exclude,
        micros
    ])?;
    if inserted == 1 {
        return Ok(unsigned(transaction.last_insert_rowid()));
    }
    let mut known = transaction.prepare_cached("select id from events where channel = ?1 and key = ?2")?;
    Ok(unsigned(known.query_row(params![channel, event.key], |row| row.get(0))?))
}
