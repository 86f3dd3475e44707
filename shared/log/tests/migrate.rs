//! Migrations, and what is said about a database that has none.

use everpoll_log::{Log, LogError, Migrated, Options};
use everpoll_protocol::Cursor;
use everpoll_tests::{Database, Sqlite};

use crate::common::{ALL, Store, event, ids, keep_of_all, read};

#[test]
fn four_programs_may_migrate_at_once() {
    let (database, file) = (Database::shared(), Sqlite::new());
    for (url, newest) in [(database.url(), 4), (file.url(), 3)] {
        let migrated: Vec<Migrated> = std::thread::scope(|scope| {
            let migrate = || Log::new(&url, Options::default()).unwrap().migrate().unwrap();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(migrate)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(migrated.iter().all(|migrated| migrated.to == newest), "{migrated:?}");
        let mut log = Log::new(&url, Options::default()).unwrap();
        assert_eq!(log.migrate().unwrap(), Migrated { from: newest, to: newest });
        assert_eq!(log.publish(&[event("a", "1")]).unwrap(), [1]);
    }
}

#[test]
fn programs_that_make_the_same_file_at_once_take_it_for_their_own() {
    // Each round is a new chance for one to look while another is just done.
    for _ in 0..100 {
        let file = Sqlite::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Log::new(&file.url(), Options::default()).unwrap().bounds().unwrap());
            }
        });
    }
}

#[test]
fn database_without_a_log_is_told_to_migrate_and_works_then() {
    let database = Database::shared();
    let mut log = Log::new(&database.url(), Options::default()).unwrap();
    let error = log.bounds().unwrap_err();
    assert_eq!(error, LogError::NotMigrated { found: 0, needed: 4 });
    assert!(error.to_string().contains("everpoll migrate"));
    assert_eq!(log.publish(&[event("a", "1")]).unwrap_err(), error);
    log.migrate().unwrap();
    assert_eq!(log.publish(&[event("a", "1")]).unwrap(), [1]);
}

#[test]
fn role_without_the_right_to_make_schemas_migrates_into_one_that_is_there() {
    let database = Database::shared();
    let role = format!("owner_{}", database.name());
    database.psql(&format!("create role {role} login; create schema everpoll authorization {role};"));
    let mut log = Log::new(&database.url_as(&role), Options::default()).unwrap();
    assert_eq!(log.migrate().unwrap(), Migrated { from: 0, to: 4 });
    assert_eq!(log.publish(&[event("a", "1")]).unwrap(), [1]);
    database.psql(&format!("drop owned by {role}; drop role {role};"));
}

#[test]
fn database_in_another_encoding_is_refused_with_the_way_out() {
    let database = Database::shared();
    let latin = format!("{}_latin", database.name());
    database.psql(&format!("create database {latin} encoding 'LATIN1' locale 'C' template template0"));
    let url = database.url().replace(database.name(), &latin);
    let error = Log::new(&url, Options::default()).unwrap().migrate().unwrap_err();
    database.psql(&format!("drop database {latin} with (force)"));
    assert!(error.to_string().contains("encoding 'UTF8'"), "{error}");
}

#[test]
fn file_that_is_something_else_is_left_alone() {
    let file = Sqlite::new();
    std::fs::write(file.path(), "no database at all, but long enough to be taken for one".repeat(40))
        .unwrap();
    let error = Log::new(&file.url(), Options::default()).unwrap().bounds().unwrap_err();
    assert!(error.to_string().contains("is not an SQLite database"), "{error}");

    std::fs::remove_file(file.path()).unwrap();
    let others = rusqlite::Connection::open(file.path()).unwrap();
    others.execute_batch("create table events (id integer)").unwrap();
    let error = Log::new(&file.url(), Options::default()).unwrap().bounds().unwrap_err();
    assert!(error.to_string().contains("database of another program"), "{error}");
}

#[test]
fn missing_directory_is_said_with_what_to_look_at() {
    let store = Store::sqlite();
    let url = store.url().replace("everpoll.db", "missing/everpoll.db");
    let error = Log::new(&url, Options::default()).unwrap().bounds().unwrap_err();
    assert!(matches!(error, LogError::Unavailable { .. }));
    assert!(error.to_string().contains("does the directory exist"), "{error}");
}

/// The migrations up to the second, as an earlier release applied them.
const EARLIER: [&str; 2] = [
    include_str!("../migrations/postgres/0001_event_log.sql"),
    include_str!("../migrations/postgres/0002_trim.sql"),
];

#[test]
fn earlier_layout_keeps_its_events_rights_and_views() {
    let database = Database::shared();
    let role = format!("reader_{}", database.name());
    database.psql("create schema everpoll; create table everpoll.migrations (number integer primary key, at timestamptz default now())");
    for (number, migration) in EARLIER.iter().enumerate() {
        database.psql(migration);
        database.psql(&format!("insert into everpoll.migrations (number) values ({})", number + 1));
    }
    database.psql(&format!(
        "create role {role} login;
         select everpoll.grant_reader('{role}'), everpoll.grant_trimmer('{role}');
         select everpoll.install_compat_view();
         grant select on public.events to {role};
         select everpoll.publish('a', 't', '1');"
    ));
    // Published before, and committed after.
    let mut open = database.connect();
    open.batch_execute("begin; select everpoll.publish('a', 't', '2')").unwrap();

    let mut owner = Log::new(&database.url(), Options::default()).unwrap();
    assert_eq!(owner.migrate().unwrap(), Migrated { from: 2, to: 4 });
    open.batch_execute("commit").unwrap();
    assert_eq!(owner.publish(&[event("a", "3")]).unwrap(), [3]);

    let mut reader = Log::new(&database.url_as(&role), Options::default()).unwrap();
    assert_eq!(ids(&reader.tail(0, ALL).unwrap()), [1, 2, 3]);
    assert_eq!(ids(&read(&mut reader, &["a"], Cursor::After(1))), [2, 3]);
    for view in ["public.events", "everpoll.positions"] {
        let newest = database.try_psql_as(&role, &format!("select max(id) from {view}")).unwrap();
        assert_eq!(newest.trim(), "3", "{view}");
    }
    // What an earlier release's statements say.
    let tail = "select newest from everpoll.read(1, 10, 1000, 0, null, '{}') limit 1";
    assert_eq!(database.try_psql_as(&role, tail).unwrap().trim(), "3");
    // Without a right on what is new, it could not go on.
    assert_eq!(reader.trim(&keep_of_all(1), 10).unwrap().removed, 2);
    database.psql(&format!("drop owned by {role}; drop role {role};"));
}
