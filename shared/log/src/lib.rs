//! The event log on PostgreSQL and on SQLite, blocking, behind one small interface.
//!
//! The daemon calls it on threads of its own, the fallback in each worker: one implementation, so both see the same
//! log. A [`Log`] is one connection, opened at first use and opened again after it was lost. [`Wakeups`] is another one
//! that waits for hints that there is news.
//!
//! What a newcomer gets wrong:
//!
//! - An event's id is its place in *commit* order, given at commit. Reading `id > last` is therefore safe, which it is
//!   not with the usual auto-increment column: there a transaction with a lower id may commit later.
//! - A hint may be lost, late or doubled. It says "read the log", no more.
//! - A log can go back: restored from a backup, it lacks events that clients have seen. Such a place is a
//!   [`Rift`](everpoll_protocol::Rift). It is found by the database's identity at each connect and at commit, or by a
//!   reader that has seen more than there is ([`Log::declare_rift`]).

mod address;
mod error;
mod postgres;
mod retention;
mod signal;
mod sqlite;

use std::time::Duration;

use everpoll_protocol::{
    BATCH_BYTES, BATCH_EVENTS, Bounds, Channel, Cursor, Event, Gap, LowMarks, NewEvent, Page, Record, Resume,
};

use address::Address;
pub use error::LogError;
pub use postgres::PostgresLog;
use postgres::{PostgresCanary, PostgresWakeups};
pub use retention::{Part, Retention, Trimmed};
pub use signal::{Key, Signal};
pub use sqlite::SqliteLog;
use sqlite::SqliteWakeups;

/// How a connection is made and how long it may be silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Longest time for one attempt to connect to one host; 5 s unless the URL says otherwise.
    pub connect_timeout: Duration,
    /// Longest time for one statement, also the longest wait for SQLite's lock (there capped at 5 s); 10 s by default.
    pub statement_timeout: Duration,
    /// Longest wait for PostgreSQL's answer, where it is to be shorter than the server's own limit and 2 s; connecting to a host
    /// is given up after half of it, if the URL says nothing. None by default.
    pub patience: Option<Duration>,
    /// What `pg_stat_activity` shows; `everpoll` by default. Not used by SQLite.
    pub application_name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            patience: None,
            application_name: "everpoll".to_owned(),
        }
    }
}

/// Where a read ends: at either limit. The first event always comes, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Most events; at least 1 is read.
    pub events: u32,
    /// Most bytes of data, all events together.
    pub bytes: u64,
}

impl Limit {
    /// What fits into one reply.
    pub const BATCH: Self = Self { events: BATCH_EVENTS as u32, bytes: BATCH_BYTES as u64 };
}

/// What a read found, all in one snapshot of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// What of the log is there.
    pub bounds: Bounds,
    /// What must be said first.
    pub gap: Option<Gap>,
    /// Where reading began: all events have higher ids.
    pub after: u64,
    /// The events, in order.
    pub events: Vec<Event>,
    /// Where to go on: the last event's id when there is more, else the newest id.
    pub next: u64,
    /// Whether a limit ended the read.
    pub more: bool,
    /// Of [`tail`](Log::tail): what is gone of each namespace.
    pub low_marks: LowMarks,
    /// Of [`tail`](Log::tail): whether publishers leave out their wake-ups at the moment. So there may be news within some
    /// milliseconds that nobody tells; whoever wants to be in time reads again, until this is false.
    pub again: bool,
}

impl From<Read> for Page {
    fn from(read: Read) -> Self {
        let records = read.events.iter().map(|event| Record::from(event).into()).collect();
        Self { gap: read.gap, records, next: read.next, more: read.more }
    }
}

/// What [`Log::latest`] found, all in one snapshot of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// What of the log is there.
    pub bounds: Bounds,
    /// What is gone of each namespace.
    pub low_marks: LowMarks,
    /// The newest event of each channel, in the order of the question; 0 where there is none.
    pub ids: Vec<u64>,
}

/// What [`Log::migrate`] did; equal when there was nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The newest migration before; 0 for an empty database.
    pub from: u32,
    /// The newest migration now.
    pub to: u32,
}

/// One connection to the event log, made when it is first needed.
#[derive(Debug)]
pub enum Log {
    /// On PostgreSQL.
    Postgres(Box<PostgresLog>),
    /// In an SQLite file.
    Sqlite(Box<SqliteLog>),
}

impl Log {
    /// Checks the URL (`postgres://…`, `postgresql://…` or `sqlite:path`); does not connect.
    ///
    /// # Errors
    ///
    /// [`LogError::Settings`].
    pub fn new(url: &str, options: Options) -> Result<Self, LogError> {
        Ok(match Address::parse(url)? {
            Address::Postgres(server) => Self::Postgres(Box::new(PostgresLog::new(*server, options))),
            Address::Sqlite(path) => Self::Sqlite(Box::new(SqliteLog::new(path, options))),
        })
    }

    /// From now on waits so long for an answer, as [`Options::patience`] says. SQLite, which has no network, does not care.
    pub fn set_patience(&mut self, patience: Option<Duration>) {
        if let Self::Postgres(log) = self {
            log.set_patience(patience);
        }
    }

    /// Appends all of `events` in one transaction, or none. Returns their ids in the same order. The id of an event
    /// whose key is known is that of the event that is there, also when one call has the key twice.
    ///
    /// # Errors
    ///
    /// [`LogError::Rejected`], [`LogError::OutcomeUnknown`], [`LogError::Full`] and those of every call.
    pub fn publish(&mut self, events: &[NewEvent]) -> Result<Vec<u64>, LogError> {
        self.publish_then(events, || ())
    }

    /// As [`publish`](Self::publish), and calls `committed` as soon as that is sure, which may be before the ids are known.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    pub fn publish_then(
        &mut self,
        events: &[NewEvent],
        committed: impl FnOnce(),
    ) -> Result<Vec<u64>, LogError> {
        match self {
            Self::Postgres(log) => log.publish(events, committed),
            Self::Sqlite(log) => log.publish(events).inspect(|_| committed()),
        }
    }

    /// Reads what follows `cursor` on `channels`; no channels means all.
    ///
    /// # Errors
    ///
    /// Those of every call: [`LogError::Unavailable`], [`LogError::NotMigrated`], [`LogError::Settings`] or
    /// [`LogError::Other`].
    pub fn read(&mut self, channels: &[Channel], cursor: Cursor, limit: Limit) -> Result<Read, LogError> {
        match self {
            Self::Postgres(log) => log.read(channels, cursor, limit),
            Self::Sqlite(log) => log.read(channels, cursor, limit),
        }
    }

    /// Reads all channels after the id `after`, with no gap logic: the caller looks at the bounds and the low-water marks.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn tail(&mut self, after: u64, limit: Limit) -> Result<Read, LogError> {
        match self {
            Self::Postgres(log) => log.tail(after, limit),
            Self::Sqlite(log) => log.tail(after, limit),
        }
    }

    /// The id after which the newest events within `limit` begin, so that [`tail`](Self::tail) from there yields them.
    /// Never below the lowest of the low-water marks and the log's origin.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn tail_start(&mut self, limit: Limit) -> Result<u64, LogError> {
        match self {
            Self::Postgres(log) => log.tail_start(limit),
            Self::Sqlite(log) => log.tail_start(limit),
        }
    }

    /// The newest event up to the id `up_to` on each of `channels`. One statement, however many channels.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn latest(&mut self, channels: &[Channel], up_to: u64) -> Result<Latest, LogError> {
        match self {
            Self::Postgres(log) => log.latest(channels, up_to),
            Self::Sqlite(log) => log.latest(channels, up_to),
        }
    }

    /// What of the log is there.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn bounds(&mut self) -> Result<Bounds, LogError> {
        match self {
            Self::Postgres(log) => log.bounds(),
            Self::Sqlite(log) => log.bounds(),
        }
    }

    /// Removes those of the oldest events of `part` that it does not keep, in one small transaction that looks at `batch` events at
    /// most. Call it until there is no [`more`](Trimmed::more).
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn trim(&mut self, part: &Part, batch: u32) -> Result<Trimmed, LogError> {
        match self {
            Self::Postgres(log) => log.trim(part, batch),
            Self::Sqlite(log) => log.trim(part, batch),
        }
    }

    /// Records that the log went back: a reader saw the id `seen`, but the newest is lower. Checked again before
    /// anything is recorded.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn declare_rift(&mut self, seen: u64) -> Result<(), LogError> {
        match self {
            Self::Postgres(log) => log.declare_rift(seen),
            Self::Sqlite(log) => log.declare_rift(seen),
        }
    }

    /// Brings the log to the layout of this version. Safe to run twice and at once.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); [`LogError::NotMigrated`] when the log is newer than this version.
    pub fn migrate(&mut self) -> Result<Migrated, LogError> {
        match self {
            Self::Postgres(log) => log.migrate(),
            Self::Sqlite(log) => log.migrate(),
        }
    }
}

/// What a connection that waits has heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The connection is new: hints that came while there was none are lost, so this counts as one.
    pub connected: bool,
    /// How many hints came.
    pub news: u64,
    /// The newest canary that came.
    pub canary: Option<u64>,
}

/// A connection that waits for hints that there is news, made when it is first needed.
#[derive(Debug)]
pub struct Wakeups(Waiting);

#[derive(Debug)]
enum Waiting {
    Postgres(Box<PostgresWakeups>),
    Sqlite(Box<SqliteWakeups>),
}

impl Wakeups {
    /// Checks the URL, as [`Log::new`]; does not connect.
    ///
    /// # Errors
    ///
    /// [`LogError::Settings`].
    pub fn new(url: &str, options: Options) -> Result<Self, LogError> {
        Ok(Self(match Address::parse(url)? {
            Address::Postgres(server) => {
                Waiting::Postgres(Box::new(PostgresWakeups::new(*server, options, Key::new())))
            }
            Address::Sqlite(path) => Waiting::Sqlite(Box::new(SqliteWakeups::new(path, options))),
        }))
    }

    /// Waits for a hint, at most `timeout`, and says whether one came. A new connection counts as one.
    ///
    /// # Errors
    ///
    /// As [`Log::read`]. The next call connects again.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, LogError> {
        let heard = self.listen(timeout)?;
        Ok(heard.connected || heard.news > 0)
    }

    /// Waits for a hint or a canary, at most `timeout`, and says what came.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn listen(&mut self, timeout: Duration) -> Result<Heard, LogError> {
        match &mut self.0 {
            Waiting::Postgres(wakeups) => wakeups.listen(timeout),
            Waiting::Sqlite(wakeups) => wakeups.listen(timeout),
        }
    }

    /// What sends canaries to this listener over a connection of its own; `None` for SQLite, which looks by itself and needs
    /// none. The statement timeout of `options` is how long one may take.
    #[must_use]
    pub fn canary(&self, options: Options) -> Option<Canary> {
        match &self.0 {
            Waiting::Postgres(wakeups) => Some(Canary(wakeups.canary(options))),
            Waiting::Sqlite(_) => None,
        }
    }

    /// Asks why no canary arrives, in words; takes about a second at most.
    pub fn ask_why_silent(&mut self) -> String {
        match &mut self.0 {
            Waiting::Postgres(wakeups) => wakeups.ask_why_silent(),
            Waiting::Sqlite(_) => String::new(),
        }
    }

    /// Throws the connection away; the next call makes a new one.
    pub fn forget(&mut self) {
        if let Waiting::Postgres(wakeups) = &mut self.0 {
            wakeups.forget();
        }
    }
}

/// Sends canaries to a [`Wakeups`], over a connection of its own.
#[derive(Debug)]
pub struct Canary(PostgresCanary);

impl Canary {
    /// Sends one. It changes nothing in the log, and wakes nobody.
    ///
    /// # Errors
    ///
    /// As [`Log::read`]. The next call connects again.
    pub fn send(&mut self, number: u64) -> Result<(), LogError> {
        self.0.send(number)
    }
}

impl Read {
    /// What was read from where a cursor goes on; with `more` behind the events.
    fn new(bounds: Bounds, resume: Resume, events: Vec<Event>, more: bool) -> Self {
        let next = events.last().filter(|_| more).map_or(bounds.newest, |event| event.id);
        let Resume { after, gap } = resume;
        Self { bounds, gap, after, events, next, more, low_marks: LowMarks::default(), again: false }
    }

    /// What is read where only the place to go on from is wanted.
    fn nothing(bounds: Bounds, after: u64) -> Self {
        Self::new(bounds, Resume { after, gap: None }, Vec::new(), false)
    }
}
