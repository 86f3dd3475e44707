//! More clients than one process may have files: [`Pollers`](crate::pollers) in processes of their own, asked over pipes.
//!
//! Each process connects from an address of its own, which no crowd before it had: TCP has some 28,000 ports for each, and the
//! connections of a server that was killed keep theirs for a minute.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::Address;
use crate::pollers::Reading;
use crate::process::guardian;
use crate::wait;

/// Most clients of one process: each is a file, and it needs some more.
const PART_MAX: usize = 5_000;

/// Tells the program `crowd` how long all its polls are to be held, in seconds; otherwise each has another time.
pub const HOLD_VARIABLE: &str = "CROWD_HOLD";

/// What one process does.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where its clients ask.
    pub address: Address,
    /// How many there are.
    pub count: usize,
    /// The number of the first one.
    pub first: usize,
    /// Client n asks for the channel n modulo this.
    pub channels: usize,
    /// Where they begin.
    pub cursor: u64,
    /// The address they connect from.
    pub from: Ipv4Addr,
}

/// What all clients together saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Replies by status.
    pub statuses: BTreeMap<String, u64>,
    /// Broken connections by their text.
    pub errors: BTreeMap<String, u64>,
    /// Replies by the seconds after which the client is to come back.
    pub delays: BTreeMap<u64, u64>,
    /// How many gaps came.
    pub gaps: u64,
}

/// The processes; ended on drop.
#[derive(Debug)]
pub struct Crowd {
    members: Vec<Member>,
    count: usize,
}

#[derive(Debug)]
struct Member {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// The name of a channel.
pub fn channel(number: usize) -> String {
    format!("channel-{number}")
}

impl Part {
    fn arguments(&self) -> [String; 6] {
        let Self { address, count, first, channels, cursor, from } = self;
        let numbers = [count, first, channels].map(ToString::to_string);
        let [count, first, channels] = numbers;
        [address.to_string(), count, first, channels, cursor.to_string(), from.to_string()]
    }

    /// Parses the arguments of the program `crowd`.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let arguments: Vec<_> = arguments.collect();
        let [address, count, first, channels, cursor, from] = &arguments[..] else { return None };
        let address = match address.strip_prefix("unix:") {
            Some(path) => Address::Unix(PathBuf::from(path)),
            None => Address::Tcp(address.parse().ok()?),
        };
        Some(Self {
            address,
            count: count.parse().ok()?,
            first: first.parse().ok()?,
            channels: channels.parse().ok()?,
            cursor: cursor.parse().ok()?,
            from: from.parse().ok()?,
        })
    }
}

impl Crowd {
    /// Starts `count` clients of `channels` channels, which all begin at `cursor`. `program` is the program `crowd`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &Path, address: &Address, count: usize, channels: usize, cursor: u64) -> Self {
        Self::start_holding(program, address, count, channels, cursor, None)
    }

    /// Like [`start`](Self::start), with clients that all want to be held for so many seconds.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_holding(
        program: &Path,
        address: &Address,
        count: usize,
        channels: usize,
        cursor: u64,
        hold: Option<u64>,
    ) -> Self {
        let parts = count.div_ceil(PART_MAX).max(2);
        let members = (0..parts).map(|number| {
            let (first, end) = (count * number / parts, count * (number + 1) / parts);
            let (address, from) = (address.clone(), unused_address());
            Member::start(program, &Part { address, count: end - first, first, channels, cursor, from }, hold)
        });
        Self { members: members.collect(), count }
    }

    /// How many clients there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The processes' ids.
    pub fn processes(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.child.id()).collect()
    }

    /// How many are held since `then`, in microseconds of [`clock`](crate::pollers::clock): a reply has said so, or they wait for `time`.
    pub fn held_since(&mut self, then: u64, time: Duration) -> usize {
        self.sum(&format!("held {then} {}", time.as_millis()))
    }

    /// How many have had an answer since `then`, in microseconds of [`clock`](crate::pollers::clock).
    pub fn answered_since(&mut self, then: u64) -> usize {
        self.sum(&format!("answered-since {then}"))
    }

    /// Waits until all are held, and returns how long that took.
    ///
    /// # Panics
    /// With what they saw when that does not happen within `deadline`.
    #[track_caller]
    pub fn wait_until_held(&mut self, then: u64, time: Duration, deadline: Duration) -> Duration {
        let began = Instant::now();
        let all = self.count;
        let held = wait::try_until_some(deadline, || {
            std::thread::sleep(Duration::from_millis(50));
            (self.held_since(then, time) == all).then(|| began.elapsed())
        });
        held.unwrap_or_else(|| {
            let held = self.held_since(then, time);
            panic!("after {deadline:?} only {held} of {all} clients are held; {:?}", self.tally())
        })
    }

    /// Waits until all have got everything up to this id.
    ///
    /// # Panics
    /// With what they saw when that does not happen within `deadline`.
    #[track_caller]
    pub fn wait_until_reached(&mut self, id: u64, deadline: Duration) {
        let (question, all) = (format!("reached {id}"), self.count);
        let reached = wait::try_until_some(deadline, || {
            std::thread::sleep(Duration::from_millis(50));
            (self.sum(&question) == all).then_some(())
        });
        if reached.is_none() {
            let reached = self.sum(&question);
            panic!("after {deadline:?} only {reached} of {all} clients have got to {id}; {:?}", self.tally());
        }
    }

    /// How many tried to connect in each `step` from `then` on, since this was asked for the last time.
    pub fn attempts(&mut self, then: u64, step: Duration) -> Vec<usize> {
        self.histogram("attempts", then, step)
    }

    /// How many answers came in each `step` from `then` on, since this was asked for the last time.
    pub fn answers(&mut self, then: u64, step: Duration) -> Vec<usize> {
        self.histogram("answered", then, step)
    }

    fn histogram(&mut self, question: &str, then: u64, step: Duration) -> Vec<usize> {
        let (then, step) = (then / 1000, u64::try_from(step.as_millis()).unwrap_or(u64::MAX).max(1));
        let mut counts = Vec::new();
        for answer in self.ask(question) {
            for at in answer.as_array().into_iter().flatten().filter_map(Value::as_u64) {
                let Some(since) = at.checked_sub(then) else { continue };
                let index = usize::try_from(since / step).unwrap_or(usize::MAX);
                if index >= counts.len() {
                    counts.resize(index + 1, 0);
                }
                counts[index] += 1;
            }
        }
        counts
    }

    /// What all clients saw so far.
    pub fn tally(&mut self) -> Tally {
        let mut tally = Tally::default();
        for answer in self.ask("tally") {
            let add = |field: &str, to: &mut BTreeMap<String, u64>| {
                for (name, count) in answer[field].as_object().into_iter().flatten() {
                    *to.entry(name.clone()).or_default() += count.as_u64().unwrap_or(0);
                }
            };
            add("statuses", &mut tally.statuses);
            add("errors", &mut tally.errors);
            let mut delays = BTreeMap::new();
            add("delays", &mut delays);
            for (seconds, count) in delays {
                *tally.delays.entry(seconds.parse().unwrap_or(0)).or_default() += count;
            }
            tally.gaps += answer["gaps"].as_u64().unwrap_or(0);
        }
        tally
    }

    /// What each client got.
    pub fn readings(&mut self) -> Vec<Reading> {
        let answers = self.ask("readings");
        let all = answers.iter().flat_map(|answer| answer.as_array().into_iter().flatten());
        all.map(|reading| Reading {
            channels: serde_json::from_value(reading[0].clone()).expect("names"),
            began_after: reading[1].as_u64(),
            cursor: reading[2].as_u64().expect("an id"),
            events: serde_json::from_value(reading[3].clone()).expect("ids and names"),
            ..Reading::default()
        })
        .collect()
    }

    fn sum(&mut self, question: &str) -> usize {
        let all: u64 = self.ask(question).iter().filter_map(Value::as_u64).sum();
        usize::try_from(all).expect("there are not so many")
    }

    /// Asks all, then takes their answers, so that they think at the same time.
    fn ask(&mut self, question: &str) -> Vec<Value> {
        for member in &mut self.members {
            writeln!(member.stdin, "{question}").expect("it runs as long as the test does");
        }
        self.members.iter_mut().map(Member::answer).collect()
    }
}

/// An address of this machine that nobody else connects from, and nobody has lately.
fn unused_address() -> Ipv4Addr {
    static USED: AtomicU32 = AtomicU32::new(0);
    let number = USED.fetch_add(1, Ordering::Relaxed);
    // Programs that run at the same time differ in the second byte, 127.0 apart, and one of them in the others.
    let [_, _, third, fourth] = (number / 250 % 256 * 256 + number % 250 + 1).to_be_bytes();
    let second = u8::try_from(std::process::id() % 255 + 1).expect("it is at most 255");
    Ipv4Addr::new(127, second, third, fourth)
}

impl Member {
    fn start(program: &Path, part: &Part, hold: Option<u64>) -> Self {
        let mut command = Command::new(program);
        if let Some(seconds) = hold {
            command.env(HOLD_VARIABLE, seconds.to_string());
        }
        command.args(part.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.process_group(0).spawn().expect("the program crowd is built with the tests");
        guardian::watch_group(child.id());
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        Self { child, stdin, stdout }
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it runs as long as the test does");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: the crowd answers {line:?}"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        guardian::forget_group(self.child.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_is_read_as_it_was_written() {
        let from = Ipv4Addr::new(127, 1, 0, 2);
        for address in [Address::local(8377), Address::Unix("/run/x.sock".into())] {
            let part = Part { address, count: 3, first: 7, channels: 5, cursor: 9, from };
            let read = Part::parse(part.arguments().into_iter()).expect("it is well formed");
            assert_eq!(format!("{read:?}"), format!("{part:?}"));
        }
        assert!(Part::parse(std::iter::empty()).is_none());
    }
}
