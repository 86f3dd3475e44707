use everpoll_protocol::{Data, Event, Kind};

use super::*;

fn record(id: u64, channel: &str) -> Arc<Record> {
    Arc::new(Record::from(&Event {
        id,
        channel: Channel::parse(channel).unwrap(),
        kind: Kind::parse("made").unwrap(),
        data: Data::parse("1").unwrap(),
        ts: Timestamp::from_micros(id * 1_000_000),
        exclude: None,
    }))
}

fn channels(names: &str) -> Channels {
    Channels::parse_segment(names.as_bytes()).unwrap()
}

fn since(seconds: u64) -> Cursor {
    Cursor::Since(Timestamp::from_micros(seconds * 1_000_000))
}

fn look(window: &Window, channels: &Channels, cursor: Cursor) -> Look {
    window.look(channels, cursor, false)
}

fn ids(look: Look) -> Option<(Vec<u64>, u64)> {
    match look {
        Look::Found(page) => Some((page.records.iter().map(|record| record.id).collect(), page.next)),
        Look::Miss => None,
    }
}

fn filled(bytes_max: usize, floor: u64) -> Window {
    let mut window = Window::new(bytes_max, floor);
    window.filled();
    window
}

/// Events 11 to 14 of a log of which 1 to 10 are not in memory; room for three.
fn window() -> Window {
    let mut window = filled(3 * cost(&record(11, "a")), 10);
    window.append(vec![record(11, "a"), record(12, "b"), record(13, "a"), record(14, "b")], 14);
    window
}

/// All events up to `low` are gone from the log.
fn trim(window: &mut Window, low: u64) {
    window.bound(&Bounds { low, newest: 17, origin: 0 }, &LowMarks::of_all(low));
}

#[test]
fn cursor_in_the_window_is_served_from_memory() {
    let window = window();
    assert_eq!(ids(look(&window, &channels("a"), Cursor::After(11))), Some((vec![13], 14)));
    assert_eq!(ids(look(&window, &channels("a,b"), Cursor::After(12))), Some((vec![13, 14], 14)));
    assert_eq!(ids(look(&window, &channels("c"), Cursor::After(14))), Some((vec![], 14)));
    assert_eq!(ids(look(&window, &channels("a"), Cursor::Now)), Some((vec![], 14)));
}

#[test]
fn window_that_is_being_filled_knows_nothing() {
    let mut window = Window::new(usize::MAX, 0);
    for _ in 0..2 {
        for cursor in [Cursor::Now, Cursor::After(0), Cursor::After(1), since(0)] {
            assert_eq!(window.look(&channels("a"), cursor, false), Look::Miss);
        }
        window.reset(0);
        window.append(vec![record(1, "a"), record(2, "a")], 2);
    }
    window.reset(0);
    window.append(vec![record(1, "a")], 1);
    window.filled();
    assert_eq!(ids(window.look(&channels("a"), Cursor::Now, false)), Some((vec![], 1)));
    window.reset(7);
    assert_eq!(ids(window.look(&channels("a"), Cursor::Now, false)), Some((vec![], 7)));
}

#[test]
fn cursor_outside_the_window_is_a_miss() {
    let window = window();
    assert_eq!(look(&window, &channels("c"), Cursor::After(10)), Look::Miss);
    assert_eq!(look(&window, &channels("c"), Cursor::After(15)), Look::Miss);
    assert_eq!(look(&window, &channels("c"), since(11)), Look::Miss);
}

#[test]
fn cursor_before_what_was_trimmed_is_a_miss_unless_the_poll_was_held_all_the_time() {
    let mut window = window();
    trim(&mut window, 13);
    assert_eq!(look(&window, &channels("b"), Cursor::After(12)), Look::Miss);
    assert_eq!(look(&window, &channels("b"), since(12)), Look::Miss);
    assert_eq!(ids(window.look(&channels("b"), Cursor::After(12), true)), Some((vec![14], 14)));
    assert_eq!(ids(look(&window, &channels("b"), Cursor::After(13))), Some((vec![14], 14)));
}

#[test]
fn cursor_from_before_a_restore_is_a_miss_also_on_a_quiet_channel() {
    let mut window = window();
    window.bound(&Bounds { low: 0, newest: 14, origin: 10 }, &LowMarks::default());
    let page = Page { next: 14, records: vec![record(3, "c")], ..Page::default() };
    window.learn(&channels("c"), Cursor::After(2), &page, &LowMarks::default());
    for held in [false, true] {
        assert_eq!(window.look(&channels("c"), Cursor::After(7), held), Look::Miss);
    }
}

#[test]
fn newest_event_below_the_window_answers_all_who_have_seen_it() {
    let mut window = window();
    let base = window.base().unwrap();
    let (c, d) = (channels("c"), channels("d"));
    let both = channels("c,d");
    let bounds = Bounds { low: 2, newest: 14, origin: 0 };
    let latest = Latest { bounds, low_marks: LowMarks::of_all(2), ids: vec![7, 0] };
    window.learn_latest(base, both.as_slice(), &latest);
    assert_eq!(look(&window, &c, Cursor::After(6)), Look::Miss);
    assert_eq!(ids(look(&window, &c, Cursor::After(7))), Some((vec![], 14)));
    assert_eq!(ids(look(&window, &d, Cursor::After(2))), Some((vec![], 14)));
    // What was trimmed before is not among the newest.
    assert_eq!(look(&window, &d, Cursor::After(1)), Look::Miss);
    // Meanwhile events have left the window, or it has begun again: perhaps some of that channel.
    let mut later = self::window();
    later.append(vec![record(15, "c"), record(16, "a"), record(17, "a"), record(18, "a")], 18);
    later.learn_latest(base, both.as_slice(), &latest);
    assert_eq!(look(&later, &c, Cursor::After(7)), Look::Miss);
    let mut begun_again = self::window();
    begun_again.reset(base.floor);
    begun_again.learn_latest(base, both.as_slice(), &latest);
    assert_eq!(look(&begun_again, &c, Cursor::After(7)), Look::Miss);
}

#[test]
fn evicted_channel_is_known_to_be_quiet_since() {
    let mut window = window();
    window.append(vec![record(15, "b"), record(16, "b"), record(17, "b")], 17);
    // 13 was the last of channel a, and was thrown out.
    assert_eq!(ids(look(&window, &channels("a"), Cursor::After(13))), Some((vec![], 17)));
    assert_eq!(look(&window, &channels("a"), Cursor::After(12)), Look::Miss);
    assert_eq!(ids(look(&window, &channels("a"), since(13))), Some((vec![], 17)));
}

#[test]
fn channel_that_was_looked_up_is_not_looked_up_again() {
    let mut window = window();
    let nothing = Page { next: 14, ..Page::default() };
    window.learn(&channels("c"), Cursor::After(3), &nothing, &LowMarks::default());
    assert_eq!(ids(look(&window, &channels("c"), Cursor::After(3))), Some((vec![], 14)));
    assert_eq!(ids(look(&window, &channels("c"), Cursor::After(5))), Some((vec![], 14)));
    assert_eq!(look(&window, &channels("c"), Cursor::After(2)), Look::Miss);
    assert_eq!(look(&window, &channels("c,d"), Cursor::After(3)), Look::Miss);
    window.learn(&channels("d"), since(4), &nothing, &LowMarks::default());
    window.append(vec![record(15, "d")], 15);
    assert_eq!(ids(look(&window, &channels("d"), since(5))), Some((vec![15], 15)));
    assert_eq!(look(&window, &channels("d"), since(3)), Look::Miss);
}

#[test]
fn read_that_did_not_reach_the_end_teaches_nothing() {
    let mut window = window();
    let page = Page { next: 5, more: true, records: vec![record(5, "c")], gap: None };
    window.learn(&channels("c"), Cursor::After(3), &page, &LowMarks::default());
    assert_eq!(look(&window, &channels("c"), Cursor::After(5)), Look::Miss);
    window.learn(
        &channels("c"),
        Cursor::After(3),
        &Page { next: 9, more: false, ..page },
        &LowMarks::default(),
    );
    assert_eq!(look(&window, &channels("c"), Cursor::After(5)), Look::Miss);
}

#[test]
fn time_before_what_was_trimmed_is_a_miss_although_the_channel_is_quiet() {
    let mut window = window();
    let nothing = Page { next: 14, ..Page::default() };
    window.learn(&channels("c"), since(4), &nothing, &LowMarks::default());
    assert_eq!(ids(look(&window, &channels("c"), since(5))), Some((vec![], 14)));
    trim(&mut window, 9);
    assert_eq!(look(&window, &channels("c"), since(5)), Look::Miss);
    // Once it was looked up again.
    window.learn(&channels("c"), since(9), &nothing, &LowMarks::of_all(9));
    assert_eq!(ids(look(&window, &channels("c"), since(9))), Some((vec![], 14)));
    // Channel a was quiet when 13 was thrown out; what went later went from other channels.
    window.append(vec![record(15, "b"), record(16, "b"), record(17, "b")], 17);
    trim(&mut window, 13);
    assert_eq!(ids(look(&window, &channels("a"), since(13))), Some((vec![], 17)));
    trim(&mut window, 14);
    assert_eq!(look(&window, &channels("a"), since(13)), Look::Miss);
}

#[test]
fn cursor_before_what_was_trimmed_of_another_namespace_needs_no_look() {
    let mut window = window();
    let marks = [("".into(), 3), ("shop:".into(), 12)];
    window.bound(&Bounds { low: 12, newest: 14, origin: 0 }, &LowMarks::new(marks));
    let after = |names: &str, id| look(&window, &channels(names), Cursor::After(id));
    assert_eq!(ids(after("a", 11)), Some((vec![13], 14)));
    assert_eq!(after("shop:a", 11), Look::Miss);
    assert_eq!(ids(after("shop:a", 12)), Some((vec![], 14)));
    assert_eq!(after("a,shop:a", 11), Look::Miss);
    // Before all that was trimmed, of whatever namespace, it depends on what is known of the channel.
    let nothing = Page { next: 14, ..Page::default() };
    let before = window.low_marks().clone();
    window.learn(&channels("quiet"), since(4), &nothing, &before);
    assert_eq!(ids(look(&window, &channels("quiet"), since(5))), Some((vec![], 14)));
    window.bound(
        &Bounds { low: 13, newest: 14, origin: 0 },
        &LowMarks::new([("".into(), 3), ("shop:".into(), 13)]),
    );
    assert_eq!(ids(look(&window, &channels("quiet"), since(5))), Some((vec![], 14)));
    window.bound(
        &Bounds { low: 13, newest: 14, origin: 0 },
        &LowMarks::new([("".into(), 4), ("shop:".into(), 13)]),
    );
    assert_eq!(look(&window, &channels("quiet"), since(5)), Look::Miss);
}

#[test]
fn time_is_found_although_the_clock_stepped_back() {
    let mut window = filled(usize::MAX, 0);
    let mut stepped = Record::from(&Event {
        id: 2,
        channel: Channel::parse("a").unwrap(),
        kind: Kind::parse("made").unwrap(),
        data: Data::parse("1").unwrap(),
        ts: Timestamp::from_micros(500_000),
        exclude: None,
    });
    stepped.id = 2;
    window.append(vec![record(1, "a"), Arc::new(stepped), record(3, "a")], 3);
    assert_eq!(ids(look(&window, &channels("a"), since(0))), Some((vec![1, 2, 3], 3)));
    assert_eq!(ids(look(&window, &channels("a"), since(1))), Some((vec![3], 3)));
    assert_eq!(ids(look(&window, &channels("a"), since(3))), Some((vec![], 3)));
}

#[test]
fn page_ends_at_a_thousand_events() {
    let mut window = filled(usize::MAX, 0);
    window.append((1..=1500).map(|id| record(id, if id % 2 == 0 { "a" } else { "b" })).collect(), 1500);
    let Look::Found(page) = look(&window, &channels("a,b"), Cursor::After(0)) else { panic!() };
    assert_eq!((page.records.len(), page.next, page.more), (1000, 1000, true));
}
