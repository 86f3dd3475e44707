//! Retention: what goes, what is told about it, and that a log which went back is never mistaken for what it was.

use std::time::Duration;

use everpoll_log::{Log, Part, Retention, Trimmed};
use everpoll_protocol::{Cursor, Gap, GapReason, Timestamp};

use crate::common::{ALL, Store, bounds, event, ids, keep_of_all, keyed, read};

crate::on_both!(
    trimming_by_count_keeps_the_newest_and_says_what_is_gone,
    trimming_by_age_removes_what_is_older,
    trimming_nothing_changes_nothing,
    trimmed_key_may_be_published_again,
    trimmed_log_remembers_its_newest_id,
    time_cursor_is_told_when_later_events_are_gone,
    cursor_of_another_log_gets_a_gap_and_everything,
    restored_log_gives_no_id_twice_and_tells_who_saw_lost_events,
    reader_that_saw_more_than_there_is_declares_a_rift,
);

fn fill(log: &mut Log, count: usize) {
    log.publish(&vec![event("a", "1"); count]).unwrap();
}

/// Trims until nothing goes any more; returns what each call removed.
pub(crate) fn trim(log: &mut Log, part: &Part, batch: u32) -> Vec<u64> {
    let mut removed = Vec::new();
    loop {
        match log.trim(part, batch).unwrap() {
            Trimmed { removed: 0, more: false } => return removed,
            trimmed => removed.push(trimmed.removed),
        }
    }
}

fn trimming_by_count_keeps_the_newest_and_says_what_is_gone(store: &Store) {
    let mut log = store.log();
    fill(&mut log, 10);
    assert_eq!(trim(&mut log, &keep_of_all(3), 4), [4, 3]);
    assert_eq!(log.bounds().unwrap(), bounds(7, 10, 0));
    let found = read(&mut log, &["a"], Cursor::After(2));
    assert_eq!(found.gap, Some(Gap { after: 2, before: 8, reason: GapReason::Trimmed }));
    assert_eq!((ids(&found), found.after), (vec![8, 9, 10], 7));
    let found = read(&mut log, &["nobody"], Cursor::After(2));
    assert_eq!((found.gap.map(|gap| gap.before), found.next), (Some(8), 10));
    let found = read(&mut log, &["a"], Cursor::After(7));
    assert_eq!((ids(&found), found.gap), (vec![8, 9, 10], None));
    // A second series sees what came since the first.
    fill(&mut log, 2);
    assert_eq!(trim(&mut log, &keep_of_all(3), 100), [2]);
    assert_eq!(log.tail_start(ALL).unwrap(), 9);
    assert_eq!(trim(&mut log, &keep_of_all(1), 100), [2]);
}

fn trimming_by_age_removes_what_is_older(store: &Store) {
    let mut log = store.log();
    fill(&mut log, 3);
    let age = |age| Part::whole(Retention { max_age: Some(age), max_events: None });
    assert_eq!(trim(&mut log, &age(Duration::from_secs(3600)), 100), [0; 0]);
    // No time at all has passed by the server's clock, too, once it has moved on by a microsecond.
    everpoll_tests::wait::until("all are older than nothing", Duration::from_secs(5), || {
        trim(&mut log, &age(Duration::ZERO), 2);
        log.bounds().unwrap().low == 3
    });
    assert_eq!(log.bounds().unwrap(), bounds(3, 3, 0));
}

fn trimming_nothing_changes_nothing(store: &Store) {
    let mut log = store.log();
    assert_eq!(trim(&mut log, &keep_of_all(0), 10), [0; 0]);
    fill(&mut log, 3);
    assert_eq!(trim(&mut log, &keep_of_all(3), 10), [0; 0]);
    assert_eq!(trim(&mut log, &Part::whole(Retention::default()), 10), [0; 0]);
    assert_eq!(log.trim(&keep_of_all(0), 0).unwrap(), Trimmed::default());
    assert_eq!(log.trim(&keep_of_all(0), 0).unwrap(), Trimmed::default());
    assert_eq!(log.bounds().unwrap(), bounds(0, 3, 0));
}

fn trimmed_key_may_be_published_again(store: &Store) {
    let mut log = store.log();
    assert_eq!(log.publish(&[keyed("a", "k")]).unwrap(), [1]);
    assert_eq!(trim(&mut log, &keep_of_all(0), 10), [1]);
    let again = log.publish(&[keyed("a", "k")]).unwrap();
    assert!(again[0] > 1, "{again:?}");
}

fn trimmed_log_remembers_its_newest_id(store: &Store) {
    let mut log = store.log();
    fill(&mut log, 3);
    trim(&mut log, &keep_of_all(0), 10);
    assert_eq!(log.bounds().unwrap(), bounds(3, 3, 0));
    let found = read(&mut log, &["a"], Cursor::After(3));
    assert_eq!((found.gap, found.next), (None, 3));
    fill(&mut log, 1);
    assert_eq!(ids(&read(&mut log, &["a"], Cursor::After(3))), [4]);
}

fn time_cursor_is_told_when_later_events_are_gone(store: &Store) {
    let mut log = store.log();
    fill(&mut log, 3);
    let last = log.tail(0, ALL).unwrap().events[2].ts;
    trim(&mut log, &keep_of_all(1), 10);
    let found = read(&mut log, &["a"], Cursor::Since(Timestamp::from_micros(1)));
    assert_eq!(found.gap, Some(Gap { after: 0, before: 3, reason: GapReason::Trimmed }));
    assert_eq!(ids(&found), [3]);
    assert_eq!(read(&mut log, &["a"], Cursor::Since(last)).gap, None);
}

fn cursor_of_another_log_gets_a_gap_and_everything(store: &Store) {
    let mut log = store.log();
    fill(&mut log, 5);
    trim(&mut log, &keep_of_all(3), 10);
    for cursor in [6, 1 << 53, i64::MAX as u64] {
        let found = read(&mut log, &["a"], Cursor::After(cursor));
        assert_eq!(found.gap, Some(Gap { after: cursor, before: 3, reason: GapReason::Ahead }), "{cursor}");
        assert_eq!((ids(&found), found.next), (vec![3, 4, 5], 5));
    }
}

/// A backup of a log and the way to put it back.
enum Backup {
    Postgres(everpoll_tests::Dump),
    Sqlite(std::path::PathBuf),
}

fn back_up(store: &Store) -> Backup {
    match store {
        Store::Postgres(database) => Backup::Postgres(database.dump()),
        Store::Sqlite(file) => {
            let copy = file.path().with_extension("backup");
            store.sql(&format!("vacuum into '{}'", copy.display()));
            Backup::Sqlite(copy)
        }
    }
}

fn restore(store: &Store, backup: &Backup) {
    match (store, backup) {
        (Store::Postgres(database), Backup::Postgres(dump)) => database.restore(dump),
        (Store::Sqlite(file), Backup::Sqlite(copy)) => {
            for end in ["db", "db-wal", "db-shm"] {
                let _ = std::fs::remove_file(file.path().with_extension(end));
            }
            std::fs::copy(copy, file.path()).unwrap();
        }
        _ => unreachable!("the backup is of this store"),
    }
}

fn restored_log_gives_no_id_twice_and_tells_who_saw_lost_events(store: &Store) {
    let mut log = store.log();
    fill(&mut log, 3);
    let backup = back_up(store);
    fill(&mut log, 3);
    if let Store::Sqlite(_) = store {
        // The programs are stopped while a file is put back.
        drop(log);
        log = store.log();
    }
    restore(store, &backup);
    if let Store::Postgres(_) = store {
        // An application may come first.
        store.sql("select everpoll.publish('a', 't', '7')");
    }
    fill(&mut log, 1);

    let now = log.bounds().unwrap();
    assert!(now.origin > 1_000_000, "{now:?} does not come from the time");
    let lost = read(&mut log, &["a"], Cursor::After(5));
    assert_eq!(lost.gap, Some(Gap { after: 5, before: now.origin + 1, reason: GapReason::Ahead }));
    assert_eq!((ids(&lost)[0], lost.after), (now.origin + 1, now.origin));
    // Who has only seen what is in the copy has missed nothing.
    let kept = read(&mut log, &["a"], Cursor::After(3));
    assert_eq!((kept.gap, ids(&kept)), (None, ids(&lost)));
    let kept = read(&mut log, &["a"], Cursor::After(2));
    assert_eq!((kept.gap, ids(&kept)[..2].to_vec()), (None, vec![3, now.origin + 1]));
    // A window in memory begins behind the rift.
    assert_eq!(log.tail_start(ALL).unwrap(), now.origin);

    let first_life = now.newest;
    if let Store::Sqlite(_) = store {
        drop(log);
        log = store.log();
    }
    restore(store, &backup);
    fill(&mut log, 1);
    let now = log.bounds().unwrap();
    assert!(now.origin > first_life, "{now:?} reuses ids up to {first_life}");
    for cursor in [5, first_life] {
        let found = read(&mut log, &["a"], Cursor::After(cursor));
        assert_eq!(found.gap, Some(Gap { after: cursor, before: now.origin + 1, reason: GapReason::Ahead }));
        assert_eq!(ids(&found), [now.newest]);
    }
    // Nothing more happens while nothing is restored.
    assert_eq!(store.log().bounds().unwrap(), now);
}

fn reader_that_saw_more_than_there_is_declares_a_rift(store: &Store) {
    let mut log = store.log();
    fill(&mut log, 3);
    log.declare_rift(3).unwrap();
    assert_eq!(log.bounds().unwrap(), bounds(0, 3, 0));
    log.declare_rift(9).unwrap();
    let now = log.bounds().unwrap();
    assert!(now.origin > 10 && now.newest == now.origin, "{now:?}");
    // A second reader comes too late to declare it again.
    log.declare_rift(9).unwrap();
    assert_eq!(log.bounds().unwrap(), now);
    fill(&mut log, 1);
    let found = read(&mut log, &["a"], Cursor::After(9));
    assert_eq!(
        (ids(&found), found.gap.map(|gap| gap.reason)),
        (vec![now.origin + 1], Some(GapReason::Ahead))
    );
    assert_eq!(ids(&read(&mut log, &["a"], Cursor::After(1))), [2, 3, now.origin + 1]);
}
