//! What may be published, and by whom: the limits are the same by each way, and an error names the limit.

use everpoll_tests::http;

use crate::site::{self, Site, Store};
use crate::ways::{Draft, Way, publisher};

/// The largest data of an event, in bytes of JSON text.
const MAX_DATA: usize = 1024 * 1024;

/// JSON of this many bytes.
fn json_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

/// Publishes what must be refused, with this in the text.
#[track_caller]
fn assert_refused(site: &Site, way: Way, draft: Draft<'_>, text: &str) {
    match way.publish(site, draft) {
        Ok(id) => panic!("{way} took what must be refused for {text:?}: {id:?}"),
        Err(error) => assert!(error.contains(text), "{way} does not say {text:?}: {error}"),
    }
}

fn check_limits(store: Store) {
    let site = Site::with_few_rights(store, &[]);
    let (largest, too_large) = (json_of(MAX_DATA), json_of(MAX_DATA + 1));
    let (long, too_long) = ("é".repeat(100), format!("{}x", "é".repeat(100)));
    let fine = Draft::new("cheese", "1");
    for way in Way::into(&site.store) {
        let cursor = site.cursor("cheese");
        let refused = |draft, text| assert_refused(&site, *way, draft, text);
        refused(Draft { data: &too_large, ..fine }, "1048576");
        for broken in ["{\"a\":", "x", ""] {
            refused(Draft { data: broken, ..fine }, not_json(*way));
        }
        refused(Draft { channel: "", ..fine }, "200 bytes");
        refused(Draft { channel: &too_long, ..fine }, "the limit is 200");
        refused(Draft { channel: "a/b", ..fine }, "'/'");
        refused(Draft { channel: "a,b", ..fine }, "','");
        refused(Draft { channel: "a\u{1b}b", ..fine }, "control character");
        refused(Draft { kind: "", ..fine }, "200 bytes");
        refused(Draft { kind: &too_long, ..fine }, "the limit is 200");
        refused(Draft { kind: "everpoll:gap", ..fine }, "reserved");
        refused(Draft { key: Some(&too_long), ..fine }, "200 bytes");
        refused(Draft { exclude: Some(&too_long), ..fine }, "128 bytes");
        // What is just within the limits passes, and is the only thing that was published.
        way.publish_well(&site, Draft { data: &largest, ..fine });
        for (name, address) in site.doors() {
            let (events, _) = site::collect(address, "cheese", cursor, 1);
            let length = events[0].data.as_str().map(str::len);
            assert_eq!(length, Some(MAX_DATA - 2), "{way}, seen by the {name}");
        }
        let cursor = site.cursor(&percent_encode(&long));
        way.publish_well(
            &site,
            Draft { channel: &long, kind: &long, key: Some(&long[..way_key(*way)]), ..fine },
        );
        site::collect(site.door(0), &percent_encode(&long), cursor, 1);
    }
}

/// What is said of data that is no JSON. Over HTTP, the whole body is none then.
fn not_json(way: Way) -> &'static str {
    match way {
        // PostgreSQL says `json`, SQLite `JSON`.
        Way::Insert | Way::Function => "",
        Way::Daemon | Way::Fallback => "publish_malformed",
        Way::CommandLine => "data is not JSON",
    }
}

/// How much of the longest key is used: a different key for each way, or it would be the same event.
fn way_key(way: Way) -> usize {
    200 - 2 * (way as usize)
}

/// A channel's name as it stands in a path.
fn percent_encode(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn limits_are_the_same_by_each_way_on_postgres() {
    check_limits(Store::postgres());
}

#[test]
fn limits_are_the_same_by_each_way_on_sqlite() {
    check_limits(Store::sqlite());
}

#[test]
fn refused_request_has_the_status_of_its_fault_at_both_programs() {
    let site = Site::on(Store::sqlite());
    for (name, address) in site.doors() {
        let refused = |body: &str| {
            let reply = http::post_json("/publish", body).send(address);
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{name}");
            (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
        };
        let draft = Draft::new("cheese", "1");
        let large = json_of(MAX_DATA + 1);
        assert_eq!(refused(&Draft { data: &large, ..draft }.to_body()), (413, "data_too_large".into()));
        assert_eq!(refused(&Draft { data: "{", ..draft }.to_body()), (400, "publish_malformed".into()));
        assert_eq!(refused(&Draft { channel: "", ..draft }.to_body()), (400, "channel_empty".into()));
        assert_eq!(refused("[]"), (400, "publish_empty".into()));
        let many = vec![draft.to_body(); 1001].join(",");
        assert_eq!(refused(&format!("[{many}]")), (400, "publish_too_many".into()));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(refused(&Draft { data: &deep, ..draft }.to_body()).0, 400);
        assert_eq!(refused(&" ".repeat(8 * 1024 * 1024 + 1)), (413, "body_too_large".into()));
    }
}

#[test]
fn publisher_can_publish_and_nothing_else() {
    let site = Site::with_few_rights(Store::postgres(), &[]);
    let database = site.store.database();
    let try_sql = |sql: &str| database.try_psql_as(&publisher(database), sql);
    Way::Insert.publish_well(&site, Draft::new("cheese", "1"));
    Way::Function.publish_well(&site, Draft::new("cheese", "2"));
    // A page is made by the application, which gives it the cursor.
    let cursor = try_sql("SELECT everpoll.cursor()").unwrap();
    assert_eq!(cursor.trim(), site.cursor("cheese").to_string());
    for sql in [
        "SELECT * FROM everpoll.events",
        "SELECT * FROM everpoll.positions",
        "UPDATE everpoll.events SET data = '3'",
        "DELETE FROM everpoll.events",
        "TRUNCATE everpoll.events",
        "INSERT INTO everpoll.positions (id, row, channel, size, ts) VALUES (1, 1, 'cheese', 1, now())",
        "SELECT everpoll.trim(NULL, 1000, 10)",
        "SELECT everpoll.declare_rift(1000)",
        "SELECT setval('everpoll.ids', 1)",
        "UPDATE everpoll.log SET low = 1000",
    ] {
        let error = try_sql(sql).unwrap_err();
        assert!(error.contains("42501"), "{sql}: {error}");
    }
    site::collect(site.door(0), "cheese", 0, 2);
}

#[test]
fn events_never_change_even_for_their_owner() {
    let site = Site::on(Store::postgres());
    let database = site.store.database();
    let cursor = site.cursor("cheese");
    site.publish("cheese", "1");
    for sql in [
        "UPDATE everpoll.events SET data = '2'",
        "DELETE FROM everpoll.events",
        "TRUNCATE everpoll.events",
        "DELETE FROM everpoll.positions",
    ] {
        let error = database.try_psql(sql).unwrap_err();
        assert!(error.contains("23001"), "{sql}: {error}");
    }
    let (events, _) = site::collect(site.door(1), "cheese", cursor, 1);
    assert_eq!(events[0].data, 1);
}
