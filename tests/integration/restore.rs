//! A log that was restored from an older copy, and clients that have seen what the copy lacks.
//!
//! The danger is silence: the copy would give the ids of lost events to new ones, and a client that goes on from
//! such an id would miss the new events before it. So ids go on far above all that were ever given, whoever writes
//! first, and whoever has seen lost events is told by a gap.

use std::path::{Path, PathBuf};

use everpoll_tests::{database, process, wait};

use crate::gap::{Told, ask, understand};
use crate::site::{self, Site, Store};

/// Publishes this many events in SQL, from no program of ours.
fn publish_sql(site: &Site, count: usize) {
    let insert = "INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '0');\n";
    site.store.database().psql(&insert.repeat(count));
}

fn publish(site: &Site, count: usize) -> Vec<u64> {
    (0..count).map(|_| site.publish("cheese", "0")).collect()
}

/// The ids that are in the log.
fn ids(site: &Site) -> Vec<u64> {
    let rows = site.store.database().psql("SELECT id FROM everpoll.positions ORDER BY id");
    rows.lines().map(|id| id.parse().expect("an id")).collect()
}

/// What clients are told whose cursors come from before the restore. `old` has the ids that were given before it, of
/// which the first `kept` are in the copy; `new` those that were given since.
#[track_caller]
fn assert_told(site: &Site, old: &[u64], kept: usize, new: &[u64]) {
    let (copy, lost) = old.split_at(kept);
    let newest = *new.last().expect("something was published");
    assert!(new[0] > old[old.len() - 1] + 1, "{new:?} were given again, or could have been: {old:?}");
    // Who has seen no more than the copy has gets everything since.
    let all: Vec<_> = copy.iter().chain(new).copied().collect();
    assert_eq!(ask(site, "cheese", 0), Told::events(&all, newest));
    assert_eq!(ask(site, "cheese", copy[kept - 1]), Told::events(new, newest));
    // Who has seen what is lost gets a gap, and what was published since the restore. Where that begins the log
    // decides; it is behind all that was lost.
    for seen in lost {
        let told = ask(site, "cheese", *seen);
        let before = told.gap.as_ref().map_or(0, |gap| gap.1);
        assert_eq!(told, Told::gap(*seen, before, "ahead", new, newest));
        assert!(before > old[old.len() - 1] && before <= new[0], "{told:?}, {old:?}, {new:?}");
    }
    // Nothing else changes.
    assert_eq!(ask(site, "cheese", newest - 1).gap, None);
}

#[test]
fn restored_log_tells_clients_of_both_programs_although_sql_published_first() {
    let mut site = Site::on(Store::postgres());
    let mut old = publish(&site, 5);
    let dump = site.store.database().dump();
    old.extend(publish(&site, 5));
    site.daemon.stop();
    site.store.database().restore(&dump);
    // Before any program of ours has connected.
    publish_sql(&site, 3);
    let new = ids(&site)[5..].to_vec();
    site.daemon.start_again();
    assert_told(&site, &old, 5, &new);
    // A restart of either changes nothing.
    site.daemon.kill_9();
    site.daemon.start_again();
    site.fallback.stop();
    site.fallback.start_again();
    assert_told(&site, &old, 5, &new);
}

#[test]
fn daemon_that_runs_through_a_restore_tells_held_polls() {
    let mut site = Site::on(Store::postgres());
    let mut old = publish(&site, 5);
    let dump = site.store.database().dump();
    old.extend(publish(&site, 5));
    let held = site::hold(&site, "cheese", old[9], "one");
    let elsewhere = site::hold(&site, "quiet", old[9], "two");
    site.store.database().restore(&dump);
    publish_sql(&site, 3);
    let new = ids(&site)[5..].to_vec();
    for (held, channel) in [(held, "cheese"), (elsewhere, "quiet")] {
        let reply = held.reply_within(site::SOON);
        let told = understand(reply.events(), reply.cursor(), channel, "the held poll");
        let gap = told.gap.expect("what this client has seen is lost");
        assert_eq!((gap.0, gap.2.as_str()), (old[9], "ahead"));
        assert!(gap.1 > old[9] && gap.1 <= new[0]);
        // What came with it, or comes next.
        let (mut got, mut cursor) = (told.ids, told.cursor);
        if channel == "cheese" {
            let poll = |cursor| site::poll("cheese", cursor, "flavor=short-poll").send(site.door(0));
            wait::until("all that is new has come", wait::PATIENCE, || {
                let reply = poll(cursor);
                let next = understand(reply.events(), reply.cursor(), channel, "the next poll");
                assert_eq!(next.gap, None, "it is said once");
                got.extend(next.ids);
                cursor = next.cursor;
                got.len() >= new.len()
            });
            assert_eq!(got, new);
        }
    }
    wait::until("the daemon reads the log", wait::PATIENCE, || site.daemon.is_ready());
    assert_told(&site, &old, 5, &new);
    site.daemon.stop();
    site.daemon.start_again();
    assert_told(&site, &old, 5, &new);
}

#[test]
fn programs_that_connect_in_the_middle_of_a_restore_do_not_disturb_it() {
    let mut site = Site::on(Store::postgres());
    let mut old = publish(&site, 5);
    let database = site.store.database();
    let dump = database.dump();
    old.extend(publish(&site, 5));
    let name = database.name();
    database.postgres().psql(&format!("DROP DATABASE {name} WITH (FORCE); CREATE DATABASE {name};"));
    // First the tables, then what is in them, then indexes and triggers. With much data, programs that come back
    // find each of these states.
    for section in ["pre-data", "data", "post-data"] {
        let mut command = database::tool("pg_restore");
        command
            .args(["--exit-on-error", "--section", section, "--dbname"])
            .arg(database.url())
            .arg(dump.path());
        let (status, out, error) = process::run(command, b"");
        assert!(status.success(), "{section}: {out}{error}");
        // What this one makes of it does not matter; that it looked must not.
        let _ = site.store.run(&["migrate", "--status"]);
    }
    publish_sql(&site, 3);
    let new = ids(&site)[5..].to_vec();
    wait::until("the daemon reads the log", wait::PATIENCE, || site.daemon.is_ready());
    assert_told(&site, &old, 5, &new);
    assert_eq!(site.store.database().psql("SELECT count(*) FROM everpoll.rifts"), "1\n");
    site.daemon.stop();
    site.daemon.start_again();
    assert_told(&site, &old, 5, &new);
}

#[test]
fn second_restore_of_the_same_dump_gives_no_id_again() {
    let mut site = Site::on(Store::postgres());
    let mut old = publish(&site, 3);
    let dump = site.store.database().dump();
    old.extend(publish(&site, 2));
    site.store.database().restore(&dump);
    publish_sql(&site, 4);
    // Clients may have seen these as well.
    old.extend(&ids(&site)[3..]);
    site.daemon.stop();
    site.store.database().restore(&dump);
    publish_sql(&site, 2);
    let new = ids(&site)[3..].to_vec();
    site.daemon.start_again();
    assert_told(&site, &old, 3, &new);
}

#[test]
fn restored_log_in_which_nothing_is_published_tells_clients_too() {
    let mut site = Site::on(Store::postgres());
    let mut old = publish(&site, 3);
    let dump = site.store.database().dump();
    old.extend(publish(&site, 2));
    site.daemon.stop();
    site.store.database().restore(&dump);
    site.daemon.start_again();
    let cursor = site.cursor("cheese");
    assert!(cursor > old[4], "a page that starts now has a cursor that nobody else had: {cursor}");
    for seen in &old[3..] {
        let told = ask(&site, "cheese", *seen);
        assert_eq!(told, Told::gap(*seen, cursor + 1, "ahead", &[], cursor));
    }
    assert_eq!(ask(&site, "cheese", 0).ids, old[..3]);
    // And its first event is everybody's.
    let new = publish(&site, 1);
    assert_told(&site, &old, 3, &new);
    assert_eq!(ask(&site, "cheese", cursor), Told::events(&new, new[0]));
}

#[test]
fn cursor_in_what_was_lost_is_told_so_even_when_all_before_it_is_trimmed() {
    let mut site = Site::on(Store::postgres());
    let mut old = publish(&site, 3);
    let dump = site.store.database().dump();
    old.extend(publish(&site, 2));
    site.daemon.stop();
    site.store.database().restore(&dump);
    publish_sql(&site, 3);
    let new = ids(&site)[3..].to_vec();
    site.daemon.start_again();
    assert_eq!(site.store.run_well(&["trim", "--count", "2"]), "4 events removed\n");
    let told = ask(&site, "cheese", old[4]);
    assert_eq!(told, Told::gap(old[4], new[0] + 1, "ahead", &new[1..], new[2]));
    let told = ask(&site, "cheese", old[2]);
    assert_eq!(told, Told::gap(old[2], new[0] + 1, "trimmed", &new[1..], new[2]));
}

/// The files of an SQLite log: with the write-ahead log, if there is one.
fn files(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| PathBuf::from(format!("{}{suffix}", path.display())))
}

/// How an administrator puts an older copy in place of the file.
#[derive(Clone, Copy, Debug)]
enum Replacing {
    /// The copy becomes the file: `mv`.
    Moving,
    /// Its content goes into the file that is there: `cp`.
    Copying,
}

fn check_replaced_file(replacing: Replacing) {
    let mut site = Site::on(Store::sqlite());
    let Store::Sqlite(sqlite) = &site.store else { unreachable!("it was just made") };
    let (file, copy) = (sqlite.path(), sqlite.path().with_extension("copy"));
    let mut old = publish(&site, 5);
    site.daemon.stop();
    site.fallback.stop();
    for (from, to) in files(&file).iter().zip(files(&copy)) {
        if from.exists() {
            std::fs::copy(from, to).expect("the disk has room");
        }
    }
    site.daemon.start_again();
    old.extend(publish(&site, 5));
    site.daemon.stop();
    for (to, from) in files(&file).iter().zip(files(&copy)) {
        match (from.exists(), replacing) {
            (true, Replacing::Moving) => std::fs::rename(from, to).expect("both are in one directory"),
            (true, Replacing::Copying) => drop(std::fs::copy(from, to).expect("the disk has room")),
            // What belongs to the newer file would be applied to the older one.
            (false, _) if to.exists() => std::fs::remove_file(to).expect("it is ours"),
            (false, _) => {}
        }
    }
    site.fallback.start_again();
    // The command line comes first, before any reader.
    let published =
        |_| site.store.run_well(&["publish", "cheese", "made", "0"]).trim().parse().expect("an id");
    let new: Vec<u64> = (0..3).map(published).collect();
    site.daemon.start_again();
    assert_told(&site, &old, 5, &new);
}

#[test]
fn older_copy_that_is_moved_in_place_of_the_file_tells_clients() {
    check_replaced_file(Replacing::Moving);
}

#[test]
fn older_copy_that_is_written_over_the_file_tells_clients() {
    check_replaced_file(Replacing::Copying);
}
