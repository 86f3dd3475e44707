//! Applications that write: several connections, transactions of several events on several channels, pauses at
//! random points, and now and then a transaction that is rolled back.
//!
//! They write into Everpoll's log or into a plain table with an auto-increment column, so that one checker can be held
//! against both. Each event has a *tag*, its number in the ledger, by which it is found again whatever id it got.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use everpoll_tests::Database;
use everpoll_verify::Ledger;
use postgres::Transaction;

use crate::background::Background;

/// The channels that are written to.
pub(crate) const CHANNELS: [&str; 6] = ["ale", "brie", "cheese", "dill", "egg", "fig"];

/// Most events of one transaction.
const MAX_EVENTS: u64 = 8;

/// Numbers that look random and are the same for the same seed (xorshift64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// With the seed in `EVERPOLL_TEST_SEED`, or a new one. It is printed, so that a failure can be had again, as far
    /// as threads allow.
    pub(crate) fn seeded() -> Self {
        let now = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
        let given = std::env::var("EVERPOLL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(now);
        eprintln!("EVERPOLL_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// Another sequence, which depends on this one's seed and on `number` alone.
    pub(crate) fn fork(&self, number: u64) -> Self {
        let mut fork = Self(self.0 ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        fork.below(1);
        fork
    }

    /// A number from 0 to `end - 1`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }

    /// Does nothing for up to `most` milliseconds: an application that computes in between.
    pub(crate) fn pause(&mut self, most: u64) {
        std::thread::sleep(Duration::from_micros(self.below(most * 1000 + 1)));
    }
}

/// Into what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Everpoll's log.
    Log,
    /// A table with an auto-increment column and nothing else.
    Plain,
}

impl Table {
    /// Makes it.
    pub(crate) fn create(self, database: &Database) {
        match self {
            Self::Log => drop(database.migrate()),
            Self::Plain => drop(
                database
                    .psql("CREATE TABLE plain (id bigserial PRIMARY KEY, channel text NOT NULL, data json)"),
            ),
        }
    }

    /// The columns `id`, `channel` and `tag`, in the order of the ids, after the one in `$1`.
    pub(crate) fn select(self) -> &'static str {
        match self {
            Self::Log => {
                "SELECT positions.id, positions.channel, events.data->>'tag' AS tag \
                 FROM everpoll.positions LEFT JOIN everpoll.events ON events.row = positions.row \
                 WHERE positions.id > $1 ORDER BY positions.id"
            }
            Self::Plain => "SELECT id, channel, data->>'tag' AS tag FROM plain WHERE id > $1 ORDER BY id",
        }
    }

    /// Writes event `n` of the ledger.
    ///
    /// # Panics
    /// When the database refuses, by a deadlock for example.
    #[track_caller]
    pub(crate) fn insert(self, transaction: &mut Transaction<'_>, channel: &str, n: usize) {
        let data = format!(r#"{{"tag":"{n}"}}"#);
        let sql = match self {
            // Both ways into the log, so that both hold.
            Self::Log if n.is_multiple_of(2) => {
                "INSERT INTO everpoll.events (channel, type, data) VALUES ($1, 'made', $2::text::json)"
            }
            Self::Log => "SELECT everpoll.publish($1, 'made', $2::text::json)",
            Self::Plain => "INSERT INTO plain (channel, data) VALUES ($1, $2::text::json)",
        };
        if let Err(error) = transaction.execute(sql, &[&channel, &data]) {
            panic!("event {n} was not written: {error:?}");
        }
    }
}

/// A transaction that committed.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// Its events, by their numbers in the ledger.
    pub(crate) events: Vec<usize>,
    /// Before `COMMIT` was sent.
    pub(crate) began: Instant,
    /// After it had been answered.
    pub(crate) done: Instant,
}

/// Running writers.
pub(crate) struct Writers {
    threads: Vec<Background<Vec<Committed>>>,
    written: Arc<AtomicUsize>,
}

impl Writers {
    /// Starts this many, each on a connection of its own. They announce to `ledger` what they write, and tell it what became of it.
    pub(crate) fn start(
        database: &Database,
        table: Table,
        count: u64,
        random: &Random,
        ledger: &Arc<Ledger>,
    ) -> Self {
        let written = Arc::<AtomicUsize>::default();
        let threads = (0..count).map(|writer| {
            let (mut client, mut random) = (database.connect(), random.fork(writer));
            let (ledger, written) = (ledger.clone(), written.clone());
            Background::start(move |stopping| {
                let mut all = Vec::new();
                while !stopping.load(Ordering::SeqCst) {
                    if let Some(committed) = write(&mut client, table, &mut random, &ledger) {
                        written.fetch_add(committed.events.len(), Ordering::SeqCst);
                        all.push(committed);
                    }
                    random.pause(20);
                }
                all
            })
        });
        let threads = threads.collect();
        Self { threads, written }
    }

    /// How many events are committed.
    pub(crate) fn written(&self) -> usize {
        self.written.load(Ordering::SeqCst)
    }

    /// Ends them and returns all transactions that committed.
    ///
    /// # Panics
    /// When the database refused one.
    pub(crate) fn stop(self) -> Vec<Committed> {
        self.threads.into_iter().flat_map(Background::stop).collect()
    }
}

/// One transaction; `None` when it was rolled back.
fn write(
    client: &mut postgres::Client,
    table: Table,
    random: &mut Random,
    ledger: &Ledger,
) -> Option<Committed> {
    let rolls_back = random.below(5) == 0;
    let mut transaction = client.transaction().expect("the database runs");
    let mut events = Vec::new();
    for _ in 0..=random.below(MAX_EVENTS) {
        let channel = CHANNELS[random.below(CHANNELS.len() as u64) as usize];
        let n = ledger.announce(ledger.channel(channel));
        table.insert(&mut transaction, channel, n);
        events.push(n);
        random.pause(4);
    }
    // What this pause is for a plain table: others take higher ids, commit, and are read.
    random.pause(10);
    if rolls_back {
        transaction.rollback().expect("the database runs");
        events.iter().for_each(|n| ledger.roll_back(*n));
        return None;
    }
    let began = Instant::now();
    transaction.commit().expect("nothing stands against the commit");
    let done = Instant::now();
    events.iter().for_each(|n| ledger.acknowledge(*n, None));
    Some(Committed { events, began, done })
}
