//! What readers got, held against the ledger of `everpoll verify`: our tests and users have one judge.
//!
//! The publishers of some tests announce what they publish, by a *tag* that is the event's number in the ledger. For the others
//! the truth is what the log has when all is quiet: ids are given at commit, so it holds exactly what was committed.

use std::time::Duration;

use everpoll_tests::Database;
use everpoll_tests::pollers::Reading;
use everpoll_verify::{Ledger, Reader, Report};

use crate::site::Store;

/// A ledger for a test that does not ask how late events are.
pub(crate) fn ledger() -> Ledger {
    Ledger::new(Duration::MAX)
}

/// Id, channel and, where it has one, the tag of each event in the log, in order.
pub(crate) type Event = (u64, String, Option<String>);

/// All that is in the log.
pub(crate) fn events(store: &Store) -> Vec<Event> {
    match store {
        Store::Postgres(database) => events_of(database),
        Store::Sqlite(sqlite) => {
            let connection = rusqlite::Connection::open(sqlite.path()).expect("the log is there");
            let sql = "SELECT id, channel, json_extract(data, '$.tag') FROM events ORDER BY id";
            let mut select = connection.prepare(sql).expect("it has this table");
            let rows = select.query_map([], |row| Ok((id(row.get(0)?), row.get(1)?, row.get(2)?)));
            rows.and_then(Iterator::collect).expect("it can be read")
        }
    }
}

/// All that is in the log of this database.
pub(crate) fn events_of(database: &Database) -> Vec<Event> {
    let sql = "SELECT positions.id, positions.channel, events.data->>'tag' \
               FROM everpoll.positions LEFT JOIN everpoll.events ON events.row = positions.row ORDER BY positions.id";
    let rows = database.connect().query(sql, &[]).expect("the log is there");
    rows.iter().map(|row| (id(row.get(0)), row.get(1), row.get(2))).collect()
}

fn id(id: i64) -> u64 {
    u64::try_from(id).expect("ids are positive")
}

/// A ledger of these events, which nobody has announced.
pub(crate) fn ledger_of(events: &[Event]) -> Ledger {
    let ledger = ledger();
    for (id, channel, _) in events {
        ledger.found_new(ledger.channel(channel), *id);
    }
    ledger
}

/// Writes into the ledger that these announced events are in the log.
///
/// # Panics
/// When one has no tag.
#[track_caller]
pub(crate) fn find(ledger: &Ledger, events: &[Event]) {
    for event in events {
        let n = event.2.as_ref().and_then(|tag| tag.parse().ok());
        ledger.found(n.unwrap_or_else(|| panic!("nobody announced {event:?}")), event.0);
    }
}

/// Judges readers that have gone on to the end of the log. The ledger stays as it was.
///
/// # Panics
/// When one never got a reply: where it began is not known then.
#[track_caller]
pub(crate) fn judge<'a>(ledger: &Ledger, readings: impl IntoIterator<Item = &'a Reading>) -> Report {
    let ledger = ledger.clone();
    let readers: Vec<_> =
        readings.into_iter().zip(0..).map(|(reading, n)| reader(&ledger, reading, n)).collect();
    ledger.judge(readers)
}

fn reader(ledger: &Ledger, reading: &Reading, number: u32) -> Reader {
    let mut reader = Reader::new(number, reading.channels.iter().map(|name| ledger.channel(name)).collect());
    reader.place(&reading.began_after.expect("the reader got a first reply").to_string());
    for (id, channel) in &reading.events {
        ledger.deliver(&mut reader, ledger.number_of(*id), *id, channel);
    }
    reader
}

/// Whether they have all that they should have.
pub(crate) fn are_complete<'a>(ledger: &Ledger, readings: impl IntoIterator<Item = &'a Reading>) -> bool {
    judge(ledger, readings).total.lost == 0
}

/// Asserts that each event came to each of them once, and in order.
#[track_caller]
pub(crate) fn assert_kept<'a>(ledger: &Ledger, readings: impl IntoIterator<Item = &'a Reading>) {
    let report = judge(ledger, readings);
    assert!(report.kept, "{report}");
}
