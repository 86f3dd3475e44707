//! Retention, and what a reader does about a log that went back.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::PostgresLog;
use crate::{LogError, Retention};

/// What has to go by count. Finding it reads as many entries of an index as are kept, so it is found once and used for
/// all batches; events that come meanwhile only make it keep a few more than wanted, until it is found again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surplus {
    keep: u64,
    up_to: i64,
}

impl PostgresLog {
    pub(crate) fn trim(&mut self, keep: &Retention, batch: u32) -> Result<u64, LogError> {
        let known = self.surplus.filter(|surplus| Some(surplus.keep) == keep.max_events);
        let mut up_to = known.map(|surplus| surplus.up_to);
        if let (None, Some(count)) = (up_to, keep.max_events) {
            up_to = self.find_surplus(count)?;
            self.surplus = up_to.map(|up_to| Surplus { keep: count, up_to });
        }
        let removed = self.remove(keep.max_age, up_to, batch)?;
        if removed == 0 || removed < u64::from(batch) {
            self.surplus = None;
        }
        // What was known may be from long ago; nothing to do means that there is nothing to do now.
        if removed == 0 && known.is_some() { self.trim(keep, batch) } else { Ok(removed) }
    }

    fn find_surplus(&mut self, keep: u64) -> Result<Option<i64>, LogError> {
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let rows =
            self.run(|connection| connection.query("select everpoll.surplus($1)", &[(&keep, Type::INT8)]))?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    fn remove(&mut self, max_age: Option<Duration>, up_to: Option<i64>, batch: u32) -> Result<u64, LogError> {
        // The driver has no type for intervals. More than a hundred years is more than the log can be old.
        let seconds = max_age.map(|age| age.as_secs_f64().min(3.2e9));
        let batch = i32::try_from(batch).unwrap_or(i32::MAX);
        let rows = self.run(|connection| {
            connection.query(
                "select everpoll.trim(make_interval(secs => $1), $2, $3)",
                &[(&seconds, Type::FLOAT8), (&up_to, Type::INT8), (&batch, Type::INT4)],
            )
        })?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i32>(0).try_into().unwrap_or(0)))
    }

    pub(crate) fn declare_rift(&mut self, seen: u64) -> Result<(), LogError> {
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        self.run(|connection| connection.query("select everpoll.declare_rift($1)", &[(&seen, Type::INT8)]))?;
        Ok(())
    }
}
