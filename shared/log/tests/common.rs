//! An empty log on either database, and short ways to fill and read it.

use std::time::Duration;

use everpoll_log::{Limit, Log, Options, Part, Read, Retention};
use everpoll_protocol::{Bounds, Channel, Cursor, NewEvent};
use everpoll_tests::{Database, Sqlite};

/// No limit that a test reaches.
pub(crate) const ALL: Limit = Limit { events: 100_000, bytes: u64::MAX };

/// A migrated, empty log.
pub(crate) enum Store {
    Postgres(Database),
    Sqlite(Sqlite),
}

impl Store {
    pub(crate) fn postgres() -> Self {
        let store = Self::Postgres(Database::shared());
        store.log().migrate().unwrap();
        store
    }

    pub(crate) fn sqlite() -> Self {
        let store = Self::Sqlite(Sqlite::new());
        store.log().migrate().unwrap();
        store
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(database) => database.url(),
            Self::Sqlite(file) => file.url(),
        }
    }

    /// A connection of its own.
    pub(crate) fn log(&self) -> Log {
        Log::new(&self.url(), Options::default()).unwrap()
    }

    /// Runs SQL as an application does. The table's name differs, the rest does not.
    pub(crate) fn try_sql(&self, sql: &str) -> Result<(), String> {
        match self {
            Self::Postgres(database) => database.try_psql(sql).map(drop),
            Self::Sqlite(file) => {
                let connection = rusqlite::Connection::open(file.path()).unwrap();
                let sql = sql.replace("everpoll.events", "events");
                connection.execute_batch(&sql).map_err(|error| error.to_string())
            }
        }
    }

    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) {
        self.try_sql(sql).unwrap();
    }
}

pub(crate) fn event(channel: &str, data: &str) -> NewEvent {
    NewEvent::parse(channel, "happened", data, None, None).unwrap()
}

pub(crate) fn keyed(channel: &str, key: &str) -> NewEvent {
    NewEvent::parse(channel, "happened", "{}", Some(key), None).unwrap()
}

pub(crate) fn channels(names: &[&str]) -> Vec<Channel> {
    names.iter().map(|name| Channel::parse(name).unwrap()).collect()
}

/// Everything that `names` have after `cursor`.
#[track_caller]
pub(crate) fn read(log: &mut Log, names: &[&str], cursor: Cursor) -> Read {
    log.read(&channels(names), cursor, ALL).unwrap()
}

pub(crate) fn ids(read: &Read) -> Vec<u64> {
    read.events.iter().map(|event| event.id).collect()
}

pub(crate) fn bounds(low: u64, newest: u64, origin: u64) -> Bounds {
    Bounds { low, newest, origin }
}

/// Keeps the newest `count`, and everything for a year.
pub(crate) fn keep(count: u64) -> Retention {
    Retention { max_age: Some(Duration::from_secs(365 * 86_400)), max_events: Some(count) }
}

/// The same for all channels alike.
pub(crate) fn keep_of_all(count: u64) -> Part {
    Part::whole(keep(count))
}
