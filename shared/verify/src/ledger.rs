//! What was published, what each client got, and what is wrong between the two.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The type of the checker's events.
pub(crate) const KIND: &str = "verify";

/// Most findings that are described one by one; all are counted.
const DESCRIBED: usize = 20;

/// Longest lateness that is told apart, an hour, microseconds.
const LATEST: u64 = 3_600_000_000;

/// The one place where it is known what should have come.
#[derive(Debug)]
pub(crate) struct Ledger {
    run: String,
    late_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    events: Vec<Event>,
    groups: Vec<Tally>,
    /// The group in force: that of the fault under way, or 0.
    group: usize,
    findings: Vec<String>,
    /// Failed requests by what was wrong.
    failures: BTreeMap<String, u64>,
    requests: u64,
    announced: u64,
}

#[derive(Debug)]
struct Event {
    channel: u32,
    group: usize,
    last: bool,
    told: Told,
    /// As it was acknowledged, or else as the first client got it.
    id: Option<u64>,
    acknowledged: Option<Instant>,
}

/// What the publisher was told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    /// Nothing yet, or that nobody knows.
    Unknown,
    /// It is in the log.
    Acknowledged,
}

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

/// One client's side.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) number: u32,
    /// By their numbers.
    pub(crate) channels: Vec<u32>,
    /// Where it goes on.
    pub(crate) cursor: String,
    /// Where it began, once it knows.
    began_after: Option<u64>,
    highest: u64,
    /// A bit for each event.
    seen: Vec<u64>,
    /// What it was told to be gone: after and before which id.
    gaps: Vec<(u64, u64)>,
    /// How many of its channels have come to their end.
    ended: usize,
}

/// A record as polls and streams bring it.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) channel_id: String,
    pub(crate) data: Inner,
}

/// Its inner part.
#[derive(Debug, Deserialize)]
pub(crate) struct Inner {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) data: Option<Box<RawValue>>,
}

/// What the checker's events carry.
#[derive(Debug, Deserialize)]
struct Payload<'a> {
    run: &'a str,
    n: usize,
}

#[derive(Debug, Deserialize)]
struct Gap {
    after: u64,
    before: u64,
}

impl Ledger {
    /// An empty ledger of a run.
    pub(crate) fn new(run: &str, late_max: Duration) -> Self {
        let state = State {
            events: Vec::new(),
            groups: vec![Tally::new("calm")],
            group: 0,
            findings: Vec::new(),
            failures: BTreeMap::new(),
            requests: 0,
            announced: 0,
        };
        Self { run: run.to_owned(), late_max, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a channel.
    pub(crate) fn channel(&self, number: u32) -> String {
        format!("verify-{}-{number}", self.run)
    }

    /// The name of the channel of event `n`.
    pub(crate) fn channel_of(&self, n: usize) -> String {
        let channel = self.lock().events[n].channel;
        self.channel(channel)
    }

    /// A new event, before anybody was asked to take it. `last` ends its channel.
    pub(crate) fn announce(&self, channel: u32, last: bool) -> usize {
        let mut state = self.lock();
        let group = state.group;
        state.groups[group].unknown += 1;
        let event = Event { channel, group, last, told: Told::Unknown, id: None, acknowledged: None };
        state.events.push(event);
        state.events.len() - 1
    }

    /// Its data.
    pub(crate) fn payload(&self, n: usize) -> String {
        format!(r#"{{"run":"{}","n":{n}}}"#, self.run)
    }

    /// Its key: published again, it is the same event.
    pub(crate) fn key(&self, n: usize) -> String {
        format!("{}-{n}", self.run)
    }

    /// The publisher was told that it is in the log.
    pub(crate) fn acknowledge(&self, n: usize, id: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        let event = &mut state.events[n];
        let tally = &mut state.groups[event.group];
        tally.unknown -= 1;
        tally.acknowledged += 1;
        event.told = Told::Acknowledged;
        event.acknowledged = Some(Instant::now());
        if event.id.replace(id).is_some_and(|before| before != id) {
            tally.altered += 1;
            describe(&mut state.findings, || {
                format!("event {n} was acknowledged as {id} and came with another id")
            });
        }
    }

    /// From now on events belong to this group.
    pub(crate) fn enter(&self, name: Option<&str>) {
        let mut state = self.lock();
        state.group = match name {
            None => 0,
            Some(name) => {
                let at = state.groups.iter().skip(1).position(|tally| tally.name == name);
                let at = at.map_or(state.groups.len(), |at| at + 1);
                if at == state.groups.len() {
                    state.groups.push(Tally::new(name));
                }
                state.groups[at].struck += 1;
                at
            }
        };
    }

    /// A request was sent.
    pub(crate) fn asked(&self) {
        self.lock().requests += 1;
    }

    /// A request failed.
    pub(crate) fn failed(&self, what: &str) {
        *self.lock().failures.entry(what.to_owned()).or_default() += 1;
    }

    /// A client was given the place where it begins or goes on.
    pub(crate) fn place(&self, reader: &mut Reader, cursor: &str) {
        if let Ok(id) = cursor.parse() {
            reader.began_after.get_or_insert(id);
            cursor.clone_into(&mut reader.cursor);
        }
    }

    /// A client was given a record.
    pub(crate) fn deliver(&self, reader: &mut Reader, record: &Record) {
        let kind = record.data.kind.as_str();
        let data = record.data.data.as_deref().map_or("null", RawValue::get);
        let mut state = self.lock();
        let state = &mut *state;
        if kind == "everpoll:gap" {
            if let Ok(Gap { after, before }) = serde_json::from_str(data) {
                reader.gaps.push((after, before));
                state.announced += 1;
            }
            return;
        }
        if kind.starts_with("everpoll:") {
            return;
        }
        let payload: Option<Payload<'_>> = serde_json::from_str(data).ok();
        let n = payload.filter(|payload| kind == KIND && payload.run == self.run).map(|payload| payload.n);
        let known = n.and_then(|n| Some((n, state.events.get_mut(n)?)));
        let own = known.filter(|(_, event)| {
            reader.channels.contains(&event.channel) && self.channel(event.channel) == record.channel_id
        });
        let Some((n, event)) = own else {
            state.groups[state.group].foreign += 1;
            describe(&mut state.findings, || {
                format!(
                    "client {} got {} of {:?}, which it never asked for",
                    reader.number, record.id, record.channel_id
                )
            });
            return;
        };
        let tally = &mut state.groups[event.group];
        if *event.id.get_or_insert(record.id) != record.id {
            tally.altered += 1;
            describe(&mut state.findings, || {
                format!("event {n} came with the ids {} and {:?}", record.id, event.id)
            });
        }
        let (word, bit) = (n / 64, 1 << (n % 64));
        if reader.seen.len() <= word {
            reader.seen.resize(word + 1, 0);
        }
        if reader.seen[word] & bit != 0 {
            tally.doubled += 1;
            describe(&mut state.findings, || format!("client {} got {} twice", reader.number, record.id));
            return;
        }
        reader.seen[word] |= bit;
        tally.delivered += 1;
        reader.ended += usize::from(event.last);
        if record.id <= reader.highest {
            tally.reordered += 1;
            describe(&mut state.findings, || {
                format!("client {} got {} after {}", reader.number, record.id, reader.highest)
            });
        }
        reader.highest = reader.highest.max(record.id);
        let late = event.acknowledged.map(|at| at.elapsed()).unwrap_or_default();
        tally.late.saturating_record(u64::try_from(late.as_micros()).unwrap_or(LATEST));
        if event.group == 0 && late > self.late_max {
            tally.too_late += 1;
            describe(&mut state.findings, || {
                format!("client {} got {} {:.1} s late", reader.number, record.id, late.as_secs_f64())
            });
        }
    }

    /// Events so far: acknowledged, unknown, delivered, and findings that break a promise.
    pub(crate) fn progress(&self) -> [u64; 4] {
        let state = self.lock();
        let sum = |of: fn(&Tally) -> u64| state.groups.iter().map(of).sum();
        [sum(|t| t.acknowledged), sum(|t| t.unknown), sum(|t| t.delivered), sum(Tally::broken)]
    }

    /// Judges, when all is over.
    pub(crate) fn judge(&self, readers: impl IntoIterator<Item = Reader>) -> Judgement {
        let mut state = self.lock();
        let state = &mut *state;
        for reader in readers {
            // A client that never got a place has lost all, beginning with its place.
            let after = reader.began_after.unwrap_or(0);
            for (n, event) in state.events.iter().enumerate() {
                let Some(id) = event.id else { continue };
                let seen = reader.has_seen(n);
                let gone = reader.gaps.iter().any(|(after, before)| (after + 1..*before).contains(&id));
                let tally = &mut state.groups[event.group];
                match (seen, gone) {
                    (true, true) => {
                        tally.altered += 1;
                        describe(&mut state.findings, || {
                            format!("client {} was told that {id} is gone, and got it", reader.number)
                        });
                    }
                    (false, true) if reader.channels.contains(&event.channel) => tally.announced += 1,
                    (false, false) if id > after && reader.channels.contains(&event.channel) => {
                        // Also one that was not acknowledged, when others got it.
                        tally.lost += 1;
                        describe(&mut state.findings, || {
                            format!(
                                "client {} never got {id} (event {n} on {}, published in {:?}); no gap record names it",
                                reader.number,
                                self.channel(event.channel),
                                tally.name
                            )
                        });
                    }
                    _ => {}
                }
            }
        }
        Judgement {
            groups: state.groups.clone(),
            findings: state.findings.clone(),
            failures: state.failures.clone(),
            requests: state.requests,
            gap_records: state.announced,
        }
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

impl Reader {
    /// A client that begins at now.
    pub(crate) fn new(number: u32, channels: Vec<u32>) -> Self {
        Self {
            number,
            channels,
            cursor: "now".to_owned(),
            began_after: None,
            highest: 0,
            seen: Vec::new(),
            gaps: Vec::new(),
            ended: 0,
        }
    }

    /// Whether it knows where it stands.
    pub(crate) fn has_place(&self) -> bool {
        self.began_after.is_some()
    }

    /// Whether all of its channels have come to their end.
    pub(crate) fn is_done(&self) -> bool {
        self.ended >= self.channels.len()
    }

    fn has_seen(&self, n: usize) -> bool {
        self.seen.get(n / 64).is_some_and(|word| word & (1 << (n % 64)) != 0)
    }
}

fn describe(findings: &mut Vec<String>, text: impl FnOnce() -> String) {
    if findings.len() < DESCRIBED {
        findings.push(text());
    }
}
