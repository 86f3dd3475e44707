//! What publishers are promised: all or nothing, ids in order, keys, limits.

use everpoll_log::LogError;
use everpoll_protocol::{Cursor, NewEvent};

use crate::common::{Store, bounds, event, ids, keyed, read};

crate::on_both!(
    events_come_back_as_they_were_published,
    known_key_gives_the_id_of_the_event_that_is_there,
    batch_with_a_refused_event_publishes_nothing,
    limits_are_named_when_sql_exceeds_them,
    rolled_back_transaction_publishes_nothing,
    savepoint_rolls_back_its_own_events_only,
    events_cannot_be_changed_or_removed,
);

fn events_come_back_as_they_were_published(store: &Store) {
    let mut log = store.log();
    let excluded =
        NewEvent::parse("k\u{e4}se", "gereift", "{ \"a\" : [1, \"\u{1f9c0}\"] }", Some("k"), Some("me"))
            .unwrap();
    let published = log.publish(&[event("cheese", "null"), excluded.clone(), event("cheese", "2")]).unwrap();
    assert_eq!(published, [1, 2, 3]);

    let found = read(&mut log, &[], Cursor::After(0));
    assert_eq!(ids(&found), published);
    assert_eq!(found.bounds, bounds(0, 3, 0));
    assert_eq!((found.next, found.more, found.gap), (3, false, None));
    let second = &found.events[1];
    assert_eq!(
        (&second.channel, &second.kind, &second.data),
        (&excluded.channel, &excluded.kind, &excluded.data)
    );
    assert_eq!(second.exclude, excluded.exclude);
    let age =
        std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() - u128::from(second.ts.micros());
    assert!(age < 60_000_000, "placed {age} us ago");
}

fn known_key_gives_the_id_of_the_event_that_is_there(store: &Store) {
    let mut log = store.log();
    assert_eq!(log.publish(&[keyed("a", "k"), keyed("b", "k"), keyed("a", "k")]).unwrap(), [1, 2, 1]);
    // An id may be left out, but none is given twice.
    let again = log.publish(&[event("a", "1"), keyed("a", "k"), keyed("a", "l"), keyed("a", "l")]).unwrap();
    assert_eq!(again[1], 1);
    assert!(again[0] > 2 && again[2] > again[0] && again[3] == again[2], "{again:?}");
    assert_eq!(ids(&read(&mut log, &["a"], Cursor::After(0))), [1, again[0], again[2]]);
}

fn batch_with_a_refused_event_publishes_nothing(store: &Store) {
    store.sql(match store {
        Store::Postgres(_) => {
            "create function no() returns trigger language plpgsql as $$ begin raise 'no mice'; end $$;
            create trigger no before insert on everpoll.events for each row when (new.channel = 'mice') execute function no();"
        }
        Store::Sqlite(_) => {
            "create trigger no before insert on events when new.channel = 'mice' begin select raise(abort, 'no mice'); end;"
        }
    });
    let mut log = store.log();
    let refused = log.publish(&[event("cheese", "1"), event("mice", "2")]).unwrap_err();
    assert!(
        matches!(&refused, LogError::Rejected(_)) && refused.to_string().contains("no mice"),
        "{refused:?}"
    );
    assert_eq!(read(&mut log, &[], Cursor::After(0)).events, []);
    assert_eq!(log.publish(&[event("cheese", "1")]).unwrap().len(), 1);
}

fn limits_are_named_when_sql_exceeds_them(store: &Store) {
    let long = "x".repeat(201);
    let data = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    let (largest, larger) = (data(1_048_576), data(1_048_577));
    let row = |channel: &str, kind: &str, data: &str, rest: &str| {
        let columns = if rest.is_empty() { "" } else { ", key, exclude" };
        format!(
            "insert into everpoll.events (channel, type, data{columns}) values ('{channel}', '{kind}', '{data}'{rest})"
        )
    };
    store.sql(&row("c", "t", &largest, ""));
    store.sql(&row(
        &"x".repeat(200),
        &"\u{e4}".repeat(100),
        "null",
        &format!(", '{}', '{}'", "k".repeat(200), "w".repeat(128)),
    ));
    for (statement, named) in [
        (row("c", "t", &larger, ""), "the limit is 1048576"),
        (row("", "t", "1", ""), "channel name is empty"),
        (row(&long, "t", "1", ""), "the limit is 200"),
        (row(&"\u{e4}".repeat(101), "t", "1", ""), "the limit is 200"),
        (row("a/b", "t", "1", ""), "'/' or ','"),
        (row("a,b", "t", "1", ""), "'/' or ','"),
        (row("a\u{7f}b", "t", "1", ""), "control character"),
        (row("a\u{85}b", "t", "1", ""), "control character"),
        (row("a\nb", "t", "1", ""), "control character"),
        (row("c", "", "1", ""), "type is empty"),
        (row("c", &long, "1", ""), "the limit is 200"),
        (row("c", "a\tb", "1", ""), "type contains a control character"),
        (row("c", "everpoll:gap", "1", ""), "reserved"),
        (
            row("c", "t", "{", ""),
            if matches!(store, Store::Sqlite(_)) { "data is not JSON" } else { "type json" },
        ),
        (row("c", "t", "1", ", '', null"), "key"),
        (row("c", "t", "1", &format!(", '{long}', null")), "200 bytes"),
        (row("c", "t", "1", ", null, ''"), "1 to 128 bytes"),
        (row("c", "t", "1", &format!(", null, '{long}'")), "1 to 128 bytes"),
        (row("c", "t", "1", ", null, 'a\u{1}'"), "exclude contains a control character"),
    ] {
        let error = store.try_sql(&statement).expect_err(named);
        assert!(error.contains(named), "{error} does not say {named}");
    }
    assert_eq!(read(&mut store.log(), &[], Cursor::After(0)).events.len(), 2);
}

fn rolled_back_transaction_publishes_nothing(store: &Store) {
    store.sql("begin; insert into everpoll.events (channel, type, data) values ('a', 't', '1'); rollback;");
    store.sql("begin; insert into everpoll.events (channel, type, data) values ('a', 't', '2'); commit;");
    let found = read(&mut store.log(), &[], Cursor::After(0));
    assert_eq!(found.events.len(), 1);
    assert_eq!(found.events[0].data.as_str(), "2");
}

fn savepoint_rolls_back_its_own_events_only(store: &Store) {
    store.sql(
        "begin;
        insert into everpoll.events (channel, type, data) values ('a', 't', '1');
        savepoint s;
        insert into everpoll.events (channel, type, data) values ('a', 't', '2');
        rollback to s;
        insert into everpoll.events (channel, type, data) values ('a', 't', '3');
        commit;",
    );
    let found = read(&mut store.log(), &[], Cursor::After(0));
    let data: Vec<_> = found.events.iter().map(|event| event.data.as_str()).collect();
    assert_eq!(data, ["1", "3"]);
}

fn events_cannot_be_changed_or_removed(store: &Store) {
    store.log().publish(&[event("a", "1")]).unwrap();
    for (statement, said) in [
        ("update everpoll.events set data = '2'", "never change"),
        ("delete from everpoll.events", "leave the log only by retention"),
    ] {
        let error = store.try_sql(statement).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    if let Store::Postgres(database) = store {
        let error = database.try_psql("truncate everpoll.events, everpoll.places").unwrap_err();
        assert!(error.contains("leave the log only by retention"), "{error}");
        let error = database.try_psql("delete from everpoll.places").unwrap_err();
        assert!(error.contains("leave the log only by retention"), "{error}");
    }
    assert_eq!(read(&mut store.log(), &[], Cursor::After(0)).events.len(), 1);
}
