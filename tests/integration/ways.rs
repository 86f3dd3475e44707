//! All ways of publishing, behind one function, so that one test body says what must hold for each.

use std::fmt;

use everpoll_tests::http;
use everpoll_tests::{Database, everpoll};
use serde_json::json;

use crate::site::{Site, Store};

/// A way of publishing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `INSERT INTO everpoll.events`.
    Insert,
    /// `SELECT everpoll.publish(…)`.
    Function,
    /// `POST /publish` at the daemon.
    Daemon,
    /// `POST /publish` at the fallback.
    Fallback,
    /// `everpoll publish`.
    CommandLine,
}

/// What is to be published. `data` goes out as it is, JSON or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) channel: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) data: &'a str,
    pub(crate) key: Option<&'a str>,
    pub(crate) exclude: Option<&'a str>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(channel: &'a str, data: &'a str) -> Self {
        Self { channel, kind: "made", data, key: None, exclude: None }
    }

    /// As the body of `POST /publish`.
    pub(crate) fn to_body(self) -> String {
        let Self { channel, kind, data, key, exclude } = self;
        // Data that is no JSON must reach the program as it is.
        format!(
            r#"{{"channel":{},"type":{},"data":{data},"key":{},"exclude":{}}}"#,
            json!(channel),
            json!(kind),
            json!(key),
            json!(exclude)
        )
    }
}

impl Way {
    /// Those that this log has.
    pub(crate) fn into(store: &Store) -> &'static [Self] {
        match store {
            Store::Postgres(_) => {
                &[Self::Insert, Self::Function, Self::Daemon, Self::Fallback, Self::CommandLine]
            }
            Store::Sqlite(_) => &[Self::Insert, Self::Daemon, Self::Fallback, Self::CommandLine],
        }
    }

    /// Publishes and returns the event's id, where this way tells it. On PostgreSQL whoever publishes has no more
    /// than a publisher's rights.
    ///
    /// # Errors
    /// What the publisher is told.
    pub(crate) fn publish(self, site: &Site, draft: Draft<'_>) -> Result<Option<u64>, String> {
        match self {
            Self::Insert => site.publish_sql(&insert(&site.store, draft)),
            Self::Function => site.publish_sql(&format!(
                "SELECT everpoll.publish({}, {}, {}, {}, {});\n",
                quote(draft.channel),
                quote(draft.kind),
                quote(draft.data),
                quote_or_null(draft.key),
                quote_or_null(draft.exclude)
            )),
            Self::Daemon | Self::Fallback => {
                let door = site.door(usize::from(self == Self::Fallback));
                let reply = http::post_json("/publish", draft.to_body()).send(door);
                if reply.status == 201 {
                    Ok(reply.json()["ids"][0].as_u64())
                } else {
                    Err(reply.text().to_owned())
                }
            }
            Self::CommandLine => {
                let mut arguments = vec!["publish", draft.channel, draft.kind, "-"];
                arguments.extend(draft.key.iter().flat_map(|key| ["--key", key]));
                arguments.extend(draft.exclude.iter().flat_map(|wait_id| ["--exclude", wait_id]));
                let output = everpoll::command_line(&site.publisher_url(), &arguments, draft.data.as_bytes());
                match output.status.code() {
                    Some(0) => Ok(output.stdout.trim().parse().ok()),
                    // What no log would take is told from what may succeed later.
                    Some(2) => Err(output.stderr),
                    other => panic!("everpoll publish ended with {other:?}: {}", output.stderr),
                }
            }
        }
    }

    /// Publishes what must be taken.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub(crate) fn publish_well(self, site: &Site, draft: Draft<'_>) -> Option<u64> {
        match self.publish(site, draft) {
            Ok(id) => id,
            Err(error) => panic!("{self} refused an event: {error}"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Insert => "INSERT",
            Self::Function => "everpoll.publish()",
            Self::Daemon => "the daemon",
            Self::Fallback => "the fallback",
            Self::CommandLine => "everpoll publish",
        })
    }
}

impl Site {
    /// A site whose programs have a publisher's and a reader's rights, and no more.
    pub(crate) fn with_few_rights(store: Store, settings: &[(&str, &str)]) -> Self {
        let Store::Postgres(database) = &store else { return Self::with(store, settings) };
        let (publisher, program) = (publisher(database), format!("program_{}", database.name()));
        database.psql(&format!(
            "CREATE ROLE {publisher} LOGIN; CREATE ROLE {program} LOGIN;
             SELECT everpoll.grant_publisher('{publisher}');
             SELECT everpoll.grant_publisher('{program}'); SELECT everpoll.grant_reader('{program}');"
        ));
        let url = database.url_as(&program);
        let settings: Vec<_> = settings.iter().copied().chain([("EVERPOLL_DATABASE_URL", &*url)]).collect();
        Self::with(store, &settings)
    }

    /// The log's address for who may only publish.
    pub(crate) fn publisher_url(&self) -> String {
        match &self.store {
            Store::Postgres(database) => database.url_as(&publisher(database)),
            Store::Sqlite(sqlite) => sqlite.url(),
        }
    }

    /// Runs SQL as a publisher; several statements are several transactions unless they say otherwise.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn publish_sql(&self, sql: &str) -> Result<Option<u64>, String> {
        match &self.store {
            Store::Postgres(database) => database.try_psql_as(&publisher(database), sql).map(|_| None),
            Store::Sqlite(sqlite) => {
                let connection =
                    rusqlite::Connection::open(sqlite.path()).map_err(|error| error.to_string())?;
                connection.busy_timeout(everpoll_tests::wait::PATIENCE).map_err(|error| error.to_string())?;
                connection.execute_batch(sql).map(|()| None).map_err(|error| error.to_string())
            }
        }
    }
}

/// The role that may only publish.
pub(crate) fn publisher(database: &Database) -> String {
    format!("publisher_{}", database.name())
}

/// The statement that appends an event.
pub(crate) fn insert(store: &Store, draft: Draft<'_>) -> String {
    let table = match store {
        Store::Postgres(_) => "everpoll.events",
        Store::Sqlite(_) => "events",
    };
    format!(
        "INSERT INTO {table} (channel, type, data, key, exclude) VALUES ({}, {}, {}, {}, {}) \
         ON CONFLICT DO NOTHING;\n",
        quote(draft.channel),
        quote(draft.kind),
        quote(draft.data),
        quote_or_null(draft.key),
        quote_or_null(draft.exclude)
    )
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn quote_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), quote)
}
