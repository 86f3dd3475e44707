//! A site with pages, for browsers: nginx in front, daemon and fallback behind it, and an application that publishes.
//!
//! The pages of `tests/js/pages` are at `/pages/`, from the same origin as `/e`. A script drives a browser there and asks
//! for the rest in words: see [`PagesSite::answer`].

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use everpoll_tests::http::{self, Address};
use everpoll_tests::{Daemon, Database, Fallback, Script, TestDir, WebServer, wait};

use crate::background::Background;
use crate::site::Store;
use crate::writers::Random;

/// What comes from npm, and where the pages expect it.
const LIBRARIES: [(&str, &str); 1] = [("jquery/dist/jquery.min.js", "jquery.js")];

/// Longest pause between two events that are published all the time, in ms.
const PAUSE: u64 = 250;

/// All that runs. Fields are dropped from top to bottom.
pub(crate) struct PagesSite {
    publisher: Option<Background<()>>,
    published: Arc<AtomicU64>,
    nginx: WebServer,
    _fallback: Fallback,
    daemon: Daemon,
    store: Store,
    _pages: TestDir,
    _sockets: TestDir,
}

impl PagesSite {
    /// Starts everything, with a fresh log in PostgreSQL.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let (store, sockets, pages) = (Store::postgres(), TestDir::new(), pages());
        let start = Daemon::on(store.url()).at(&Address::Unix(sockets.join("daemon.sock")));
        let daemon = settings.iter().fold(start, |start, (name, value)| start.setting(name, value)).start();
        let start = Fallback::on(store.url());
        let fallback = settings.iter().fold(start, |start, (name, value)| start.setting(name, value)).start();
        let own = format!(
            "location /pages/ {{ alias {}/; }}\nlocation = /status {{ stub_status; access_log off; }}\n",
            pages.path().display()
        );
        let nginx = WebServer::nginx_with(daemon.address(), fallback.address(), |part| {
            // Only the second part has locations.
            if part.contains("location = /publish") { format!("{own}{part}") } else { part.to_owned() }
        });
        let published = Arc::default();
        Self {
            publisher: None,
            published,
            nginx,
            _fallback: fallback,
            daemon,
            store,
            _pages: pages,
            _sockets: sockets,
        }
    }

    /// Runs a script with a browser on this site. It knows the site's `url`.
    #[track_caller]
    pub(crate) fn run(&mut self, script: Script) -> String {
        script.with("url", self.url()).run(|command| self.answer(command))
    }

    /// Where it is, such as `http://127.0.0.1:16001`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.nginx.address())
    }

    /// Does what a script asks for:
    ///
    /// - `publish 3 cheese`: that many events, one after the other, each committed when the answer comes;
    /// - `begin publishing` on the channel `cheese` all the time, `end publishing`;
    /// - `kill daemon` (SIGKILL), `stop daemon` (SIGTERM), `start daemon`: done when it is gone, or ready;
    /// - `published`: all events of the log as a JSON array, in order;
    /// - `held`: how many requests nginx has passed on and not answered yet: the fewest and the most of two seconds.
    fn answer(&mut self, command: &str) -> String {
        let words: Vec<_> = command.split(' ').collect();
        match words[..] {
            ["publish", count, channel] => {
                for _ in 0..count.parse().expect("a number") {
                    publish(self.nginx.address(), channel, next(&self.published));
                }
            }
            ["begin", "publishing"] => {
                assert!(self.publisher.is_none(), "it publishes already");
                self.publisher =
                    Some(application(self.nginx.address(), self.store.database(), &self.published));
            }
            ["end", "publishing"] => self.publisher.take().expect("it publishes").stop(),
            ["kill", "daemon"] => self.daemon.kill_9(),
            ["stop", "daemon"] => assert_eq!(self.daemon.stop().code(), Some(0)),
            ["start", "daemon"] => self.daemon.start_again(),
            ["published"] => return self.events(),
            ["held"] => {
                let looks: Vec<_> = (0..20).map(|_| self.held_now()).collect();
                let (fewest, most) = (looks.iter().min(), looks.iter().max());
                return format!("{} {}", fewest.expect("20 looks"), most.expect("20 looks"));
            }
            _ => panic!("no script may ask for {command:?}"),
        }
        "done".to_owned()
    }

    /// What is in the log.
    fn events(&self) -> String {
        let sql = "SELECT coalesce(json_agg(json_build_object('id', positions.id, 'channel', positions.channel, \
                   'type', events.type, 'n', events.data->'n') ORDER BY positions.id), '[]') \
                   FROM everpoll.positions JOIN everpoll.events ON events.row = positions.row";
        self.store.database().psql(sql).replace('\n', "")
    }

    /// Requests in the hands of nginx a moment from now, without the one that asks.
    fn held_now(&self) -> u64 {
        std::thread::sleep(Duration::from_millis(100));
        let status = http::get("/status").send(self.nginx.address());
        let text = String::from_utf8_lossy(&status.body);
        let writing = text.split_once("Writing:").and_then(|(_, rest)| rest.split_whitespace().next());
        let writing: u64 = writing.and_then(|count| count.parse().ok()).expect("nginx counts what it writes");
        writing - 1
    }
}

/// An application that publishes on `cheese` all the time, in SQL and over HTTP by turns.
fn application(nginx: &Address, database: &Database, published: &Arc<AtomicU64>) -> Background<()> {
    let (mut client, nginx, published) = (database.connect(), nginx.clone(), published.clone());
    let mut random = Random::seeded();
    Background::start(move |stopping| {
        while !stopping.load(Ordering::SeqCst) {
            let number = next(&published);
            if random.below(2) == 0 {
                publish(&nginx, "cheese", number);
            } else {
                let sql =
                    "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', $1, $2::text::json)";
                client.execute(sql, &[&kind(number), &data(number)]).expect("the database runs");
            }
            random.pause(PAUSE);
        }
    })
}

/// Publishes over HTTP; again with the same key when it is not known whether it was published.
fn publish(nginx: &Address, channel: &str, number: u64) {
    let (kind, data) = (kind(number), data(number));
    let json = format!(r#"{{"channel":"{channel}","type":"{kind}","data":{data},"key":"{number}"}}"#);
    let publish = http::post_json("/publish", json);
    wait::until("the publish is answered with 201", wait::PATIENCE, || {
        let status = publish.send(nginx).status;
        assert!([201, 503].contains(&status), "a publish was answered with {status}");
        if status == 503 {
            std::thread::sleep(Duration::from_millis(50));
        }
        status == 201
    });
}

/// Each event has a number, by which pages know it that are not told its id.
fn next(published: &AtomicU64) -> u64 {
    published.fetch_add(1, Ordering::SeqCst) + 1
}

fn kind(number: u64) -> &'static str {
    if number.is_multiple_of(3) { "cheese_sold" } else { "cheese_created" }
}

/// With characters that encodings, scripts and line ends break on.
fn data(number: u64) -> String {
    format!(r#"{{"n":{number},"name":"Gruyère \ud83e\uddc0 \u2028 </script> \"\\\n"}}"#)
}

/// A copy of the pages and of what they use, where nginx' workers can read it.
fn pages() -> TestDir {
    let (directory, scripts) = (TestDir::new(), Path::new(env!("CARGO_MANIFEST_DIR")).join("js"));
    let read = |path: &Path| {
        fs::read(path).unwrap_or_else(|error| panic!("{}: {error}; run tests/run", path.display()))
    };
    let entries = fs::read_dir(scripts.join("pages")).expect("the pages are in the repository");
    for path in entries.map(|entry| entry.expect("it can be listed").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("names in ASCII");
        directory.file(name, read(&path));
    }
    for (package, name) in LIBRARIES {
        directory.file(name, read(&scripts.join("node_modules").join(package)));
    }
    directory
}

#[test]
fn judge_of_ledgers_finds_what_is_lost_doubled_late_or_mangled() {
    Script::node("ledger-check.mjs").run(|command| panic!("it needs no {command:?}"));
}
