//! What readers get: cursors, channels, limits.

use everpoll_log::{Latest, Limit};
use everpoll_protocol::{Channel, Cursor, LowMarks, Timestamp};

use crate::common::{ALL, Store, bounds, channels, event, ids, keep_of_all, keyed, read};

crate::on_both!(
    empty_log_has_nothing_and_says_so,
    channels_are_read_in_one_order,
    read_ends_at_either_limit,
    time_cursor_begins_behind_the_last_earlier_event,
    tail_begins_where_the_newest_fit,
    newest_event_of_each_channel_is_found_in_one_look,
);

fn empty_log_has_nothing_and_says_so(store: &Store) {
    let mut log = store.log();
    assert_eq!(log.bounds().unwrap(), bounds(0, 0, 0));
    for cursor in [Cursor::Now, Cursor::After(0), Cursor::Since(Timestamp::from_micros(1))] {
        let found = read(&mut log, &["a"], cursor);
        assert_eq!((found.after, found.next, found.more, found.gap), (0, 0, false, None));
    }
    assert_eq!(log.tail_start(ALL).unwrap(), 0);
}

fn channels_are_read_in_one_order(store: &Store) {
    let mut log = store.log();
    let events: Vec<_> = ["a", "b", "c", "a", "b", "a"].iter().map(|channel| event(channel, "0")).collect();
    log.publish(&events).unwrap();
    assert_eq!(ids(&read(&mut log, &["a", "b"], Cursor::After(1))), [2, 4, 5, 6]);
    assert_eq!(ids(&read(&mut log, &["c"], Cursor::After(0))), [3]);
    assert_eq!(ids(&read(&mut log, &["nobody"], Cursor::After(0))), [0; 0]);
    assert_eq!(read(&mut log, &["nobody"], Cursor::After(0)).next, 6);
    let now = read(&mut log, &["a"], Cursor::Now);
    assert_eq!((now.after, now.next, now.events.len()), (6, 6, 0));
}

fn read_ends_at_either_limit(store: &Store) {
    let mut log = store.log();
    let events: Vec<_> = (0..5).map(|_| event("a", "12345678")).collect();
    log.publish(&events).unwrap();
    for names in [&["a"][..], &[]] {
        let mut read = |after, events, bytes| {
            let found = log.read(&channels(names), Cursor::After(after), Limit { events, bytes }).unwrap();
            (ids(&found), found.next, found.more)
        };
        assert_eq!(read(0, 2, u64::MAX), (vec![1, 2], 2, true));
        assert_eq!(read(2, 3, u64::MAX), (vec![3, 4, 5], 5, false));
        assert_eq!(read(0, 5, 24), (vec![1, 2, 3], 3, true));
        assert_eq!(read(0, 5, 23), (vec![1, 2], 2, true));
        assert_eq!(read(3, 5, 16), (vec![4, 5], 5, false));
        // The first comes alone, however large: otherwise nobody would ever get past it.
        assert_eq!(read(0, 5, 1), (vec![1], 1, true));
        assert_eq!(read(4, 0, 0), (vec![5], 5, false));
    }
}

fn time_cursor_begins_behind_the_last_earlier_event(store: &Store) {
    let mut log = store.log();
    for _ in 0..3 {
        log.publish(&[event("a", "0")]).unwrap();
    }
    let times: Vec<_> = log.tail(0, ALL).unwrap().events.iter().map(|event| event.ts).collect();
    assert!(times.is_sorted());
    let found = read(&mut log, &["a"], Cursor::Since(times[1]));
    let later = times
        .iter()
        .position(|time| *time > times[1])
        .map_or(vec![], |first| (first as u64 + 1..4).collect());
    assert_eq!((ids(&found), found.gap), (later, None));
    let earlier = Timestamp::from_micros(times[0].micros() - 1);
    assert_eq!(ids(&read(&mut log, &["a"], Cursor::Since(earlier))), [1, 2, 3]);
    assert_eq!(read(&mut log, &["a"], Cursor::Since(times[2])).next, 3);
}

fn tail_begins_where_the_newest_fit(store: &Store) {
    let mut log = store.log();
    let events: Vec<_> = (0..5).map(|_| event("a", "12345678")).collect();
    log.publish(&events).unwrap();
    let mut start = |events, bytes| log.tail_start(Limit { events, bytes }).unwrap();
    assert_eq!(start(2, u64::MAX), 3);
    assert_eq!(start(9, u64::MAX), 0);
    assert_eq!(start(9, 16), 3);
    assert_eq!(start(9, 15), 4);
    assert_eq!(start(9, 0), 5);
    assert_eq!(ids(&log.tail(3, ALL).unwrap()), [4, 5]);
    // Ahead of the log is the caller's to notice.
    let ahead = log.tail(900, ALL).unwrap();
    assert_eq!((ahead.bounds.newest, ahead.events.len(), ahead.gap), (5, 0, None));
}

/// The planner must not read all channels' events to find those of a quiet one, believe old statistics, keep a plan from
/// when the log was small, or compile what it runs once. What it really did is in the server's log.
#[test]
fn quiet_channel_among_many_events_is_read_along_its_index() {
    let store = Store::postgres();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    database.psql(&format!(
        "alter database {0} set session_preload_libraries = 'auto_explain';
        alter database {0} set auto_explain.log_min_duration = 0;
        alter database {0} set auto_explain.log_analyze = on;
        alter database {0} set auto_explain.log_timing = off;
        alter database {0} set auto_explain.log_nested_statements = on;",
        database.name()
    ));
    let mut log = store.log();
    for _ in 0..10 {
        log.publish(&[keyed("busy", "k"), event("quiet", "1")]).unwrap();
    }
    database.psql("analyze everpoll.places, everpoll.events");
    assert_eq!(read(&mut log, &["quiet"], Cursor::After(0)).events.len(), 10);

    database.psql(
        "set session_replication_role = replica;
        insert into everpoll.events (row, channel, type, data, size) overriding system value
            select g, case g when 150000 then 'quiet' else 'busy' end, 't', '1', 1 from generate_series(1000, 200000) g;
        insert into everpoll.places select row, row, channel, size, now() from everpoll.events where row >= 1000;",
    );
    assert_eq!(ids(&read(&mut log, &["quiet"], Cursor::After(20))), [150_000]);
    assert_eq!(ids(&read(&mut log, &["quiet", "nobody"], Cursor::After(99_999))), [150_000]);
    let found =
        log.read(&channels(&["busy", "quiet"]), Cursor::After(100_000), Limit { events: 10, bytes: 99 });
    assert_eq!(ids(&found.unwrap()).last(), Some(&100_010));
    database.psql("analyze everpoll.places, everpoll.events");
    assert_eq!(ids(&read(&mut store.log(), &["quiet"], Cursor::After(20))), [150_000]);

    let written = database.postgres().log();
    let scans: Vec<_> = written.lines().filter(|line| line.contains("on places p")).collect();
    let along = |line: &&str| line.contains("Index Scan using positions_channel");
    // The first is the newest id, the last entry of its index; the second stands for "all channels".
    let harmless =
        |line: &&str| line.contains("Scan Backward using positions_pkey") || line.contains("never executed");
    assert!(scans.iter().filter(|line| along(line)).count() >= 5, "{scans:#?}");
    // Those of the publishes.
    let by_row = |line: &&str| line.contains("Index Scan using positions_row");
    let others: Vec<_> =
        scans.iter().filter(|line| !along(line) && !harmless(line) && !by_row(line)).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(!written.contains("Rows Removed by Filter: 1000") && !written.contains("JIT:"), "{written}");
    assert!(!written.contains("Seq Scan on events"), "{written}");
}

fn newest_event_of_each_channel_is_found_in_one_look(store: &Store) {
    let mut log = store.log();
    let events: Vec<_> = ["a", "b", "a", "c", "a"].iter().map(|channel| event(channel, "0")).collect();
    log.publish(&events).unwrap();
    let names = channels(&["c", "nobody", "a", "b"]);
    let mut latest = |names: &[Channel], up_to| {
        let found = log.latest(names, up_to).unwrap();
        (found.bounds, found.ids)
    };
    assert_eq!(latest(&names, 9), (bounds(0, 5, 0), vec![4, 0, 5, 2]));
    assert_eq!(latest(&names, 3), (bounds(0, 5, 0), vec![0, 0, 3, 2]));
    assert_eq!(latest(&[], 9), (bounds(0, 5, 0), vec![]));
    log.trim(&keep_of_all(2), 10).unwrap();
    let Latest { bounds: found, low_marks, ids } = log.latest(&names, 3).unwrap();
    assert_eq!((found, low_marks, ids), (bounds(3, 5, 0), LowMarks::of_all(3), vec![0, 0, 0, 0]));
}
