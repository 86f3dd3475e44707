//! The same request to the daemon and to the fallback under each kind of host: the same bytes back.
//!
//! The daemon is asked to answer at once, which is all that the fallback ever does. What may differ: what HTTP says about
//! the connection, when to come back, and the time at which a gap was told. Where a web server answers a request itself
//! and the program never sees it, [`EXCEPTIONS`] says so, and the test fails as soon as that is no longer true.

mod cases;
mod drawn;
mod dressed;
mod essence;
mod streams;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use everpoll_tests::http::Address;
use everpoll_tests::sse::Parser;
use everpoll_tests::web::Places;
use everpoll_tests::{Daemon, EventStream, Fallback, Reply, TestDir, WebServer, everpoll, wait, websocket};
use serde_json::json;

use crate::site::Store;
use cases::Case;
use essence::Essence;

/// What web servers add to every reply: lighttpd offers to cut replies into ranges.
const ADDED: [(&str, &str); 1] = [("lighttpd", "accept-ranges")];

/// What web servers call otherwise: lighttpd has the newer name of scripts (RFC 9239).
const RENAMED: [(&str, &str, &str); 1] =
    [("lighttpd", "text/javascript; charset=utf-8", "application/javascript; charset=utf-8")];

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
    exception("apache", Named("script: none at"), &[404]),
    exception("lighttpd", Named("script: none at"), &[404]),
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

/// The settings under which all is asked.
const SETTINGS: [(&str, &str); 2] =
    [("EVERPOLL_ALLOW_ORIGINS", "https://shop.example http://localhost:8377"), ("EVERPOLL_JSONP", "true")];

/// Others, for what depends on them.
const OTHER_SETTINGS: [(&str, &str); 1] = [("EVERPOLL_ALLOW_ORIGINS", "*")];

/// Asks daemon and host everything and compares.
fn assert_parity(name: &'static str, start: impl Fn(&Store, &[(&str, &str)]) -> Host) {
    for store in Store::both() {
        assert_same(name, &store, &SETTINGS, &start, cases::all);
    }
    assert_same(name, &Store::sqlite(), &OTHER_SETTINGS, &start, |_| cases::dressed());
}

fn assert_same(
    name: &'static str,
    store: &Store,
    settings: &[(&str, &str)],
    start: impl Fn(&Store, &[(&str, &str)]) -> Host,
    cases: impl Fn(&[u64]) -> Vec<Case>,
) {
    let daemon = Daemon::on(store.url());
    let daemon = settings.iter().fold(daemon, |daemon, (name, value)| daemon.setting(name, value)).start();
    let ids = fill(store, &daemon);
    open_to_all(store);
    let host = start(store, settings);
    let cases = cases(&ids);
    assert!(cases.len() >= 200, "only {} requests", cases.len());
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| compare(name, case, daemon.address(), host.server.address()))
        .collect();
    let (count, all) = (wrong.len(), cases.len());
    println!("{name}: {} of {all} requests are answered the same", all - count);
    assert!(wrong.is_empty(), "{count} of {all} differ:\n{}\n{}", wrong.join("\n"), host.server.log());
}

/// What is wrong, if anything is.
fn compare(name: &str, case: &Case, daemon: &Address, host: &Address) -> Option<String> {
    let what = &case.name;
    let got = match case.request.try_send(host) {
        Ok(reply) => reply,
        Err(error) => return Some(format!("{what}: {name}: {error}")),
    };
    let (expected, mut got) = match ask_daemon(case, daemon, &got) {
        Ok(both) => both,
        Err(error) => return Some(format!("{what}: the daemon: {error}")),
    };
    got.headers.retain(|(header, _)| !ADDED.contains(&(name, header)));
    for (_, value) in &mut got.headers {
        let renamed = RENAMED.iter().find(|(host, theirs, _)| *host == name && value == theirs);
        if let Some((.., ours)) = renamed {
            (*ours).clone_into(value);
        }
    }
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

/// Whether it is a stream that has ended, whatever it passes for.
fn is_stream(reply: &Reply) -> bool {
    reply.body.starts_with(b": everpoll")
}

/// What the daemon says to the same, and what the host has said. A stream is read for as far as the host's went.
fn ask_daemon(case: &Case, daemon: &Address, host: &Reply) -> io::Result<(Essence, Essence)> {
    if !case.stream {
        return Ok((Essence::of(&case.request.try_send(daemon)?), Essence::of(host)));
    }
    let mut stream = EventStream::try_open(daemon, &case.request)?;
    if stream.head.header("content-length").is_some() && !is_stream(host) {
        // None at all: what it is has its own length.
        drop(stream);
        return Ok((Essence::of(&case.request.try_send(daemon)?), Essence::of(host)));
    }
    // All that the host's stream has told but its end.
    let told = Parser::default().push(&host.body).len().saturating_sub(1);
    for _ in 0..told {
        if stream.try_next(wait::PATIENCE)?.is_none() {
            break;
        }
    }
    let (mut said, got) =
        (Essence::of_stream(&stream.head, &stream.text()), Essence::of_stream(host, host.text()));
    // Behind a batch the daemon goes on by itself.
    if said.body.starts_with(&got.body) {
        said.body.truncate(got.body.len());
    }
    Ok((said, got))
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
    _directory: TestDir,
}

fn nginx(store: &Store, settings: &[(&str, &str)]) -> Host {
    let fallback = Fallback::on(store.url());
    let fallback =
        settings.iter().fold(fallback, |fallback, (name, value)| fallback.setting(name, value)).start();
    let nobody = TestDir::new();
    let server = WebServer::nginx(&Address::Unix(nobody.join("nobody.sock")), fallback.address());
    Host { server, _fallback: Some(fallback), _directory: nobody }
}

/// The fallback's program, with settings that the recipes do not have.
fn cgi(store: &Store, settings: &[(&str, &str)], serve: impl Fn(&'static str, Places) -> WebServer) -> Host {
    // Where the web server's user can run it.
    let directory = TestDir::new();
    let program =
        directory.file("program", fs::read(everpoll::binary("everpoll-fallback")).expect("it was built"));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let exports =
        settings.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect::<String>();
    let script = format!("#!/bin/sh\n{exports}exec '{}' \"$@\"\n", program.display());
    let server = serve("As CGI", Places::with_program(script, store.url()));
    Host { server, _fallback: None, _directory: directory }
}

#[test]
fn fallback_behind_nginx_answers_as_the_daemon() {
    assert_parity("nginx", nginx);
}

#[test]
fn cgi_program_under_apache_answers_as_the_daemon() {
    assert_parity("apache", |store, settings| cgi(store, settings, WebServer::apache));
}

#[test]
fn cgi_program_under_lighttpd_answers_as_the_daemon() {
    assert_parity("lighttpd", |store, settings| cgi(store, settings, WebServer::lighttpd));
}

#[test]
fn websocket_is_refused_by_name_under_each_host() {
    let store = Store::sqlite();
    let _daemon = Daemon::on(store.url()).start();
    open_to_all(&store);
    let hosts =
        [nginx(&store, &[]), cgi(&store, &[], WebServer::apache), cgi(&store, &[], WebServer::lighttpd)];
    for host in hosts {
        let reply = websocket::request("/e/cheese?flavor=websocket").send(host.server.address());
        let problem = reply.json();
        assert_eq!((reply.status, problem["code"].as_str()), (426, Some("upgrade_required")), "{reply:?}");
        assert_eq!(problem["reconnect_in"], 60);
    }
}
