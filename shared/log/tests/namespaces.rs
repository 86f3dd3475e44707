//! Namespaces that keep their events for longer or shorter: what goes of each, and what is told of it.

use std::time::Duration;

use everpoll_log::{Log, Part, Retention};
use everpoll_protocol::{Cursor, LowMarks, Timestamp};

use crate::common::{ALL, Store, channels, event, ids, keep, keep_of_all, read};
use crate::retention::trim;

crate::on_both!(
    each_namespace_keeps_what_is_set_for_it_and_tells_of_no_other,
    age_is_each_namespaces_own,
    count_is_of_the_channels_that_no_inner_namespace_has,
    namespace_that_is_new_lacks_what_was_trimmed_before,
    namespace_that_is_not_set_any_more_goes_with_what_is_around_it,
    trimming_all_alike_leaves_no_namespace_out,
    request_for_several_namespaces_is_told_of_the_one_that_lost_most,
    time_cursor_is_told_of_its_own_namespace_alone,
    rare_namespace_is_found_in_small_batches_and_not_looked_for_again,
    names_that_only_look_alike_are_not_in_the_namespace,
);

/// Everything but what is said here.
fn parts(namespaces: &[(&str, Retention)]) -> Vec<Part> {
    Part::split(Retention::default(), namespaces.iter().map(|(prefix, keep)| ((*prefix).into(), *keep)))
}

/// Trims all of them in turn; returns how many went of each.
fn trim_all(log: &mut Log, parts: &[Part]) -> Vec<u64> {
    parts.iter().map(|part| trim(log, part, 4).iter().sum()).collect()
}

/// Publishes one event on each of these, in this order, and returns the first id.
fn publish(log: &mut Log, names: &[&str]) -> u64 {
    let events: Vec<_> = names.iter().map(|name| event(name, "1")).collect();
    log.publish(&events).unwrap()[0]
}

/// What is told to somebody who asks: where the gap ends, if there is one, and the ids.
#[track_caller]
fn told(log: &mut Log, names: &[&str], after: u64) -> (Option<u64>, Vec<u64>) {
    let found = read(log, names, Cursor::After(after));
    (found.gap.map(|gap| gap.before), ids(&found))
}

/// The marks that whoever follows the log is told.
fn low_marks(log: &mut Log) -> LowMarks {
    let tail = log.tail(0, ALL).unwrap();
    let latest = log.latest(&channels(&["a"]), u64::MAX).unwrap();
    assert_eq!(tail.low_marks, latest.low_marks);
    assert_eq!(tail.bounds.low, latest.bounds.low);
    tail.low_marks
}

fn marks(marks: &[(&str, u64)]) -> LowMarks {
    LowMarks::new(marks.iter().map(|(prefix, low)| ((*prefix).into(), *low)))
}

fn each_namespace_keeps_what_is_set_for_it_and_tells_of_no_other(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["a", "shop:a", "crm:a", "shop:b", "a", "shop:a", "crm:a", "shop:b"]);
    assert_eq!(low_marks(&mut log), LowMarks::of_all(0));
    let all = parts(&[("shop:", keep(1)), ("crm:", keep(10))]);
    assert_eq!(trim_all(&mut log, &all), [3, 0]);
    assert_eq!(told(&mut log, &["shop:a"], 0), (Some(7), vec![]));
    assert_eq!(told(&mut log, &["shop:b"], 5), (Some(7), vec![8]));
    assert_eq!(told(&mut log, &["shop:b"], 6), (None, vec![8]));
    assert_eq!(told(&mut log, &["a"], 0), (None, vec![1, 5]));
    assert_eq!(told(&mut log, &["crm:a"], 0), (None, vec![3, 7]));
    assert_eq!(low_marks(&mut log), marks(&[("", 0), ("crm:", 0), ("shop:", 6)]));
    // Whoever reads all channels is told of all that is gone.
    assert_eq!(told(&mut log, &[], 3), (Some(7), vec![7, 8]));
    // The window of one who follows the log begins with the first event that there is.
    assert_eq!(log.tail_start(ALL).unwrap(), 0);
    // What another lost is no leave to remove what this one has.
    let error = store.try_sql("delete from everpoll.events where channel = 'a'").unwrap_err();
    assert!(error.contains("only by retention"), "{error}");
    // Nothing more has to go, and ids go on.
    assert_eq!(trim_all(&mut log, &all), [0, 0]);
    assert_eq!(publish(&mut log, &["shop:a"]), 9);
    assert_eq!(trim_all(&mut log, &all), [1, 0]);
    assert_eq!(told(&mut log, &["shop:b"], 8), (None, vec![]));
    assert_eq!(told(&mut log, &["shop:b"], 7), (Some(9), vec![]));
}

fn age_is_each_namespaces_own(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["a", "shop:a", "crm:a"]);
    let age = |age| Retention { max_age: Some(age), max_events: None };
    let all = parts(&[("shop:", age(Duration::ZERO)), ("crm:", age(Duration::from_secs(3600)))]);
    everpoll_tests::wait::until("it is older than nothing", Duration::from_secs(5), || {
        trim_all(&mut log, &all) == [1, 0]
    });
    assert_eq!(low_marks(&mut log), marks(&[("", 0), ("crm:", 0), ("shop:", 2)]));
    // Two of the same age are one part, and still have marks of their own.
    let all = parts(&[("shop:", age(Duration::ZERO)), ("crm:", age(Duration::ZERO))]);
    assert_eq!(all.len(), 1);
    assert_eq!(trim_all(&mut log, &all), [1]);
    assert_eq!(low_marks(&mut log), marks(&[("", 0), ("crm:", 3), ("shop:", 2)]));
    assert_eq!(told(&mut log, &["shop:a"], 2), (None, vec![]));
    assert_eq!(told(&mut log, &["crm:a"], 2), (Some(4), vec![]));
}

fn count_is_of_the_channels_that_no_inner_namespace_has(store: &Store) {
    let mut log = store.log();
    publish(
        &mut log,
        &["shop:a", "shop:eu:a", "shop:a", "shop:eu:a", "shop:us:a", "shop:eu:a", "a", "shop:a"],
    );
    let all = parts(&[("shop:", keep(2)), ("shop:eu:", keep(1))]);
    assert_eq!(trim_all(&mut log, &all), [2, 2]);
    assert_eq!(told(&mut log, &["shop:a"], 3), (None, vec![8]));
    assert_eq!(told(&mut log, &["shop:us:a"], 2), (Some(4), vec![5]));
    assert_eq!(told(&mut log, &["shop:eu:a"], 4), (None, vec![6]));
    assert_eq!(told(&mut log, &["a"], 0), (None, vec![7]));
    // The rest is counted without them.
    publish(&mut log, &["a", "b", "c"]);
    let rest = Part::split(keep(3), [("shop:".into(), Retention::default())]);
    assert_eq!(trim_all(&mut log, &rest), [1]);
    assert_eq!(told(&mut log, &["a", "b", "c"], 7), (None, vec![9, 10, 11]));
    assert_eq!(told(&mut log, &["shop:us:a", "shop:a"], 3), (None, vec![5, 8]));
}

fn namespace_that_is_new_lacks_what_was_trimmed_before(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["shop:eu:a", "shop:eu:a", "a", "shop:eu:a"]);
    assert_eq!(trim_all(&mut log, &parts(&[("shop:", keep(1))])), [2]);
    // From now on it has a mark of its own, which begins where that of the namespace around it was.
    assert_eq!(trim_all(&mut log, &parts(&[("shop:", keep(0)), ("shop:eu:", keep(5))])), [0, 0]);
    assert_eq!(low_marks(&mut log), marks(&[("", 0), ("shop:", 2), ("shop:eu:", 2)]));
    assert_eq!(told(&mut log, &["shop:eu:a"], 1), (Some(3), vec![4]));
    assert_eq!(told(&mut log, &["a"], 0), (None, vec![3]));
}

fn namespace_that_is_not_set_any_more_goes_with_what_is_around_it(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["a", "shop:a", "a", "shop:a"]);
    // The rest went on while the namespace kept all it had.
    let kept = Part::split(keep(0), [("shop:".into(), Retention::default())]);
    assert_eq!(trim_all(&mut log, &kept), [2]);
    assert_eq!(told(&mut log, &["shop:a"], 0), (None, vec![2, 4]));
    publish(&mut log, &["a", "a"]);
    assert_eq!(trim_all(&mut log, &[keep_of_all(3)]), [1]);
    assert_eq!(told(&mut log, &["shop:a"], 1), (Some(3), vec![4]));
    assert_eq!(told(&mut log, &["a"], 3), (None, vec![5, 6]));
    assert_eq!(trim_all(&mut log, &[keep_of_all(0)]), [3]);
    assert_eq!(low_marks(&mut log), marks(&[("", 6), ("shop:", 4)]));
    assert_eq!(publish(&mut log, &["shop:a"]), 7);
}

fn trimming_all_alike_leaves_no_namespace_out(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["shop:a", "a", "shop:a", "a"]);
    assert_eq!(trim_all(&mut log, &parts(&[("shop:", keep(1))])), [1]);
    // As programs do that know of no namespaces.
    match store {
        Store::Postgres(database) => {
            let removed = database.psql("select everpoll.trim(null, everpoll.surplus(1), 10)");
            assert_eq!(removed.trim(), "2");
        }
        Store::Sqlite(_) => {
            store.sql("update log set low = 3, low_ts = 3; delete from events where id <= 3");
        }
    }
    assert_eq!(told(&mut log, &["shop:a"], 2), (Some(4), vec![]));
    let low = if matches!(store, Store::Postgres(_)) { 2 } else { 3 };
    assert_eq!(low_marks(&mut log), marks(&[("", low), ("shop:", 3)]));
    assert_eq!(told(&mut log, &["a"], 1), (Some(low + 1), vec![4]));
    assert!(store.try_sql("delete from everpoll.events").is_err());
}

fn request_for_several_namespaces_is_told_of_the_one_that_lost_most(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["a", "shop:a", "crm:a", "a", "shop:a", "crm:a", "a", "crm:a"]);
    trim_all(&mut log, &parts(&[("shop:", keep(1)), ("crm:", keep(1))]));
    assert_eq!(low_marks(&mut log), marks(&[("", 0), ("crm:", 6), ("shop:", 2)]));
    assert_eq!(told(&mut log, &["a", "shop:a"], 1), (Some(3), vec![4, 5, 7]));
    assert_eq!(told(&mut log, &["a", "crm:a", "shop:a"], 2), (Some(7), vec![7, 8]));
    assert_eq!(told(&mut log, &["a", "crm:a", "shop:a"], 6), (None, vec![7, 8]));
    // A cursor of another log begins behind what is gone, too.
    assert_eq!(told(&mut log, &["shop:a"], 99), (Some(3), vec![5]));
    assert_eq!(told(&mut log, &["a"], 99), (Some(1), vec![1, 4, 7]));
}

fn time_cursor_is_told_of_its_own_namespace_alone(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["a", "shop:a", "shop:a", "a"]);
    trim_all(&mut log, &parts(&[("shop:", keep(1))]));
    let since = |log: &mut Log, names: &[&str], micros| {
        let found = read(log, names, Cursor::Since(Timestamp::from_micros(micros)));
        (found.gap.map(|gap| gap.before), ids(&found))
    };
    assert_eq!(since(&mut log, &["shop:a"], 1), (Some(3), vec![3]));
    assert_eq!(since(&mut log, &["a"], 1), (None, vec![1, 4]));
    let last = log.tail(0, ALL).unwrap().events[1].ts.micros();
    assert_eq!(since(&mut log, &["shop:a"], last), (None, vec![]));
}

fn rare_namespace_is_found_in_small_batches_and_not_looked_for_again(store: &Store) {
    let mut log = store.log();
    publish(&mut log, &["a"; 30]);
    publish(&mut log, &["rare:a"]);
    publish(&mut log, &["a"; 30]);
    let part = &parts(&[("rare:", keep(0))])[0];
    // Seven batches of others', and one that has it; all the rest was looked at once, so the next time ends at once.
    let removed = trim(&mut log, part, 4);
    assert_eq!((removed.iter().sum::<u64>(), removed.len() > 7), (1, true), "{removed:?}");
    publish(&mut log, &["a"; 3]);
    assert_eq!(trim(&mut log, part, 4), [0; 0]);
    publish(&mut log, &["a", "rare:a", "a"]);
    assert_eq!(trim(&mut log, part, 4).iter().sum::<u64>(), 1);
    assert_eq!(told(&mut log, &["rare:a"], 30), (Some(67), vec![]));
    assert_eq!(told(&mut log, &["a"], 63), (None, vec![64, 65, 67]));
}

fn names_that_only_look_alike_are_not_in_the_namespace(store: &Store) {
    let mut log = store.log();
    let names = ["a:", "a:x", "a", "a;", "a:b:x", "A:x", "a:\u{e9}", "ab:x", "a_x", "%:x", "a:%"];
    publish(&mut log, &names);
    assert_eq!(trim_all(&mut log, &parts(&[("a:", keep(0)), ("%:", keep(9)), ("a:b:", keep(7))])), [4, 0, 0]);
    let left = [3, 4, 5, 6, 8, 9, 10].to_vec();
    assert_eq!(ids(&log.tail(0, ALL).unwrap()), left);
    // Two colons are a longer name, not a wider one.
    publish(&mut log, &["b::x", "b:x"]);
    assert_eq!(trim_all(&mut log, &parts(&[("b::", keep(0))])), [1]);
    assert_eq!(told(&mut log, &["b:x"], 11), (None, vec![13]));
}
