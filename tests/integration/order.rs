//! Writers that commit in another order than they write, and readers that must not notice.
//!
//! An auto-increment column gives ids when a row is written; a transaction with a lower id may commit later, and a
//! reader that has gone on by then never sees it. The judge that finds nothing wrong with Everpoll's readers is
//! therefore also held against a plain reader of a plain table, where it must find what is known to get lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use everpoll_tests::http;
use everpoll_tests::pollers::{Poller, Pollers, Reading};
use everpoll_tests::{Database, wait};
use everpoll_verify::Ledger;

use crate::judge;
use crate::site::{self, Site, Store};
use crate::writers::{CHANNELS, Committed, Random, Table, Writers};

/// How many writers there are.
const WRITERS: u64 = 8;

/// How long a transaction stays open that is longer than any application should have.
const LONG_TRANSACTION: Duration = Duration::from_secs(10);

/// What the readers ask for; each reader takes the next one.
const INTERESTS: [&str; 4] = ["cheese", "ale,brie,cheese", "fig,egg", "ale,brie,cheese,dill,egg,fig"];

/// How soon clients of the fallback come back, whatever they are told: the test has seconds.
const BACK_SOON: Duration = Duration::from_millis(150);

/// A reader that began at a point in time with the cursor that it was given then.
struct Reader {
    pollers: Pollers,
    began: Instant,
}

impl Reader {
    fn start(site: &Site, number: usize) -> Self {
        let (address, channels) = (site.door(number), INTERESTS[number / 2 % INTERESTS.len()]);
        // As a page does: first the cursor, then the polls.
        let cursor = site::cursor(address, channels);
        let began = Instant::now();
        let poller = Poller::new(address, channels, cursor)
            .wait_id(format!("reader-{number}"))
            .reconnect_cap(BACK_SOON);
        Self { pollers: Pollers::start([poller]), began }
    }
}

#[test]
fn every_committed_event_comes_once_and_in_commit_order() {
    let target = if std::env::var_os("EVERPOLL_TEST_LONG").is_some() { 100_000 } else { 5_000 };
    let mut random = Random::seeded();
    let site = Site::on(Store::postgres());
    let (database, ledger) = (site.store.database(), Arc::new(judge::ledger()));

    let mut connection = database.connect();
    let mut long = connection.transaction().expect("the database runs");
    let opened = Instant::now();
    let of_long = ["cheese", "ale"].map(|channel| ledger.announce(ledger.channel(channel)));
    Table::Log.insert(&mut long, "cheese", of_long[0]);
    let writers = Writers::start(database, Table::Log, WRITERS, &random, &ledger);
    let mut readers = Vec::new();
    for number in 0..20 {
        // The readers begin at random points of all this.
        random.pause(300);
        readers.push(Reader::start(&site, number));
        if number == 9 {
            Table::Log.insert(&mut long, "ale", of_long[1]);
        }
    }

    // Nobody waits for the open transaction: what others committed meanwhile is with all readers while it is open.
    let others = judge::events_of(database).last().expect("the writers have committed by now").0;
    for reader in &readers {
        reader.pollers.wait_until_reached(others, wait::PATIENCE);
    }
    assert!(ids(&judge::events_of(database)).keys().all(|n| !of_long.contains(n)), "it is open");
    let patience = LONG_TRANSACTION + wait::PATIENCE;
    wait::until("it was open for long", patience, || opened.elapsed() >= LONG_TRANSACTION);
    let began = Instant::now();
    long.commit().expect("nothing stands against the commit");
    let long = Committed { events: of_long.to_vec(), began, done: Instant::now() };
    of_long.into_iter().for_each(|n| ledger.acknowledge(n, None));

    wait::until("enough is written", Duration::from_secs(600), || writers.written() >= target);
    let mut committed = writers.stop();
    committed.push(long);
    finish(database, &ledger, &committed, readers);
}

/// Waits until all readers have everything and judges them.
fn finish(database: &Database, ledger: &Ledger, committed: &[Committed], readers: Vec<Reader>) {
    // What was committed and is not there, or is there and was rolled back, the judge finds as well.
    let events = judge::events_of(database);
    judge::find(ledger, &events);
    wait_until_complete(ledger, &readers);
    let ids = ids(&events);
    assert_commit_order(committed, &ids);
    assert_eq!(deadlocks(database), "0\n");

    for Reader { pollers, began } in readers {
        let (readings, tally) = pollers.stop();
        judge::assert_kept(ledger, &readings);
        let statuses: Vec<_> = tally.statuses.keys().copied().collect();
        assert_eq!((statuses, tally.errors.len()), (vec![200], 0), "{tally:?}");
        let Reading { began_after, gaps, .. } = &readings[0];
        assert_eq!(*gaps, 0, "nothing was trimmed");
        let after = began_after.expect("it began with a number");
        for later in committed.iter().filter(|committed| committed.began > began) {
            let lowest = later.events.iter().map(|n| ids[n]).min().expect("no transaction is empty");
            assert!(
                lowest > after,
                "{later:?} got the id {lowest}, which a cursor had passed before: {after}"
            );
        }
    }
}

/// Waits until all readers have everything. When it is not so in the end, the judge says what is missing.
fn wait_until_complete(ledger: &Ledger, readers: &[Reader]) {
    let is_complete = |reader: &Reader| judge::are_complete(ledger, &reader.pollers.readings());
    let _ = wait::try_until_some(wait::PATIENCE, || readers.iter().all(is_complete).then_some(()));
}

/// Each event's id, by its number.
fn ids(events: &[judge::Event]) -> BTreeMap<usize, u64> {
    let number = |tag: &Option<String>| tag.as_ref().and_then(|tag| tag.parse().ok());
    events.iter().map(|(id, _, tag)| (number(tag).expect("each has a tag"), *id)).collect()
}

fn id(row: &postgres::Row) -> u64 {
    u64::try_from(row.get::<_, i64>("id")).expect("ids are positive")
}

fn deadlocks(database: &Database) -> String {
    database.psql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
}

/// A transaction whose commit was answered before another's was asked for has the lower ids, all of them.
#[track_caller]
fn assert_commit_order(committed: &[Committed], ids: &BTreeMap<usize, u64>) {
    let ids = |committed: &Committed| committed.events.iter().map(|n| ids[n]).collect::<Vec<_>>();
    let (mut by_begin, mut by_end) = (committed.to_vec(), committed.to_vec());
    by_begin.sort_by_key(|committed| committed.began);
    by_end.sort_by_key(|committed| committed.done);
    let (mut ended, mut highest) = (by_end.iter().peekable(), 0);
    for later in &by_begin {
        while let Some(earlier) = ended.next_if(|earlier| earlier.done < later.began) {
            highest = highest.max(ids(earlier).into_iter().max().unwrap_or(0));
        }
        let lowest = ids(later).into_iter().min().expect("no transaction is empty");
        assert!(lowest > highest, "{later:?} got {lowest}, after {highest} had been committed");
        // Within a transaction, events are in the order in which they were written.
        assert!(ids(later).is_sorted(), "{later:?}: {:?}", ids(later));
    }
}

/// Reads `table` as one would without Everpoll: what has a higher id than the last, in a loop. While it reads, eight
/// writers write and one transaction, opened before them, commits when the reader has passed it. Returns the truth
/// and what was read, and the open transaction's id.
fn read_plainly(table: Table) -> (Arc<Ledger>, Reading, u64) {
    let (random, ledger) = (Random::seeded(), Arc::new(judge::ledger()));
    let database = Database::shared();
    table.create(&database);
    let reading = Reading {
        channels: CHANNELS.map(str::to_owned).to_vec(),
        began_after: Some(0),
        ..Reading::default()
    };
    let reading = Mutex::new(reading);
    let done = AtomicBool::new(false);
    let lock = || reading.lock().expect("the reader does not panic");

    let mut connection = database.connect();
    let mut open = connection.transaction().expect("the database runs");
    let of_open = ledger.announce(ledger.channel("cheese"));
    table.insert(&mut open, "cheese", of_open);
    let writers = Writers::start(&database, table, WRITERS, &random, &ledger);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = database.connect();
            loop {
                let last_round = done.load(Ordering::SeqCst);
                let after = i64::try_from(lock().cursor).expect("ids are small here");
                for row in client.query(table.select(), &[&after]).expect("the database runs") {
                    let mut reading = lock();
                    reading.cursor = id(&row);
                    reading.events.push((id(&row), row.get("channel")));
                }
                if last_round {
                    break;
                }
            }
        });
        // Now its row has a lower id than what was read, in a table that gives ids when a row is written.
        wait::until("the reader is well ahead", wait::PATIENCE, || lock().events.len() >= 100);
        open.commit().expect("nothing stands against the commit");
        ledger.acknowledge(of_open, None);
        wait::until("the writers have gone on", wait::PATIENCE, || writers.written() >= 1_000);
        writers.stop();
        done.store(true, Ordering::SeqCst);
    });

    let rows = database.connect().query(table.select(), &[&0_i64]).expect("the table is there");
    let events: Vec<_> = rows.iter().map(|row| (id(row), row.get("channel"), row.get("tag"))).collect();
    judge::find(&ledger, &events);
    let open = *ids(&events).get(&of_open).expect("it was committed");
    (ledger, reading.into_inner().expect("the reader does not panic"), open)
}

#[test]
fn plain_reader_of_an_auto_increment_column_is_found_to_lose_events() {
    let (ledger, reading, open) = read_plainly(Table::Plain);
    let report = judge::judge(&ledger, [&reading]);
    eprintln!("a plain reader: {report}");
    assert!(!report.kept && report.total.lost > 0);
    let has_open = reading.events.iter().any(|(id, _)| *id == open);
    assert!(!has_open, "the reader had passed {open} before it was committed");
}

#[test]
fn plain_reader_of_the_log_loses_nothing() {
    let (ledger, reading, open) = read_plainly(Table::Log);
    let report = judge::judge(&ledger, [&reading]);
    assert!(report.kept && report.total.acknowledged > 1_000, "{report}");
    assert!(reading.events.iter().any(|(id, _)| *id == open));
}

/// Eight publishers over HTTP, at both programs in turn, one request after the other; six readers.
fn publish_and_read(store: Store) {
    let site = Site::on(store);
    let readers = (0..6).map(|number| Reader::start(&site, number)).collect::<Vec<_>>();
    let ledger = judge::ledger();
    let (published, ids) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for publisher in 0..8 {
            let (site, ledger, published, ids) = (&site, &ledger, &published, &ids);
            scope.spawn(move || {
                for round in 0..20 {
                    let channels: Vec<_> =
                        (0..=round % 4).map(|n| CHANNELS[(publisher + round + n) % 6]).collect();
                    let announce = |channel: &&str| ledger.announce(ledger.channel(channel));
                    let numbers: Vec<_> = channels.iter().map(announce).collect();
                    let events: Vec<_> = channels
                        .iter()
                        .map(|channel| format!(r#"{{"channel":"{channel}","type":"made","data":{round}}}"#))
                        .collect();
                    let began = Instant::now();
                    let body = format!("[{}]", events.join(","));
                    let reply = http::post_json("/publish", body).send(site.door(publisher + round));
                    let done = Instant::now();
                    assert_eq!(reply.status, 201, "{}", reply.text());
                    let told = reply.json()["ids"].as_array().expect("ids").clone();
                    for (n, id) in numbers.iter().zip(&told) {
                        let id = id.as_u64().expect("a number");
                        ledger.acknowledge(*n, id);
                        ids.lock().expect("no publisher panicked").insert(*n, id);
                    }
                    let committed = Committed { events: numbers, began, done };
                    published.lock().expect("no publisher panicked").push(committed);
                }
            });
        }
    });
    let published = published.into_inner().expect("no publisher panicked");
    assert_eq!(published.len(), 160);
    wait_until_complete(&ledger, &readers);
    for reader in readers {
        judge::assert_kept(&ledger, &reader.pollers.stop().0);
    }
    // The same order as above, with the answer 201 as the end of the commit.
    assert_commit_order(&published, &ids.into_inner().expect("no publisher panicked"));
}

#[test]
fn events_published_at_both_programs_have_one_order_on_postgres() {
    publish_and_read(Store::postgres());
}

#[test]
fn events_published_at_both_programs_have_one_order_on_sqlite() {
    publish_and_read(Store::sqlite());
}
