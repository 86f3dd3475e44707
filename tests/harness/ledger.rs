//! What was published, held against what each reader got: the one judge of "never loses, never doubles, one order".
//!
//! The truth is read from the log itself when all is quiet: ids are given at commit, so it holds exactly what was
//! committed, in the order that was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::Database;
use crate::pollers::Reading;

/// All events of a log, in order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    events: BTreeMap<u64, String>,
}

/// What is wrong with one reading; empty when nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many events the reader should have got.
    pub expected: usize,
    /// Ids that it never got.
    pub lost: Vec<u64>,
    /// Ids that it got again.
    pub doubled: Vec<u64>,
    /// Ids that came after a higher one.
    pub reordered: Vec<u64>,
    /// Ids that are not in the log, or on a channel that it did not ask for.
    pub foreign: Vec<u64>,
}

impl Ledger {
    /// Of ids and channels that the test knows by other means.
    pub fn new(events: impl IntoIterator<Item = (u64, String)>) -> Self {
        Self { events: events.into_iter().collect() }
    }

    /// Reads the log of a PostgreSQL database.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(database: &Database) -> Self {
        let rows = database.connect().query("SELECT id, channel FROM everpoll.positions ORDER BY id", &[]);
        let rows = rows.expect("the log is there");
        Self::new(rows.iter().map(|row| {
            let id = u64::try_from(row.get::<_, i64>(0)).expect("ids are positive");
            (id, row.get::<_, String>(1))
        }))
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The id of the newest event; 0 when there is none.
    pub fn newest(&self) -> u64 {
        self.events.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// Judges a reader that has gone on to the end of the log.
    ///
    /// # Panics
    /// When the reader never got a reply: where it began is not known then.
    pub fn check(&self, reading: &Reading) -> Verdict {
        let after = reading.began_after.expect("the reader got a first reply");
        let mine = |channel: &String| reading.channels.contains(channel);
        let expected: BTreeSet<u64> =
            self.events.range(after + 1..).filter(|(_, channel)| mine(channel)).map(|(id, _)| *id).collect();
        let mut verdict = Verdict { expected: expected.len(), ..Verdict::default() };
        let (mut seen, mut highest) = (BTreeSet::new(), 0);
        for (id, channel) in &reading.events {
            if self.events.get(id) != Some(channel) || !mine(channel) || *id <= after {
                verdict.foreign.push(*id);
            } else if !seen.insert(*id) {
                verdict.doubled.push(*id);
            } else if *id < highest {
                verdict.reordered.push(*id);
            }
            highest = highest.max(*id);
        }
        verdict.lost = expected.difference(&seen).copied().collect();
        verdict
    }

    /// Judges all readers.
    ///
    /// # Panics
    /// When one of them lost, doubled or reordered an event, with the first few.
    #[track_caller]
    pub fn assert_exact<'a>(&self, readings: impl IntoIterator<Item = &'a Reading>) {
        let verdicts = readings.into_iter().map(|reading| self.check(reading)).enumerate();
        let bad: Vec<_> = verdicts.filter(|(_, verdict)| !verdict.is_exact()).collect();
        if !bad.is_empty() {
            let shown: Vec<_> =
                bad.iter().take(5).map(|(index, verdict)| format!("#{index}: {verdict}")).collect();
            let (count, total) = (bad.len(), self.len());
            panic!("{count} readers of {total} events did not get them exactly once:\n{}", shown.join("\n"));
        }
    }
}

impl Verdict {
    /// Whether the reader got everything once and in order.
    pub fn is_exact(&self) -> bool {
        let Self { lost, doubled, reordered, foreign, .. } = self;
        [lost, doubled, reordered, foreign].iter().all(|ids| ids.is_empty())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of {} expected", self.expected)?;
        let kinds = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("reordered", &self.reordered),
            ("foreign", &self.foreign),
        ];
        for (name, ids) in kinds {
            if !ids.is_empty() {
                write!(f, ", {} {name} ({:?}…)", ids.len(), &ids[..ids.len().min(10)])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        Ledger::new((1..=6).map(|id| (id, parity(id).to_owned())))
    }

    fn parity(id: u64) -> &'static str {
        if id.is_multiple_of(2) { "even" } else { "odd" }
    }

    fn reading(channels: &[&str], after: u64, ids: &[u64]) -> Reading {
        Reading {
            channels: channels.iter().map(|&channel| channel.to_owned()).collect(),
            began_after: Some(after),
            events: ids.iter().map(|id| (*id, parity(*id).to_owned())).collect(),
            ..Reading::default()
        }
    }

    #[test]
    fn complete_readings_are_exact() {
        let all = reading(&["even", "odd"], 0, &[1, 2, 3, 4, 5, 6]);
        let late = reading(&["even"], 2, &[4, 6]);
        ledger().assert_exact([&all, &late]);
        assert_eq!((ledger().newest(), ledger().check(&late).expected), (6, 2));
    }

    #[test]
    fn every_fault_is_found() {
        let verdict = ledger().check(&reading(&["even"], 0, &[4, 2, 4, 3, 8]));
        assert_eq!(
            verdict,
            Verdict { expected: 3, lost: vec![6], doubled: vec![4], reordered: vec![2], foreign: vec![3, 8] }
        );
        assert!(verdict.to_string().contains("1 lost ([6]…)"), "{verdict}");
    }

    #[test]
    #[should_panic(expected = "1 readers of 6 events")]
    fn one_bad_reader_fails_the_test() {
        ledger().assert_exact([&reading(&["odd"], 0, &[1, 3, 5]), &reading(&["odd"], 0, &[1, 5])]);
    }
}
