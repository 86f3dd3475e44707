//! PostgreSQL has no room left: for the tables of the log, or for its write-ahead log, of which it dies.

use std::collections::BTreeSet;

use everpoll_tests::{Database, Postgres};

use super::*;

/// What the log has: keys by id.
fn keys(database: &Database) -> Vec<(u64, String)> {
    let rows = database.psql(
        "SELECT p.id, e.key FROM everpoll.positions p JOIN everpoll.events e USING (row) WHERE e.channel = 'cheese' ORDER BY p.id",
    );
    let pair = |line: &str| {
        let (id, key) = line.split_once('|').expect("two columns");
        (id.parse().expect("an id"), key.to_owned())
    };
    rows.lines().map(pair).collect()
}

/// Events of this length do not get smaller when they are compressed.
fn noise(random: &mut crate::writers::Random, length: usize) -> String {
    (0..length).map(|_| char::from(b'a' + u8::try_from(random.below(26)).expect("a letter"))).collect()
}

#[test]
fn full_disk_of_the_tables_is_an_error_of_the_transaction_and_goes_on_when_there_is_room() {
    let mut random = crate::writers::Random::seeded();
    let mut disk = Disk::for_postgres(20 * 1024);
    let space = disk.directory("space");
    let postgres = Postgres::start();
    let database = postgres.create_database();
    let name = database.name().to_owned();
    postgres.psql(&format!("CREATE TABLESPACE small LOCATION '{}'", space.display()));
    postgres.psql(&format!("ALTER DATABASE {name} SET TABLESPACE small"));
    database.migrate();
    database.psql("CREATE TABLE orders (n int)");
    let site = Site::on(Store::Postgres(database));
    let database = site.store.database();
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        acknowledged.push(
            publish(site.daemon.address(), &json!(0), &format!("{round} before")).expect("there is room"),
        );
        disk.fill();
        let mut full = [false; 3];
        for number in 0.. {
            assert!(number < 2000, "it is never full");
            let (way, key) = (number % 3, format!("{round} full {number}"));
            let text = noise(&mut random, 20_000);
            if way == 2 {
                let sql = format!(
                    "BEGIN; INSERT INTO orders VALUES ({number}); SELECT everpoll.publish('cheese', 'made', '\"{text}\"', '{key}'); COMMIT;"
                );
                match database.try_psql(&sql) {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(error.contains("53100") && error.contains("No space left"), "{error}");
                        full[way] = true;
                        // The application's own change went with it.
                        let orders = format!("SELECT count(*) FROM orders WHERE n = {number}");
                        assert_eq!(database.psql(&orders), "0\n");
                    }
                }
            } else {
                match publish(site.door(way), &json!(text), &key) {
                    Ok(id) => acknowledged.push(id),
                    Err(problem) => {
                        assert_eq!(problem["code"], "log_full", "{problem}");
                        full[way] = true;
                    }
                }
            }
            if full == [true; 3] {
                break;
            }
        }
        let output =
            site.store.run(&["publish", "cheese", "made", &format!("\"{}\"", noise(&mut random, 100_000))]);
        assert_refused(&output, 1, &["full", "make room"]);
        let there: Vec<_> = keys(database).into_iter().map(|(id, _)| id).collect();
        assert!(acknowledged.iter().all(|id| there.contains(id)));
        for (name, address) in site.doors() {
            assert_eq!(ids(&read_all(address, 0)), there, "{name}");
        }
        disk.make_room();
        for (name, address) in site.doors() {
            acknowledged
                .push(publish(address, &json!(1), &format!("{round} {name}")).expect("there is room again"));
        }
    }
    site.settle();
    let there: Vec<_> = keys(database).into_iter().map(|(id, _)| id).collect();
    for (name, address) in site.doors() {
        assert_eq!(ids(&read_all(address, 0)), there, "{name}");
    }
    assert!(acknowledged.iter().all(|id| there.contains(id)));
    assert!(postgres.is_running());
}

#[test]
fn server_without_room_for_its_write_ahead_log_loses_nothing_that_was_acknowledged() {
    let mut random = crate::writers::Random::seeded();
    let mut disk = Disk::for_postgres(24 * 1024);
    let postgres = Postgres::start_in(&[], Some(&disk.outside("wal")));
    let database = postgres.create_database();
    database.migrate();
    let mut site = Site::on(Store::Postgres(database));
    let cursor = site.cursor("cheese");
    let held = site::hold(&site, "quiet", cursor, "one");
    let mut acknowledged: Vec<(String, u64)> = Vec::new();
    let mut sent: Vec<(String, Value)> = Vec::new();
    for number in 0..5 {
        let (data, key) = (json!(noise(&mut random, 20_000)), format!("{number}"));
        let id = publish(site.door(number), &data, &key).expect("there is room");
        acknowledged.push((key.clone(), id));
        sent.push((key, data));
    }
    disk.fill();
    let (mut refused, mut unclear) = (Vec::new(), 0);
    for number in 5.. {
        assert!(number < 3000, "it is never full");
        let (data, key) = (json!(noise(&mut random, 20_000)), format!("{number}"));
        sent.push((key.clone(), data.clone()));
        match publish(site.door(number), &data, &key) {
            Ok(id) => acknowledged.push((key, id)),
            Err(problem) => match problem["code"].as_str() {
                // Sometimes it can still say no.
                Some("log_full") => refused.push(key),
                Some("outcome_unknown" | "log_unavailable") => unclear += 1,
                _ => panic!("{problem}"),
            },
        }
        if unclear >= 2 || refused.len() >= 50 {
            break;
        }
    }
    eprintln!("{} acknowledged, {} refused, {unclear} unclear", acknowledged.len(), refused.len());
    assert!(postgres.log().contains("No space left on device"), "{}", postgres.log());
    let dies = postgres.log().contains("PANIC");
    if dies {
        complaint(&site.daemon, "log_unavailable");
        wait::until("it gives up starting again", wait::PATIENCE, || !postgres.is_running());
    }
    disk.make_room();
    if dies {
        postgres.start_again();
    }
    site.daemon.wait_until_ready();
    // What was refused is not there, and what was acknowledged is.
    let there = keys(site.store.database());
    assert!(there.iter().all(|(_, key)| !refused.contains(key)), "{refused:?}, and {there:?}");
    for (key, id) in &acknowledged {
        assert!(there.contains(&(*id, key.clone())), "{key} was acknowledged as {id}, and is lost");
    }
    // Publishers with keys say it all again, and nothing is there twice.
    for (number, (key, data)) in sent.iter().enumerate() {
        let address = site.door(number);
        let id = wait::try_until_some(wait::PATIENCE, || publish(address, data, key).ok());
        let id = id.unwrap_or_else(|| panic!("{key} is not taken"));
        let before = acknowledged.iter().find(|(other, _)| other == key).map_or(id, |(_, id)| *id);
        assert_eq!(before, id, "{key} was acknowledged as another event");
    }
    site.settle();
    let there = keys(site.store.database());
    assert_eq!(there.len(), sent.len());
    let different: BTreeSet<_> = there.iter().map(|(_, key)| key).collect();
    assert_eq!(different.len(), sent.len());
    let there: Vec<_> = there.into_iter().map(|(id, _)| id).collect();
    for (name, address) in site.doors() {
        assert_eq!(ids(&read_all(address, cursor)), there, "{name}");
    }
    drop(held);
}
