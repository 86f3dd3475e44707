//! Settings that are read again while clients are held: what counts, what is told, and that nobody loses anything by it.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use everpoll_tests::http::{self, Address, Held};
use everpoll_tests::{EventStream, TestDir, WebSocket, everpoll, sse, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::background::Background;
use crate::gap::{self, Told};
use crate::site::{Site, Store};

const KEYS: [(&str, &str); 3] = [
    ("a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("b", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"),
    ("c", "cccccccccccccccccccccccccccccccccccccccc"),
];

/// Both programs with one settings file. Fields are dropped from top to bottom.
struct Reloaded {
    site: Site,
    file: PathBuf,
    _directory: TestDir,
}

impl Reloaded {
    fn with(store: Store, text: &str) -> Self {
        let directory = TestDir::new();
        let file = directory.file("everpoll.toml", text);
        let config = file.display().to_string();
        // The harness writes one down, which would win over the file.
        let site = Site::with(store, &[("EVERPOLL_CONFIG", &config), ("EVERPOLL_ACCESS", "")]);
        Self { site, file, _directory: directory }
    }

    /// Puts another file in place, and waits until both programs have told so often what contains this.
    #[track_caller]
    fn put(&mut self, text: &str, told: &str) {
        let counts = self.counts(told);
        let new = self.file.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &self.file)).expect("both are ours");
        self.signal();
        wait::until(&format!("both have told {told:?}"), wait::PATIENCE, || {
            self.counts(told).iter().zip(&counts).all(|(now, before)| now > before)
        });
    }

    fn signal(&mut self) {
        self.site.daemon.process().signal(Signal::HUP);
        self.site.fallback.process().signal(Signal::HUP);
    }

    fn counts(&self, told: &str) -> [usize; 2] {
        [self.site.daemon.log(), self.site.fallback.log()].map(|log| log.matches(told).count())
    }

    /// A token that the command line makes with this key.
    fn token(&self, key: &str) -> String {
        let mut command = everpoll::command("everpoll");
        command.args(["token", "make", "--key", key, "cheese", "--config"]).arg(&self.file);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What `everpoll settings check` says, and its exit code.
    fn check(&self) -> (Option<i32>, String) {
        let mut command = everpoll::command("everpoll");
        command.args(["settings", "check", "--config"]).arg(&self.file);
        command.env("EVERPOLL_DATABASE_URL", self.site.store.url());
        let output = command.output().expect("it runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn held(&self, way: &str) -> u64 {
        self.count("held", way)
    }

    /// What the daemon says of a transport.
    fn count(&self, name: &str, way: &str) -> u64 {
        let page = self.site.daemon.get("/metrics");
        let name = format!("everpoll_{name}{{transport=\"{way}\"}} ");
        let value = page.text().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        value.unwrap_or(0)
    }

    /// The longest hold that each program grants now.
    fn holds(&self) -> Vec<u64> {
        let ask = |address: &Address| http::get("/e/cheese?envelope=1&flavor=short-poll").send(address);
        self.site.doors().map(|(_, address)| ask(address).json()["hold"].as_u64().unwrap_or(0)).to_vec()
    }
}

fn publish(address: &Address, key: &str, body: &str) -> (u16, Value) {
    let request = http::post_json("/publish", body).header("Authorization", &format!("Bearer {key}"));
    let reply = request.send(address);
    (reply.status, reply.json()["code"].clone())
}

#[test]
fn new_values_count_in_both_programs_and_what_cannot_change_is_named() {
    let first = "hold_max = 20\n[publish_keys.one]\nkey = 'one-one-one-one-1'\nchannels = ['*']\n";
    let mut running = Reloaded::with(Store::sqlite(), first);
    let event = r#"{"channel":"cheese","type":"made","data":1}"#;
    let large =
        json!([0, 1].map(|n| json!({"channel": "c", "type": "t", "data": n.to_string().repeat(700_000)})));
    let large = large.to_string();
    let held = http::get("/e/cheese").begin(running.site.daemon.address());
    wait::until("it is held", wait::PATIENCE, || running.held("long_poll") == 1);
    assert_eq!(running.holds(), [20, 20]);
    for (name, address) in running.site.doors() {
        assert_eq!(publish(address, "one-one-one-one-1", &large).0, 201, "{name}");
        assert_eq!(http::get("/e/cheese?cb=f").send(address).status, 403, "{name}: no scripts yet");
    }
    let second = "hold_max = 7\njsonp = true\nbody_max = '1088KiB'\nlog = 'debug'\nreuse_port = true\n\
                  database_connections = 2\n[publish_keys.two]\nkey = 'two-two-two-two-2'\nchannels = ['*']\n";
    let told = "changed: hold_max, jsonp, publish_keys, body_max, log; reuse_port, database_connections need a restart, \
                and the old values go on";
    running.put(second, told);
    assert_eq!(running.holds(), [7, 7]);
    for (name, address) in running.site.doors() {
        assert_eq!(publish(address, "one-one-one-one-1", event), (403, json!("publish_key_wrong")), "{name}");
        assert_eq!(publish(address, "two-two-two-two-2", &large).0, 413, "{name}");
        assert_eq!(http::get("/e/cheese?cb=f&flavor=short-poll").send(address).status, 200, "{name}");
    }
    // Whoever was held under the old settings still is, and gets what comes.
    assert_eq!(publish(running.site.daemon.address(), "two-two-two-two-2", event).0, 201);
    assert_eq!(held.reply().events().len(), 1);
    // Without a key publishing does not become free.
    running.put("hold_max = 7\n", "changed: jsonp, publish_keys, body_max, log");
    for (name, address) in running.site.doors() {
        let reply = http::post_json("/publish", event).send(address);
        assert_eq!(reply.status, 403, "{name}");
    }
    running.put("hold_max = 7\n", "nothing has changed");
}

#[test]
fn wrong_settings_are_told_whole_and_nothing_changes() {
    let mut running = Reloaded::with(Store::sqlite(), "hold_max = 20\n");
    assert_eq!(running.check(), (Some(0), "the settings are right\n".to_owned()));
    let wrong = "hold_max = 5\nheartbeat = 'often'\nbody_max = 1\nhold_mx = 3\naccess = 'token'\n";
    running.put(wrong, "the new settings do not count, the old ones go on: the settings have 3 problems");
    assert_eq!(running.holds(), [20, 20]);
    let (code, said) = running.check();
    assert_eq!(code, Some(2), "{said}");
    let problems: Vec<_> = said.lines().filter(|line| line.starts_with("- ")).collect();
    assert_eq!(problems.len(), 3, "{said}");
    for log in [running.site.daemon.log(), running.site.fallback.log()] {
        for problem in &problems {
            assert!(log.contains(problem), "{problem} in {log}");
        }
    }
    running.put("hold_max = 5\naccess = 'token'\n", "there is no key that could sign one");
    running.put("hold_max = 5\n[", "is not TOML: line 2");
    fs::remove_file(&running.file).expect("it is ours");
    running.signal();
    wait::until("both have told that it is away", wait::PATIENCE, || {
        running.counts("everpoll.toml cannot be read").iter().all(|count| *count > 0)
    });
    assert_eq!(running.holds(), [20, 20]);
    running.put("hold_max = 5\n", "read the settings again; changed: hold_max");
    assert_eq!(running.holds(), [5, 5]);
}

#[test]
fn access_that_must_be_written_must_stay_so() {
    let mut running = Reloaded::with(Store::postgres(), "access = 'open'\n");
    running.put("hold_max = 5\n", "access is not set, and the database is PostgreSQL");
    assert_eq!(running.holds(), [25, 25]);
    running.put("hold_max = 5\naccess = 'open'\n", "changed: hold_max");
    assert_eq!(running.holds(), [5, 5]);
}

/// Settings under which these keys sign tokens.
fn keys(names: &[&str]) -> String {
    let key = |(name, secret): &(&str, &str)| {
        format!("[token_keys.{name}]\nalgorithm = 'HS256'\nsecret = '{secret}'\n")
    };
    KEYS.iter().filter(|(name, _)| names.contains(name)).map(key).collect()
}

fn by_token(names: &[&str]) -> String {
    "access = 'token'\n".to_owned() + &keys(names)
}

/// All that can be held, by one who has this token.
struct Readers {
    polls: Vec<Held>,
    stream: EventStream,
    socket: WebSocket,
}

impl Readers {
    fn with(running: &Reloaded, token: &str) -> Self {
        let address = running.site.daemon.address();
        let before = ["long_poll", "padded", "eventsource", "websocket"].map(|way| running.held(way));
        let target = |more: &str| format!("/e/cheese?last_event_id=0&token={token}{more}");
        let polls = ["", "&pad=4096&beat=1"].map(|more| http::get(&target(more)).begin(address)).into();
        let stream = EventStream::open(address, &sse::get(&target("")));
        let socket = WebSocket::open(address, &target(""));
        wait::until("all are held", wait::PATIENCE, || {
            let now = ["long_poll", "padded", "eventsource", "websocket"].map(|way| running.held(way));
            now.iter().zip(before).all(|(now, before)| *now == before + 1)
        });
        Self { polls, stream, socket }
    }

    /// They are sent back, with nothing, long before a hold would end.
    fn expect_end(mut self) {
        let last = self.stream.rest().pop().expect("it ends with a record");
        assert_eq!(last.json()["reason"], "expired");
        assert_eq!(self.socket.closed(), (1013, "reconnect_in=0 expired".to_owned()));
        for poll in self.polls {
            // A hold ends after 25 s by itself.
            let reply = poll.reply_within(Duration::from_secs(15));
            assert_eq!((reply.status, reply.events()), (200, vec![]));
        }
    }
}

/// The code of a refusal, `ok` if there is none.
fn code(address: &Address, token: &str) -> String {
    let reply = http::get(&format!("/e/cheese?flavor=short-poll&token={token}")).send(address);
    reply.json()["code"].as_str().unwrap_or("ok").to_owned()
}

#[test]
fn readers_whose_key_is_gone_are_sent_away_and_others_go_on() {
    let mut running = Reloaded::with(Store::sqlite(), &by_token(&["a", "b"]));
    let [a, b] = ["a", "b"].map(|key| running.token(key));
    // A key more takes nothing away from anybody.
    let readers = Readers::with(&running, &a);
    running.put(&by_token(&["a", "b", "c"]), "changed: token_keys");
    let mut readers = readers;
    assert!(readers.polls[0].is_waiting(), "it is still held");
    let others = Readers::with(&running, &b);
    running.put(&by_token(&["b", "c"]), "changed: token_keys");
    readers.expect_end();
    // Nobody knows who came with which key, so these have to ask again as well; and are let in.
    others.expect_end();
    for (name, address) in running.site.doors() {
        assert_eq!(
            (code(address, &a), code(address, &b)),
            ("token_key_unknown".into(), "ok".into()),
            "{name}"
        );
    }
    let readers = Readers::with(&running, &b);
    running.site.daemon.publish(r#"{"channel":"cheese","type":"made","data":1}"#);
    assert!(readers.polls.into_iter().all(|poll| poll.reply().events().len() == 1));
    // The same where the key was in the file of keys, which nobody has to be told of.
    let file = running.file.with_file_name("keys.toml");
    fs::write(&file, keys(&["a"])).expect("it is ours");
    running.put(&format!("keys_file = {:?}\n{}", file.display().to_string(), by_token(&["b"])), "keys_file");
    let target = format!("/e/other?token={}", {
        let mut command = everpoll::command("everpoll");
        command.args(["token", "make", "--key", "a", "other", "--config"]).arg(&running.file);
        String::from_utf8_lossy(&command.output().expect("it runs").stdout).trim().to_owned()
    });
    let held = http::get(&target).begin(running.site.daemon.address());
    wait::until("it is held", wait::PATIENCE, || running.held("long_poll") == 1);
    fs::write(&file, "").expect("it is ours");
    wait::until("the keys are exchanged", wait::PATIENCE, || {
        running.counts("keys.toml are exchanged") == [1, 1]
    });
    assert_eq!(
        (held.reply().status, code(running.site.daemon.address(), &a)),
        (200, "token_key_unknown".into())
    );
}

#[test]
fn keys_of_a_namespace_are_exchanged_in_the_file_of_keys() {
    let file = TestDir::new();
    let path = file.file("keys.toml", "");
    let put = |text: String| {
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).expect("both are ours");
    };
    let key = |(name, secret): (&str, &str), of: &str| {
        format!("[{of}token_keys.{name}]\nalgorithm = 'HS256'\nsecret = '{secret}'\n")
    };
    let [a, b, for_all] = KEYS;
    put(key(a, "namespaces.'shop:'."));
    let settings = format!(
        "access = 'token'\nkeys_file = '{}'\n[namespaces.'shop:'.token_keys]\n{}",
        path.display(),
        key(for_all, "")
    );
    let running = Reloaded::with(Store::sqlite(), &settings);
    let token = |arguments: &[&str]| {
        let mut command = everpoll::command("everpoll");
        command.args(["token", "make"]).args(arguments).arg("shop:*").arg("--config").arg(&running.file);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let said = |token: &str| {
        running.site.doors().map(|(_, address)| {
            let target = format!("/e/shop:1?flavor=short-poll&token={token}");
            http::get(&target).send(address).json()["code"].as_str().unwrap_or("ok").to_owned()
        })
    };
    let exchanged = |times: usize| {
        wait::until("the keys are exchanged", wait::PATIENCE, || {
            running.counts("keys.toml are exchanged") == [times; 2]
        });
    };
    const UNKNOWN: [&str; 2] = ["token_key_unknown"; 2];
    let [with_a, stranger] = [token(&["--namespace", "shop:"]), token(&[])];
    assert_eq!(said(&with_a), ["ok"; 2]);
    assert_eq!(said(&stranger), UNKNOWN);
    let held = http::get(&format!("/e/shop:1?token={with_a}")).begin(running.site.daemon.address());
    wait::until("it is held", wait::PATIENCE, || running.held("long_poll") == 1);

    put(key(b, "namespaces.'shop:'."));
    exchanged(1);
    assert_eq!(held.reply_within(Duration::from_secs(15)).status, 200, "it is sent back");
    let with_b = token(&["--namespace", "shop:"]);
    assert_eq!(said(&with_a), UNKNOWN);
    assert_eq!(said(&with_b), ["ok"; 2]);

    // What the settings do not know as a namespace with keys of its own changes nothing.
    put(key(b, "namespaces.'shop:'.") + &key(a, "namespaces.'crm:'."));
    wait::until("both have told it", wait::PATIENCE, || {
        running.counts("has keys for the namespace \"crm:\"").iter().all(|told| *told > 0)
    });
    assert_eq!(said(&with_b), ["ok"; 2]);

    // Without its last key nobody reads there, not by the keys for all either.
    put(String::new());
    exchanged(2);
    for token in [&with_a, &with_b, &stranger] {
        assert_eq!(said(token), UNKNOWN);
    }
}

/// A request is judged, and then waits for the database before it is held. What is taken away meanwhile wakes nobody, since nobody is
/// held yet; so each looks again when it is.
#[test]
fn request_that_was_let_in_just_before_a_reload_is_not_held_after_it() {
    let settings = |names: &[&str]| format!("window_bytes = '64KiB'\n{}", by_token(names));
    let mut running = Reloaded::with(Store::postgres(), &settings(&["a", "b"]));
    let token = running.token("a");
    // So many that memory does not reach back to the first of them.
    for _ in 0..4 {
        let events = vec![json!({"channel": "other", "type": "made", "data": 1}); 900];
        running.site.daemon.publish(&json!(events).to_string());
    }
    let mut connection = running.site.store.database().connect();
    let mut block = connection.transaction().expect("the database runs");
    block.batch_execute("LOCK TABLE everpoll.places IN ACCESS EXCLUSIVE MODE").expect("it is let in");
    let address = running.site.daemon.address().clone();
    let ways = ["long_poll", "padded", "eventsource", "websocket"];
    let before = ways.map(|way| running.count("requests_total", way));
    let target = |cursor: usize, more: &str| format!("/e/cheese?last_event_id={cursor}&token={token}{more}");
    let polls =
        [target(1, ""), target(2, "&pad=4096&beat=1")].map(|target| http::get(&target).begin(&address));
    let stream = sse::get(&target(3, "")).begin(&address);
    let mut socket = WebSocket::open(&address, &target(4, ""));
    wait::until("all were let in", wait::PATIENCE, || {
        ways.iter().zip(before).all(|(way, before)| running.count("requests_total", way) > before)
    });
    running.put(&settings(&["b"]), "changed: token_keys");
    block.rollback().expect("the database runs");
    // Sooner than a hold ends, which is 25 s.
    let soon = Duration::from_secs(15);
    for poll in polls {
        let reply = poll.reply_within(soon);
        assert_eq!((reply.status, reply.events()), (200, vec![]));
    }
    let ended = stream.reply_within(soon);
    assert!(ended.text().contains(r#""reason":"expired""#), "{}", ended.text());
    assert_eq!(socket.closed(), (1013, "reconnect_in=0 expired".to_owned()));
    assert_eq!(code(&address, &token), "token_key_unknown");
}

#[test]
fn retention_changes_while_the_daemon_runs() {
    for store in Store::both() {
        let mut running = Reloaded::with(store, "access = 'open'\ntrim_interval = 86400\n");
        for n in 0..30 {
            running.site.publish("cheese", &n.to_string());
        }
        running.put(
            "access = 'open'\ntrim_interval = 1\nretain_count = 10\n",
            "changed: retain_count, trim_interval",
        );
        let from = |address: &Address| {
            let request = http::get("/e/cheese?last_event_id=0&flavor=short-poll").send(address);
            request.events().iter().filter(|event| event.kind == "made").count()
        };
        wait::until("ten are left", wait::PATIENCE, || {
            running.site.doors().iter().all(|(_, address)| from(address) == 10)
        });
    }
}

#[test]
fn namespace_keeps_its_events_apart_from_when_the_settings_say_so() {
    for store in Store::both() {
        let mut running = Reloaded::with(store, "access = 'open'\ntrim_interval = 86400\n");
        let publish = |channel: &str| -> Vec<u64> {
            (0..5).map(|n| running.site.publish(channel, &n.to_string())).collect()
        };
        let (news, shop, europe) = (publish("news"), publish("shop:a"), publish("shop:eu:a"));
        running.put(
            "access = 'open'\ntrim_interval = 1\nretain_count = 4\n[namespaces.'shop:']\nretain_count = 2\n\
             [namespaces.'shop:eu:']\nevent_max = '1KiB'\n[namespaces.'crm:']\nretain_count = 'none'\n",
            "changed: namespaces, retain_count, trim_interval",
        );
        let low = news[0];
        // The part of the namespace without a retention of its own is counted with it.
        let shop_low = europe[2];
        // The fallback reads the log, so it knows at once.
        let is_gone = |site: &Site, channel: &str, cursor: u64| {
            let target = format!("/e/{channel}?flavor=short-poll&last_event_id={cursor}");
            let reply = http::get(&target).send(site.door(1));
            reply.events().first().is_some_and(|event| event.kind == "everpoll:gap")
        };
        wait::until("what is too much is gone", wait::PATIENCE, || {
            is_gone(&running.site, "news", low - 1) && is_gone(&running.site, "shop:a", shop_low - 1)
        });
        // Nobody tells the daemon of it but its next read of the log.
        let newest = running.site.publish("crm:b", "0");
        for restarted in [false, true] {
            if restarted {
                running.site.daemon.stop();
                running.site.daemon.start_again();
            }
            let ask = |channels: &str, cursor| gap::ask(&running.site, channels, cursor);
            assert_eq!(ask("news", 0), Told::gap(0, low + 1, "trimmed", &news[1..], newest));
            assert_eq!(ask("news", low), Told::events(&news[1..], newest));
            assert_eq!(ask("shop:a", low), Told::gap(low, shop_low + 1, "trimmed", &[], newest));
            assert_eq!(ask("shop:eu:a", low), Told::gap(low, shop_low + 1, "trimmed", &europe[3..], newest));
            assert_eq!(ask("shop:eu:a", shop_low), Told::events(&europe[3..], newest));
            // Whoever asks for channels of both is told where both go on.
            assert_eq!(
                ask("news,shop:eu:a", shop[0]),
                Told::gap(shop[0], shop_low + 1, "trimmed", &europe[3..], newest)
            );
        }
        // The one that keeps all is not counted with anything.
        let crm: Vec<_> = (0..9).map(|n| running.site.publish("crm:a", &n.to_string())).collect();
        running.site.publish("news", "5");
        wait::until("another of the news is gone", wait::PATIENCE, || is_gone(&running.site, "news", low));
        let newest = running.site.publish("crm:b", "1");
        assert_eq!(gap::ask(&running.site, "crm:a", low), Told::events(&crm, newest));
    }
}

/// Reads until an event of the type `end`, by polls that are held or by one stream after the other, and returns the ids before.
fn read(address: &Address, token: &str, streams: bool) -> Background<Vec<u64>> {
    let (address, token) = (address.clone(), token.to_owned());
    Background::start(move |stopping| {
        let (mut ids, mut cursor): (Vec<u64>, u64) = (Vec::new(), 0);
        while !stopping.load(Ordering::Relaxed) {
            let target = format!("/e/cheese?last_event_id={cursor}&hold=2&token={token}");
            let mut read = Vec::new();
            if streams {
                let mut stream = EventStream::open(&address, &sse::get(&target));
                // It is sent away now and then; when it is quiet for long, it goes away itself.
                while let Ok(Some(event)) = stream.try_next(Duration::from_secs(1)) {
                    if !event.kind.starts_with("everpoll:") {
                        read.push((event.kind, event.last_event_id.parse().expect("an id")));
                    }
                }
            } else {
                let reply = http::get(&target).send(&address);
                read.extend(reply.events().into_iter().map(|event| (event.kind, event.id)));
            }
            for (kind, id) in read {
                if kind == "end" {
                    return ids;
                }
                assert_eq!(kind, "made");
                ids.push(id);
                cursor = id;
            }
        }
        panic!("there was no end after {} events", ids.len());
    })
}

#[test]
fn twenty_reloads_under_load_lose_nothing_and_double_nothing() {
    let mut running = Reloaded::with(Store::sqlite(), &by_token(&["a", "b"]));
    let token = running.token("a");
    let address = running.site.daemon.address().clone();
    let readers: Vec<_> = (0..8).map(|n| read(&address, &token, n % 2 == 0)).collect();
    let publisher = {
        let address = address.clone();
        Background::start(move |stopping| {
            let mut ids = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                let event = r#"{"channel":"cheese","type":"made","data":1}"#;
                let reply = http::post_json("/publish", event).send(&address);
                assert_eq!(reply.status, 201, "{}", reply.text());
                ids.push(reply.json()["ids"][0].as_u64().expect("an id"));
            }
            ids
        })
    };
    for n in 0..20 {
        // Each second one takes a key away, so that all who are held are sent back.
        let (text, hold) = (by_token(if n % 2 == 0 { &["a"] } else { &["a", "b"] }), 10 + n);
        running.put(&format!("hold_max = {hold}\n{text}"), "read the settings again; changed: ");
    }
    let published = publisher.stop();
    running.site.daemon.publish(r#"{"channel":"cheese","type":"end","data":1}"#);
    for reader in readers {
        assert_eq!(reader.finish(), published, "everything once, in order");
    }
    // On a loaded machine a reload takes as long as a publish.
    assert!(published.len() > 20, "only {} events", published.len());
    assert!(running.site.daemon.log().contains("all who are held are to ask again"));
}
