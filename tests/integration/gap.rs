//! What is gone is said: a client that missed events gets a gap record first, and then what there is.
//!
//! Nothing here may depend on who answers and how: each question is put to the daemon and to the fallback, as
//! long-poll and as short-poll, with and without envelope, and all answers must be the same.

use std::time::UNIX_EPOCH;

use everpoll_tests::http::Event;
use everpoll_tests::wait;
use serde_json::{Value, json};

use crate::site::{self, Site, Store};

/// What a client is told that asks from a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// `after`, `before` and `reason` of the gap, when there is one.
    pub(crate) gap: Option<(u64, u64, String)>,
    /// The events' ids.
    pub(crate) ids: Vec<u64>,
    /// Where the client goes on.
    pub(crate) cursor: u64,
}

impl Told {
    /// No gap, and these events.
    pub(crate) fn events(ids: &[u64], cursor: u64) -> Self {
        Self { gap: None, ids: ids.to_vec(), cursor }
    }

    /// A gap, and then these events.
    pub(crate) fn gap(after: u64, before: u64, reason: &str, ids: &[u64], cursor: u64) -> Self {
        Self { gap: Some((after, before, reason.to_owned())), ids: ids.to_vec(), cursor }
    }
}

/// Asks for what there is on `channels` after `cursor`, of whom and in which way ever, and returns the one answer.
/// There must be something to tell: nobody is held.
///
/// # Panics
/// When two answers differ.
#[track_caller]
pub(crate) fn ask(site: &Site, channels: &str, cursor: impl std::fmt::Display) -> Told {
    site.settle();
    let mut answers = Vec::new();
    for (name, address) in site.doors() {
        for flavor in ["long-poll", "short-poll"] {
            for envelope in ["", "&envelope=1"] {
                let parameters = format!("hold=20&flavor={flavor}{envelope}");
                let reply = site::poll(channels, &cursor, &parameters).send(address);
                let who = format!("{name}, {parameters}");
                assert!(!site::was_held(&reply), "{who} was held: {}", reply.text());
                if !envelope.is_empty() {
                    let cursor = reply.json()["cursor"].as_str().map(str::to_owned);
                    assert_eq!(cursor, Some(reply.cursor().to_string()), "{who}");
                }
                let told = understand(reply.events(), reply.cursor(), channels, &who);
                answers.push((who, told));
            }
        }
    }
    let (first, told) = &answers[0];
    for (who, other) in &answers {
        assert_eq!(told, other, "from {cursor}: {first} and {who} tell different things");
    }
    told.clone()
}

/// Takes a reply apart and checks the gap record.
#[track_caller]
pub(crate) fn understand(mut events: Vec<Event>, cursor: u64, channels: &str, who: &str) -> Told {
    let is_gap = |event: &Event| event.kind == "everpoll:gap";
    let gap = events.first().is_some_and(is_gap).then(|| events.remove(0));
    assert!(!events.iter().any(is_gap), "{who}: a gap comes first, once: {events:?}");
    let gap = gap.map(|gap| {
        let number = |name: &str| gap.data[name].as_u64().expect("a gap has numbers");
        let (after, before) = (number("after"), number("before"));
        assert_eq!(gap.id, before - 1, "{who}: a page that stores only ids goes on behind the gap");
        let first = channels.split(',').min();
        assert_eq!(Some(gap.channel.as_str()), first, "{who}");
        assert_eq!(gap.data.as_object().map(serde_json::Map::len), Some(3), "{who}: {:?}", gap.data);
        (after, before, gap.data["reason"].as_str().expect("a gap has a reason").to_owned())
    });
    let ids = site::ids(&events);
    assert!(ids.is_sorted() && ids.last().is_none_or(|last| *last <= cursor), "{who}: {ids:?}, {cursor}");
    Told { gap, ids, cursor }
}

/// Publishes this many events on `cheese`, one after the other, and returns their ids.
#[track_caller]
fn publish(site: &Site, count: u64) -> Vec<u64> {
    (0..count).map(|number| site.publish("cheese", &number.to_string())).collect()
}

#[test]
fn cursor_before_what_was_trimmed_gets_a_gap_and_then_what_is_left() {
    for store in Store::both() {
        let site = Site::on(store);
        let ids = publish(&site, 10);
        assert_eq!(site.store.run_well(&["trim", "--count", "3"]), "7 events removed\n");
        let low = ids[6];
        let left = &ids[7..];
        for seen in [0, 1, ids[0], ids[5], low - 1] {
            let expected = Told::gap(seen, low + 1, "trimmed", left, ids[9]);
            assert_eq!(ask(&site, "cheese", seen), expected);
        }
        // Whoever has seen the last that is gone has missed nothing.
        assert_eq!(ask(&site, "cheese", low), Told::events(left, ids[9]));
        assert_eq!(ask(&site, "cheese", ids[7]), Told::events(&ids[8..], ids[9]));
        // The gap is said whatever the channel: nobody knows any more on which channels the events were.
        assert_eq!(ask(&site, "quiet", 1), Told::gap(1, low + 1, "trimmed", &[], ids[9]));
        assert_eq!(ask(&site, "quiet,cheese", 1), Told::gap(1, low + 1, "trimmed", left, ids[9]));
        // It is said once: the cursor goes on behind it.
        let cursor = ask(&site, "cheese", 1).cursor;
        let next = site.publish("cheese", "10");
        assert_eq!(ask(&site, "cheese", cursor), Told::events(&[next], next));
    }
}

#[test]
fn gap_is_still_known_when_all_events_are_gone() {
    for store in Store::both() {
        let mut site = Site::on(store);
        let ids = publish(&site, 4);
        assert_eq!(site.store.run_well(&["trim", "--count", "0"]), "4 events removed\n");
        let last = ids[3];
        assert_eq!(ask(&site, "cheese", 1), Told::gap(1, last + 1, "trimmed", &[], last));
        // A daemon that starts on the empty log knows it as well, and ids go on where they were.
        site.daemon.stop();
        site.daemon.start_again();
        assert_eq!(ask(&site, "cheese", 1), Told::gap(1, last + 1, "trimmed", &[], last));
        assert_eq!(site.cursor("cheese"), last);
        let next = site.publish("cheese", "5");
        assert!(next > last);
        assert_eq!(ask(&site, "cheese", last), Told::events(&[next], next));
    }
}

#[test]
fn cursor_beyond_the_newest_event_gets_a_gap_and_then_the_whole_log() {
    for store in Store::both() {
        let site = Site::on(store);
        let ids = publish(&site, 5);
        site.store.run_well(&["trim", "--count", "4"]);
        let (low, newest) = (ids[0], ids[4]);
        // Only a client that has seen the newest has a place here.
        for seen in [newest + 1, newest + 1_000_000, i64::MAX as u64] {
            let expected = Told::gap(seen, low + 1, "ahead", &ids[1..], newest);
            assert_eq!(ask(&site, "cheese", seen), expected);
        }
        let next = site.publish("cheese", "6");
        assert_eq!(ask(&site, "cheese", newest), Told::events(&[next], next));
    }
}

#[test]
fn empty_log_tells_a_cursor_of_another_log_so() {
    for store in Store::both() {
        let site = Site::on(store);
        let told = ask(&site, "cheese", 434);
        assert_eq!((told.gap, told.ids), (Some((434, 1, "ahead".to_owned())), vec![]));
        let next = site.publish("cheese", "1");
        assert_eq!(ask(&site, "cheese", told.cursor), Told::events(&[next], next));
    }
}

#[test]
fn time_before_what_was_trimmed_gets_a_gap_and_later_times_get_none() {
    for store in Store::both() {
        let site = Site::on(store);
        let now = || UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs_f64();
        let start = now();
        let ids = publish(&site, 6);
        // Nothing is gone yet, so all times are fine.
        assert_eq!(ask(&site, "cheese", format!("rt-{start:.3}")), Told::events(&ids, ids[5]));
        assert_eq!(ask(&site, "cheese", "rt-0"), Told::events(&ids, ids[5]));
        site.store.run_well(&["trim", "--count", "2"]);
        let trimmed = now();
        let low = ids[3];
        let expected = Told::gap(0, low + 1, "trimmed", &ids[4..], ids[5]);
        assert_eq!(ask(&site, "cheese", format!("rt-{start:.3}")), expected);
        assert_eq!(ask(&site, "cheese", "rt-0"), expected);
        // After the slack of two seconds that every such cursor has, what was trimmed is of no concern.
        wait::until("the events are older than the slack", wait::PATIENCE, || now() > trimmed + 2.5);
        let since = format!("rt-{:.3}", now());
        let late = site.publish("cheese", "6");
        assert_eq!(ask(&site, "cheese", since), Told::events(&[late], late));
    }
}

#[test]
fn held_poll_is_not_told_of_a_gap_when_what_it_has_seen_is_trimmed() {
    for store in Store::both() {
        let site = Site::on(store);
        let ids = publish(&site, 5);
        let busy = site::hold(&site, "cheese", ids[4], "one");
        // This one has been quiet for long: its cursor is older than all that is left.
        let quiet = site::hold(&site, "quiet", ids[4], "two");
        publish(&site, 1);
        assert_eq!(busy.reply_within(site::SOON).events().len(), 1);
        assert_eq!(site.store.run_well(&["trim", "--count", "0"]), "6 events removed\n");
        let mut quiet = quiet;
        assert!(quiet.is_waiting());
        let next = site.publish("quiet", "7");
        let reply = quiet.reply_within(site::SOON);
        // It was there all the time, so it missed nothing.
        let told = understand(reply.events(), reply.cursor(), "quiet", "the held poll");
        assert_eq!(told, Told::events(&[next], next));
        assert!(site::was_held(&reply));
    }
}

#[test]
fn trim_keeps_what_its_options_or_the_settings_say() {
    for store in Store::both() {
        let site = Site::on(store);
        let ids = publish(&site, 8);
        // The settings keep seven days.
        assert_eq!(site.store.run_well(&["trim"]), "0 events removed\n");
        assert_eq!(site.store.run_well(&["trim", "--for", "1h"]), "0 events removed\n");
        assert_eq!(site.store.run_well(&["trim", "--for", "1h", "--count", "6"]), "2 events removed\n");
        assert_eq!(site.store.run_well(&["trim", "--count", "6"]), "0 events removed\n");
        assert_eq!(ask(&site, "cheese", ids[1]), Told::events(&ids[2..], ids[7]));
        // One after the other, as they come to be two seconds old.
        let mut removed = 0;
        wait::until("the events are two seconds old", wait::PATIENCE, || {
            let text = site.store.run_well(&["trim", "--for", "2s"]);
            let count = text.split(' ').next().and_then(|count| count.parse::<u32>().ok());
            removed += count.expect("the number comes first");
            removed == 6
        });
        assert_eq!(ask(&site, "cheese", ids[6]), Told::gap(ids[6], ids[7] + 1, "trimmed", &[], ids[7]));
        for arguments in [&["trim", "--count", "x"][..], &["trim", "--for", "soon"]] {
            assert_eq!(site.store.run(arguments).status.code(), Some(2), "{arguments:?}");
        }
    }
}

#[test]
fn gap_record_is_as_the_contract_has_it() {
    let site = Site::on(Store::sqlite());
    let ids = publish(&site, 3);
    site.store.run_well(&["trim", "--count", "1"]);
    site.settle();
    for (name, address) in site.doors() {
        let reply = site::poll("cheese", 1, "flavor=short-poll").send(address);
        let mut gap = reply.json()[0].clone();
        let ts = gap["ts"].take();
        assert!(ts.as_str().is_some_and(|ts| ts.len() == 24 && ts.ends_with('Z')), "{name}: {ts}");
        assert_eq!(
            gap,
            json!({"id": ids[1], "channel_id": "cheese", "ts": Value::Null, "data": {"type": "everpoll:gap",
                "data": {"after": 1, "before": ids[1] + 1, "reason": "trimmed"}}}),
            "{name}"
        );
    }
}
