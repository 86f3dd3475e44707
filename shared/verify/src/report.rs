//! What came out, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::tally::{Judgement, Tally};

/// How a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Since publishing began.
    pub elapsed: Duration,
    /// Events that are in the log.
    pub acknowledged: u64,
    /// Events of which nobody knows yet, or at all.
    pub unknown: u64,
    /// Events times clients.
    pub delivered: u64,
    /// Findings so far that break a promise.
    pub broken: u64,
    /// What is broken on purpose, by its place among the faults.
    pub fault: Option<usize>,
}

/// How long events took from the acknowledgement to the client, microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// Half of them were faster.
    pub p50: u64,
    /// One of a hundred was slower.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

/// The figures of all events that were published in one state of the world: in calm, or while something was broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// `calm`, or the name of what was broken.
    pub name: String,
    /// How often it was broken.
    pub struck: u32,
    /// Events that are in the log.
    pub acknowledged: u64,
    /// Events that may be in the log.
    pub unknown: u64,
    /// Events times clients.
    pub delivered: u64,
    /// Deliveries that never came, without a gap record.
    pub lost: u64,
    /// Deliveries that came again.
    pub doubled: u64,
    /// Deliveries that came after a later event.
    pub reordered: u64,
    /// Events that came with different ids, or although a gap record had called them gone.
    pub altered: u64,
    /// Records that nobody had published, or on channels that the client had not asked for.
    pub foreign: u64,
    /// Deliveries in calm that took longer than allowed.
    pub too_late: u64,
    /// Deliveries that never came, and a gap record said so.
    pub announced: u64,
    /// How long they took.
    pub late: Lateness,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether all promises were kept.
    pub kept: bool,
    /// Why not, in words; empty when they were.
    pub broken: Vec<String>,
    /// Chance, to be repeated.
    pub seed: u64,
    /// How many clients there were.
    pub clients: u32,
    /// How long events were published, seconds.
    pub seconds: u64,
    /// All events together.
    pub total: Group,
    /// The same by what was broken.
    pub groups: Vec<Group>,
    /// Gap records that came.
    pub gap_records: u64,
    /// Requests that clients sent.
    pub requests: u64,
    /// Those of them that failed, by what was wrong. Clients repeat them, so they break no promise unless that was asked.
    pub failures: BTreeMap<String, u64>,
    /// The first findings, one by one.
    pub findings: Vec<String>,
    /// Faults that could not be made or mended.
    pub fault_errors: Vec<String>,
}

impl Group {
    fn of(tally: &Tally) -> Self {
        let late = &tally.late;
        let late =
            Lateness { p50: late.value_at_quantile(0.5), p99: late.value_at_quantile(0.99), max: late.max() };
        Self {
            name: tally.name.clone(),
            struck: tally.struck,
            acknowledged: tally.acknowledged,
            unknown: tally.unknown,
            delivered: tally.delivered,
            lost: tally.lost,
            doubled: tally.doubled,
            reordered: tally.reordered,
            altered: tally.altered,
            foreign: tally.foreign,
            too_late: tally.too_late,
            announced: tally.announced,
            late,
        }
    }
}

impl Report {
    pub(crate) fn new(judgement: Judgement, failures_count: bool, fault_errors: Vec<String>) -> Self {
        let Judgement { groups, findings, failures, requests, gap_records } = judgement;
        let mut all = Tally::new("all");
        for tally in &groups {
            all.add(tally);
        }
        let total = Group::of(&all);
        let mut broken = Vec::new();
        for (count, what) in [
            (total.lost, "lost without a gap record"),
            (total.doubled, "came twice"),
            (total.reordered, "came out of order"),
            (total.altered, "came with another id, or after a gap record had named them"),
            (total.foreign, "were never published or not asked for"),
            (total.too_late, "were late although nothing was broken"),
        ] {
            if count > 0 {
                broken.push(format!("{count} {what}"));
            }
        }
        let failed: u64 = failures.values().sum();
        if failures_count && failed > 0 {
            broken.push(format!("{failed} requests failed"));
        }
        Self {
            kept: broken.is_empty(),
            broken,
            seed: 0,
            clients: 0,
            seconds: 0,
            total,
            groups: groups.iter().map(Group::of).collect(),
            gap_records,
            requests,
            failures,
            findings,
            fault_errors,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, struck, acknowledged, unknown, delivered, lost, doubled, reordered, late, .. } =
            self;
        write!(
            f,
            "| {name:<28} | {struck:>6} | {acknowledged:>8} | {unknown:>7} | {delivered:>10} | {lost:>4} | {doubled:>7} | {reordered:>9} | {:>6} | {:>6} | {:>6} |",
            ms(late.p50),
            ms(late.p99),
            ms(late.max)
        )
    }
}

/// Milliseconds, with a digit more where it tells something.
fn ms(micros: u64) -> String {
    match micros {
        0..100_000 => format!("{}.{}", micros / 1000, micros / 100 % 10),
        _ => (micros / 1000).to_string(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| {:<28} | {:>6} | {:>8} | {:>7} | {:>10} | {:>4} | {:>7} | {:>9} | {:>6} | {:>6} | {:>6} |",
            "published during",
            "struck",
            "events",
            "unknown",
            "delivered",
            "lost",
            "doubled",
            "reordered",
            "p50 ms",
            "p99 ms",
            "max ms"
        )?;
        writeln!(f, "| --- |{}", " ---: |".repeat(10))?;
        for group in self.groups.iter().chain([&self.total]) {
            writeln!(f, "{group}")?;
        }
        writeln!(f)?;
        if self.gap_records > 0 {
            writeln!(
                f,
                "{} gap records named {} deliveries that could not be made any more",
                self.gap_records, self.total.announced
            )?;
        }
        write!(f, "{} requests by {} clients in {} s", self.requests, self.clients, self.seconds)?;
        for (what, count) in &self.failures {
            write!(f, "; {what}: {count}")?;
        }
        writeln!(f)?;
        for error in &self.fault_errors {
            writeln!(f, "fault: {error}")?;
        }
        for finding in &self.findings {
            writeln!(f, "- {finding}")?;
        }
        match self.kept {
            true => write!(f, "kept: each event came to each client exactly once, in one order"),
            false => write!(f, "broken: {} (seed {})", self.broken.join("; "), self.seed),
        }
    }
}
