//! Retention, and what a reader does about a log that went back.

use tokio_postgres::types::Type;

use super::PostgresLog;
use crate::{LogError, Part, Trimmed};

/// What has to go by count. Finding it reads as many entries of an index as are kept, so it is found once and used for
/// all batches; events that come meanwhile only make it keep a few more than wanted, until it is found again.
#[derive(Clone, Debug)]
pub(super) struct Surplus {
    part: Part,
    up_to: i64,
    /// The connection that it was found on. On another one, the log may be an older copy, of which nothing has to go.
    connection: u64,
}

impl PostgresLog {
    pub(crate) fn trim(&mut self, part: &Part, batch: u32) -> Result<Trimmed, LogError> {
        let known = self.surplus.take().filter(|surplus| surplus.part == *part);
        let was_known = known.is_some();
        let surplus = match (known, part.keep.max_events) {
            (None, Some(count)) => self.find_surplus(part, count)?,
            (known, _) => known,
        };
        let trimmed = self.remove(part, surplus.as_ref(), batch)?;
        // What was known may be from long ago; nothing to do means that there is nothing to do now.
        match trimmed {
            Trimmed { more: true, .. } => self.surplus = surplus,
            Trimmed { removed: 0, .. } if was_known => return self.trim(part, batch),
            Trimmed { .. } => {}
        }
        Ok(trimmed)
    }

    fn find_surplus(&mut self, part: &Part, keep: u64) -> Result<Option<Surplus>, LogError> {
        let count = i64::try_from(keep).unwrap_or(i64::MAX);
        let own = &*part.own;
        // One that counts has one prefix.
        let prefix = part.prefixes.first();
        self.run(|connection| {
            let rows = connection.query(
                "select everpoll.surplus($1, $2, $3)",
                &[(&own, Type::TEXT_ARRAY), (&prefix, Type::TEXT), (&count, Type::INT8)],
            )?;
            let up_to = rows.first().and_then(|row| row.get::<_, Option<i64>>(0));
            Ok(up_to.map(|up_to| Surplus { part: part.clone(), up_to, connection: connection.number() }))
        })
    }

    fn remove(&mut self, part: &Part, surplus: Option<&Surplus>, batch: u32) -> Result<Trimmed, LogError> {
        // The driver has no type for intervals. More than a hundred years is more than the log can be old.
        let seconds = part.keep.max_age.map(|age| age.as_secs_f64().min(3.2e9));
        let batch = i32::try_from(batch).unwrap_or(i32::MAX);
        let (own, prefixes) = (&*part.own, &*part.prefixes);
        let rows = self.run(|connection| {
            let surplus = surplus.filter(|surplus| surplus.connection == connection.number());
            let up_to = surplus.map(|surplus| surplus.up_to);
            connection.query(
                "select removed, more from everpoll.trim($1, $2, make_interval(secs => $3), $4, $5)",
                &[
                    (&own, Type::TEXT_ARRAY),
                    (&prefixes, Type::TEXT_ARRAY),
                    (&seconds, Type::FLOAT8),
                    (&up_to, Type::INT8),
                    (&batch, Type::INT4),
                ],
            )
        })?;
        let trimmed = |row: &tokio_postgres::Row| Trimmed {
            removed: row.get::<_, i32>(0).try_into().unwrap_or(0),
            more: row.get(1),
        };
        Ok(rows.first().map(trimmed).unwrap_or_default())
    }

    pub(crate) fn declare_rift(&mut self, seen: u64) -> Result<(), LogError> {
        let seen = i64::try_from(seen).unwrap_or(i64::MAX);
        self.run(|connection| connection.query("select everpoll.declare_rift($1)", &[(&seen, Type::INT8)]))?;
        Ok(())
    }
}
