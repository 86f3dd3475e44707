//! One log with both programs on it, as pages and publishers meet them.
//!
//! The daemon is asked directly. The fallback is asked as in production, by FastCGI from nginx: the shipped
//! configuration, with nobody where the daemon should be. So a test asks two HTTP addresses, the *doors*, and expects
//! the same of both.

use std::time::Duration;

use everpoll_tests::everpoll::{self, Output};
use everpoll_tests::http::{self, Address, Event, Reply};
use everpoll_tests::{Daemon, Database, Fallback, Sqlite, TestDir, WebServer, wait};

/// How soon a held poll has what is published: far sooner than its hold ends, when it would look by itself.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Where the log is.
pub(crate) enum Store {
    Postgres(Database),
    Sqlite(Sqlite),
}

impl Store {
    /// A fresh, migrated database on the shared server.
    pub(crate) fn postgres() -> Self {
        let database = Database::shared();
        database.migrate();
        Self::Postgres(database)
    }

    /// A file that does not exist yet.
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(Sqlite::new())
    }

    /// One of each, for what must hold on both.
    pub(crate) fn both() -> [Self; 2] {
        [Self::postgres(), Self::sqlite()]
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(database) => database.url(),
            Self::Sqlite(sqlite) => sqlite.url(),
        }
    }

    /// Its database.
    ///
    /// # Panics
    /// With SQLite.
    #[track_caller]
    pub(crate) fn database(&self) -> &Database {
        match self {
            Self::Postgres(database) => database,
            Self::Sqlite(_) => panic!("this test is about PostgreSQL"),
        }
    }

    /// Runs `everpoll` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        everpoll::command_line(&self.url(), arguments, b"")
    }

    /// Runs `everpoll` and returns what it printed.
    ///
    /// # Panics
    /// When its exit code is not 0.
    #[track_caller]
    pub(crate) fn run_well(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "everpoll {arguments:?}: {output:?}");
        output.stdout
    }
}

/// A daemon and a fallback on one log. Fields are dropped from top to bottom.
pub(crate) struct Site {
    nginx: WebServer,
    pub(crate) fallback: Fallback,
    pub(crate) daemon: Daemon,
    pub(crate) store: Store,
    _nobody: TestDir,
}

/// Both programs on this log, with the same settings.
pub(crate) fn programs(store: &Store, settings: &[(&str, &str)]) -> (Daemon, Fallback) {
    let url = store.url();
    let daemon = settings.iter().fold(Daemon::on(&url), |start, (name, value)| start.setting(name, value));
    let fallback =
        settings.iter().fold(Fallback::on(&url), |start, (name, value)| start.setting(name, value));
    (daemon.start(), fallback.start())
}

impl Site {
    pub(crate) fn on(store: Store) -> Self {
        Self::with(store, &[])
    }

    /// With these settings for both programs.
    pub(crate) fn with(store: Store, settings: &[(&str, &str)]) -> Self {
        let (daemon, fallback) = programs(&store, settings);
        let nobody = TestDir::new();
        let nginx = WebServer::nginx(&Address::Unix(nobody.join("nobody.sock")), fallback.address());
        Self { nginx, fallback, daemon, store, _nobody: nobody }
    }

    /// What can be asked, with the name of the program that answers.
    pub(crate) fn doors(&self) -> [(&'static str, &Address); 2] {
        [("daemon", self.daemon.address()), ("fallback", self.nginx.address())]
    }

    /// A door by its number, taking turns.
    pub(crate) fn door(&self, number: usize) -> &Address {
        self.doors()[number % 2].1
    }

    /// The cursor of a page that starts now.
    #[track_caller]
    pub(crate) fn cursor(&self, channels: &str) -> u64 {
        cursor(self.daemon.address(), channels)
    }

    /// Publishes one event over HTTP with the daemon and returns its id.
    #[track_caller]
    pub(crate) fn publish(&self, channel: &str, data: &str) -> u64 {
        let json = format!(r#"{{"channel":"{channel}","type":"made","data":{data}}}"#);
        self.daemon.publish(&json)[0]
    }

    /// Waits until the daemon has noticed what was done to the log: the fallback reads it at each request, the daemon
    /// follows it, at most a second behind.
    ///
    /// # Panics
    /// When they do not come to say the same.
    #[track_caller]
    pub(crate) fn settle(&self) {
        let [(_, daemon), (_, fallback)] = self.doors();
        let ask = |address, cursor: &str| {
            let reply = poll("nobody-publishes-here", cursor, "flavor=short-poll").try_send(address).ok()?;
            let gap = reply.try_events()?.first().map(|gap| gap.id);
            Some((gap, reply.header("x-ps-cursor")?.to_owned()))
        };
        wait::until("daemon and fallback see the same log", wait::PATIENCE, || {
            let newest = ask(fallback, "now");
            // The last cursor that needs a gap, if there is one: the daemon may have what was trimmed in memory.
            let last_gone = match ask(fallback, "0") {
                Some((Some(low), _)) => (low - 1).to_string(),
                _ => "0".to_owned(),
            };
            newest.is_some()
                && newest == ask(daemon, "now")
                && ask(daemon, &last_gone) == ask(fallback, &last_gone)
        });
    }
}

/// The cursor that a page gets which starts now.
#[track_caller]
pub(crate) fn cursor(address: &Address, channels: &str) -> u64 {
    let reply = http::get(&format!("/e/{channels}?flavor=short-poll")).send(address);
    assert_eq!(reply.events(), [], "a page that starts now has no news");
    reply.cursor()
}

/// A poll of `channels` from `cursor` on, with further parameters such as `hold=5`.
pub(crate) fn poll(channels: &str, cursor: impl std::fmt::Display, parameters: &str) -> http::Request {
    http::get(&format!("/e/{channels}?last_event_id={cursor}&{parameters}"))
}

/// Long-polls the daemon and waits until the poll is held. The browser's key is `wait_id`.
///
/// # Panics
/// When it is answered instead.
#[track_caller]
pub(crate) fn hold(site: &Site, channels: &str, cursor: u64, wait_id: &str) -> http::Held {
    let poll = |n| {
        http::get(&format!("/e/{channels}/{wait_id}?last_event_id={cursor}&tab=one&n={n}"))
            .begin(site.daemon.address())
    };
    let mut held = poll(2);
    // An earlier request of the same tab is answered as soon as the later one is held, whichever arrives first, and
    // not before.
    let earlier = poll(1).reply();
    assert_eq!((earlier.events(), earlier.reconnect_in()), (vec![], 5), "{wait_id} is not held");
    assert!(held.is_waiting());
    held
}

/// Short-polls until `count` events have come, and returns them with the last cursor.
///
/// # Panics
/// When they do not come, or more do.
#[track_caller]
pub(crate) fn collect(address: &Address, channels: &str, cursor: u64, count: usize) -> (Vec<Event>, u64) {
    let (mut events, mut cursor) = (Vec::new(), cursor);
    wait::until(&format!("{count} events have come"), wait::PATIENCE, || {
        let reply = poll(channels, cursor, "flavor=short-poll").send(address);
        events.extend(reply.events());
        cursor = reply.cursor();
        events.len() >= count
    });
    assert_eq!(events.len(), count, "{:?}", ids(&events));
    (events, cursor)
}

/// The ids of events.
pub(crate) fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

/// Whether the reply says that the poll was held before it was answered.
pub(crate) fn was_held(reply: &Reply) -> bool {
    reply.header("x-shortpoll-info") == Some("false")
}
