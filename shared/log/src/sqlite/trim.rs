//! Retention, and what a reader does about a log that went back.

use std::collections::HashSet;
use std::time::SystemTime;

use everpoll_protocol::prefixes_of;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::namespaces::Namespaces;
use super::{SqliteLog, file, read, signed};
use crate::{LogError, Part, Retention, Trimmed};

/// What has to go by count. Counting reads a whole index, so it is done once for all batches, and not while publishers wait;
/// events that come meanwhile only make it keep a few more than wanted, until it is found again.
#[derive(Clone, Debug)]
pub(super) struct Surplus {
    part: Part,
    up_to: i64,
    /// How often the log had been restored. In an older copy of it, nothing may have to go.
    restores: i64,
}

/// What does not stay: what is older than this, and what is in surplus.
#[derive(Clone, Copy)]
struct Old<'a> {
    cutoff: i64,
    surplus: Option<&'a Surplus>,
}

/// How far a batch goes.
struct Walk {
    /// The first id is behind this one, and the last one is the other.
    from: i64,
    to: i64,
    /// How many events were looked at, those of other parts among them.
    looked: u32,
    /// The ids that go.
    gone: Vec<i64>,
    /// As they are afterwards.
    namespaces: Namespaces,
}

impl SqliteLog {
    pub(crate) fn trim(&mut self, part: &Part, batch: u32) -> Result<Trimmed, LogError> {
        let known = self.surplus.take().filter(|surplus| surplus.part == *part);
        let was_known = known.is_some();
        let surplus = match (known, part.keep.max_events) {
            (None, Some(count)) => self.run(|connection| Ok(find_surplus(connection, part, count)?))?,
            (known, _) => known,
        };
        let old = Old { cutoff: cutoff(&part.keep), surplus: surplus.as_ref() };
        let trimmed = self.remove(part, old, batch)?;
        // What was known may be from long ago; nothing to do means that there is nothing to do now.
        match trimmed {
            Trimmed { more: true, .. } => self.surplus = surplus,
            Trimmed { removed: 0, .. } if was_known => return self.trim(part, batch),
            Trimmed { .. } => {}
        }
        Ok(trimmed)
    }

    fn remove(&mut self, part: &Part, old: Old<'_>, batch: u32) -> Result<Trimmed, LogError> {
        self.run(|connection| {
            // Looked at without the lock first: most of the time there is nothing to do.
            let first = walk(connection, part, old, batch)?;
            if first.looked == 0 && !first.namespaces.has_new {
                return Ok(Trimmed::default());
            }
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let walk = walk(&transaction, part, old, batch)?;
            // The marks first: the trigger on events lets go only what lies below them.
            walk.namespaces.write(&transaction)?;
            transaction.execute(
                "update log set low = max(low, (select max(low) from namespaces)),
                    low_ts = max(low_ts, (select max(low_ts) from namespaces)), trims = trims + 1",
                [],
            )?;
            if walk.gone.len() == walk.looked as usize {
                transaction.execute("delete from events where id > ?1 and id <= ?2", [walk.from, walk.to])?;
            } else {
                let mut delete = transaction.prepare_cached("delete from events where id = ?1")?;
                for id in &walk.gone {
                    delete.execute([id])?;
                }
            }
            transaction.commit()?;
            Ok(Trimmed { removed: walk.gone.len() as u64, more: walk.looked > 0 && walk.looked == batch })
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

/// The newest id that has to go, so that the newest `keep` of the part's events stay.
fn find_surplus(connection: &mut Connection, part: &Part, keep: u64) -> rusqlite::Result<Option<Surplus>> {
    let snapshot = connection.transaction()?;
    let up_to = behind_newest(&snapshot, part, keep)?;
    let restores = restores(&snapshot)?;
    Ok(up_to.map(|up_to| Surplus { part: part.clone(), up_to, restores }))
}

/// The newest of the part's events behind `keep` newer ones.
fn behind_newest(connection: &Connection, part: &Part, keep: u64) -> rusqlite::Result<Option<i64>> {
    // One that counts has one prefix.
    let prefix = part.prefixes.first().map_or("", |prefix| prefix);
    let inside: HashSet<&str> =
        part.own.iter().map(AsRef::as_ref).filter(|own| own.len() > prefix.len()).collect();
    if prefix.is_empty() && inside.is_empty() {
        let sql = "select id from events order by id desc limit 1 offset ?1";
        return connection.query_row(sql, [signed(keep)], |row| row.get(0)).optional();
    }
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let mine = |row: &Row<'_>| -> rusqlite::Result<Option<i64>> {
        let name = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?);
        let is_inside = prefixes_of(&name).any(|prefix| inside.contains(prefix));
        if is_inside { Ok(None) } else { row.get(0).map(Some) }
    };
    if prefix.is_empty() {
        let mut newest = connection.prepare("select id, channel from events order by id desc")?;
        let mut ids = newest.query_map([], mine)?.filter_map(Result::transpose);
        return ids.nth(keep).transpose();
    }
    // Along the channels, since it may be a small part of the log. ';' follows ':', with which a prefix ends.
    let mut all = connection.prepare(
        "select id, channel from events
        where channel >= ?1 and channel < substr(?1, 1, length(?1) - 1) || ';' order by channel",
    )?;
    let ids = all.query_map([prefix], mine)?.filter_map(Result::transpose);
    let mut ids = ids.collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(ids.len().checked_sub(keep.saturating_add(1)).map(|place| *ids.select_nth_unstable(place).1))
}

fn restores(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("select count(*) from rifts")?.query_row([], |row| row.get(0))
}

/// What goes in this batch. Ids, not times, decide what is oldest: the first event of the part that stays keeps all that follow it.
fn walk(connection: &Connection, part: &Part, old: Old<'_>, batch: u32) -> rusqlite::Result<Walk> {
    let up_to = match old.surplus {
        Some(surplus) if surplus.restores == restores(connection)? => surplus.up_to,
        _ => 0,
    };
    let mut namespaces = Namespaces::read(connection)?.part(part);
    // Up to here, no channel of the part has any events.
    let from = namespaces.mine().map(|namespace| namespace.seen).min().unwrap_or(0);
    let mut walk = Walk { from, to: from, looked: 0, gone: Vec::new(), namespaces };
    let mut statement =
        connection.prepare_cached("select id, ts, channel from events where id > ?1 order by id limit ?2")?;
    let mut rows = statement.query(params![from, batch])?;
    while let Some(row) = rows.next()? {
        let (id, ts): (i64, i64) = (row.get(0)?, row.get(1)?);
        let channel = String::from_utf8_lossy(row.get_ref(2)?.as_bytes()?);
        if let Some(namespace) = walk.namespaces.of(&channel).filter(|namespace| namespace.is_mine) {
            if id > up_to && ts >= old.cutoff {
                break;
            }
            namespace.low = namespace.low.max(id);
            namespace.low_ts = namespace.low_ts.max(ts);
            walk.gone.push(id);
        }
        (walk.to, walk.looked) = (id, walk.looked + 1);
    }
    let to = walk.to;
    walk.namespaces.mine().for_each(|namespace| namespace.seen = namespace.seen.max(to));
    Ok(walk)
}
