//! Publishing, by each way that there is: what was published arrives, once; what was not, does not.

use everpoll_tests::http;
use serde_json::json;

use crate::site::{self, Site, Store};
use crate::ways::{Draft, Way, insert};

/// Runs `test` with each log and each way into it.
fn by_each_way(test: fn(&Site, Way, &str)) {
    for store in Store::both() {
        let site = Site::with_few_rights(store, &[]);
        for (number, way) in Way::into(&site.store).iter().enumerate() {
            // A channel for each, so that they do not see each other.
            test(&site, *way, &format!("cheese-{number}"));
        }
    }
}

#[test]
fn event_reaches_a_held_poll_whichever_way_it_is_published() {
    by_each_way(|site, way, channel| {
        let cursor = site.cursor(channel);
        let held = site::hold(site, channel, cursor, channel);
        let data = r#"{"name":"Gru\u00fcyère", "holes": null}"#;
        let id = way.publish_well(site, Draft { kind: "cheese_created", ..Draft::new(channel, data) });
        let reply = held.reply_within(site::SOON);
        let [event] = &reply.events()[..] else { panic!("{way}: {}", reply.text()) };
        assert_eq!((event.channel.as_str(), event.kind.as_str()), (channel, "cheese_created"), "{way}");
        assert_eq!(event.data, json!({"name": "Gruüyère", "holes": null}), "{way}");
        assert!(event.id > cursor && id.is_none_or(|id| id == event.id), "{way}: {id:?} and {event:?}");
        assert!(site::was_held(&reply) && reply.reconnect_in() == 0, "{way}: {reply:?}");
        // The fallback has the same event under the same id, and it was the only one.
        let (events, last) = site::collect(site.door(1), channel, cursor, 1);
        assert_eq!(site::ids(&events), [event.id], "{way}");
        assert_eq!(poll_short(site, 0, channel, last), poll_short(site, 1, channel, last), "{way}");
    });
}

/// The ids that one of the doors has after `cursor`.
fn poll_short(site: &Site, door: usize, channel: &str, cursor: u64) -> Vec<u64> {
    site::ids(&site::poll(channel, cursor, "flavor=short-poll").send(site.door(door)).events())
}

#[test]
fn batch_of_a_thousand_reaches_a_held_poll_in_order() {
    for store in Store::both() {
        let site = Site::with_few_rights(store, &[]);
        for number in 0..2 {
            let channel = format!("cheese-{number}");
            let cursor = site.cursor(&channel);
            let held = site::hold(&site, &channel, cursor, "page");
            let events: Vec<_> = (0..1000).map(|n| Draft::new(&channel, &n.to_string()).to_body()).collect();
            let body = format!("[{}]", events.join(","));
            let reply = http::post_json("/publish", body).send(site.door(number));
            assert_eq!(reply.status, 201, "{}", reply.text());
            let published: Vec<u64> = serde_json::from_value(reply.json()["ids"].clone()).unwrap();
            assert_eq!(published.len(), 1000);
            assert!(published.is_sorted() && published[0] > cursor);

            let reply = held.reply_within(site::SOON);
            let mut events = reply.events();
            let (rest, _) = site::collect(site.door(0), &channel, reply.cursor(), 1000 - events.len());
            events.extend(rest);
            assert_eq!(site::ids(&events), published);
            let data: Vec<_> = events.iter().map(|event| event.data.as_u64().unwrap()).collect();
            assert_eq!(data, (0..1000).collect::<Vec<_>>());
        }
    }
}

#[test]
fn transaction_that_is_rolled_back_publishes_nothing() {
    for store in Store::both() {
        let site = Site::with_few_rights(store, &[]);
        let cursor = site.cursor("cheese");
        let held = site::hold(&site, "cheese", cursor, "page");
        let insert = |data| insert(&site.store, Draft::new("cheese", data));
        // All of it, a part of it, and one that ends with an error.
        site.publish_sql(&format!("BEGIN; {} {} ROLLBACK;", insert("1"), insert("2"))).unwrap();
        let (three, four, five) = (insert("3"), insert("4"), insert("5"));
        let error = site.publish_sql(&format!("BEGIN; {three} SELECT * FROM no_such_table; COMMIT;"));
        assert!(error.is_err());
        let part = format!("BEGIN; {four} SAVEPOINT here; {five} ROLLBACK TO SAVEPOINT here; COMMIT;");
        site.publish_sql(&part).unwrap();
        let data: Vec<_> =
            held.reply_within(site::SOON).events().into_iter().map(|event| event.data).collect();
        assert_eq!(data, [json!(4)]);
        for (name, address) in site.doors() {
            let (events, _) = site::collect(address, "cheese", cursor, 1);
            assert_eq!(events[0].data, json!(4), "{name}");
        }
    }
}

#[test]
fn key_published_again_is_no_second_event_and_has_the_same_id() {
    by_each_way(|site, way, channel| {
        let cursor = site.cursor(channel);
        let draft = Draft { key: Some("order-17"), ..Draft::new(channel, "1") };
        let first = way.publish_well(site, draft);
        let (events, last) = site::collect(site.door(0), channel, cursor, 1);
        assert!(first.is_none_or(|id| id == events[0].id), "{way}: {first:?}");
        // By the same way and by all others, also with other data: the event that is there counts.
        let again = Draft { data: "2", ..draft };
        for other in [way].iter().chain(Way::into(&site.store)) {
            let id = other.publish_well(site, again);
            assert!(id.is_none_or(|id| id == events[0].id), "{way}, then {other}: {id:?}");
        }
        // Another key and another channel are other events.
        let [elsewhere, other] = [format!("{channel}-elsewhere"), format!("{channel}-other")];
        way.publish_well(site, Draft { channel: &elsewhere, ..draft });
        way.publish_well(site, Draft { key: Some(&other), data: "3", ..draft });
        for (name, address) in site.doors() {
            let (events, _) = site::collect(address, channel, last, 1);
            assert_eq!(events[0].data, json!(3), "{way}, seen by the {name}");
            site::collect(address, &elsewhere, cursor, 1);
        }
    });
}

#[test]
fn key_twice_in_one_batch_is_one_event() {
    for store in Store::both() {
        let site = Site::with_few_rights(store, &[]);
        for (number, (name, address)) in site.doors().into_iter().enumerate() {
            let channel = format!("cheese-{number}");
            let cursor = site.cursor(&channel);
            let draft = |data, key| Draft { key: Some(key), ..Draft::new(&channel, data) }.to_body();
            let body = format!("[{},{},{}]", draft("1", "a"), draft("2", "b"), draft("3", "a"));
            let reply = http::post_json("/publish", body).send(address);
            let published: Vec<u64> = serde_json::from_value(reply.json()["ids"].clone()).unwrap();
            let (events, _) = site::collect(address, &channel, cursor, 2);
            assert_eq!(published, [events[0].id, events[1].id, events[0].id], "{name}");
            assert_eq!((&events[0].data, &events[1].data), (&json!(1), &json!(2)), "{name}");
        }
    }
}

#[test]
fn excluded_browser_does_not_get_the_event_and_everybody_else_does() {
    by_each_way(|site, way, channel| {
        let cursor = site.cursor(channel);
        let (me, you) = (format!("{channel}-me"), format!("{channel}-you"));
        let mine = site::hold(site, channel, cursor, &me);
        let yours = site::hold(site, channel, cursor, &you);
        way.publish_well(site, Draft { exclude: Some(&me), ..Draft::new(channel, "1") });
        let news = yours.reply_within(site::SOON).events();
        assert_eq!((news.len(), &news[0].data), (1, &json!(1)), "{way}");
        way.publish_well(site, Draft::new(channel, "2"));
        let reply = mine.reply_within(site::SOON);
        let data: Vec<_> = reply.events().into_iter().map(|event| event.data).collect();
        assert_eq!(data, [json!(2)], "{way}");
        for (name, address) in site.doors() {
            let get = |wait_id: &str| {
                let target = format!("/e/{channel}/{wait_id}?flavor=short-poll&last_event_id={cursor}");
                http::get(&target).send(address)
            };
            let (mine, yours) = (get(&me), get(&you));
            assert_eq!((mine.events().len(), yours.events().len()), (1, 2), "{way}, from the {name}");
            // What was passed over is not asked for again.
            assert_eq!(mine.cursor(), yours.cursor(), "{way}, from the {name}");
        }
    });
}

#[test]
fn table_of_older_programs_still_takes_events() {
    let site = Site::on(Store::postgres());
    let database = site.store.database();
    database.psql("SELECT everpoll.install_compat_view()");
    let role = format!("old_program_{}", database.name());
    database.psql(&format!("CREATE ROLE {role} LOGIN; GRANT INSERT ON public.events TO {role};"));
    let insert = |data: &str| {
        let sql = format!("insert into events (channel_id, data) values ('cheese', '{data}')");
        database.try_psql_as(&role, &sql)
    };
    let cursor = site.cursor("cheese");
    let held = site::hold(&site, "cheese", cursor, "page");
    insert(r#"{"type":"cheese_created","data":{"id":7}}"#).unwrap();
    let news = held.reply_within(site::SOON).events();
    assert_eq!((news[0].kind.as_str(), &news[0].data), ("cheese_created", &json!({"id": 7})));
    // Old programs also read there.
    assert_eq!(
        database.psql("SELECT id, channel_id, data->>'type', data->'data'->>'id' FROM public.events"),
        format!("{}|cheese|cheese_created|7\n", news[0].id)
    );
    let error = insert(r#"{"data":{"id":7}}"#).unwrap_err();
    assert!(error.contains(r#""type""#), "{error}");
    let error = insert("7").unwrap_err();
    assert!(error.contains("must be an object"), "{error}");
    // A table of that name is the application's; it is not replaced.
    let error = database.try_psql("SELECT everpoll.install_compat_view()").unwrap_err();
    assert!(error.contains("public.events exists already"), "{error}");
}
