//! Whatever is published, trimmed and restored, and whatever cursor is sent: on each transport comes either everything after
//! the cursor, or a gap that names exactly what is missing, and then the rest.
//!
//! A schedule is made by chance from a seed (`EVERPOLL_TEST_SEED`): transactions of some events, roll-backs, many events at
//! once, large ones, trimming of all channels and of namespaces, backups, restores, restarts of the daemon. After each step all
//! transports are asked from cursors in and around all that is gone, and must say what the [model] says. With
//! `EVERPOLL_TEST_LONG` set there are many schedules on each database.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use everpoll_tests::http;
use everpoll_tests::{Dump, TestDir, WebServer};
use serde_json::json;

use crate::asked::{ALL, Doors, Way};
use crate::site::{Site, Store};
use crate::writers::Random;
use model::{Cursor, Model, Placed};

mod model;

/// Of the last two, there are no events.
const CHANNELS: [&str; 5] = ["ale", "shop:brie", "shop:eu:cheese", "quiet", "shop:quiet"];

/// What is trimmed: all channels alike, or those that begin so.
const NAMESPACES: [&str; 3] = ["", "shop:", "shop:eu:"];

/// Steps of one schedule.
const STEPS: u64 = 14;

/// Questions that each transport is asked after a step.
const QUESTIONS: u64 = 5;

#[test]
fn each_transport_tells_all_or_the_exact_gap_on_postgres() {
    run("PostgreSQL", Store::postgres);
}

#[test]
fn each_transport_tells_all_or_the_exact_gap_on_sqlite() {
    run("SQLite", Store::sqlite);
}

/// What was asked, by transport: questions, gaps, events.
type Tally = BTreeMap<Way, [usize; 3]>;

fn run(name: &str, store: impl Fn() -> Store) {
    let random = Random::seeded();
    let schedules = if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { 25 } else { 1 };
    let (mut tally, start) = (Tally::new(), Instant::now());
    for number in 0..schedules {
        Schedule::new(store(), random.fork(number), number).run(&mut tally);
        if schedules > 1 {
            eprintln!("{name}: {} of {schedules} schedules after {:.0?}", number + 1, start.elapsed());
        }
    }
    let questions: usize = tally.values().map(|counts| counts[0]).sum();
    let gaps: usize = tally.values().map(|counts| counts[1]).sum();
    eprintln!("{name}: {schedules} schedules, {questions} questions, {gaps} gaps, {:?}", start.elapsed());
    for (way, [questions, gaps, events]) in &tally {
        eprintln!("{way:?}: {questions} questions, {gaps} gaps, {events} events");
        assert!(*gaps > 0 && *events > 0, "nothing was asked by {way:?}");
    }
}

struct Schedule {
    model: Model,
    /// Ids of all histories: what clients may come back with.
    given: Vec<u64>,
    backups: Vec<(Backup, Model)>,
    random: Random,
    number: u64,
    /// What was done, for whoever reads a failure.
    steps: Vec<String>,
    doors: Doors,
    _cgi: WebServer,
    site: Site,
    directory: TestDir,
}

enum Backup {
    Postgres(Dump),
    Sqlite(std::path::PathBuf),
}

impl Schedule {
    fn new(store: Store, mut random: Random, number: u64) -> Self {
        // Some of what is asked lies below a small window, and has to come from the database.
        let window = if random.below(2) == 0 { "64KiB" } else { "64MiB" };
        let site = Site::with(store, &[("EVERPOLL_WINDOW_BYTES", window)]);
        let (doors, cgi) = Doors::of(&site);
        Self {
            model: Model::default(),
            given: Vec::new(),
            backups: Vec::new(),
            random,
            number,
            steps: vec![format!("window {window}")],
            doors,
            _cgi: cgi,
            site,
            directory: TestDir::new(),
        }
    }

    fn run(mut self, tally: &mut Tally) {
        let before = self.random.below(3);
        for _ in 0..before {
            self.publish();
        }
        self.learn();
        for step in 0..STEPS {
            match (step, self.random.below(12)) {
                // Each schedule has at least one of each.
                (2, _) | (_, 0) => self.back_up(),
                (5 | 11, _) | (_, 1) => self.restore(),
                (7, _) | (_, 2..4) => self.trim(),
                (9, _) => self.publish_many(),
                (_, 4) => self.publish_large(),
                (_, 5) => self.restart(),
                _ => self.publish(),
            }
            self.learn();
            self.site.settle();
            self.question(tally);
        }
    }

    fn note(&mut self, what: String) {
        self.steps.push(what);
    }

    /// Some transactions, of which some are rolled back.
    fn publish(&mut self) {
        for _ in 0..=self.random.below(3) {
            let channels: Vec<_> =
                (0..=self.random.below(6)).map(|_| CHANNELS[self.random.below(3) as usize]).collect();
            let rolled_back = self.random.below(4) == 0;
            self.note(format!(
                "publish {}{}",
                channels.len(),
                if rolled_back { ", rolled back" } else { "" }
            ));
            if self.random.below(3) == 0 && !rolled_back {
                let events: Vec<_> = channels
                    .iter()
                    .map(|channel| json!({"channel": channel, "type": "made", "data": {"channel": channel}}))
                    .collect();
                let door = self.site.door(self.random.below(2) as usize);
                let reply = http::post_json("/publish", json!(events).to_string()).send(door);
                assert_eq!(reply.status, 201, "{}", reply.text());
            } else {
                let rows: Vec<_> = channels.iter().map(|channel| row(channel, "")).collect();
                self.sql(&rows, rolled_back);
            }
        }
    }

    /// More than one batch has.
    fn publish_many(&mut self) {
        let count = 1100 + self.random.below(1200);
        self.note(format!("publish {count}"));
        let rows: Vec<_> = (0..count).map(|_| row(CHANNELS[self.random.below(2) as usize], "")).collect();
        self.sql(&rows, false);
    }

    /// More bytes than one batch has.
    fn publish_large(&mut self) {
        self.note("publish 4 large ones".to_owned());
        let text = "x".repeat(400_000);
        let rows: Vec<_> = (0..4).map(|_| row("shop:brie", &text)).collect();
        self.sql(&rows, false);
    }

    fn sql(&self, rows: &[String], rolled_back: bool) {
        let end = if rolled_back { "ROLLBACK" } else { "COMMIT" };
        let rows = rows.join(", ");
        match &self.site.store {
            Store::Postgres(database) => {
                database.psql(&format!(
                    "BEGIN; INSERT INTO everpoll.events (channel, type, data) VALUES {rows}; {end};"
                ));
            }
            Store::Sqlite(sqlite) => {
                let connection = rusqlite::Connection::open(sqlite.path()).expect("the log is there");
                connection.busy_timeout(everpoll_tests::wait::PATIENCE).expect("it is open");
                let sql = format!(
                    "BEGIN IMMEDIATE; INSERT INTO events (channel, type, data) VALUES {rows}; {end};"
                );
                connection.execute_batch(&sql).expect("it is published");
            }
        }
    }

    fn trim(&mut self) {
        let namespace = NAMESPACES[self.random.below(3) as usize];
        let there = self.model.len(namespace);
        let keep = match self.random.below(4) {
            0 => 0,
            1 => there,
            _ => self.random.below(there as u64 + 1) as usize,
        };
        self.note(format!("trim {there} of {namespace:?} to {keep}"));
        let goes = self.model.trim(namespace, keep);
        let keep = keep.to_string();
        let all = ["trim", "--count", &keep, "--namespace", namespace];
        let said = self.site.store.run_well(if namespace.is_empty() { &all[..3] } else { &all });
        assert_eq!(said, format!("{goes} events removed\n"), "{:?}", self.steps);
        // Nobody tells the daemon of it but its next read of the log. Until then it may answer from memory, without a gap,
        // whoever has missed nothing on the channels asked for; the answer to this comes after that read.
        self.site.publish("other", "1");
    }

    fn back_up(&mut self) {
        self.note("back up".to_owned());
        let backup = match &self.site.store {
            Store::Postgres(database) => Backup::Postgres(database.dump()),
            Store::Sqlite(sqlite) => {
                let copy = self.directory.join(&format!("copy-{}.db", self.steps.len()));
                let connection = rusqlite::Connection::open(sqlite.path()).expect("the log is there");
                connection.execute("VACUUM INTO ?1", [copy.to_str()]).expect("the disk has room");
                Backup::Sqlite(copy)
            }
        };
        self.backups.push((backup, self.model.clone()));
    }

    /// Puts a backup back, and finds out where the log goes on.
    fn restore(&mut self) {
        if self.backups.is_empty() {
            self.back_up();
            self.learn();
        }
        let number = self.random.below(self.backups.len() as u64) as usize;
        let running = matches!(self.site.store, Store::Postgres(_)) && self.random.below(2) == 0;
        self.note(format!("restore backup {number}{}", if running { ", the programs run" } else { "" }));
        if !running {
            self.site.daemon.stop();
            self.site.fallback.stop();
        }
        let (backup, model) = &self.backups[number];
        match (&self.site.store, backup) {
            (Store::Postgres(database), Backup::Postgres(dump)) => database.restore(dump),
            (Store::Sqlite(sqlite), Backup::Sqlite(copy)) => {
                for end in ["db", "db-wal", "db-shm"] {
                    // What belongs to the newer file would be applied to the older one.
                    let _ = std::fs::remove_file(sqlite.path().with_extension(end));
                }
                std::fs::copy(copy, sqlite.path()).expect("the disk has room");
            }
            _ => unreachable!("the backup is of this store"),
        }
        self.model = model.clone();
        if self.random.below(2) == 0 && matches!(self.site.store, Store::Postgres(_)) {
            // An application is the first to write.
            self.sql(&[row("ale", "")], false);
        }
        if !running {
            self.site.daemon.start_again();
            self.site.fallback.start_again();
        }
        self.site.settle();
        let (after, before) = self.rift().expect("the log knows that it is a copy");
        let highest = self.given.iter().copied().max().unwrap_or(0);
        self.model.open_rift(after, before, highest);
    }

    fn restart(&mut self) {
        self.note("restart the daemon".to_owned());
        if self.random.below(2) == 0 {
            self.site.daemon.stop();
        } else {
            self.site.daemon.kill_9();
        }
        self.site.daemon.start_again();
    }

    /// The newest rift, when there is one more than the model has.
    fn rift(&self) -> Option<(u64, u64)> {
        let sql = "SELECT after, before FROM rifts ORDER BY before";
        let rows = self.rows(sql, &sql.replace("rifts", "everpoll.rifts"));
        assert_eq!(rows.len(), self.model.rifts() + 1, "one restore, one rift: {:?}", self.steps);
        rows.last().map(|row| (number(&row[0]), number(&row[1])))
    }

    /// Takes in what was placed since the last time: ids are the log's to give.
    fn learn(&mut self) {
        let newest = self.model.newest();
        let rows = self.rows(
            &format!("SELECT id, channel, ts FROM events WHERE id > {newest} ORDER BY id"),
            &format!(
                "SELECT id, channel, (extract(epoch from ts) * 1000000)::bigint FROM everpoll.positions \
                 WHERE id > {newest} ORDER BY id"
            ),
        );
        for row in rows {
            let id = number(&row[0]);
            self.given.push(id);
            self.model.append(id, Placed { channel: row[1].clone(), ts: number(&row[2]), is_gone: false });
        }
    }

    fn rows(&self, sqlite: &str, postgres: &str) -> Vec<Vec<String>> {
        match &self.site.store {
            Store::Postgres(database) => database
                .psql(postgres)
                .lines()
                .map(|line| line.split('|').map(str::to_owned).collect())
                .collect(),
            Store::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file.path()).expect("the log is there");
                let mut select = connection.prepare(sqlite).expect("it has this table");
                let columns = select.column_count();
                let text = |value: rusqlite::types::Value| match value {
                    rusqlite::types::Value::Integer(number) => number.to_string(),
                    rusqlite::types::Value::Text(text) => text,
                    other => panic!("{other:?} is not expected"),
                };
                let rows = select
                    .query_map([], |row| (0..columns).map(|column| row.get(column).map(text)).collect());
                rows.and_then(Iterator::collect).expect("it can be read")
            }
        }
    }

    /// Asks all transports, all at once.
    fn question(&mut self, tally: &mut Tally) {
        let tally = Mutex::new(tally);
        let seed = self.random.below(u64::MAX);
        let this = &*self;
        std::thread::scope(|scope| {
            for (number, way) in ALL.into_iter().enumerate() {
                let tally = &tally;
                let mut random = this.random.fork(seed ^ number as u64);
                scope.spawn(move || {
                    for _ in 0..QUESTIONS {
                        let counts = this.question_one(way, &mut random);
                        let mut tally = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        let sums = tally.entry(way).or_default();
                        *sums = std::array::from_fn(|index| sums[index] + counts[index]);
                    }
                });
            }
        });
    }

    fn question_one(&self, way: Way, random: &mut Random) -> [usize; 3] {
        let cursor = self.model.cursor(&self.given, random);
        let mut channels: Vec<_> = CHANNELS.into_iter().filter(|_| random.below(2) == 0).collect();
        if channels.is_empty() {
            channels.push("shop:eu:cheese");
        }
        let mut expected = self.model.expected(cursor, &channels);
        let gap = expected.gap.as_ref().map(|gap| gap.1 - 1);
        let last = expected.ids.last().copied().or(gap);
        let told = way.ask(&self.doors, &channels.join(","), &cursor.to_string(), last);
        // A stream stands where its last word put it; where it ends, as the fallback's do, at the newest. A poll stands at the
        // newest, or, where its batch was full, at its last event.
        let stands = match (last, cursor) {
            (Some(last), _) => Some(last),
            (None, Cursor::After(seen)) if !way.is_poll() => Some(seen),
            _ => None,
        };
        expected.cursor = stands.filter(|stands| told.cursor == *stands).unwrap_or(expected.cursor);
        let of = format!("schedule {}: {:?}", self.number, self.steps);
        assert_eq!(
            told, expected,
            "{way:?} asked for {channels:?} from {cursor}; left: told, right: the model. {of}"
        );
        [1, usize::from(told.gap.is_some()), told.ids.len()]
    }
}

fn row(channel: &str, text: &str) -> String {
    format!("('{channel}', 'made', '{}')", json!({"channel": channel, "text": text}))
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}
