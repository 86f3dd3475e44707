//! Machines on which something is wrong: no room, no right to write, a damaged file, a mistake in the settings, a wrong clock,
//! a second daemon. There is a clear error, nothing that was acknowledged is lost, and all goes on when it is mended.

use std::path::Path;

use everpoll_tests::everpoll::{self, Output};
use everpoll_tests::http::{self, Address, Event};
use everpoll_tests::{Daemon, Disk, Fallback, TestDir, WebServer, process, wait};
use serde_json::{Value, json};

use crate::site::{self, Site, Store, ids, poll};

mod clock;
mod full;
mod postgres_full;

/// Publishes one event; its id, or the problem.
fn publish(address: &Address, data: &Value, key: &str) -> Result<u64, Value> {
    let event = json!({"channel": "cheese", "type": "made", "data": data, "key": key});
    let reply = http::post_json("/publish", event.to_string()).send(address);
    match reply.status {
        201 => Ok(reply.json()["ids"][0].as_u64().expect("an id")),
        _ => Err(reply.json()),
    }
}

/// What `/readyz` says is wrong, once it says that something is.
#[track_caller]
fn complaint(daemon: &Daemon, text: &str) -> String {
    let mut said = String::new();
    wait::until(&format!("the daemon says {text:?}"), wait::PATIENCE, || {
        let reply = http::get("/readyz").send(daemon.address());
        said = format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        reply.status == 503 && said.contains(text)
    });
    said
}

/// All events of the channel after `cursor`, from whom ever.
#[track_caller]
fn read_all(address: &Address, mut cursor: u64) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let reply = poll("cheese", cursor, "flavor=short-poll").send(address);
        let events = reply.events();
        if events.is_empty() {
            return all;
        }
        cursor = reply.cursor();
        all.extend(events);
    }
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, texts: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    for text in texts {
        assert!(output.stderr.contains(text), "{text:?} is not said: {output:?}");
    }
}

/// What a file that nobody else uses has in it.
fn fill_with(path: &Path, from: usize, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).expect("it is there");
    file.write_all_at(bytes, from as u64).expect("the disk has room");
}

#[test]
fn second_daemon_at_the_same_address_says_so_and_does_not_disturb_the_first() {
    let site = Site::on(Store::sqlite());
    let directory = TestDir::new();
    let socket = Address::Unix(directory.join("daemon.sock"));
    let other = Daemon::on(site.store.url()).at(&socket).start();
    for daemon in [&site.daemon, &other] {
        let cursor = site.cursor("cheese");
        let held = http::get(&format!("/e/cheese?last_event_id={cursor}")).begin(daemon.address());
        let mut command = everpoll::command("everpoll");
        command
            .arg("serve")
            .env("EVERPOLL_LISTEN", daemon.address().to_string())
            .env("EVERPOLL_DATABASE_URL", site.store.url());
        let (status, stdout, stderr) = process::run(command, b"");
        let output = Output { status, stdout, stderr };
        let address = daemon.address().to_string();
        assert_refused(&output, 1, &["cannot listen at", address.as_str(), "stop it"]);
        // The socket's file is still the first one's.
        let id = site.publish("cheese", "1");
        assert_eq!(ids(&held.reply_within(site::SOON).events()), [id]);
        wait::until("it still answers", wait::PATIENCE, || {
            poll("cheese", cursor, "flavor=short-poll")
                .try_send(daemon.address())
                .is_ok_and(|r| r.cursor() >= id)
        });
    }
}

#[test]
fn damaged_settings_file_is_named_with_its_line_and_the_mended_one_goes_on() {
    let store = Store::postgres();
    let directory = TestDir::new();
    let good = format!("database_url = \"{}\"\naccess = \"open\"\nheartbeat = 5\n", store.url());
    let file = directory.file("everpoll.toml", &good);
    let config = ("EVERPOLL_CONFIG", file.to_str().expect("plain text"));
    let mut site = Site::with(store, &[config]);
    let first = site.publish("cheese", "1");

    let damages: [(&[u8], &[&str]); 4] = [
        (b"database_url = \"postgres://\naccess = ", &["everpoll.toml", "line 1"]),
        (b"access = \"open\"\nheartbeat = 5\n\x00\x01\x02", &["everpoll.toml", "line 3"]),
        (b"access = \"open\"\xff\xfe\n", &["everpoll.toml", "UTF-8"]),
        (b"access = \"open\"\nhartbeat = 5\n", &["everpoll.toml", "hartbeat", "heartbeat"]),
    ];
    for (damage, texts) in damages {
        std::fs::write(&file, damage).expect("it is ours");
        // What runs has read its settings, and a restart does not come far enough to do harm.
        for arguments in [&["serve"][..], &["publish", "cheese", "made", "1"], &["trim"], &["migrate"]] {
            let mut command = everpoll::command("everpoll");
            command.args(arguments).env("EVERPOLL_CONFIG", &file);
            let (status, stdout, stderr) = process::run(command, b"");
            assert_refused(&Output { status, stdout, stderr }, 2, texts);
        }
        let mut fallback = everpoll::command("everpoll-fallback");
        fallback.args(["--listen", "127.0.0.1:1"]).env("EVERPOLL_CONFIG", &file);
        let (status, stdout, stderr) = process::run(fallback, b"");
        assert_refused(&Output { status, stdout, stderr }, 2, texts);
        site.publish("cheese", "2");
    }
    site.daemon.stop();
    let (_, fallback) = site.doors()[1];
    let last = publish(fallback, &json!(3), "meanwhile").expect("the fallback runs");
    std::fs::write(&file, good).expect("it is ours");
    site.daemon.start_again();
    for (name, address) in site.doors() {
        let events = read_all(address, 0);
        assert_eq!(events.len(), damages.len() + 2, "{name}");
        assert_eq!((events[0].id, events[events.len() - 1].id), (first, last), "{name}");
    }
}

#[test]
fn file_that_is_damaged_is_said_and_a_backup_in_its_place_goes_on() {
    let mut site = Site::on(Store::sqlite());
    let Store::Sqlite(sqlite) = &site.store else { unreachable!("it was just made") };
    let (file, copy) = (sqlite.path(), sqlite.path().with_extension("copy"));
    let large = json!("x".repeat(3000));
    let kept: Vec<u64> = (0..40)
        .map(|n| publish(site.daemon.address(), &large, &n.to_string()).expect("all is well"))
        .collect();
    let connection = rusqlite::Connection::open(&file).expect("it is there");
    connection.execute("VACUUM INTO ?1", [copy.to_str()]).expect("the disk has room");
    drop(connection);
    let lost = publish(site.daemon.address(), &large, "lost").expect("all is well");
    site.daemon.stop();
    site.fallback.stop();
    // What is still in the write-ahead log goes into the file when the last connection is closed.
    let connection = rusqlite::Connection::open(&file).expect("it is there");
    connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).expect("all is well");
    connection.close().expect("nobody else has it open");
    let length = std::fs::metadata(&file).expect("it is there").len() as usize;

    // All but the first page; then that as well.
    for (from, text, code) in [(4096, "is damaged", 1), (0, "is not an SQLite database", 2)] {
        fill_with(&file, from, &vec![0x55; length - from]);
        site.daemon = Daemon::on(site.store.url()).at(site.daemon.address()).start_unready();
        site.fallback.start_again();
        let said = complaint(&site.daemon, text);
        assert!(said.contains("everpoll.db"), "{said}");
        for (name, address) in site.doors() {
            // Not a word of "there is nothing": that would be a silent gap.
            for cursor in ["0", "now"] {
                let reply = poll("cheese", cursor, "flavor=short-poll").send(address);
                assert!(reply.status >= 500, "{name} from {cursor}: {} {}", reply.status, reply.text());
            }
            let problem = publish(address, &large, "refused").expect_err("there is no log");
            assert_eq!(problem["code"], "internal", "{name}: {problem}");
        }
        assert_refused(&site.store.run(&["publish", "cheese", "made", "1"]), code, &["everpoll.db", text]);
        assert!(site.fallback.log().contains(text), "{}", site.fallback.log());
        site.daemon.stop();
        site.fallback.stop();
    }

    for end in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(file.with_extension(end));
    }
    std::fs::copy(&copy, &file).expect("the disk has room");
    site.daemon.start_again();
    site.fallback.start_again();
    let new = publish(site.daemon.address(), &large, "new").expect("all is well again");
    site.settle();
    for (name, address) in site.doors() {
        let expected: Vec<_> = kept.iter().copied().chain([new]).collect();
        assert_eq!(ids(&read_all(address, 0)), expected, "{name}");
        let gap = &poll("cheese", lost, "flavor=short-poll").send(address).events()[0];
        assert_eq!((gap.kind.as_str(), &gap.data["reason"]), ("everpoll:gap", &json!("ahead")), "{name}");
    }
}
