//! Retention works off a large backlog while applications publish and pages read: publishers do not wait for it, and each
//! transport tells the exact gap, wherever the low-water mark stands at that moment.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use everpoll_tests::{Daemon, Database, Sqlite, wait};

use crate::asked::{ALL, Doors, Way};
use crate::site::{Site, Store};
use crate::writers::Random;

/// Events that are too many.
fn backlog() -> u64 {
    if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { 200_000 } else { 40_000 }
}

/// Events that stay.
const KEPT: u64 = 2_000;

/// Applications that publish all the time.
const PUBLISHERS: usize = 3;

/// How long is published without retention, for comparison.
const COMPARED: Duration = Duration::from_secs(2);

/// How long the backlog may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn large_backlog_goes_away_beside_publishers_and_readers_on_postgres() {
    run(Store::postgres());
}

#[test]
fn large_backlog_goes_away_beside_publishers_and_readers_on_sqlite() {
    run(Store::sqlite());
}

fn run(store: Store) {
    let random = Random::seeded();
    store.run_well(&["migrate"]);
    fill(&store);
    let mut site = Site::with(store, &[("EVERPOLL_RETAIN_FOR", "none")]);
    let (doors, _cgi) = Doors::of(&site);
    let (alone, _) = publish_while(&site.store, || {
        read_while(&site.store, &doors, &random, || std::thread::sleep(COMPARED))
    });
    site.daemon.stop();
    // The fallback only reads.
    site.daemon = Daemon::on(site.store.url())
        .at(site.daemon.address())
        .setting("EVERPOLL_RETAIN_FOR", "none")
        .setting("EVERPOLL_RETAIN_COUNT", KEPT)
        .setting("EVERPOLL_TRIM_INTERVAL", "3")
        .start();
    let (beside, (took, [without, with])) = publish_while(&site.store, || {
        let mut low = Low::of(&site.store);
        wait::until("it has begun", wait::PATIENCE, || low.read() > 0);
        let start = Instant::now();
        let answers = read_while(&site.store, &doors, &random, || {
            let gone = wait::try_until_some(PATIENCE, || (low.read() >= backlog() - KEPT).then_some(()));
            assert!(gone.is_some(), "the backlog does not go away: it is gone up to {}", low.read());
        });
        (start.elapsed(), answers)
    });
    eprintln!(
        "{} events trimmed in {took:?} beside {without} answers without a gap and {with} with one",
        backlog()
    );
    eprintln!("publishing before: {alone}; beside it: {beside}");
    assert!(with > 0 && without > 0, "{with} answers with a gap, {without} without");
    wait::until("it says so", PATIENCE, || site.daemon.log().contains("trimmed the log"));
}

/// Asks all the time in each way, as long as `work` takes; how many answers had no gap, and how many had one.
fn read_while(store: &Store, doors: &Doors, random: &Random, work: impl FnOnce()) -> [u32; 2] {
    let (answers, done) = (Mutex::new([0; 2]), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (number, way) in ALL.into_iter().enumerate() {
            let (mut random, answers, done) = (random.fork(number as u64), &answers, &done);
            let mut low = Low::of(store);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let gap = usize::from(ask_one(way, doors, &mut low, &mut random));
                    answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[gap] += 1;
                    random.pause(100);
                }
            });
        }
        let end = End(&done);
        work();
        drop(end);
    });
    answers.into_inner().expect("no asker failed")
}

/// Says that it is done, also when what is to be done fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One question near the low-water mark; whether the answer began with a gap.
#[track_caller]
fn ask_one(way: Way, doors: &Doors, low: &mut Low, random: &mut Random) -> bool {
    let before = low.read();
    let seen = match random.below(6) {
        0 => random.below(backlog()),
        1 => before,
        2 => before.saturating_sub(random.below(3)),
        // Just ahead of it: trimming overtakes the question.
        _ => before + random.below(12_000),
    };
    let seen = seen.min(backlog() - KEPT);
    let records = way.first(doors, "cheese", &seen.to_string(), 3);
    let after = low.read();
    let who = format!("{way:?} from {seen}, the mark went from {before} to {after}");
    let (mut next, mut count) = (seen + 1, 0);
    for (place, record) in records.iter().enumerate() {
        if record.kind != "everpoll:gap" {
            assert_eq!(record.id, next, "{who}: an event is missing");
            next += 1;
            count += 1;
            continue;
        }
        // Not only at the beginning: trimming may overtake a stream that reads on.
        assert!(place == 0 || !way.is_poll(), "{who}: a gap comes first");
        let number = |name: &str| record.data[name].as_u64().expect("a gap has numbers");
        assert_eq!((number("after"), record.data["reason"].as_str()), (next - 1, Some("trimmed")), "{who}");
        assert!(number("before") > next, "{who}: nothing is missing before {}", number("before"));
        next = number("before");
        // It is exact: the mark stood there.
        assert!((before..=after).contains(&(next - 1)), "{who}: {record:?}");
    }
    assert!(count > 0, "{who}: there is more");
    records.iter().any(|record| record.kind == "everpoll:gap")
}

/// Makes the backlog, with ids from 1, an hour old.
fn fill(store: &Store) {
    let backlog = backlog();
    match store {
        Store::Postgres(database) => drop(database.psql(&format!(
            "SET session_replication_role = replica;
             INSERT INTO everpoll.events (row, channel, type, data, size) OVERRIDING SYSTEM VALUE
               SELECT n, 'cheese', 'made', '{{}}', 2 FROM generate_series(1, {backlog}) n;
             INSERT INTO everpoll.places (id, row, channel, size, ts)
               SELECT row, row, channel, size, now() - interval '1 hour' FROM everpoll.events ORDER BY row;
             SELECT setval('everpoll.ids', {backlog}), setval(pg_get_serial_sequence('everpoll.events', 'row'), {backlog});
             ANALYZE everpoll.events, everpoll.places;"
        ))),
        Store::Sqlite(sqlite) => open(sqlite)
            .execute_batch(&format!(
                "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < {backlog})
                 INSERT INTO events (channel, type, data) SELECT 'cheese', 'made', '{{}}' FROM n;"
            ))
            .expect("they are events"),
    }
}

fn open(sqlite: &Sqlite) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(sqlite.path()).expect("the log is there");
    connection.busy_timeout(wait::PATIENCE).expect("it is open");
    connection
}

/// Reads the low-water mark.
enum Low {
    Postgres(Box<postgres::Client>),
    Sqlite(rusqlite::Connection),
}

impl Low {
    fn of(store: &Store) -> Self {
        match store {
            Store::Postgres(database) => Self::Postgres(Box::new(database.connect())),
            Store::Sqlite(sqlite) => Self::Sqlite(open(sqlite)),
        }
    }

    fn read(&mut self) -> u64 {
        let low: i64 = match self {
            Self::Postgres(client) => {
                client.query_one("SELECT low FROM everpoll.log", &[]).expect("it is there").get(0)
            }
            Self::Sqlite(connection) => {
                connection.query_row("SELECT low FROM log", [], |row| row.get(0)).expect("it is there")
            }
        };
        u64::try_from(low).expect("a mark is positive")
    }
}

/// How publishing went.
struct Speed {
    per_second: f64,
    /// Of a hundred publishes, 50 and 99 were faster; and the slowest.
    half: Duration,
    most: Duration,
    slowest: Duration,
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { per_second, half, most, slowest } = self;
        write!(f, "{per_second:.0} a second, p50 {half:.1?}, p99 {most:.1?}, slowest {slowest:.1?}")
    }
}

/// Publishes one by one, on some connections, as long as `work` takes.
fn publish_while<T>(store: &Store, work: impl FnOnce() -> T) -> (Speed, T) {
    let (done, start) = (AtomicBool::new(false), Instant::now());
    let (mut times, worked) = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|_| {
                let mut publish = publisher(store);
                let done = &done;
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while !done.load(Ordering::SeqCst) {
                        let start = Instant::now();
                        publish();
                        times.push(start.elapsed());
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    times
                })
            })
            .collect();
        let end = End(&done);
        let worked = work();
        drop(end);
        let times = publishers.into_iter().flat_map(|one| one.join().expect("no publish failed"));
        (times.collect::<Vec<_>>(), worked)
    });
    let took = start.elapsed();
    times.sort_unstable();
    let place = |of_hundred: usize| times[(times.len() - 1) * of_hundred / 100];
    let per_second = times.len() as f64 / took.as_secs_f64();
    (Speed { per_second, half: place(50), most: place(99), slowest: place(100) }, worked)
}

fn publisher(store: &Store) -> Box<dyn FnMut() + Send> {
    match store {
        Store::Postgres(database) => publisher_on(database),
        Store::Sqlite(sqlite) => {
            let connection = open(sqlite);
            Box::new(move || {
                let sql = "INSERT INTO events (channel, type, data) VALUES ('cheese', 'made', '{}')";
                connection.execute(sql, []).expect("retention is no obstacle");
            })
        }
    }
}

fn publisher_on(database: &Database) -> Box<dyn FnMut() + Send> {
    let mut client = database.connect();
    Box::new(move || {
        let sql = "SELECT everpoll.publish('cheese', 'made', '{}')";
        client.execute(sql, &[]).expect("retention is no obstacle");
    })
}
