//! Reading: what follows a cursor, in one transaction, which is one snapshot.

use everpoll_protocol::{
    Bounds, Channel, Cursor, Data, Event, Kind, LowMarks, Resume, Rift, Timestamp, WaitId,
};
use rusqlite::{Connection, OptionalExtension, Rows, Transaction, params};

use super::{SqliteLog, namespaces, signed, unsigned};
use crate::{Latest, Limit, LogError, Read};

/// The low-water marks that the last [`SqliteLog::tail`] found, which most of the time are those of the next.
#[derive(Debug)]
pub(super) struct Known {
    trims: i64,
    /// Another one is that of another file.
    origin: u64,
    low_marks: LowMarks,
}

impl SqliteLog {
    pub(crate) fn read(
        &mut self,
        channels: &[Channel],
        cursor: Cursor,
        limit: Limit,
    ) -> Result<Read, LogError> {
        self.run(|connection| {
            let snapshot = connection.transaction()?;
            let (bounds, low_ts) = bounds_of(&snapshot, channels)?;
            let resume = match cursor {
                Cursor::Now => return Ok(Read::nothing(bounds, bounds.newest)),
                Cursor::After(seen) => bounds.resume(seen, rift(&snapshot, seen)?),
                Cursor::Since(since) => resume_since(&snapshot, bounds, low_ts, since)?,
            };
            let (events, more) = collect(&snapshot, channels, resume.after, limit)?;
            Ok(Read::new(bounds, resume, events, more))
        })
    }

    pub(crate) fn tail(&mut self, after: u64, limit: Limit) -> Result<Read, LogError> {
        let known = self.known.take();
        let (read, known) = self.run(|connection| {
            let snapshot = connection.transaction()?;
            let bounds = bounds(&snapshot)?;
            let trims = snapshot
                .prepare_cached("select trims from log")?
                .query_row([], |row| row.get::<_, i64>(0))?;
            let known = known.filter(|known| known.trims == trims && known.origin == bounds.origin);
            let low_marks = match known {
                Some(known) => known.low_marks,
                None => namespaces::low_marks(&snapshot)?,
            };
            let (events, more) = collect(&snapshot, &[], after, limit)?;
            let read = Read::new(bounds, Resume { after, gap: None }, events, more);
            let known = Known { trims, origin: bounds.origin, low_marks: low_marks.clone() };
            Ok((Read { low_marks, ..read }, known))
        })?;
        self.known = Some(known);
        // Applications that insert with plain SQL do not.
        self.mark(read.bounds.newest);
        Ok(read)
    }

    pub(crate) fn tail_start(&mut self, limit: Limit) -> Result<u64, LogError> {
        self.run(|connection| {
            let snapshot = connection.transaction()?;
            let bounds = bounds(&snapshot)?;
            let mut newest = snapshot
                .prepare_cached("select id, length(cast(data as blob)) from events order by id desc")?;
            let mut rows = newest.query([])?;
            let (mut count, mut bytes, mut start) = (0, 0_u64, 0);
            while let Some(row) = rows.next()? {
                count += 1;
                bytes += unsigned(row.get(1)?);
                if count > limit.events.max(1) || bytes > limit.bytes {
                    start = unsigned(row.get(0)?);
                    break;
                }
            }
            let lowest = "select min(low) from namespaces";
            let lowest = snapshot.prepare_cached(lowest)?.query_row([], |row| Ok(unsigned(row.get(0)?)))?;
            Ok(start.max(lowest).max(bounds.origin))
        })
    }

    pub(crate) fn latest(&mut self, channels: &[Channel], up_to: u64) -> Result<Latest, LogError> {
        self.run(|connection| {
            let snapshot = connection.transaction()?;
            let mut newest = snapshot
                .prepare_cached("select coalesce(max(id), 0) from events where channel = ?1 and id <= ?2")?;
            let newest = channels.iter().map(|channel| {
                let parameters = params![channel.as_str(), signed(up_to)];
                newest.query_row(parameters, |row| Ok(unsigned(row.get(0)?)))
            });
            let ids = newest.collect::<rusqlite::Result<_>>()?;
            let low_marks = namespaces::low_marks(&snapshot)?;
            Ok(Latest { bounds: bounds(&snapshot)?, low_marks, ids })
        })
    }

    pub(crate) fn bounds(&mut self) -> Result<Bounds, LogError> {
        self.run(|connection| Ok(bounds(connection)?))
    }
}

pub(super) fn bounds(connection: &Connection) -> rusqlite::Result<Bounds> {
    let mut statement = connection.prepare_cached(
        "select low, coalesce((select max(id) from events), 0), coalesce((select max(before) - 1 from rifts), 0) from log",
    )?;
    statement.query_row([], |row| {
        let (low, newest, origin) = (unsigned(row.get(0)?), unsigned(row.get(1)?), unsigned(row.get(2)?));
        Ok(Bounds { low, newest: newest.max(low).max(origin), origin })
    })
}

/// The same with the low-water mark of these channels, and the latest time of what is gone of them; no channels means all.
fn bounds_of(connection: &Connection, channels: &[Channel]) -> rusqlite::Result<(Bounds, i64)> {
    let all = bounds(connection)?;
    if channels.is_empty() {
        let low_ts = connection.prepare_cached("select low_ts from log")?.query_row([], |row| row.get(0))?;
        return Ok((all, low_ts));
    }
    let (low, low_ts) = namespaces::low_of(connection, channels)?;
    Ok((Bounds { low: unsigned(low), ..all }, low_ts))
}

/// The rift that `seen` lies in.
fn rift(connection: &Connection, seen: u64) -> rusqlite::Result<Option<Rift>> {
    let mut statement = connection.prepare_cached(
        "select after, before from rifts where after < ?1 and before - 1 > ?1 order by before desc limit 1",
    )?;
    let rift =
        |row: &rusqlite::Row<'_>| Ok(Rift { after: unsigned(row.get(0)?), before: unsigned(row.get(1)?) });
    statement.query_row([signed(seen)], rift).optional()
}

fn resume_since(
    connection: &Connection,
    bounds: Bounds,
    low_ts: i64,
    since: Timestamp,
) -> rusqlite::Result<Resume> {
    let since = signed(since.micros());
    // Clocks are set back at times, so the event with the lowest time need not be the first; among the next hundred,
    // it is looked for.
    let first: Option<i64> = connection
        .prepare_cached("select min(id) from (select id from events where ts > ?1 order by ts limit 100)")?
        .query_row([since], |row| row.get(0))?;
    let last = first.map_or(bounds.newest, |id| unsigned(id - 1));
    Ok(bounds.resume_since(last, low_ts > since))
}

/// The events after `after` that fit, and whether there are more.
fn collect(
    snapshot: &Transaction<'_>,
    channels: &[Channel],
    after: u64,
    limit: Limit,
) -> rusqlite::Result<(Vec<Event>, bool)> {
    // Each channel gives its ids along its index, one at a time; the lowest of these is next. So nothing is read that
    // does not come out, however rare or frequent the channels are.
    let all = channels.is_empty();
    let mut statements = Vec::new();
    for _ in 0..channels.len().max(1) {
        statements.push(snapshot.prepare(if all {
            "select id from events where id > ?1 order by id"
        } else {
            "select id from events where channel = ?2 and id > ?1 order by id"
        })?);
    }
    let mut streams = Vec::new();
    for (index, statement) in statements.iter_mut().enumerate() {
        let mut rows = if all {
            statement.query([signed(after)])?
        } else {
            statement.query(params![signed(after), channels[index].as_str()])?
        };
        let head = next_id(&mut rows)?;
        streams.push((head, rows));
    }
    let mut load =
        snapshot.prepare_cached("select channel, type, data, exclude, ts from events where id = ?1")?;
    let (mut events, mut bytes) = (Vec::new(), 0_u64);
    loop {
        let lowest = streams.iter_mut().filter(|stream| stream.0.is_some()).min_by_key(|stream| stream.0);
        let Some((head, rows)) = lowest else { return Ok((events, false)) };
        let id = head.take().expect("streams that have ended were filtered out");
        if events.len() >= limit.events.max(1) as usize {
            return Ok((events, true));
        }
        let event = load.query_row([id], |row| event(id, row))?;
        bytes += event.data.as_str().len() as u64;
        if bytes > limit.bytes && !events.is_empty() {
            return Ok((events, true));
        }
        events.push(event);
        *head = next_id(rows)?;
    }
}

fn next_id(rows: &mut Rows<'_>) -> rusqlite::Result<Option<i64>> {
    rows.next()?.map(|row| row.get(0)).transpose()
}

/// SQLite does not check that text is UTF-8; what is not was inserted by an application, and is shown as well as it can.
fn event(id: i64, row: &rusqlite::Row<'_>) -> rusqlite::Result<Event> {
    let text = |column: usize| -> rusqlite::Result<String> {
        Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
    };
    let channel = text(0)?;
    let foreign =
        |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error));
    let exclude = row.get_ref(3)?.as_bytes_or_null()?.map(String::from_utf8_lossy);
    Ok(Event {
        id: unsigned(id),
        channel: Channel::parse(&channel).map_err(foreign)?,
        kind: Kind::from_log(&text(1)?),
        data: Data::from_log(text(2)?),
        exclude: exclude.and_then(|exclude| WaitId::parse(exclude.as_bytes()).ok()),
        ts: Timestamp::from_micros(unsigned(row.get(4)?)),
    })
}
