//! The view for programs that were written for a table public.events (channel_id, data).

use everpoll_protocol::Cursor;

use crate::common::{Store, read};

const INSTALL: &str = "select everpoll.install_compat_view()";

#[test]
fn old_insert_publishes_through_the_view() {
    let store = Store::postgres();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    database.psql(INSTALL);
    database.psql(r#"insert into events (channel_id, data) values ('cheese', '{"type": "ripened", "data": {"id": 1}}')"#);
    database.psql(r#"insert into events (channel_id, data) values ('cheese', '{"type": "eaten"}')"#);
    let found = read(&mut store.log(), &["cheese"], Cursor::After(0));
    let seen: Vec<_> = found.events.iter().map(|event| (event.kind.as_str(), event.data.as_str())).collect();
    assert_eq!(seen, [("ripened", "{\"id\": 1}"), ("eaten", "null")]);
    let rows = database.psql(
        "select id, channel_id, data -> 'type', data -> 'data' -> 'id', ts <= now() from events order by id",
    );
    assert_eq!(rows, "1|cheese|\"ripened\"|1|t\n2|cheese|\"eaten\"||t\n");
}

#[test]
fn view_says_what_it_cannot_take() {
    let store = Store::postgres();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    database.psql(INSTALL);
    for (row, said) in [
        ("(channel_id, data) values ('a', '[]')", "must be an object with a text \"type\""),
        ("(channel_id, data) values ('a', '{\"data\": 1}')", "must be an object with a text \"type\""),
        ("(channel_id, data) values ('a', '{\"type\": 1}')", "must be an object with a text \"type\""),
        ("(channel_id) values ('a')", "must be an object with a text \"type\""),
        ("(channel_id, data) values ('a/b', '{\"type\": \"t\"}')", "channel name contains"),
        ("(id, channel_id, data) values (1, 'a', '{\"type\": \"t\"}')", "given at COMMIT"),
    ] {
        let error = database.try_psql(&format!("insert into events {row}")).expect_err(row);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn view_is_not_put_over_a_table_that_is_there() {
    let store = Store::postgres();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    database.psql("create table events (id int)");
    let error = database.try_psql(INSTALL).unwrap_err();
    assert!(error.contains("public.events exists already"), "{error}");
}

#[test]
fn grants_on_the_view_are_enough_to_insert() {
    let store = Store::postgres();
    let Store::Postgres(database) = &store else { unreachable!("it was made above") };
    let role = format!("old_{}", database.name());
    database.psql(&format!("{INSTALL}; create role {role} login; grant insert on events to {role}"));
    let insert = r#"insert into events (channel_id, data) values ('a', '{"type": "t"}')"#;
    let inserted = database.try_psql_as(&role, insert);
    database.psql(&format!("drop owned by {role}; drop role {role}"));
    inserted.unwrap();
    assert_eq!(read(&mut store.log(), &["a"], Cursor::After(0)).events.len(), 1);
}
