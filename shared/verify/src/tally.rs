//! Figures of all events that were published in one state of the world.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Longest lateness that is told apart, an hour, microseconds.
pub(crate) const LATEST: u64 = 3_600_000_000;

/// Figures of all events that were published in one state of the world.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) name: String,
    pub(crate) struck: u32,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    pub(crate) altered: u64,
    pub(crate) foreign: u64,
    pub(crate) too_late: u64,
    /// Events that clients did not get and were told of by a gap record.
    pub(crate) announced: u64,
    /// Microseconds from the acknowledgement to the client.
    pub(crate) late: Histogram<u64>,
}

impl Tally {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            struck: 0,
            acknowledged: 0,
            unknown: 0,
            delivered: 0,
            lost: 0,
            doubled: 0,
            reordered: 0,
            altered: 0,
            foreign: 0,
            too_late: 0,
            announced: 0,
            late: Histogram::new_with_max(LATEST, 2).expect("two digits are few"),
        }
    }

    /// Takes the figures of another one in.
    pub(crate) fn add(&mut self, other: &Self) {
        self.struck += other.struck;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.foreign += other.foreign;
        self.too_late += other.too_late;
        self.announced += other.announced;
        self.late.add(&other.late).expect("both have the same range");
    }

    /// How many findings break a promise.
    pub(crate) fn broken(&self) -> u64 {
        self.lost + self.doubled + self.reordered + self.altered + self.foreign + self.too_late
    }
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) groups: Vec<Tally>,
    pub(crate) findings: Vec<String>,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) requests: u64,
    pub(crate) gap_records: u64,
}
