//! `POST /publish`: all or nothing, who may, and how many requests become one transaction.

use everpoll_tests::{Address, TestDir, http, wait};
use serde_json::json;

use crate::site::{self, Site, Store};
use crate::ways::Draft;

const KEY: &str = "secret-0123456789";

#[test]
fn batch_with_one_bad_event_publishes_none() {
    for store in Store::both() {
        let site = Site::on(store);
        for (number, (name, address)) in site.doors().into_iter().enumerate() {
            let channel = format!("cheese-{number}");
            let cursor = site.cursor(&channel);
            let good = |data| Draft::new(&channel, data).to_body();
            let bad = Draft { channel: "a/b", ..Draft::new("", "1") }.to_body();
            let body = format!("[{},{},{bad}]", good("1"), good("2"));
            let reply = http::post_json("/publish", body).send(address);
            assert_eq!((reply.status, &reply.json()["code"]), (400, &json!("channel_character")), "{name}");
            assert!(reply.text().contains("event 2 "), "{name} does not say which: {}", reply.text());
            // Whatever comes next is all that there is.
            site.publish(&channel, "3");
            let (events, _) = site::collect(address, &channel, cursor, 1);
            assert_eq!(events[0].data, 3, "{name}");
        }
    }
}

/// A limit of the application's own, which only the database knows.
const TABOO: &str = "ALTER TABLE everpoll.events ADD CONSTRAINT no_taboo CHECK (type <> 'taboo')";

#[test]
fn request_that_the_database_refuses_does_not_harm_those_that_share_its_transaction() {
    let site = Site::on(Store::postgres());
    let database = site.store.database();
    database.psql(TABOO);
    for (name, address) in site.doors() {
        let channel = format!("cheese-{name}");
        let cursor = site.cursor(&channel);
        let replies = together(&site, address, 40, |number| {
            let kind = if number % 10 == 7 { "taboo" } else { "made" };
            let event = |part: usize| {
                let data = (10 * number + part).to_string();
                Draft { kind: if part == 1 { kind } else { "made" }, ..Draft::new(&channel, &data) }.to_body()
            };
            format!("[{},{}]", event(0), event(1))
        });
        for (number, reply) in replies.iter().enumerate() {
            let status = if number % 10 == 7 { 400 } else { 201 };
            assert_eq!(reply.status, status, "{name} {number}: {}", reply.text());
        }
        let (events, _) = site::collect(site.door(1), &channel, cursor, 72);
        let mut data: Vec<_> = events.iter().map(|event| event.data.as_u64().unwrap()).collect();
        data.sort_unstable();
        let expected = (0..40).filter(|n| n % 10 != 7).flat_map(|n| [10 * n, 10 * n + 1]);
        assert_eq!(data, expected.collect::<Vec<_>>(), "{name}");
        // Each is told the ids of its own.
        for (number, reply) in replies.iter().enumerate().filter(|(number, _)| number % 10 != 7) {
            let told: Vec<_> =
                reply.json()["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
            let own = events.iter().filter(|event| event.data.as_u64().unwrap() / 10 == number as u64);
            assert_eq!(told, own.map(|event| event.id).collect::<Vec<_>>(), "{name} {number}");
        }
    }
}

/// Sends `count` requests while the database lets nobody publish, then lets them go.
fn together(
    site: &Site,
    address: &Address,
    count: usize,
    body: impl Fn(usize) -> String,
) -> Vec<http::Reply> {
    let database = site.store.database();
    let mut connection = database.connect();
    let mut block = connection.transaction().expect("the database runs");
    block.batch_execute("LOCK TABLE everpoll.events IN SHARE MODE").expect("nobody else has locked it");
    let requests: Vec<_> =
        (0..count).map(|number| http::post_json("/publish", body(number)).begin(address)).collect();
    // Looked at from another database, where it does not count.
    let waiting = format!(
        "SELECT count(*) > 0 FROM pg_locks JOIN pg_database ON pg_database.oid = database \
         WHERE NOT granted AND datname = '{}'",
        database.name()
    );
    wait::until("a request waits in the database", wait::PATIENCE, || {
        database.postgres().psql(&waiting) == "t\n"
    });
    block.rollback().expect("the database runs");
    requests.into_iter().map(http::Held::reply).collect()
}

#[test]
fn many_requests_share_a_transaction() {
    let mut site = Site::on(Store::postgres());
    let address = site.daemon.address().clone();
    let replies =
        together(&site, &address, 400, |number| Draft::new("cheese", &number.to_string()).to_body());
    assert!(replies.iter().all(|reply| reply.status == 201));
    // Connections tell what they did now and then, and all of it when they are closed.
    site.daemon.stop();
    let database = site.store.database();
    let server = database.postgres();
    let of_database = |sql: &str| server.psql(&format!("{sql} WHERE datname = '{}'", database.name()));
    wait::until("the daemon's connections are closed", wait::PATIENCE, || {
        of_database("SELECT count(*) FROM pg_stat_activity") == "0\n"
    });
    let commits = of_database("SELECT xact_commit FROM pg_stat_database");
    let commits: u64 = commits.trim().parse().expect("a number");

    let writers = database.psql("SELECT count(*), count(DISTINCT xmin::text) FROM everpoll.places");
    let (events, transactions) = writers.trim().split_once('|').expect("two columns");
    let transactions: u64 = transactions.parse().expect("a number");
    eprintln!("400 requests: {transactions} transactions that published, {commits} commits in all");
    assert_eq!(events, "400");
    assert!(transactions <= 40, "400 requests took {transactions} transactions");
    // All that the database ever committed: its making, the daemon's reads, and these.
    assert!(commits < 400, "400 requests took {commits} commits");
}

#[test]
fn many_requests_to_the_fallback_share_transactions() {
    let site = Site::on(Store::postgres());
    let address = site.door(1).clone();
    let replies =
        together(&site, &address, 400, |number| Draft::new("cheese", &number.to_string()).to_body());
    assert!(replies.iter().all(|reply| reply.status == 201));
    let mut ids: Vec<_> = replies.iter().map(|reply| reply.json()["ids"][0].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 400);
    let writers =
        site.store.database().psql("SELECT count(*), count(DISTINCT xmin::text) FROM everpoll.places");
    let (events, transactions) = writers.trim().split_once('|').expect("two columns");
    let transactions: u64 = transactions.parse().expect("a number");
    assert_eq!(events, "400");
    assert!(transactions <= 60, "400 requests took {transactions} transactions");
}

#[test]
fn publish_key_admits_and_nothing_else_does() {
    let site = Site::with(Store::sqlite(), &[("EVERPOLL_PUBLISH_KEY", KEY)]);
    let cursor = site.cursor("cheese");
    for (name, address) in site.doors() {
        let publish = |authorization: Option<&str>| {
            let request = http::post_json("/publish", Draft::new("cheese", "1").to_body());
            let request = match authorization {
                Some(value) => request.header("Authorization", value),
                None => request,
            };
            let reply = request.send(address);
            (reply.status, reply.json()["code"].as_str().map(str::to_owned))
        };
        let refused = (403, Some("publish_key_wrong".to_owned()));
        assert_eq!(publish(None), refused, "{name}");
        assert_eq!(publish(Some("Bearer")), refused, "{name}");
        assert_eq!(publish(Some(&format!("Bearer {KEY}x"))), refused, "{name}");
        assert_eq!(publish(Some(&format!("Bearer {}", &KEY[1..]))), refused, "{name}");
        assert_eq!(publish(Some(&format!("Basic {KEY}"))), refused, "{name}");
        assert_eq!(publish(Some(&format!("Bearer {KEY}"))), (201, None), "{name}");
    }
    site::collect(site.door(0), "cheese", cursor, 2);
    // Neither program writes it down.
    assert!(!site.daemon.log().contains(KEY) && !site.fallback.log().contains(KEY));
}

/// What a publish with this key is answered with: status, code and text.
fn publish_with(address: &Address, key: &str, body: String) -> (u16, Option<String>, String) {
    let reply =
        http::post_json("/publish", body).header("Authorization", &format!("Bearer {key}")).send(address);
    let text = |name: &str| reply.json()[name].as_str().map(str::to_owned);
    (reply.status, text("code"), text("detail").unwrap_or_default())
}

#[test]
fn named_keys_publish_to_their_own_channels_only() {
    let keys = format!(
        "shop = {{ key = '{KEY}', channels = ['shop-*', 'cart'] }}\ncrm = {{ key = 'crm-{KEY}', channels = ['crm'] }}"
    );
    let settings = [("EVERPOLL_PUBLISH_KEYS", &*keys), ("EVERPOLL_PUBLISH_KEY", "all-0123456789abc")];
    let site = Site::with(Store::sqlite(), &settings);
    let (crm, all) = (format!("crm-{KEY}"), "all-0123456789abc");
    for (name, address) in site.doors() {
        let publish = |key: &str, channel: &str| {
            let (status, code, _) = publish_with(address, key, Draft::new(channel, "1").to_body());
            (status, code.unwrap_or_default())
        };
        let (published, refused) = ((201, String::new()), (403, "publish_channel".to_owned()));
        for (key, channel, expected) in [
            (KEY, "shop-1", &published),
            (KEY, "shop-", &published),
            (KEY, "cart", &published),
            (KEY, "cart-1", &refused),
            (KEY, "crm", &refused),
            (KEY, "Shop-1", &refused),
            (&crm, "crm", &published),
            (&crm, "crm-1", &refused),
            (all, "shop-1", &published),
            (all, "anything", &published),
        ] {
            assert_eq!(publish(key, channel), *expected, "{name}: {key} to {channel}");
        }
        // All or nothing, and the text says which event, which key and which channel; never the key itself.
        let both = format!("[{},{}]", Draft::new("shop-2", "1").to_body(), Draft::new("crm", "1").to_body());
        let cursor = site.cursor("shop-2");
        let (status, code, text) = publish_with(address, KEY, both);
        assert_eq!((status, code.as_deref()), (403, Some("publish_channel")), "{name}");
        assert!(
            text.starts_with("event 1 ") && text.contains("\"shop\"") && text.contains("\"crm\""),
            "{text}"
        );
        assert!(!text.contains(KEY), "{text}");
        assert_eq!(site::poll("shop-2", cursor, "flavor=short-poll").send(address).events(), [], "{name}");
    }
    // The command finds the key that fits.
    let url = format!("http://{}", site.daemon.address());
    let mut command = everpoll_tests::everpoll::command("everpoll");
    command.args(["publish", "--url", &url, "crm", "made", "1"]).env("EVERPOLL_PUBLISH_KEYS", &keys);
    assert!(command.status().expect("it runs").success());
}

#[test]
fn keys_are_exchanged_without_a_restart() {
    let directory = TestDir::new();
    let keys = |key: &str| format!("[publish_keys.shop]\nkey = '{key}'\nchannels = ['shop-*']\n");
    // As a person does it: a new file, put in place of the old one.
    let put = |text: &str| {
        let new = directory.file("keys.new", text);
        std::fs::rename(new, directory.join("keys.toml")).expect("both are ours");
    };
    let (old, new) = ("old-0123456789abcdef", "new-0123456789abcdef");
    put(&keys(old));
    let path = directory.join("keys.toml").display().to_string();
    let site = Site::with(Store::sqlite(), &[("EVERPOLL_KEYS_FILE", &path)]);
    let answers =
        |address: &Address, key: &str| publish_with(address, key, Draft::new("shop-1", "1").to_body()).0;
    for (name, address) in site.doors() {
        assert_eq!((answers(address, old), answers(address, new)), (201, 403), "{name}");
    }
    put(&keys(new));
    for (name, address) in site.doors() {
        wait::until(&format!("{name} has the new key"), wait::PATIENCE, || answers(address, new) == 201);
        assert_eq!(answers(address, old), 403, "{name}");
    }
    // One that is wrong is reported and changes nothing.
    put(&keys("short"));
    let complains =
        |log: String| log.contains("has a key that is 5 characters long") && log.contains("the keys stay");
    wait::until("both complain", wait::PATIENCE, || {
        complains(site.daemon.log()) && complains(site.fallback.log())
    });
    for (name, address) in site.doors() {
        assert_eq!(answers(address, new), 201, "{name}");
    }
    // Without its last key, nobody may: publishing does not become free for this machine.
    put("");
    for (name, address) in site.doors() {
        wait::until(&format!("{name} has no key"), wait::PATIENCE, || answers(address, new) == 403);
        let reply = http::post_json("/publish", Draft::new("shop-1", "1").to_body()).send(address);
        assert_eq!(reply.json()["code"], "publish_key_wrong", "{name}");
    }
    for key in [old, new] {
        assert!(!site.daemon.log().contains(key) && !site.fallback.log().contains(key));
    }
}

#[test]
fn without_a_key_only_this_machine_itself_may_publish() {
    let site = Site::on(Store::sqlite());
    let cursor = site.cursor("cheese");
    for (name, address) in site.doors() {
        let publish = |header: &str, value: &str| {
            let request = http::post_json("/publish", Draft::new("cheese", "1").to_body());
            let reply = request.header(header, value).send(address);
            (reply.status, reply.json()["code"].as_str().map(str::to_owned))
        };
        let refused = (403, Some("publish_not_local".to_owned()));
        assert_eq!(publish("X-Forwarded-For", "192.0.2.7"), refused, "{name}");
        assert_eq!(publish("Forwarded", "for=192.0.2.7"), refused, "{name}");
        assert_eq!(publish("Origin", "https://shop.example"), refused, "{name}");
        assert_eq!(publish("X-Forwarded-For", "127.0.0.1"), (201, None), "{name}");
        assert_eq!(publish("Origin", "http://localhost:8377"), (201, None), "{name}");
    }
    site::collect(site.door(1), "cheese", cursor, 4);
}

#[test]
fn content_type_must_be_json() {
    let site = Site::on(Store::sqlite());
    let cursor = site.cursor("cheese");
    for (name, address) in site.doors() {
        let publish = |content_type: Option<&str>| {
            let request = http::request("POST", "/publish").body(Draft::new("cheese", "1").to_body());
            let request = match content_type {
                Some(value) => request.header("Content-Type", value),
                None => request,
            };
            request.send(address).status
        };
        // What a page of another site can send without being asked.
        for simple in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"] {
            assert_eq!(publish(Some(simple)), 415, "{name} took {simple}");
        }
        assert_eq!(publish(None), 415, "{name}");
        assert_eq!(publish(Some("Application/JSON; charset=utf-8")), 201, "{name}");
    }
    site::collect(site.door(0), "cheese", cursor, 2);
}

#[test]
fn answered_publish_is_found_by_the_next_poll() {
    for store in Store::both() {
        let site = Site::on(store);
        for (name, address) in site.doors() {
            for round in 0..50 {
                let body = Draft::new("cheese", "1").to_body();
                let id = http::post_json("/publish", body).send(address).json()["ids"][0].as_u64().unwrap();
                let target = format!("/e/cheese?flavor=short-poll&last_event_id={}", id - 1);
                assert_eq!(http::get(&target).send(address).events().len(), 1, "{name}, round {round}");
            }
        }
    }
}
