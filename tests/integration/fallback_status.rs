//! What the fallback counts, and to whom it tells that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use everpoll_tests::http::{self, Address, Connection};
use everpoll_tests::{Fallback, Reply, Sqlite, TestDir, everpoll, ports, process, wait};

use crate::site::{Site, Store};

const EVENT: &str = r#"{"channel":"cheese","type":"made","data":1}"#;

/// How often it was told that a limit is hit.
fn told(log: &str, limit: &str) -> usize {
    log.matches(&format!("the limit {limit} is hit")).count()
}

/// The figures of a page of metrics.
fn figures(page: &Reply) -> BTreeMap<String, u64> {
    let lines = page.text().lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("figures are whole numbers")))
        .collect()
}

#[test]
fn limits_that_clients_hit_are_counted_and_told_where_no_client_can_ask() {
    let place = TestDir::new();
    let status = Address::Unix(place.join("status.sock"));
    let settings = [
        ("EVERPOLL_FALLBACK_STATUS", &*status.to_string()),
        ("EVERPOLL_EVENT_MAX", "1KiB"),
        ("EVERPOLL_BATCH_MAX", "2"),
        ("EVERPOLL_CHANNELS_MAX", "3"),
        ("EVERPOLL_POLL_BODY_MAX", "1KiB"),
        ("EVERPOLL_BODY_MAX", "1088KiB"),
        ("EVERPOLL_PUBLISH_KEY", "one-one-one-one-1"),
        ("EVERPOLL_PUBLISH_RATE", "1 burst 10"),
        ("EVERPOLL_REQUESTS_PER_ADDRESS", "1 burst 60"),
        ("EVERPOLL_FORWARDED_PEERS", "none"),
    ];
    let site = Site::with(Store::sqlite(), &settings);
    let [_, (_, door)] = site.doors();
    let status_of = |request: http::Request| {
        request.header("Authorization", "Bearer one-one-one-one-1").send(door).status
    };
    let large =
        |bytes: usize| format!(r#"{{"channel":"cheese","type":"made","data":"{}"}}"#, "x".repeat(bytes));
    assert_eq!(status_of(http::post_json("/publish", EVENT)), 201);
    assert_eq!(status_of(http::post_json("/publish", large(1100))), 413);
    assert_eq!(status_of(http::post_json("/publish", large(1_200_000))), 413);
    assert_eq!(status_of(http::post_json("/publish", format!("[{EVENT},{EVENT},{EVENT}]"))), 400);
    assert_eq!(status_of(http::get("/e/a,b,c,d?flavor=short-poll")), 400);
    assert_eq!(status_of(http::request("POST", "/e/a").body("x".repeat(1100))), 413);
    assert_eq!(status_of(http::get("/e/a?last_event_id=x")), 400);
    assert_eq!(status_of(http::get("/everpoll.js")), 200);
    let until = |refused: u16, request: &dyn Fn() -> http::Request| {
        wait::until(&format!("{refused}"), wait::PATIENCE, || status_of(request()) == refused);
        (0..20).filter(|_| status_of(request()) == refused).count() as u64 + 1
    };
    let publishes = until(429, &|| http::post_json("/publish", EVENT));
    let polls = until(429, &|| http::get("/e/a?flavor=short-poll"));

    let page = http::get("/metrics").send(&status);
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(page.text().ends_with("# EOF\n"));
    let figures = figures(&page);
    let figure = |name: &str| figures.get(&format!("everpoll_fallback_{name}")).copied().unwrap_or(0);
    let log = site.fallback.log();
    for (limit, times) in [
        ("event_max", 1),
        ("body_max", 1),
        ("batch_max", 1),
        ("channels_max", 1),
        ("poll_body_max", 1),
        ("publish_rate", publishes),
        ("requests_per_address", polls),
    ] {
        let counted = figure(&format!("limit_hits_total{{limit=\"{limit}\"}}"));
        // Publishes that are refused count as requests as well, and may be the ones that are too many.
        assert!(counted == times || (times > 1 && counted >= times), "{limit}: {counted}, not {times}");
        assert!((1..=3).contains(&told(&log, limit)), "{limit} in {log}");
    }
    assert_eq!(figure("errors_total{code=\"cursor_malformed\"}"), 1);
    assert_eq!(figure("errors_total{code=\"data_too_large\"}"), 1);
    assert_eq!(figure("errors_total{code=\"body_too_large\"}"), 2);
    assert_eq!(figure("requests_total{kind=\"other\"}"), 1);
    assert!(figure("requests_total{kind=\"poll\"}") > 0);
    assert_eq!(figure("published_events_total"), figure("requests_total{kind=\"publish\"}"));
    assert_eq!((figure("log_works"), figure("connections_max") > 0), (1, true));

    // Those who come by FastCGI, or through the web server, get none of it.
    assert_eq!(status_of(http::get("/metrics")), 404);
    for target in ["/metrics", "/e/../metrics", "/e.php/../metrics"] {
        let mut command = everpoll::command("everpoll-fallback");
        command.envs([("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET"), ("REQUEST_URI", target)]);
        command.env("EVERPOLL_DATABASE_URL", site.store.url()).env("EVERPOLL_ACCESS", "open");
        let (_, said, _) = process::run(command, b"");
        assert!(!said.contains("everpoll_fallback"), "{target}: {said}");
    }

    let described: BTreeSet<_> = page
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .collect();
    let manual =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md"));
    let manual = manual.expect("it is there");
    let documented: BTreeSet<_> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
        .filter(|name| name.starts_with("everpoll_fallback_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(described, documented, "docs/reference/metrics.md must name all metrics and no others");
}

#[test]
fn metrics_of_the_fallback_are_for_those_whom_the_settings_name() {
    let (log, port) = (Sqlite::new(), ports::free());
    let start = || {
        let fallback = Fallback::on(log.url());
        let fallback = fallback.setting("EVERPOLL_FALLBACK_STATUS", format!("127.0.0.1:{port}"));
        fallback.setting("EVERPOLL_STATUS_PEERS", "127.0.0.2").start()
    };
    let first = start();
    let status = Address::local(port);
    let ask = |last: u8, request: http::Request| {
        let from = Ipv4Addr::new(127, 0, 0, last);
        Connection::open_from(from, &status).and_then(|mut it| it.exchange(&request)).expect("a reply")
    };
    let metrics = || http::get("/metrics");
    assert_eq!(ask(2, metrics()).status, 200);
    for refused in
        [ask(1, metrics()), ask(3, metrics()), ask(2, metrics().header("X-Forwarded-For", "192.0.2.1"))]
    {
        assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("status_private")));
        assert!(!refused.text().contains("everpoll_fallback"));
    }
    assert_eq!(ask(2, http::get("/e/cheese")).status, 404);
    assert_eq!(ask(2, http::request("POST", "/metrics")).status, 405);

    // Whoever connects and says nothing keeps the others waiting for a moment only.
    let _silent: Vec<_> = (0..3).map(|_| status.connect().expect("it listens")).collect();
    assert_eq!(ask(2, metrics()).status, 200);

    // A second process serves without them, and says so.
    let second = start();
    assert!(second.log().contains("no metrics (fallback_status)"), "{}", second.log());
    assert!(first.log().contains(&format!("metrics at 127.0.0.1:{port}")), "{}", first.log());
    assert_eq!(ask(2, metrics()).status, 200);
}

#[test]
fn plain_cgi_tells_each_request_that_is_above_a_limit_once() {
    let log = Sqlite::new();
    for (channels, lines) in [("a,b", 0), ("a,b,c", 1)] {
        let mut command = everpoll::command("everpoll-fallback");
        command.env("EVERPOLL_DATABASE_URL", log.url()).env("EVERPOLL_CHANNELS_MAX", "2");
        command
            .env("GATEWAY_INTERFACE", "CGI/1.1")
            .env("REQUEST_METHOD", "GET")
            .env("HTTP_HOST", "localhost");
        command.env("REQUEST_URI", format!("/e/{channels}?flavor=short-poll"));
        let (_, said, errors) = process::run(command, b"");
        assert_eq!(told(&errors, "channels_max"), lines, "{said} {errors}");
    }
}
