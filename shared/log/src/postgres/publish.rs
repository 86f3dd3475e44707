//! Publishing: one statement appends, which is one transaction; a second one asks for the ids that COMMIT gave.
//!
//! The ids are not asked for within the transaction: it would hold the commit lock, which all publishers need, for the
//! time that this program takes to go on.

use everpoll_protocol::{Channel, NewEvent, WaitId};
use tokio_postgres::types::Type;

use super::{Failure, PostgresLog};
use crate::LogError;

/// How often a transaction is tried that collides with others. Only keys collide.
const TRIES: usize = 5;

impl PostgresLog {
    pub(crate) fn publish(
        &mut self,
        events: &[NewEvent],
        committed: impl FnOnce(),
    ) -> Result<Vec<u64>, LogError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let appended = self.append(events)?;
        committed();
        let rows: Vec<i64> = appended.iter().map(|(row, _)| *row).collect();
        if let Some(known) = appended.iter().map(|(_, known)| *known).collect::<Option<Vec<_>>>() {
            return Ok(known);
        }
        let placed = self
            .run(|connection| connection.query("select everpoll.placed($1)", &[(&rows, Type::INT8_ARRAY)]));
        // They are in the log, but without their ids that is no full answer.
        let placed = placed.map_err(|error| LogError::OutcomeUnknown { detail: error.to_string() })?;
        let ids = appended.iter().zip(&placed).map(|((_, known), row)| {
            known.or_else(|| row.get::<_, Option<i64>>(0).and_then(|id| u64::try_from(id).ok()))
        });
        ids.collect::<Option<_>>().ok_or_else(|| LogError::OutcomeUnknown {
            detail: "the events were trimmed before their ids were read; keep events for longer".to_owned(),
        })
    }

    /// The row of each event and, where its key was known before, the id.
    fn append(&mut self, events: &[NewEvent]) -> Result<Vec<(i64, Option<u64>)>, LogError> {
        // Doing it twice is doing it once, so an unclear answer can be made clear by asking again.
        let repeatable = events.iter().all(|event| event.key.is_some());
        let mut unclear = None;
        for attempt in 1..=TRIES {
            let sent = match self.connected() {
                Ok(connection) => send(connection, events),
                Err(error) => return Err(unclear.unwrap_or(error)),
            };
            let failure = match sent {
                Ok(appended) => return Ok(appended),
                Err(failure) => failure,
            };
            let lost = matches!(failure, Failure::Lost { .. });
            let again = match () {
                () if attempt == TRIES => false,
                () if failure.is_collision() => true,
                // Once: by its goodbye, or as read-only, it said that nothing happened. Or nothing happens twice.
                () if failure.needs_new_connection() => {
                    attempt == 1 && (repeatable || !lost) && !failure.timed_out()
                }
                () => false,
            };
            if failure.needs_new_connection() {
                self.connection = None;
            }
            if !again {
                return Err(failure.into_publish_error());
            }
            if lost {
                unclear = Some(failure.into_publish_error());
            }
        }
        unreachable!("the last try returns")
    }
}

fn send(connection: &mut super::Connection, events: &[NewEvent]) -> Result<Vec<(i64, Option<u64>)>, Failure> {
    let channels: Vec<_> = events.iter().map(|event| Channel::as_str(&event.channel)).collect();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let data: Vec<_> = events.iter().map(|event| event.data.as_str()).collect();
    let keys: Vec<_> = events.iter().map(|event| event.key.as_deref()).collect();
    let excludes: Vec<_> = events.iter().map(|event| event.exclude.as_ref().map(WaitId::as_str)).collect();
    let rows = connection.query(
        "select event_row, known_id from everpoll.append($1, $2, $3, $4, $5)",
        &[
            (&channels, Type::TEXT_ARRAY),
            (&kinds, Type::TEXT_ARRAY),
            (&data, Type::TEXT_ARRAY),
            (&keys, Type::TEXT_ARRAY),
            (&excludes, Type::TEXT_ARRAY),
        ],
    )?;
    let known = |id: Option<i64>| id.and_then(|id| u64::try_from(id).ok());
    // A row is missing only if the event with the key was trimmed just now; then there is no id to tell either.
    Ok(rows.iter().map(|row| (row.get::<_, Option<i64>>(0).unwrap_or(0), known(row.get(1)))).collect())
}
