//! What was published, what each reader got, and what is wrong between the two.
//!
//! The one judge of "never lost, never twice, one order", for `everpoll verify` and for all tests of Everpoll. Whoever publishes
//! announces each event before anybody is asked to take it, and writes down what he was told. Whoever reads writes down what came,
//! in the order in which it came. In the end, [`judge`](Ledger::judge) says what is missing.
//!
//! What a newcomer gets wrong: an event has a *number* from the moment it is announced, and an *id* only once somebody was told
//! of one. Where only ids are known, as to a page, [`number_of`](Ledger::number_of) finds the event.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Report;
use crate::tally::{Judgement, LATEST, Tally};

/// Most findings that are described one by one; all are counted.
const DESCRIBED: usize = 20;

/// The one place where it is known what should have come.
#[derive(Debug)]
pub struct Ledger {
    late_max: Duration,
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
struct State {
    channels: Vec<String>,
    events: Vec<Event>,
    /// Numbers by ids.
    ids: HashMap<u64, usize>,
    groups: Vec<Tally>,
    /// The group in force: that of the fault under way, or 0.
    group: usize,
    findings: Vec<String>,
    /// Failed requests by what was wrong.
    failures: BTreeMap<String, u64>,
    requests: u64,
    gap_records: u64,
}

#[derive(Clone, Debug)]
struct Event {
    channel: u32,
    group: usize,
    last: bool,
    told: Told,
    /// As it was acknowledged or found in the log, or else as the first reader got it.
    id: Option<u64>,
    acknowledged: Option<Instant>,
}

/// What the publisher was told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// It is not in the log, and must come to nobody.
    RolledBack,
    /// Nothing yet, or that nobody knows: it comes to all or to none.
    Unknown,
    /// It is in the log, and must come to all.
    Acknowledged,
}

/// One reader's side.
#[derive(Debug)]
pub struct Reader {
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

impl Clone for Ledger {
    fn clone(&self) -> Self {
        Self { late_max: self.late_max, state: Mutex::new(self.lock().clone()) }
    }
}

impl Ledger {
    /// An empty one. What comes later than `late_max` after its acknowledgement, while nothing is broken, is too late.
    pub fn new(late_max: Duration) -> Self {
        let state = State {
            channels: Vec::new(),
            events: Vec::new(),
            ids: HashMap::new(),
            groups: vec![Tally::new("calm")],
            group: 0,
            findings: Vec::new(),
            failures: BTreeMap::new(),
            requests: 0,
            gap_records: 0,
        };
        Self { late_max, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the channel with this name, from 0 on in the order in which they were named first.
    pub fn channel(&self, name: &str) -> u32 {
        let channels = &mut self.lock().channels;
        let known = channels.iter().position(|known| known == name);
        let number = known.unwrap_or_else(|| {
            channels.push(name.to_owned());
            channels.len() - 1
        });
        u32::try_from(number).expect("there are not so many")
    }

    /// The number of the channel of event `n`.
    pub(crate) fn channel_of(&self, n: usize) -> u32 {
        self.lock().events[n].channel
    }

    /// A new event, before anybody was asked to take it; returns its number.
    pub fn announce(&self, channel: u32) -> usize {
        self.lock().announce(channel, false)
    }

    /// A new event that is the last one of its channel.
    pub(crate) fn announce_last(&self, channel: u32) -> usize {
        self.lock().announce(channel, true)
    }

    /// The publisher was told that event `n` is in the log, and with which id, if that.
    pub fn acknowledge(&self, n: usize, id: impl Into<Option<u64>>) {
        let mut state = self.lock();
        state.told(n, Told::Acknowledged);
        state.events[n].acknowledged = Some(Instant::now());
        if let Some(id) = id.into() {
            state.is(n, id, "acknowledged as");
        }
    }

    /// The publisher took event `n` back, or was told that it is not in the log.
    pub fn roll_back(&self, n: usize) {
        let mut state = self.lock();
        state.told(n, Told::RolledBack);
        if let Some(id) = state.events[n].id {
            state.exists(n, id);
        }
    }

    /// The log has event `n` with this id, whatever its publisher was told.
    pub fn found(&self, n: usize, id: u64) {
        let mut state = self.lock();
        state.is(n, id, "found in the log as");
        state.exists(n, id);
    }

    /// The log has an event that nobody has announced; returns its number. When it was published is not known.
    pub fn found_new(&self, channel: u32, id: u64) -> usize {
        let mut state = self.lock();
        let n = state.announce(channel, false);
        state.told(n, Told::Acknowledged);
        state.is(n, id, "found in the log as");
        n
    }

    /// The number of the event with this id.
    pub fn number_of(&self, id: u64) -> Option<usize> {
        self.lock().ids.get(&id).copied()
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

    /// A reader was given a gap record.
    pub fn gap(&self, reader: &mut Reader, after: u64, before: u64) {
        reader.gaps.push((after, before));
        self.lock().gap_records += 1;
    }

    /// A reader was given a record with this id on this channel: that of event `n`, if it is one that is known.
    pub fn deliver(&self, reader: &mut Reader, n: Option<usize>, id: u64, channel: &str) {
        let mut state = self.lock();
        let state = &mut *state;
        let known = n.and_then(|n| Some((n, state.events.get(n)?.clone())));
        let own = known.filter(|(_, event)| {
            reader.channels.contains(&event.channel) && state.channels[event.channel as usize] == channel
        });
        let number = reader.number;
        let Some((n, event)) = own else {
            return state.find(
                state.group,
                |tally| &mut tally.foreign,
                || format!("client {number} got {id} of {channel:?}, which it never asked for"),
            );
        };
        state.is(n, id, "delivered as");
        state.exists(n, id);
        let (word, bit) = (n / 64, 1 << (n % 64));
        if reader.seen.len() <= word {
            reader.seen.resize(word + 1, 0);
        }
        if reader.seen[word] & bit != 0 {
            let twice = || format!("client {number} got {id} twice");
            return state.find(event.group, |tally| &mut tally.doubled, twice);
        }
        reader.seen[word] |= bit;
        reader.ended += usize::from(event.last);
        let highest = reader.highest;
        reader.highest = highest.max(id);
        let late = event.acknowledged.map(|at| at.elapsed()).unwrap_or_default();
        let tally = &mut state.groups[event.group];
        tally.delivered += 1;
        tally.late.saturating_record(u64::try_from(late.as_micros()).unwrap_or(LATEST));
        if reader.began_after.is_some_and(|after| id <= after) {
            let early = || format!("client {number} got {id}, which lies before its beginning");
            state.find(event.group, |tally| &mut tally.foreign, early);
        }
        if id <= highest {
            let order = || format!("client {number} got {id} after {highest}");
            state.find(event.group, |tally| &mut tally.reordered, order);
        }
        if event.group == 0 && late > self.late_max {
            let words = || format!("client {number} got {id} {:.1} s late", late.as_secs_f64());
            state.find(event.group, |tally| &mut tally.too_late, words);
        }
    }

    /// Events so far: acknowledged, unknown, delivered, and findings that break a promise.
    pub(crate) fn progress(&self) -> [u64; 4] {
        let state = self.lock();
        let sum = |of: fn(&Tally) -> u64| state.groups.iter().map(of).sum();
        [sum(|t| t.acknowledged), sum(|t| t.unknown), sum(|t| t.delivered), sum(Tally::broken)]
    }

    /// Judges, when all is over: all readers have gone on to the end of the log.
    pub fn judge(&self, readers: impl IntoIterator<Item = Reader>) -> Report {
        Report::new(self.judgement(readers), false, Vec::new())
    }

    pub(crate) fn judgement(&self, readers: impl IntoIterator<Item = Reader>) -> Judgement {
        let mut state = self.lock();
        let state = &mut *state;
        let mut by_channel = vec![Vec::new(); state.channels.len()];
        for (n, event) in state.events.iter().enumerate() {
            if event.id.is_some() || event.told == Told::Acknowledged {
                by_channel[event.channel as usize].push(n);
            }
        }
        for reader in readers {
            for channel in &reader.channels {
                for n in by_channel.get(*channel as usize).into_iter().flatten() {
                    state.judge(&reader, *n);
                }
            }
        }
        Judgement {
            groups: state.groups.clone(),
            findings: state.findings.clone(),
            failures: state.failures.clone(),
            requests: state.requests,
            gap_records: state.gap_records,
        }
    }
}

impl State {
    fn announce(&mut self, channel: u32, last: bool) -> usize {
        let group = self.group;
        self.groups[group].unknown += 1;
        let event = Event { channel, group, last, told: Told::Unknown, id: None, acknowledged: None };
        self.events.push(event);
        self.events.len() - 1
    }

    fn told(&mut self, n: usize, told: Told) {
        let event = &mut self.events[n];
        let tally = &mut self.groups[event.group];
        if std::mem::replace(&mut event.told, told) == Told::Unknown && told != Told::Unknown {
            tally.unknown -= 1;
            tally.acknowledged += u64::from(told == Told::Acknowledged);
        }
    }

    /// Somebody says that event `n` has this id: all must say the same, and of no other event.
    fn is(&mut self, n: usize, id: u64, how: &str) {
        let event = &mut self.events[n];
        let (group, before) = (event.group, *event.id.get_or_insert(id));
        if before != id {
            let two = || format!("event {n} was {how} {id}, and is {before} elsewhere");
            self.find(group, |tally| &mut tally.altered, two);
        }
        let other = *self.ids.entry(id).or_insert(n);
        if other != n {
            let two = || format!("event {n} was {how} {id}, and so is event {other}");
            self.find(group, |tally| &mut tally.altered, two);
        }
    }

    /// Somebody has seen event `n`: it must not have been taken back.
    fn exists(&mut self, n: usize, id: u64) {
        let Event { told, group, .. } = self.events[n];
        if told == Told::RolledBack {
            let back = || format!("event {n} was rolled back, and is there as {id}");
            self.find(group, |tally| &mut tally.foreign, back);
        }
    }

    /// What has become of event `n` at one of the readers of its channel.
    fn judge(&mut self, reader: &Reader, n: usize) {
        let Event { channel, group, id, .. } = self.events[n];
        // Of one that is said to be in the log and that nobody has ever seen, no gap record and no beginning tells anything.
        let gone = |id| reader.gaps.iter().any(|(after, before)| (after + 1..*before).contains(&id));
        // A reader that never got a place has lost all, beginning with its place.
        let due = id.is_none_or(|id| id > reader.began_after.unwrap_or(0));
        let number = reader.number;
        match (reader.has_seen(n), id.is_some_and(gone)) {
            (true, true) => {
                let id = id.unwrap_or_default();
                let words = || format!("client {number} was told that {id} is gone, and got it");
                self.find(group, |tally| &mut tally.altered, words);
            }
            (false, true) => self.groups[group].announced += 1,
            // Also one that was not acknowledged, when others got it.
            (false, false) if due => {
                let (channel, during) =
                    (self.channels[channel as usize].clone(), self.groups[group].name.clone());
                let words = || {
                    let id = id.map_or_else(|| "what has no id".to_owned(), |id| id.to_string());
                    format!(
                        "client {number} never got {id} (event {n} on {channel}, published in {during:?}); no gap record names it"
                    )
                };
                self.find(group, |tally| &mut tally.lost, words);
            }
            _ => {}
        }
    }

    fn find(
        &mut self,
        group: usize,
        count: impl FnOnce(&mut Tally) -> &mut u64,
        words: impl FnOnce() -> String,
    ) {
        *count(&mut self.groups[group]) += 1;
        if self.findings.len() < DESCRIBED {
            self.findings.push(words());
        }
    }
}

impl Reader {
    /// One that begins at now.
    pub fn new(number: u32, channels: Vec<u32>) -> Self {
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

    /// It was given the place where it begins or goes on.
    pub fn place(&mut self, cursor: &str) {
        if let Ok(id) = cursor.parse() {
            self.began_after.get_or_insert(id);
            cursor.clone_into(&mut self.cursor);
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

#[cfg(test)]
mod tests;
