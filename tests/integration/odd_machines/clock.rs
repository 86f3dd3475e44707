//! The clock is set back by an hour while everything runs. Only times step: ids and their order do not know of it.

use std::path::PathBuf;

use everpoll_tests::{EventStream, Postgres, sse};

use super::*;

/// A clock that the test sets, for programs that are started with it.
struct Clock {
    library: PathBuf,
    file: PathBuf,
    _directory: TestDir,
}

impl Clock {
    fn new() -> Self {
        let directory = TestDir::new();
        let file = directory.file("clock", "+0");
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library = folders
            .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
            .find(|library| library.exists())
            .expect("Debian's faketime is needed");
        Self { library, file, _directory: directory }
    }

    fn variables(&self) -> [(&'static str, &str); 5] {
        let text = |path: &'static str| path;
        [
            (text("LD_PRELOAD"), self.library.to_str().expect("plain text")),
            ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().expect("plain text")),
            ("FAKETIME_NO_CACHE", "1"),
            // A clock that counts time, rather than tell it, is never set.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// So many hours off, at once.
    fn set(&self, hours: i32) {
        // By a new file in its place: nobody reads half of it.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{hours:+}h")).expect("it is ours");
        std::fs::rename(&next, &self.file).expect("it is ours");
    }
}

#[test]
fn clock_that_is_set_back_an_hour_loses_nothing_on_postgres() {
    let clock = Clock::new();
    let postgres = Postgres::start_in(&clock.variables(), None);
    let database = postgres.create_database();
    database.migrate();
    check(&clock, Store::Postgres(database));
}

#[test]
fn clock_that_is_set_back_an_hour_loses_nothing_on_sqlite() {
    check(&Clock::new(), Store::sqlite());
}

fn check(clock: &Clock, store: Store) {
    let mut settings = clock.variables().to_vec();
    settings.extend([
        ("EVERPOLL_RETAIN_FOR", "2h"),
        ("EVERPOLL_TRIM_INTERVAL", "1"),
        ("EVERPOLL_HEARTBEAT", "1"),
    ]);
    let mut site = Site::with(store, &settings);
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs_f64();
    let one = |site: &Site, number: usize| {
        publish(site.door(number), &json!(number), &number.to_string()).expect("all is well")
    };
    let mut all: Vec<_> = (0..6).map(|number| one(&site, number)).collect();
    let target = format!("/e/cheese?last_event_id={}", all[5]);
    let mut stream = EventStream::open(site.daemon.address(), &sse::get(&target));
    let held = site::hold(&site, "cheese", all[5], "one");

    clock.set(-1);
    all.extend((6..12).map(|number| one(&site, number)));
    assert_eq!(ids(&held.reply_within(site::SOON).events())[0], all[6]);
    stream.wait_for("all has come", |text| text.contains(&format!("id: {}\n", all[11])));
    site.settle();
    // The key of an event from before the step is still known.
    assert_eq!(one(&site, 3), all[3]);
    let check_all = |site: &Site, all: &[u64]| {
        for (name, address) in site.doors() {
            for (place, cursor) in all.iter().enumerate() {
                assert_eq!(ids(&read_all(address, *cursor)), all[place + 1..], "{name} from {cursor}");
            }
            // Who asks by the time from before the step gets all since then, whatever the later ones' times are.
            let reply = poll("cheese", format!("rt-{since:.3}"), "flavor=short-poll").send(address);
            assert_eq!(ids(&reply.events()), all, "{name}");
            // By a time of the clock as it is now, rather too much than too little.
            let reply =
                poll("cheese", format!("rt-{:.3}", since - 3600.0), "flavor=short-poll").send(address);
            assert_eq!(ids(&reply.events()), all, "{name}");
        }
    };
    check_all(&site, &all);
    let times: Vec<String> = poll("cheese", 0, "flavor=short-poll")
        .send(site.daemon.address())
        .json()
        .as_array()
        .expect("a batch")
        .iter()
        .map(|event| event["ts"].as_str().expect("a time").to_owned())
        .collect();
    assert!(times[11] < times[0], "the clock was not set back: {times:?}");

    // Programs that start with such a clock fill their memory from the log.
    site.daemon.kill_9();
    site.daemon.start_again();
    all.push(one(&site, 12));
    check_all(&site, &all);
    // And forward again: nothing is older than it is.
    clock.set(0);
    all.extend((13..16).map(|number| one(&site, number)));
    site.settle();
    check_all(&site, &all);
}
