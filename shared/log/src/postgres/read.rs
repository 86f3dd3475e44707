//! Reading: what follows a cursor, in one statement, which is one snapshot and one round trip.
//!
//! The statement looks at the narrow positions first, cuts them by number and by bytes, and only then loads the events
//! that fit.

use std::time::{Duration, SystemTime};

use everpoll_protocol::{Bounds, Channel, Cursor, Data, Event, Kind, Resume, Rift, Timestamp, WaitId};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Connection, Failure, PostgresLog};
use crate::{Limit, LogError, Read};

/// What of the log is there. `low_ts` may be -infinity and is only compared in SQL.
const BOUNDS: &str = "
    select l.low, l.low_ts, o.origin,
        greatest(coalesce((select max(id) from everpoll.positions), 0), l.low, o.origin) as newest
    from everpoll.log l, (select coalesce(max(before) - 1, 0) as origin from everpoll.rifts) o";

/// One more than wanted, so that it is known whether there is more.
const ALL_CHANNELS: &str = "
    select id, row, channel, size, ts from everpoll.positions
    where id > $1 and $6::text[] is not null order by id limit $2::bigint + 1";

/// Each channel gives its own first ones along its index; the first of these are the first of all. With a plain
/// `channel = any (…) and id > …` the planner may take the primary key instead and read all channels' events to find
/// those of a rare one; comparing rows leaves it no such way, whatever its statistics say. Both ends are rows: next to
/// `channel = …` the lower one would only be a filter.
const SOME_CHANNELS: &str = "
    select f.* from unnest($6::text[]) c (channel) cross join lateral (
        select id, row, channel, size, ts from everpoll.positions
        where (channel, id) > (c.channel, $1) and (channel, id) <= (c.channel, 9223372036854775807)
        order by channel, id limit $2::bigint + 1) f
    order by f.id limit $2::bigint + 1";

/// The steps until the start of a read stands still: cursor, then behind a gap, then behind what was trimmed meanwhile.
const STEPS: usize = 5;

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
        self.run(|connection| {
            let found = find(connection, &[], after, limit, Start { seen: after, since: None })?;
            Ok(found.into_read(after, None))
        })
    }

    pub(crate) fn tail_start(&mut self, limit: Limit) -> Result<u64, LogError> {
        let sql = format!(
            "with b as ({BOUNDS}),
            newest as (select id, size from everpoll.positions order by id desc limit $1::bigint + 1),
            sums as (select id, row_number() over w as place, sum(size) over w as total from newest window w as (order by id desc))
            select greatest(b.low, b.origin, (select max(id) from sums where place > $1 or total > $2)) from b"
        );
        self.run(|connection| {
            let parameters = (i64::from(limit.events.max(1)), signed(limit.bytes));
            let rows = connection.query(&sql, &[(&parameters.0, Type::INT8), (&parameters.1, Type::INT8)])?;
            Ok(id(one(&rows)?, 0))
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

impl Found {
    fn into_read(self, after: u64, gap: Option<everpoll_protocol::Gap>) -> Read {
        let Self { bounds, events, more, .. } = self;
        let next = events.last().filter(|_| more).map_or(bounds.newest, |event| event.id);
        Read { bounds, gap, after, events, next, more }
    }
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
        if resume.after == after {
            return Ok(found.into_read(after, resume.gap));
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
    let candidates = if channels.is_empty() { ALL_CHANNELS } else { SOME_CHANNELS };
    let sql = format!(
        "with b as materialized ({BOUNDS}),
        rift as materialized (
            select after, before from everpoll.rifts where after < $4 and before - 1 > $4 order by before desc limit 1),
        candidates as materialized ({candidates}),
        sums as materialized (
            select c.*, sum(size) over w as total, row_number() over w as place, count(*) over () as candidates
            from candidates c window w as (order by id rows unbounded preceding))
        select b.low, b.newest, b.origin, b.low_ts > $5, rift.after, rift.before,
            e.candidates, e.id, e.channel, e.type, e.data::text, e.exclude, e.ts
        from b left join rift on true left join (
            select s.id, s.channel, s.ts, s.candidates, v.type, v.data, v.exclude
            from sums s join everpoll.events v on v.row = s.row
            where s.place = 1 or s.place <= $2 and s.total <= $3) e on true
        order by e.id"
    );
    let names: Vec<&str> = channels.iter().map(Channel::as_str).collect();
    let (from, events, bytes) = (signed(after), i64::from(limit.events.max(1)), signed(limit.bytes));
    let (seen, since) = (signed(start.seen), start.since.map(system_time));
    let rows = connection.query(
        &sql,
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
    let candidates = first.get::<_, Option<i64>>(6).unwrap_or(0);
    let trimmed = first.get::<_, Option<bool>>(3).unwrap_or(false);
    let bounds = bounds_of(first);
    // Without events there is one row, of bounds alone.
    let events: Vec<_> =
        if candidates == 0 { Vec::new() } else { rows.iter().map(event).collect::<Result<_, _>>()? };
    let more = i64::try_from(events.len()).unwrap_or(i64::MAX) < candidates;
    Ok(Found { bounds, rift, trimmed, events, more })
}

fn bounds(connection: &mut Connection) -> Result<Bounds, Failure> {
    let rows = connection.query(&format!("select low, newest, origin from ({BOUNDS}) b"), &[])?;
    Ok(bounds_of(one(&rows)?))
}

/// The id before the first event that was placed after `since`, and whether earlier ones of those are gone.
fn last_before(connection: &mut Connection, since: Timestamp) -> Result<(Bounds, bool, u64), Failure> {
    // Clocks are set back at times, so the event with the lowest time need not be the first; among the next hundred,
    // it is looked for.
    let sql = format!(
        "select b.low, b.newest, b.origin, b.low_ts > $1, (select min(id) from (
            select id from everpoll.positions where ts > $1 order by ts limit 100) first)
        from ({BOUNDS}) b"
    );
    let rows = connection.query(&sql, &[(&system_time(since), Type::TIMESTAMPTZ)])?;
    let row = one(&rows)?;
    let bounds = bounds_of(row);
    let last = row.get::<_, Option<i64>>(4).map_or(bounds.newest, |_| id(row, 4) - 1);
    Ok((bounds, row.get(3), last))
}

fn bounds_of(row: &Row) -> Bounds {
    Bounds { low: id(row, 0), newest: id(row, 1), origin: id(row, 2) }
}

fn event(row: &Row) -> Result<Event, Failure> {
    let broken = |error| {
        let detail = format!(
            "event {} cannot be understood: {error}; the log was changed by another program",
            id(row, 7)
        );
        Failure::Refused(LogError::Other { detail })
    };
    let exclude = row.get::<_, Option<&str>>(11).map(|text| WaitId::parse(text.as_bytes()));
    Ok(Event {
        id: id(row, 7),
        channel: Channel::parse(row.get(8)).map_err(broken)?,
        kind: Kind::from_log(row.get(9)),
        data: Data::from_log(row.get(10)),
        exclude: exclude.transpose().map_err(broken)?,
        ts: timestamp(row.get(12)),
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

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(time.micros())
}
