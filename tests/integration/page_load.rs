//! Pages that begin with data and then follow the changes: nothing may fall in between.
//!
//! Writers change rows and publish what they changed in the same transaction; now and then one is rolled back. Meanwhile
//! readers load pages: cursor and data, in one transaction. When the writers rest, each reader takes the events after its
//! cursor from the daemon and applies them to its data: that must be what is in the table now. Where cursor and data are of
//! one snapshot and transactions commit one by one, no event may be in both either, so that also pages that add up are right.
//!
//! Seeded (`EVERPOLL_TEST_SEED`). With `EVERPOLL_TEST_LONG` set there are ten thousand rounds.

use std::collections::BTreeMap;

use everpoll_tests::{Daemon, wait};
use postgres::IsolationLevel;
use serde_json::Value;

use crate::site::{Store, poll};
use crate::writers::Random;

/// Rows that are changed.
const ITEMS: u64 = 12;

const WRITERS: u64 = 4;

/// Transactions of one writer in a bout.
const TRANSACTIONS: u64 = 12;

const READERS: u64 = 4;

/// Pages that one reader loads in a bout.
const PAGES: u64 = 13;

/// The number of each item.
type Stock = BTreeMap<i64, i64>;

/// What a page was made of.
struct Page {
    cursor: u64,
    stock: Stock,
}

/// How a page is loaded from PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// READ COMMITTED: the cursor, then the data.
    CursorThenData,
    /// REPEATABLE READ: the cursor, then the data.
    Snapshot,
    /// REPEATABLE READ: the data, then the cursor.
    SnapshotDataFirst,
    /// One statement.
    Together,
}

const LOADS: [Load; 4] = [Load::CursorThenData, Load::Snapshot, Load::SnapshotDataFirst, Load::Together];

/// How an application's tables and the log lie in SQLite files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Files {
    /// All in Everpoll's file.
    One,
    /// The application opens its own file, and attaches Everpoll's.
    Attached,
}

/// Rounds of each test, in bouts: half of the ten thousand, or as many as the normal run has time for.
fn bouts(kinds: u64) -> u64 {
    let rounds = if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { 5_200 } else { 416 };
    rounds / kinds / (READERS * PAGES)
}

#[test]
fn page_and_events_after_its_cursor_are_the_final_state_on_postgres() {
    let random = Random::seeded();
    let store = Store::postgres();
    let database = store.database();
    database.psql(&format!(
        "CREATE TABLE stock (id bigint PRIMARY KEY, n bigint NOT NULL);
         INSERT INTO stock SELECT id, 0 FROM generate_series(1, {ITEMS}) id;"
    ));
    let daemon = Daemon::on(database.url()).start();
    let mut tally = Tally::default();
    for bout in 0..bouts(LOADS.len() as u64) {
        // In every other bout, transactions commit one by one, as a page asks for that adds up.
        let serial = bout % 2 == 1;
        database.psql(&format!(
            "ALTER DATABASE {} SET everpoll.serial_commits = {}",
            database.name(),
            if serial { "on" } else { "off" }
        ));
        for (number, load) in LOADS.into_iter().enumerate() {
            let random = random.fork(bout * 16 + number as u64);
            let writer = |number| {
                let (mut client, mut random) = (database.connect(), random.fork(number));
                move || write_postgres(&mut client, &mut random)
            };
            let reader = |number| {
                let (mut client, mut random) = (database.connect(), random.fork(100 + number));
                move || load_postgres(&mut client, load, &mut random)
            };
            let pages = run_bout(writer, reader);
            let rows = database.connect().query("SELECT id, n FROM stock", &[]).expect("it is there");
            let stock: Stock = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            let newest = database.psql("SELECT everpoll.cursor()").trim().parse().expect("a number");
            for page in pages {
                tally.check(
                    &daemon,
                    newest,
                    page,
                    &stock,
                    serial && load != Load::CursorThenData,
                    &format!("{load:?}, serial: {serial}"),
                );
            }
        }
    }
    tally.report("PostgreSQL");
}

#[test]
fn page_and_events_after_its_cursor_are_the_final_state_on_sqlite() {
    let random = Random::seeded();
    let mut tally = Tally::default();
    for (number, files) in [Files::One, Files::Attached].into_iter().enumerate() {
        let store = Store::sqlite();
        store.run_well(&["migrate"]);
        let Store::Sqlite(sqlite) = &store else { unreachable!("it was just made") };
        let (log, own) = (sqlite.path(), sqlite.path().with_extension("shop"));
        let open = || match files {
            Files::One => open_sqlite(&log, None),
            Files::Attached => open_sqlite(&own, Some(&log)),
        };
        open()
            .execute_batch(&format!(
                "CREATE TABLE main.stock (id integer PRIMARY KEY, n integer NOT NULL);
                 WITH RECURSIVE ids (id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM ids WHERE id < {ITEMS})
                 INSERT INTO stock SELECT id, 0 FROM ids;"
            ))
            .expect("there is no such table");
        let daemon = Daemon::on(store.url()).start();
        for bout in 0..bouts(2) {
            let random = random.fork(bout * 16 + number as u64);
            let writer = |number| {
                let (mut connection, mut random) = (open(), random.fork(number));
                move || write_sqlite(&mut connection, &mut random)
            };
            let reader = |number| {
                let (mut connection, mut random) = (open(), random.fork(100 + number));
                move || load_sqlite(&mut connection, &mut random)
            };
            let pages = run_bout(writer, reader);
            let stock = stock_of(&open());
            let newest = cursor_of(&open());
            for page in pages {
                tally.check(&daemon, newest, page, &stock, files == Files::One, &format!("{files:?}"));
            }
        }
    }
    tally.report("SQLite");
}

#[test]
fn page_that_reads_its_data_before_its_cursor_misses_a_change() {
    // Why the order matters, and that the tests above would see it.
    let store = Store::postgres();
    let database = store.database();
    database.psql(
        "CREATE TABLE stock (id bigint PRIMARY KEY, n bigint NOT NULL); INSERT INTO stock VALUES (1, 0);",
    );
    let daemon = Daemon::on(database.url()).start();
    let change = "BEGIN; UPDATE stock SET n = n + 1; \
                  SELECT everpoll.publish('stock', 'changed', json_build_object('id', 1, 'n', n, 'by', 1)) FROM stock; COMMIT;";
    for (level, data_first, misses) in [
        (IsolationLevel::ReadCommitted, true, true),
        (IsolationLevel::ReadCommitted, false, false),
        (IsolationLevel::RepeatableRead, true, false),
        (IsolationLevel::RepeatableRead, false, false),
    ] {
        let mut reader = database.connect();
        let mut transaction = reader.build_transaction().isolation_level(level).start().expect("it runs");
        let [cursor, data] = ["SELECT everpoll.cursor()", "SELECT n FROM stock"];
        let order = if data_first { [data, cursor] } else { [cursor, data] };
        let first: i64 = transaction.query_one(order[0], &[]).expect("it runs").get(0);
        database.psql(change);
        let second: i64 = transaction.query_one(order[1], &[]).expect("it runs").get(0);
        transaction.commit().expect("it only read");
        let (cursor, mut n) = if data_first { (second, first) } else { (first, second) };
        let newest: i64 = database.psql("SELECT everpoll.cursor()").trim().parse().expect("a number");
        for data in events(
            &daemon,
            u64::try_from(cursor).expect("positive"),
            u64::try_from(newest).expect("positive"),
        ) {
            n = data["n"].as_i64().expect("a number");
        }
        let now: i64 = database.psql("SELECT n FROM stock").trim().parse().expect("a number");
        assert_eq!(
            n != now,
            misses,
            "{level:?}, data first: {data_first}; the page has {n}, the table {now}"
        );
    }
}

/// Starts writers and readers at once, and returns the pages when all are done.
fn run_bout<W, R>(writer: impl Fn(u64) -> W, reader: impl Fn(u64) -> R) -> Vec<Page>
where
    W: FnMut() + Send,
    R: FnMut() -> Page + Send,
{
    std::thread::scope(|scope| {
        for mut write in (0..WRITERS).map(writer) {
            scope.spawn(move || (0..TRANSACTIONS).for_each(|_| write()));
        }
        let readers: Vec<_> = (0..READERS)
            .map(reader)
            .map(|mut load| scope.spawn(move || (0..PAGES).map(|_| load()).collect::<Vec<_>>()))
            .collect();
        readers.into_iter().flat_map(|reader| reader.join().expect("a reader does not fail")).collect()
    })
}

/// What one transaction changes: ascending, so that two writers do not wait for each other.
fn changes(random: &mut Random) -> Vec<(i64, i64)> {
    let count = 1 + random.below(3);
    let items: BTreeMap<i64, i64> =
        (0..count).map(|_| (1 + random.below(ITEMS) as i64, 1 + random.below(9) as i64)).collect();
    items.into_iter().collect()
}

fn write_postgres(client: &mut postgres::Client, random: &mut Random) {
    // Applications run at any level.
    let level = [IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead][random.below(2) as usize];
    let (changes, rolls_back) = (changes(random), random.below(6) == 0);
    loop {
        let mut transaction =
            client.build_transaction().isolation_level(level).start().expect("the database runs");
        let changed = changes.iter().try_for_each(|(id, by)| {
            let sql = "WITH changed AS (UPDATE stock SET n = n + $2 WHERE id = $1 RETURNING id, n) \
                       SELECT everpoll.publish('stock', 'changed', json_build_object('id', id, 'n', n, 'by', $2)) FROM changed";
            transaction.execute(sql, &[id, by])?;
            random.pause(1);
            Ok::<_, postgres::Error>(())
        });
        match changed {
            Ok(()) if rolls_back => return transaction.rollback().expect("the database runs"),
            Ok(()) => return transaction.commit().expect("nothing stands against the commit"),
            // What REPEATABLE READ does when somebody else was first: again, as applications must.
            Err(error) if error.code() == Some(&postgres::error::SqlState::T_R_SERIALIZATION_FAILURE) => {}
            Err(error) => panic!("a change was refused: {error:?}"),
        }
    }
}

fn load_postgres(client: &mut postgres::Client, load: Load, random: &mut Random) -> Page {
    random.pause(8);
    let level = match load {
        Load::Snapshot | Load::SnapshotDataFirst => IsolationLevel::RepeatableRead,
        Load::CursorThenData | Load::Together => IsolationLevel::ReadCommitted,
    };
    let mut transaction =
        client.build_transaction().isolation_level(level).start().expect("the database runs");
    let cursor = |transaction: &mut postgres::Transaction<'_>| {
        let cursor: i64 = transaction.query_one("SELECT everpoll.cursor()", &[]).expect("it runs").get(0);
        u64::try_from(cursor).expect("a cursor is positive")
    };
    let data = |transaction: &mut postgres::Transaction<'_>| -> Stock {
        let rows = transaction.query("SELECT id, n FROM stock", &[]).expect("it runs");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let page = match load {
        Load::CursorThenData | Load::Snapshot => {
            let cursor = cursor(&mut transaction);
            random.pause(4);
            Page { cursor, stock: data(&mut transaction) }
        }
        Load::SnapshotDataFirst => {
            let stock = data(&mut transaction);
            random.pause(4);
            Page { cursor: cursor(&mut transaction), stock }
        }
        Load::Together => {
            let rows = transaction.query("SELECT everpoll.cursor(), id, n FROM stock", &[]).expect("it runs");
            let cursor: i64 = rows[0].get(0);
            let stock = rows.iter().map(|row| (row.get(1), row.get(2))).collect();
            Page { cursor: u64::try_from(cursor).expect("a cursor is positive"), stock }
        }
    };
    transaction.commit().expect("it only read");
    page
}

fn open_sqlite(main: &std::path::Path, attached: Option<&std::path::Path>) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(main).expect("the folder is there");
    connection.busy_timeout(wait::PATIENCE).expect("it is open");
    if let Some(log) = attached {
        connection.pragma_update(None, "journal_mode", "wal").expect("the disk can do it");
        connection.execute("ATTACH ?1 AS everpoll", [log.to_str()]).expect("the log is there");
    }
    connection
}

fn write_sqlite(connection: &mut rusqlite::Connection, random: &mut Random) {
    let (changes, rolls_back) = (changes(random), random.below(6) == 0);
    random.pause(3);
    let transaction = connection
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .expect("others are done in time");
    for (id, by) in changes {
        let sql = "UPDATE stock SET n = n + ?2 WHERE id = ?1 RETURNING n";
        let n: i64 = transaction.query_row(sql, [id, by], |row| row.get(0)).expect("it is there");
        let sql = "INSERT INTO events (channel, type, data) \
                   VALUES ('stock', 'changed', json_object('id', ?1, 'n', ?2, 'by', ?3))";
        transaction.execute(sql, [id, n, by]).expect("it is published");
    }
    let ended = if rolls_back { transaction.rollback() } else { transaction.commit() };
    ended.expect("nothing stands against it");
}

fn load_sqlite(connection: &mut rusqlite::Connection, random: &mut Random) -> Page {
    random.pause(12);
    let transaction = connection.transaction().expect("it is open");
    let cursor = cursor_of(&transaction);
    random.pause(4);
    let stock = stock_of(&transaction);
    transaction.commit().expect("it only read");
    Page { cursor, stock }
}

fn cursor_of(connection: &rusqlite::Connection) -> u64 {
    let cursor: i64 =
        connection.query_row("SELECT id FROM cursor", [], |row| row.get(0)).expect("the log has one");
    u64::try_from(cursor).expect("a cursor is positive")
}

fn stock_of(connection: &rusqlite::Connection) -> Stock {
    let mut select = connection.prepare("SELECT id, n FROM stock").expect("it is there");
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("it can be read");
    rows.collect::<Result<_, _>>().expect("it can be read")
}

/// The data of what was published after `cursor`, up to `newest`, as a page gets it.
fn events(daemon: &Daemon, mut cursor: u64, newest: u64) -> Vec<Value> {
    let mut all = Vec::new();
    wait::until("all events have come", wait::PATIENCE, || {
        let reply = poll("stock", cursor, "flavor=short-poll").send(daemon.address());
        let events = reply.events();
        assert!(events.iter().all(|event| event.kind == "changed"), "{events:?}");
        cursor = reply.cursor();
        all.extend(events.into_iter().map(|event| event.data));
        cursor >= newest
    });
    all
}

/// What was seen.
#[derive(Default)]
struct Tally {
    rounds: usize,
    /// Pages that had something to apply, and what they applied.
    late: usize,
    applied: usize,
    /// Changes that were in the data already.
    twice: usize,
}

impl Tally {
    fn check(&mut self, daemon: &Daemon, newest: u64, page: Page, now: &Stock, exact: bool, how: &str) {
        let sum = |stock: &Stock| stock.values().sum::<i64>();
        let (mut stock, mut added) = (page.stock.clone(), sum(&page.stock));
        let events = events(daemon, page.cursor, newest);
        for data in &events {
            let number = |name: &str| data[name].as_i64().expect("a number");
            stock.insert(number("id"), number("n"));
            added += number("by");
        }
        assert_eq!(stock, *now, "{how}: from {} to {newest} came {events:?}", page.cursor);
        if exact {
            assert_eq!(added, sum(now), "{how}: no event may be in the data already");
        }
        self.rounds += 1;
        self.late += usize::from(!events.is_empty());
        self.applied += events.len();
        self.twice += usize::from(added != sum(now));
    }

    fn report(&self, name: &str) {
        let Self { rounds, late, applied, twice } = self;
        eprintln!(
            "{name}: {rounds} pages, {late} of them followed by changes, {applied} applied; in {twice} pages a change came twice"
        );
        assert!(*late * 2 > *rounds, "most pages were loaded while nothing happened");
    }
}
