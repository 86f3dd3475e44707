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
    /// The connection that it was found on. On another one, the log may be an older copy, of which nothing has to go.
    connection: u64,
}

impl PostgresLog {
    pub(crate) fn trim(&mut self, keep: &Retention, batch: u32) -> Result<u64, LogError> {
        let known = self.surplus.filter(|surplus| Some(surplus.keep) == keep.max_events);
        let surplus = match (known, keep.max_events) {
            (None, Some(count)) => self.find_surplus(count)?,
            _ => known,
        };
        self.surplus = surplus;
        let removed = self.remove(keep.max_age, surplus, batch)?;
        if removed == 0 || removed < u64::from(batch) {
            self.surplus = None;
        }
        // What was known may be from long ago; nothing to do means that there is nothing to do now.
        if removed == 0 && known.is_some() { self.trim(keep, batch) } else { Ok(removed) }
    }

    fn find_surplus(&mut self, keep: u64) -> Result<Option<Surplus>, LogError> {
        let count = i64::try_from(keep).unwrap_or(i64::MAX);
        self.run(|connection| {
            let rows = connection.query("select everpoll.surplus($1)", &[(&count, Type::INT8)])?;
            let up_to = rows.first().and_then(|row| row.get::<_, Option<i64>>(0));
            Ok(up_to.map(|up_to| Surplus { keep, up_to, connection: connection.number() }))
        })
    }

    fn remove(
        &mut self,
        max_age: Option<Duration>,
        surplus: Option<Surplus>,
        batch: u32,
    ) -> Result<u64, LogError> {
        // The driver has no type for intervals. More than a hundred years is more than the log can be old.
        let seconds = max_age.map(|age| age.as_secs_f64().min(3.2e9));
        let batch = i32::try_from(batch).unwrap_or(i32::MAX);
        let rows = self.run(|connection| {
            let surplus = surplus.filter(|surplus| surplus.connection == connection.number());
            let up_to = surplus.map(|surplus| surplus.up_to);
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
