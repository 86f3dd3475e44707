//! Limits of what clients may do: who is above one is told so, and all others are served as ever.

use everpoll_tests::http;

use crate::site::{Site, Store};

const EVENT: &str = r#"{"channel":"cheese","type":"made","data":1}"#;

#[test]
fn sizes_are_settings_and_each_refusal_names_its_limit() {
    let settings = [
        ("EVERPOLL_EVENT_MAX", "1KiB"),
        ("EVERPOLL_BATCH_MAX", "2"),
        ("EVERPOLL_CHANNELS_MAX", "3"),
        ("EVERPOLL_POLL_BODY_MAX", "1KiB"),
        ("EVERPOLL_HEAD_MAX", "4KiB"),
    ];
    let site = Site::with(Store::sqlite(), &settings);
    let large =
        |bytes: usize| format!(r#"{{"channel":"cheese","type":"made","data":"{}"}}"#, "x".repeat(bytes - 2));
    for (name, address) in site.doors() {
        let told = |request: http::Request| {
            let reply = request.send(address);
            let json = reply.json();
            let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
            (reply.status, text("code"), text("detail"))
        };
        let refused = |request, status, code: &str, limit: &str| {
            let (was, said, detail) = told(request);
            assert_eq!((was, said.as_str()), (status, code), "{name}: {detail}");
            assert!(detail.contains(limit), "{name}: {detail}");
        };
        assert_eq!(told(http::post_json("/publish", large(1024))).0, 201, "{name}");
        refused(http::post_json("/publish", large(1025)), 413, "data_too_large", "the limit is 1024");
        assert_eq!(told(http::post_json("/publish", format!("[{EVENT},{EVENT}]"))).0, 201, "{name}");
        let three = format!("[{EVENT},{EVENT},{EVENT}]");
        refused(http::post_json("/publish", three), 400, "publish_too_many", "the limit is 2");
        assert_eq!(http::get("/e/a,b,c?flavor=short-poll").send(address).status, 200, "{name}");
        refused(http::get("/e/a,b,c,d?flavor=short-poll"), 400, "too_many_channels", "the limit is 3");
        let body = |bytes: usize| format!("flavor=short-poll&_={}", "x".repeat(bytes - 20));
        let post = |body: String| http::request("POST", "/e/a").body(body);
        assert_eq!(post(body(1024)).send(address).status, 200, "{name}");
        refused(post(body(1025)), 413, "body_too_large", "1024 bytes");
    }
    // The web server in front reads the heads of those that go to the fallback.
    let with_head = |bytes: usize| {
        http::get("/e/a?flavor=short-poll").header("Cookie", &"x".repeat(bytes)).send(site.daemon.address())
    };
    assert_eq!(with_head(3800).status, 200);
    let reply = with_head(4100);
    assert_eq!((reply.status, reply.json()["code"].as_str()), (431, Some("head_too_large")));
    assert!(reply.text().contains("4096 bytes"), "{}", reply.text());
}

#[test]
fn data_of_the_command_line_has_the_same_limit() {
    let log = everpoll_tests::Sqlite::new();
    let publish = |data: &str| {
        let mut command = everpoll_tests::everpoll::command("everpoll");
        command.args(["publish", "cheese", "made", data]);
        command.env("EVERPOLL_DATABASE_URL", log.url()).env("EVERPOLL_EVENT_MAX", "64");
        let (status, _, errors) = everpoll_tests::process::run(command, b"");
        (status.code(), errors)
    };
    assert_eq!(publish(&format!("\"{}\"", "x".repeat(62))).0, Some(0));
    let (code, errors) = publish(&format!("\"{}\"", "x".repeat(63)));
    assert!(code == Some(2) && errors.contains("65 bytes long, the limit is 64"), "{code:?} {errors}");
}
