//! The same request to the daemon and to the fallback under each kind of host: the same bytes back.
//!
//! The daemon is asked to answer at once, which is all that the fallback ever does. What may differ: what HTTP says about
//! the connection, when to come back, and the time at which a gap was told. Where a web server answers a request itself
//! and the program never sees it, [`EXCEPTIONS`] says so, and the test fails as soon as that is no longer true.

mod cases;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use everpoll_tests::http::Address;
use everpoll_tests::web::Places;
use everpoll_tests::{Daemon, Fallback, Reply, TestDir, WebServer};
use serde_json::json;

use crate::site::Store;
use cases::Case;

/// What HTTP says about this connection and not about this reply.
const HOP_BY_HOP: [&str; 6] = ["date", "server", "connection", "keep-alive", "transfer-encoding", "upgrade"];

/// What web servers add to every reply: lighttpd offers to cut replies into ranges.
const ADDED: [(&str, &str); 1] = [("lighttpd", "accept-ranges")];

/// A request that a web server answers itself, or changes on its way.
struct Exception {
    host: &'static str,
    which: Which,
    /// What is answered, one of these.
    statuses: &'static [u16],
}

/// Which requests are meant.
enum Which {
    /// Those whose name begins so.
    Named(&'static str),
    /// Those with this in their target.
    Containing(&'static str),
}

use Which::{Containing, Named};

const fn exception(host: &'static str, which: Which, statuses: &'static [u16]) -> Exception {
    Exception { host, which, statuses }
}

/// Each is known behaviour of the web server. Most are refusals before any program is asked.
const EXCEPTIONS: &[Exception] = &[
    // No web server passes a NUL in a path on.
    exception("nginx", Containing("/a%00b"), &[400]),
    exception("nginx", Containing("/%00"), &[400]),
    exception("apache", Containing("/a%00b"), &[404]),
    exception("apache", Containing("/%00"), &[404]),
    // What is no percent-encoding is a path like any other to Everpoll and lighttpd.
    exception("nginx", Containing("/50%?"), &[400]),
    exception("nginx", Containing("/50%/"), &[400]),
    exception("nginx", Containing("/a%4"), &[400]),
    exception("nginx", Containing("/a%zz"), &[400]),
    exception("apache", Containing("/50%?"), &[400]),
    exception("apache", Containing("/50%/"), &[400]),
    exception("apache", Containing("/a%4"), &[400]),
    exception("apache", Containing("/a%zz"), &[400]),
    // lighttpd refuses encoded control characters in path and query, and what is no UTF-8, or its regular expressions
    // do not match.
    exception("lighttpd", Containing("%00"), &[400]),
    exception("lighttpd", Containing("%09"), &[400]),
    exception("lighttpd", Containing("%0A"), &[400]),
    exception("lighttpd", Containing("%7F"), &[400]),
    exception("lighttpd", Containing("%FF"), &[400]),
    exception("lighttpd", Containing("%C0%AF"), &[400]),
    exception("lighttpd", Containing("k%E4se"), &[400, 404]),
    exception("lighttpd", Containing("%ED%A0%80"), &[400, 404]),
    // Methods that they serve themselves, or do not know.
    exception("nginx", Named("TRACE "), &[405]),
    exception("apache", Named("TRACE "), &[200]),
    exception("nginx", Named("get "), &[400]),
    exception("lighttpd", Named("get "), &[501]),
    exception("lighttpd", Named("FOO "), &[501]),
    // Paths that the configuration does not give to Everpoll, and such as the servers straighten first.
    exception("nginx", Named("path: /E/cheese"), &[404]),
    exception("apache", Named("path: /E/cheese"), &[404]),
    exception("lighttpd", Named("path: /E/cheese"), &[404]),
    exception("nginx", Named("path: /publish.php"), &[404]),
    exception("apache", Named("path: /publish.php"), &[404]),
    exception("lighttpd", Named("path: /publish.php"), &[404]),
    exception("nginx", Named("path: /publish/x"), &[404]),
    exception("nginx", Named("path: / "), &[404]),
    exception("apache", Named("path: / "), &[404]),
    exception("lighttpd", Named("path: / "), &[403]),
    exception("nginx", Named("path: /nothing"), &[404]),
    exception("apache", Named("path: /nothing"), &[404]),
    exception("lighttpd", Named("path: /nothing"), &[404]),
    exception("nginx", Named("path: /ex/cheese"), &[404]),
    exception("apache", Named("path: /ex/cheese"), &[404]),
    exception("lighttpd", Named("path: /ex/cheese"), &[404]),
    exception("nginx", Named("path: /e/%2E%2E/"), &[404]),
    exception("apache", Named("path: /e/%2E%2E/"), &[404]),
    exception("lighttpd", Named("path: /e/%2E%2E/"), &[404]),
    exception("apache", Named("path: //e/cheese"), &[200]),
    exception("lighttpd", Named("path: //e/cheese"), &[200]),
    exception("apache", Named("path: /%65/cheese"), &[200]),
    exception("lighttpd", Named("path: /%65/cheese"), &[200]),
    // lighttpd takes no GET with a body, makes `-` of `_` in header names, cuts replies into ranges, forgets Upgrade,
    // and takes heads of up to 8 KiB.
    exception("lighttpd", Named("body: of a GET"), &[400]),
    exception("lighttpd", Named("header: underscores"), &[400]),
    exception("lighttpd", Named("header: range"), &[206]),
    exception("lighttpd", Named("flavor: Upgrade: websocket"), &[200]),
    exception("lighttpd", Named("target of "), &[431]),
];

/// A log with something of everything in it.
fn fill(store: &Store, daemon: &Daemon) -> Vec<u64> {
    let mut ids = Vec::new();
    let mut publish = |events: serde_json::Value| ids.extend(daemon.publish(&events.to_string()));
    publish(
        json!([{"channel": "trimmed", "type": "t", "data": 0}, {"channel": "trimmed", "type": "t", "data": 0}]),
    );
    let trimmed = store.run(&["trim", "--count", "0"]);
    assert!(trimmed.status.success(), "{trimmed:?}");
    publish(json!([
        {"channel": "cheese", "type": "cheese_created", "data": {"name": "Gouda", "holes": [1, 2.50, -1e-7, null, true]}},
        {"channel": "k\u{e4}se", "type": "\u{e4}<b>", "data": "\u{1f9c0}\u{2028}</script>\\\"\u{7f}"},
        {"channel": "cheese", "type": "t", "data": {}, "exclude": "me"},
        {"channel": "wine", "type": "t", "data": [], "exclude": "you"},
        {"channel": "a b", "type": "t", "data": 12345678901234567890_u64},
        {"channel": "a+b", "type": "t", "data": ""},
        {"channel": "50%", "type": "t", "data": 0, "key": "k1"},
    ]));
    // Batches end in the same place: at a thousand events, at a mebibyte, exactly there and around.
    let many = |channel: &str, count: usize| {
        (0..count).map(|n| json!({"channel": channel, "type": "t", "data": n})).collect::<Vec<_>>()
    };
    publish(many("thousand", 1000).into());
    publish(many("more", 999).into());
    publish(many("more", 999).into());
    for size in [1_048_574, 10, 400_000, 400_000, 400_000, 10, 524_000, 524_000] {
        publish(json!([{"channel": "large", "type": "t", "data": "x".repeat(size)}]));
    }
    // What is sent is shorter, or longer, than what is kept.
    let spaces = format!(r#"{{"channel":"spaces","type":"t","data":[1,{}2]}}"#, " ".repeat(600_000));
    let escapes = format!(r#"{{"channel":"escapes","type":"t","data":"{}"}}"#, "\u{e4}".repeat(100_000));
    for _ in 0..3 {
        ids.extend(daemon.publish(&spaces));
        ids.extend(daemon.publish(&escapes));
    }
    ids.extend(daemon.publish(r#"{"channel":"cheese","type":"last","data":[ 1 , { "a b" : " " } ]}"#));
    ids
}

/// A reply as it must be the same everywhere.
#[derive(Debug, PartialEq)]
struct Essence {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Essence {
    fn of(reply: &Reply) -> Self {
        let mut body = String::from_utf8_lossy(&reply.body).into_owned();
        if let Some(gap) = body.find(r#""data":{"type":"everpoll:gap""#) {
            // "ts":"2014-07-23T14:25:22.123Z", before it.
            body.replace_range(gap - 26..gap - 1, "(ts)");
        }
        let mut headers: Vec<_> =
            reply.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        headers.retain(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()));
        let delay = headers.iter_mut().find(|(name, _)| name == "x-ps-reconnect-in");
        // Spread by chance from 5 to 30 s. At once, and after an error of the sender's, is the same everywhere.
        if let Some((_, seconds)) = delay
            && seconds.parse().is_ok_and(|seconds| (5..=30).contains(&seconds))
        {
            body = body.replace(&format!(r#""reconnect_in":{seconds},"#), r#""reconnect_in":soon,"#);
            let digits = seconds.len();
            *seconds = "soon".to_owned();
            // An envelope is longer by a digit then.
            if body.contains("soon") && digits == 2 {
                let length = headers.iter_mut().find(|(name, _)| name == "content-length");
                if let Some((_, length)) = length {
                    *length = length.parse().map_or(length.clone(), |bytes: usize| (bytes - 1).to_string());
                }
            }
        }
        headers.sort();
        Self { status: reply.status, headers, body }
    }

    /// Short enough to read.
    fn shown(&self) -> String {
        let Self { status, headers, body } = self;
        let body: String = body.chars().take(160).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{status} {body:?} {}", headers.join("; "))
    }
}

/// Asks daemon and host everything and compares.
fn assert_parity(name: &'static str, start: impl Fn(&Store) -> Host) {
    for store in Store::both() {
        let daemon = Daemon::on(store.url()).start();
        let ids = fill(&store, &daemon);
        open_to_all(&store);
        let host = start(&store);
        let cases = cases::all(&ids);
        assert!(cases.len() >= 200, "only {} requests", cases.len());
        let wrong: Vec<_> = cases
            .iter()
            .filter_map(|case| compare(name, case, daemon.address(), host.server.address()))
            .collect();
        let (count, all) = (wrong.len(), cases.len());
        println!("{name}: {} of {all} requests are answered the same", all - count);
        assert!(wrong.is_empty(), "{count} of {all} differ:\n{}\n{}", wrong.join("\n"), host.server.log());
    }
}

/// What is wrong, if anything is.
fn compare(name: &str, case: &Case, daemon: &Address, host: &Address) -> Option<String> {
    let what = &case.name;
    let expected = match case.request.try_send(daemon) {
        Ok(reply) => Essence::of(&reply),
        Err(error) => return Some(format!("{what}: the daemon: {error}")),
    };
    let mut got = match case.request.try_send(host) {
        Ok(reply) => Essence::of(&reply),
        Err(error) => return Some(format!("{what}: {name}: {error}")),
    };
    got.headers.retain(|(header, _)| !ADDED.contains(&(name, header)));
    let exception = EXCEPTIONS.iter().find(|exception| {
        let fits = match exception.which {
            Named(beginning) => format!("{what} ").starts_with(beginning),
            Containing(part) => case.request.target().contains(part),
        };
        exception.host == name && fits
    });
    match exception {
        None if got == expected => None,
        None => Some(format!("{what}\n    daemon {}\n    {name} {}", expected.shown(), got.shown())),
        Some(_) if got == expected => Some(format!("{what} is no exception any more")),
        Some(exception) if exception.statuses.contains(&got.status) => None,
        Some(exception) => Some(format!("{what}: {} and not {:?}", got.shown(), exception.statuses)),
    }
}

/// A CGI program runs as the web server's user.
fn open_to_all(store: &Store) {
    if let Store::Sqlite(sqlite) = store {
        let path = sqlite.path();
        let folder = path.parent().expect("it is in a folder");
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
        for file in fs::read_dir(folder).expect("it is ours").flatten() {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).expect("it is ours");
        }
    }
}

/// A web server and what it needs. Fields are dropped from top to bottom.
struct Host {
    server: WebServer,
    _fallback: Option<Fallback>,
    _nobody: Option<TestDir>,
}

impl Host {
    fn of(server: WebServer) -> Self {
        Self { server, _fallback: None, _nobody: None }
    }
}

#[test]
fn fallback_behind_nginx_answers_as_the_daemon() {
    assert_parity("nginx", |store| {
        let fallback = Fallback::on(store.url()).start();
        let nobody = TestDir::new();
        let server = WebServer::nginx(&Address::Unix(nobody.join("nobody.sock")), fallback.address());
        Host { server, _fallback: Some(fallback), _nobody: Some(nobody) }
    });
}

#[test]
fn cgi_program_under_apache_answers_as_the_daemon() {
    assert_parity("apache", |store| Host::of(WebServer::apache("As CGI", Places::new(store.url()))));
}

#[test]
fn cgi_program_under_lighttpd_answers_as_the_daemon() {
    assert_parity("lighttpd", |store| Host::of(WebServer::lighttpd("As CGI", Places::new(store.url()))));
}
