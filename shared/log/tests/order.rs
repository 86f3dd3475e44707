//! Order: ids ascend as transactions commit, however they overlap, and nobody waits for an open one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everpoll_protocol::Cursor;
use everpoll_tests::Database;

use crate::common::{ALL, Store, event, ids, read};

crate::on_both!(reader_that_never_goes_back_misses_no_event_of_concurrent_writers);

const WRITERS: usize = 8;
const TRANSACTIONS: usize = 40;

fn reader_that_never_goes_back_misses_no_event_of_concurrent_writers(store: &Store) {
    let done = AtomicBool::new(false);
    let (published, seen) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut log, mut after, mut seen) = (store.log(), 0, Vec::new());
            loop {
                // Looked at before the read: what was committed by then is found by it.
                let last = done.load(Ordering::SeqCst);
                let found = log.tail(after, ALL).unwrap();
                seen.extend(ids(&found));
                after = found.next;
                if last {
                    return seen;
                }
            }
        });
        let writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(store, writer))).collect();
        let mut published: Vec<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::SeqCst);
        published.sort_unstable();
        (published, reader.join().unwrap())
    });
    assert_eq!(published.len(), WRITERS * TRANSACTIONS * 3);
    assert_eq!(seen, published);
}

/// Publishes several events per transaction; one in five is refused and takes its neighbours along.
fn write(store: &Store, writer: usize) -> Vec<u64> {
    let mut log = store.log();
    let channel = format!("writer-{writer}");
    let mut published = Vec::new();
    for transaction in 0..TRANSACTIONS {
        if transaction % 5 == 0 {
            let row =
                format!("insert into everpoll.events (channel, type, data) values ('{channel}', 't', '1')");
            store.sql(&format!("begin; {row}; {row}; rollback;"));
        }
        let ids = log.publish(&[event(&channel, "1"), event("all", "2"), event(&channel, "3")]).unwrap();
        assert!(ids.is_sorted());
        published.extend(ids);
    }
    assert_eq!(read(&mut log, &[&channel], Cursor::After(0)).events.len(), TRANSACTIONS * 2);
    published
}

#[test]
fn open_transaction_delays_nobody_and_gets_its_place_at_commit() {
    let store = Store::postgres();
    let mut log = store.log();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    let mut client = database.connect();
    let mut open = client.transaction().unwrap();
    open.execute("select everpoll.publish('slow', 't', '1')", &[]).unwrap();

    let start = Instant::now();
    assert_eq!(log.publish(&[event("fast", "1"), event("fast", "2")]).unwrap(), [1, 2]);
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
    assert_eq!(ids(&log.tail(0, ALL).unwrap()), [1, 2]);

    open.commit().unwrap();
    let slow = log.tail(2, ALL).unwrap();
    assert_eq!((ids(&slow), slow.events[0].channel.as_str()), (vec![3], "slow"));
}

/// Commits of some are slow: behind a synchronous standby, say.
#[test]
fn follower_gets_what_lies_before_those_who_are_committing_and_is_told_to_come_back() {
    let store = Store::postgres();
    let mut log = store.log();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    let mut client = database.connect();
    let mut slow = client.transaction().unwrap();
    slow.execute("select everpoll.publish('slow', 't', '1')", &[]).unwrap();
    log.publish(&[event("fast", "1"), event("fast", "2")]).unwrap();
    // As at its COMMIT: it has its id, and is not at its end.
    slow.batch_execute("set constraints all immediate").unwrap();
    log.publish(&[event("fast", "3")]).unwrap();

    let before = log.tail(0, ALL).unwrap();
    assert_eq!((ids(&before), before.next, before.again), (vec![1, 2], 2, true));
    // Nobody knows yet what becomes of 3.
    let nothing = log.tail(2, ALL).unwrap();
    assert_eq!((ids(&nothing), nothing.next, nothing.again), (vec![], 2, true));
    slow.commit().unwrap();
    assert_eq!(ids(&log.tail(2, ALL).unwrap()), [3, 4]);
}

#[test]
fn two_publishers_of_the_same_keys_in_other_orders_both_succeed() {
    use crate::common::keyed;
    let store = Store::postgres();
    let count = 60;
    let publish = |reverse: bool| {
        let mut log = store.log();
        let mut all = Vec::new();
        for round in 0..10 {
            let mut events: Vec<_> = (0..count).map(|key| keyed("c", &format!("{round}-{key}"))).collect();
            if reverse {
                events.reverse();
            }
            let mut ids = log.publish(&events).unwrap();
            if reverse {
                ids.reverse();
            }
            all.push(ids);
        }
        all
    };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| publish(false));
        let two = scope.spawn(|| publish(true));
        (one.join().unwrap(), two.join().unwrap())
    });
    assert_eq!(one, two);
    assert_eq!(read(&mut store.log(), &["c"], Cursor::After(0)).events.len(), 10 * count);
}

/// The cursor of a page must be neither above nor below what its data shows, whatever the isolation level.
#[test]
fn cursor_belongs_to_the_snapshot_that_it_is_read_in() {
    let store = Store::postgres();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    let mut log = store.log();
    log.publish(&[event("a", "1")]).unwrap();
    let (mut one, mut two) = (database.connect(), database.connect());
    let mut repeatable =
        one.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start().unwrap();
    let mut committed = two.transaction().unwrap();
    let mut cursors = |repeatable: &mut postgres::Transaction<'_>| {
        let sql = "select everpoll.cursor(), (select max(id) from everpoll.positions)";
        let pair = |row: postgres::Row| (row.get::<_, i64>(0), row.get::<_, i64>(1));
        (pair(repeatable.query_one(sql, &[]).unwrap()), pair(committed.query_one(sql, &[]).unwrap()))
    };
    assert_eq!(cursors(&mut repeatable), ((1, 1), (1, 1)));
    log.publish(&[event("a", "2")]).unwrap();
    assert_eq!(cursors(&mut repeatable), ((1, 1), (2, 2)));
    // It may publish all the same, and its event comes behind what it could not see.
    repeatable.execute("select everpoll.publish('a', 't', '3')", &[]).unwrap();
    repeatable.commit().unwrap();
    let found = read(&mut log, &["a"], Cursor::After(1));
    assert_eq!(found.events.iter().map(|event| event.data.as_str()).collect::<Vec<_>>(), ["2", "3"]);
}

#[test]
fn published_event_is_no_event_when_its_key_is_known() {
    let database = Database::shared();
    let store = Store::Postgres(database);
    store.log().migrate().unwrap();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    let publish = "select everpoll.publish('a', 't', '1', key => 'k', exclude => 'w')";
    assert_eq!(database.psql(publish), "t\n");
    assert_eq!(database.psql(publish), "f\n");
    let found = read(&mut store.log(), &["a"], Cursor::After(0));
    assert_eq!(found.events.len(), 1);
    assert_eq!(found.events[0].exclude.as_ref().map(|id| id.as_str()), Some("w"));
}
