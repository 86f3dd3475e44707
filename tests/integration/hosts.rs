//! The real fallback under each web server that has a page in `docs/how-to/`, set up as the page says.
//!
//! A page that polls must not see which server it is: what each of them answers is held against what the daemon answers
//! on the same log, header by header, but for what the server adds itself and for when to come back.
//!
//! What a newcomer gets wrong: as CGI the program runs as the web server's user, who makes the SQLite file when it is
//! the first to need it. So its folder is open to all here.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use everpoll_tests::http::{self, Address, Request};
use everpoll_tests::web::Places;
use everpoll_tests::{Daemon, Fallback, Reply, TestDir, WebServer};

use crate::site::{self, Store};

const FORM: &str = "application/x-www-form-urlencoded";

/// Headers that a web server sets itself, and the status as Python's server hands it on.
const SERVERS_OWN: [&str; 7] =
    ["server", "date", "connection", "keep-alive", "upgrade", "accept-ranges", "status"];

/// What every host can be asked after three events were published. Nothing of it is held by a daemon.
fn questions(mount: &str) -> Vec<Request> {
    let get = |target: &str| http::get(&format!("{mount}{target}"));
    let post = |kind: &str, body: &str| {
        http::request("POST", &format!("{mount}/e.php/cheese")).header("Content-Type", kind).body(body)
    };
    vec![
        get("/e.php/cheese?last_event_id=0"),
        get("/e.php/cheese/tab-1?last_event_id=0&_=1"),
        get("/e.php/nothing%20here,cheese?last_event_id=0&envelope=1"),
        get("/e.php/k%C3%A4se?last_event_id=0"),
        get("/e.php/cheese?last_event_id=now&hold=0"),
        post(FORM, "last_event_id=0"),
        post("application/json", r#"{"last_event_id":"0"}"#),
        // Errors.
        get("/e.php/cheese?last_event_id=soon"),
        get("/e.php/cheese?flavor=vanilla"),
        get("/e.php/"),
        post(FORM, "last_event_id=soon"),
        post("application/json", "{"),
    ]
}

/// What those can be asked that know all methods and hand on each header and the target as it came.
fn further_questions() -> Vec<Request> {
    vec![
        http::get("/e/cheese/tab-1").header("Last-Event-Id", "0"),
        http::get("/e/cheese?last_event_id=7").header("Last-Event-Id", "0"),
        http::request("HEAD", "/e/cheese?last_event_id=0"),
        http::request("OPTIONS", "/e/cheese"),
        http::request("DELETE", "/e/cheese"),
        http::get("/e"),
        http::get("/e/a%2Fb?last_event_id=0"),
    ]
}

/// A reply as it must be the same everywhere. `with_status` is off for a host that ignores the program's.
fn essence(reply: &Reply, with_status: bool) -> String {
    let mut headers: Vec<_> =
        reply.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    headers.retain(|(name, _)| !SERVERS_OWN.contains(&name.as_str()));
    let mut body = reply.text().to_owned();
    for (name, value) in &mut headers {
        // It differs by chance alone.
        if name == "x-ps-reconnect-in" {
            body = body.replace(&format!("\"reconnect_in\":{value}"), "\"reconnect_in\":N");
            *value = "N";
        }
    }
    headers.sort();
    format!("{} {headers:?} {body}", if with_status { reply.status } else { 0 })
}

/// Publishes at this target: what is sent twice, what is large, what is wrong.
#[track_caller]
fn assert_publishes(host: &WebServer, target: &str, with_status: bool) {
    let publish = |body: String| http::post_json(target, body).send(host.address());
    let ids = |reply: &Reply| {
        assert!(!with_status || reply.status == 201, "{} {}", reply.text(), host.log());
        reply.json()["ids"].clone()
    };
    let event =
        |key: u8| format!(r#"{{"channel":"cheese","type":"made","data":{{"name":"Gouda"}},"key":"{key}"}}"#);
    let first = ids(&publish(event(1)));
    assert_eq!(first, ids(&publish(event(1))), "the key is known");
    // Larger than any buffer between server and program.
    let name = "Käse ".repeat(100_000);
    let large = format!(r#"{{"channel":"käse","type":"made","data":{{"name":"{name}"}}}}"#);
    let more = ids(&publish(format!("[{},{large}]", event(2))));
    assert_eq!(more.as_array().map(Vec::len), Some(2));
    for (body, code) in [("{", "publish_malformed"), (r#"{"channel":"a,b"}"#, "publish_malformed")] {
        let refused = publish(body.to_owned());
        assert!(!with_status || refused.status == 400, "{refused:?}");
        assert_eq!(refused.json()["code"], code, "{body}");
    }
}

/// Asks host and daemon the same.
#[track_caller]
fn assert_answers_like_the_daemon(
    host: &WebServer,
    store: &Store,
    questions: impl IntoIterator<Item = (Request, Request)>,
    with_status: bool,
) {
    let daemon = Daemon::on(store.url()).start();
    for (question, at_daemon) in questions {
        let (got, expected) = (question.send(host.address()), at_daemon.send(daemon.address()));
        assert_eq!(
            essence(&got, with_status),
            essence(&expected, with_status),
            "{question:?} {}",
            host.log()
        );
    }
}

/// All of it, for a host that hides nothing.
#[track_caller]
fn assert_serves(host: &WebServer, store: &Store) {
    assert_publishes(host, "/publish", true);
    let questions = questions("").into_iter().chain(further_questions());
    assert_answers_like_the_daemon(host, store, questions.map(|question| (question.clone(), question)), true);
}

/// Runs `test` on both databases, with a file that any user may write.
fn on_both(test: impl Fn(&Store)) {
    for store in Store::both() {
        if let Store::Sqlite(sqlite) = &store {
            let path = sqlite.path();
            let folder = path.parent().expect("it is in a folder");
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
        }
        test(&store);
    }
}

#[test]
fn fallback_serves_as_cgi_under_apache() {
    on_both(|store| assert_serves(&WebServer::apache("As CGI", Places::new(store.url())), store));
}

#[test]
fn fallback_serves_as_fastcgi_under_apache() {
    on_both(|store| {
        let fallback = Fallback::on(store.url()).start();
        let places = Places::new(store.url()).fallback(fallback.address());
        assert_serves(&WebServer::apache("As FastCGI", places), store);
    });
}

#[test]
fn fallback_serves_as_cgi_under_lighttpd() {
    on_both(|store| assert_serves(&WebServer::lighttpd("As CGI", Places::new(store.url())), store));
}

#[test]
fn fallback_serves_as_fastcgi_under_lighttpd() {
    on_both(|store| {
        let fallback = Fallback::on(store.url()).start();
        let places = Places::new(store.url()).fallback(fallback.address());
        assert_serves(&WebServer::lighttpd("As FastCGI", places), store);
    });
}

#[test]
fn fallback_serves_as_fastcgi_under_nginx() {
    on_both(|store| {
        let (fallback, nobody) = (Fallback::on(store.url()).start(), TestDir::new());
        let nginx = WebServer::nginx(&Address::Unix(nobody.join("nobody.sock")), fallback.address());
        assert_serves(&nginx, store);
    });
}

#[test]
fn fallback_serves_as_cgi_under_python() {
    on_both(|store| {
        let host = WebServer::python("The script", Places::new(store.url()));
        assert_publishes(&host, "/cgi-bin/publish.php", false);
        let questions = questions("/cgi-bin").into_iter().zip(questions(""));
        assert_answers_like_the_daemon(&host, store, questions, false);
    });
}

#[test]
fn apache_holds_with_the_daemon_and_goes_on_with_the_fallback() {
    on_both(|store| {
        let sockets = TestDir::new();
        let mut daemon = Daemon::on(store.url()).at(&Address::Unix(sockets.join("daemon.sock"))).start();
        let fallback = Fallback::on(store.url()).start();
        let places = Places::new(store.url()).daemon(daemon.address()).fallback(fallback.address());
        let apache = WebServer::apache("In front of the daemon", places);
        let post = || {
            let post = http::request("POST", "/e/cheese").header("Content-Type", FORM);
            post.body("last_event_id=0").send(apache.address())
        };

        let held = http::get("/e/cheese/tab-1?last_event_id=0").begin(apache.address());
        let event = r#"{"channel":"cheese","type":"made","data":1}"#;
        let ids = daemon.publish(event);
        let reply = held.reply();
        assert_eq!((site::ids(&reply.events()), reply.reconnect_in()), (ids.clone(), 0));
        assert_eq!(site::ids(&post().events()), ids);

        daemon.kill_9();
        // The one POST that finds the daemon away arrives without its body. It must not be taken for one without a
        // cursor: that would skip what is there.
        let refused = post();
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (400, Some("body_lost")),
            "{refused:?}"
        );
        let reply = post();
        assert_eq!(site::ids(&reply.events()), ids);
        let reply = http::get("/e/cheese/tab-1").header("Last-Event-Id", "0").send(apache.address());
        assert_eq!(site::ids(&reply.events()), ids);
    });
}
