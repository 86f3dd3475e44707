//! Reading: what follows a cursor, in one statement, which is one snapshot and one round trip.
//!
//! The statements are functions of the log's schema, where PostgreSQL keeps their plans. That of a read looks at the narrow
//! positions first, cuts them by number and by bytes, and only then loads the events that fit.

use std::time::{Duration, SystemTime};

use everpoll_protocol::{
    Bounds, Channel, Cursor, Data, Event, Kind, LowMarks, Resume, Rift, Timestamp, WaitId,
};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Connection, Failure, PostgresLog};
use crate::{Latest, Limit, LogError, Read};

/// The steps until the start of a read stands still: cursor, then behind a gap, then behind what was trimmed meanwhile.
const STEPS: usize = 5;

/// The low-water marks that the last [`PostgresLog::tail`] found, which most of the time are those of the next.
#[derive(Debug)]
pub(super) struct Known {
    version: Version,
    low_marks: LowMarks,
}

/// Of what the marks are: on another connection, or behind another origin, it is perhaps another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    connection: u64,
    origin: u64,
    trims: i64,
}

impl PostgresLog {
    pub(crate) fn read(
        &mut self,
        channels: &[Channel],
        cursor: Cursor,
        limit: Limit,
    ) -> Result<Read, LogError> {
        self.run(|connection| match cursor {
            Cursor::Now => bounds(connection).map(|bounds| Read::nothing(bounds, bounds.newest)),
            Cursor::After(seen) => {
                settle(connection, channels, limit, seen, Start { seen, since: None }, |found| {
                    found.bounds.resume(seen, found.rift)
                })
            }
            Cursor::Since(since) => {
                let (bounds, trimmed, last) = last_before(connection, since)?;
                let after = bounds.resume_since(last, trimmed).after;
                settle(connection, channels, limit, after, Start { seen: 0, since: Some(since) }, |found| {
                    found.bounds.resume_since(last, found.trimmed)
                })
            }
        })
    }

    pub(crate) fn tail(&mut self, after: u64, limit: Limit) -> Result<Read, LogError> {
        let (from, events, bytes) = (signed(after), i64::from(limit.events.max(1)), signed(limit.bytes));
        let known = self.known.take();
        let (read, known) = self.run(|connection| {
            let rows = connection.query(
                "select * from everpoll.tail($1, $2, $3)",
                &[(&from, Type::INT8), (&events, Type::INT8), (&bytes, Type::INT8)],
            )?;
            let first = one(&rows)?;
            let (bounds, again) = (bounds_of(first), first.get(3));
            let version =
                Version { connection: connection.number(), origin: bounds.origin, trims: first.get(11) };
            let low_marks = match &known {
                Some(known) if known.version == version => known.low_marks.clone(),
                // Later ones only tell of a gap where events are in memory still.
                _ => low_marks_of(
                    one(&connection.query("select prefixes, lows from everpoll.marks", &[])?)?,
                    0,
                ),
            };
            let (events, more) = events_of(&rows, 4)?;
            let read = Read::new(bounds, Resume { after, gap: None }, events, more);
            let known = Known { version, low_marks: low_marks.clone() };
            Ok((Read { low_marks, again, ..read }, known))
        })?;
        self.known = Some(known);
        Ok(read)
    }

    pub(crate) fn tail_start(&mut self, limit: Limit) -> Result<u64, LogError> {
        let sql = "with b as (select * from everpoll.bounds()),
            newest as (select id, size from everpoll.places where id <= (select newest from b) order by id desc limit $1::bigint + 1),
            sums as (select id, row_number() over w as place, sum(size) over w as total from newest window w as (order by id desc))
            select greatest((select min(low) from everpoll.namespaces), b.origin, (select max(id) from sums where place > $1 or total > $2)) from b";
        self.run(|connection| {
            let parameters = (i64::from(limit.events.max(1)), signed(limit.bytes));
            let rows = connection.query(sql, &[(&parameters.0, Type::INT8), (&parameters.1, Type::INT8)])?;
            Ok(id(one(&rows)?, 0))
        })
    }

    pub(crate) fn latest(&mut self, channels: &[Channel], up_to: u64) -> Result<Latest, LogError> {
        // The outer join: without channels, there is a row for the bounds.
        let sql = "select b.low, b.newest, b.origin, m.prefixes, m.lows, c.name is not null,
              coalesce((select max(p.id) from everpoll.places p where p.channel = c.name and p.id <= $2), 0)
            from everpoll.bounds() b cross join everpoll.marks m left join unnest($1) with ordinality c(name, place) on true order by c.place";
        let (names, up_to): (Vec<&str>, _) = (channels.iter().map(Channel::as_str).collect(), signed(up_to));
        self.run(|connection| {
            let rows = connection.query(sql, &[(&names, Type::TEXT_ARRAY), (&up_to, Type::INT8)])?;
            let first = one(&rows)?;
            let bounds = bounds_of(first);
            let ids = rows.iter().filter(|row| row.get(5)).map(|row| id(row, 6)).collect();
            Ok(Latest { bounds, low_marks: low_marks_of(first, 3), ids })
        })
    }

    pub(crate) fn bounds(&mut self) -> Result<Bounds, LogError> {
        self.run(bounds)
    }
}

/// What a read compares its findings with.
#[derive(Clone, Copy)]
struct Start {
    /// The client's cursor, which may lie in a rift.
    seen: u64,
    /// The client's cursor, if it is a time.
    since: Option<Timestamp>,
}

/// What one statement found.
struct Found {
    bounds: Bounds,
    rift: Option<Rift>,
    /// Whether events after `since` are gone.
    trimmed: bool,
    events: Vec<Event>,
    more: bool,
}

/// Reads from `after`, and again from where the snapshot says that reading must begin, until both agree.
fn settle(
    connection: &mut Connection,
    channels: &[Channel],
    limit: Limit,
    mut after: u64,
    start: Start,
    resume: impl Fn(&Found) -> Resume,
) -> Result<Read, Failure> {
    for _ in 0..STEPS {
        let found = find(connection, channels, after, limit, start)?;
        let resume = resume(&found);
        // What is gone is gone from this snapshot as well, so most of the time nothing was read that must not be.
        let is_whole = |found: &Found| found.events.first().is_none_or(|first| first.id > resume.after);
        if resume.after == after || resume.after > after && is_whole(&found) {
            return Ok(Read::new(found.bounds, resume, found.events, found.more));
        }
        after = resume.after;
    }
    // Only a trimmer that is faster than the reader comes here, and only for as long as it is.
    let detail = "events are trimmed faster than they can be read; keep them for longer".to_owned();
    Err(Failure::Refused(LogError::Unavailable { detail }))
}

/// One statement: bounds, the rift that the cursor lies in, and the events after `after`.
fn find(
    connection: &mut Connection,
    channels: &[Channel],
    after: u64,
    limit: Limit,
    start: Start,
) -> Result<Found, Failure> {
    let names: Vec<&str> = channels.iter().map(Channel::as_str).collect();
    let (from, events, bytes) = (signed(after), i64::from(limit.events.max(1)), signed(limit.bytes));
    let (seen, since) = (signed(start.seen), start.since.map(system_time));
    let rows = connection.query(
        "select * from everpoll.read($1, $2, $3, $4, $5, $6)",
        &[
            (&from, Type::INT8),
            (&events, Type::INT8),
            (&bytes, Type::INT8),
            (&seen, Type::INT8),
            (&since, Type::TIMESTAMPTZ),
            (&names, Type::TEXT_ARRAY),
        ],
    )?;
    let first = one(&rows)?;
    let rift = first.get::<_, Option<i64>>(4).map(|_| Rift { after: id(first, 4), before: id(first, 5) });
    let trimmed = first.get::<_, Option<bool>>(3).unwrap_or(false);
    let bounds = bounds_of(first);
    let (events, more) = events_of(&rows, 6)?;
    Ok(Found { bounds, rift, trimmed, events, more })
}

/// The events, which begin in the column after that of the candidates; and whether a limit left out some of these.
fn events_of(rows: &[Row], candidates: usize) -> Result<(Vec<Event>, bool), Failure> {
    // Without events there is one row, of bounds alone.
    let count = rows.first().and_then(|row| row.get::<_, Option<i64>>(candidates)).unwrap_or(0);
    if count == 0 {
        return Ok((Vec::new(), false));
    }
    let events = rows.iter().map(|row| event(row, candidates + 1)).collect::<Result<Vec<_>, _>>()?;
    let more = i64::try_from(events.len()).unwrap_or(i64::MAX) < count;
    Ok((events, more))
}

fn bounds(connection: &mut Connection) -> Result<Bounds, Failure> {
    let rows = connection.query("select * from everpoll.bounds()", &[])?;
    Ok(bounds_of(one(&rows)?))
}

/// The id before the first event that was placed after `since`, and whether earlier ones of those are gone.
fn last_before(connection: &mut Connection, since: Timestamp) -> Result<(Bounds, bool, u64), Failure> {
    let rows = connection
        .query("select * from everpoll.first_since($1)", &[(&system_time(since), Type::TIMESTAMPTZ)])?;
    let row = one(&rows)?;
    let bounds = bounds_of(row);
    let last = row.get::<_, Option<i64>>(4).map_or(bounds.newest, |_| id(row, 4) - 1);
    Ok((bounds, row.get(3), last))
}

fn bounds_of(row: &Row) -> Bounds {
    Bounds { low: id(row, 0), newest: id(row, 1), origin: id(row, 2) }
}

/// The low-water marks in two columns from this one on.
fn low_marks_of(row: &Row, column: usize) -> LowMarks {
    // Nulls in a dump without data.
    let prefixes: Vec<&str> = row.get::<_, Option<_>>(column).unwrap_or_default();
    let lows: Vec<i64> = row.get::<_, Option<_>>(column + 1).unwrap_or_default();
    let lows = lows.into_iter().map(|low| low.try_into().unwrap_or(0));
    LowMarks::new(prefixes.into_iter().map(Into::into).zip(lows))
}

/// An event whose columns begin at `column`.
fn event(row: &Row, column: usize) -> Result<Event, Failure> {
    let number = id(row, column);
    let broken = |error| {
        let detail =
            format!("event {number} cannot be understood: {error}; the log was changed by another program");
        Failure::Refused(LogError::Other { detail })
    };
    let exclude = row.get::<_, Option<&str>>(column + 4).map(|text| WaitId::parse(text.as_bytes()));
    Ok(Event {
        id: number,
        channel: Channel::parse(row.get(column + 1)).map_err(broken)?,
        kind: Kind::from_log(row.get(column + 2)),
        data: Data::from_log(row.get(column + 3)),
        exclude: exclude.transpose().map_err(broken)?,
        ts: row.get::<_, SystemTime>(column + 5).into(),
    })
}

fn one(rows: &[Row]) -> Result<&Row, Failure> {
    // Only a dump without data has none.
    rows.first().ok_or(Failure::NoLog)
}

/// Ids are positive in the database: the sequence begins at 1.
fn id(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).try_into().unwrap_or(0)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(time.micros())
}
