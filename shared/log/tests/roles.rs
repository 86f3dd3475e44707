//! Rights: what each role can do, and what the programs can do with it. PostgreSQL only; a file has no roles.

use everpoll_log::{Log, LogError, Options, Wakeups};
use everpoll_protocol::Cursor;
use everpoll_tests::Database;

use crate::common::{Store, event, ids, keep_of_all, keyed, read};

/// A database with a role of its own name per kind of rights.
struct Roles {
    store: Store,
}

impl Roles {
    fn new(grants: &[&str]) -> Self {
        let roles = Self { store: Store::postgres() };
        let role = roles.role();
        let grants: String =
            grants.iter().map(|grant| format!("select everpoll.{grant}('{role}');")).collect();
        roles.database().psql(&format!("create role {role} login; {grants}"));
        roles
    }

    fn database(&self) -> &Database {
        let Store::Postgres(database) = &self.store else { unreachable!("it was made as one") };
        database
    }

    fn role(&self) -> String {
        format!("role_{}", self.database().name())
    }

    fn log(&self) -> Log {
        Log::new(&self.database().url_as(&self.role()), Options::default()).unwrap()
    }

    #[track_caller]
    fn may(&self, sql: &str) {
        self.database().try_psql_as(&self.role(), sql).unwrap();
    }

    #[track_caller]
    fn may_not(&self, sql: &str) {
        let error = self.database().try_psql_as(&self.role(), sql).expect_err(sql);
        assert!(error.contains("42501"), "{sql}: {error}");
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let role = self.role();
        let _ = self.database().try_psql(&format!("drop owned by {role}; drop role {role};"));
    }
}

const INSERT: &str = "insert into everpoll.events (channel, type, data) values ('a', 't', '{}')";

#[test]
fn publisher_publishes_and_nothing_else() {
    let roles = Roles::new(&["grant_publisher"]);
    roles.may(INSERT);
    roles.may("select everpoll.publish('a', 't', '{}', key => 'k')");
    roles.may("select everpoll.cursor()");
    assert_eq!(roles.log().publish(&[event("a", "1"), keyed("a", "k")]).unwrap(), [3, 2]);
    for sql in [
        "select * from everpoll.events",
        "select * from everpoll.positions",
        "insert into everpoll.positions values (1, 1, 'a', 1, now())",
        "insert into everpoll.events (row, channel, type, data) overriding system value values (99, 'a', 't', '1')",
        "delete from everpoll.events",
        "select nextval('everpoll.ids')",
        "select everpoll.trim(null, 100, 100)",
        "select everpoll.declare_rift(100)",
        "select everpoll.open_rift(100)",
        "select everpoll.grant_reader('postgres')",
    ] {
        roles.may_not(sql);
    }
    let error = roles.log().bounds().unwrap_err();
    assert!(
        matches!(&error, LogError::Other { detail } if detail.contains("everpoll.grant_reader")),
        "{error}"
    );
}

#[test]
fn reader_reads_waits_and_nothing_else() {
    let roles = Roles::new(&["grant_reader"]);
    roles.store.log().publish(&[event("a", "1")]).unwrap();
    assert_eq!(ids(&read(&mut roles.log(), &["a"], Cursor::After(0))), [1]);
    let mut wakeups = Wakeups::new(&roles.database().url_as(&roles.role()), Options::default()).unwrap();
    assert!(wakeups.wait(std::time::Duration::ZERO).unwrap());
    roles.log().declare_rift(9).unwrap();
    assert!(roles.log().bounds().unwrap().origin > 9);
    roles.may_not(INSERT);
    roles.may_not("select everpoll.publish('a', 't', '{}')");
    roles.may_not("delete from everpoll.positions");
    let error = roles.log().publish(&[event("a", "1")]).unwrap_err();
    assert!(
        matches!(&error, LogError::Other { detail } if detail.contains("everpoll.grant_publisher")),
        "{error}"
    );
}

#[test]
fn trimmer_trims_and_nothing_else() {
    let roles = Roles::new(&["grant_trimmer"]);
    roles.store.log().publish(&vec![event("a", "1"); 5]).unwrap();
    assert_eq!(roles.log().trim(&keep_of_all(2), 10).unwrap().removed, 3);
    roles.may_not("select * from everpoll.events");
    roles.may_not(INSERT);
}

#[test]
fn role_without_grants_may_do_nothing() {
    let roles = Roles::new(&[]);
    for sql in [
        INSERT,
        "select everpoll.publish('a', 't', '{}')",
        "select everpoll.cursor()",
        "select everpoll.adopt()",
    ] {
        roles.may_not(sql);
    }
}

#[test]
fn programs_rights_together_are_enough_for_all_they_do() {
    let roles = Roles::new(&["grant_publisher", "grant_reader", "grant_trimmer"]);
    let mut log = roles.log();
    assert_eq!(log.publish(&[event("a", "1"), event("a", "2")]).unwrap(), [1, 2]);
    assert_eq!(log.trim(&keep_of_all(1), 10).unwrap().removed, 1);
    assert_eq!(ids(&log.tail(0, crate::common::ALL).unwrap()), [2]);
}
