//! `crowd`: some thousands of polling clients in a process of their own, for tests that need more of them than one process
//! may have files. [`everpoll_tests::Crowd`] starts it and asks it, a line on stdin each, answered by a line of JSON on stdout. It
//! ends with its stdin.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use everpoll_tests::crowd::{HOLD_VARIABLE, Part, channel};
use everpoll_tests::pollers::{Poller, Pollers, clock};
use serde_json::{Value, json};

/// How long their polls are held, in seconds: each for another time, so that not all stand at the same place.
const HOLD: std::ops::Range<u64> = 4..11;

fn main() {
    let part = Part::parse(std::env::args().skip(1)).unwrap_or_else(|| {
        eprintln!("this is started by tests only; see tests/harness/crowd.rs");
        std::process::exit(2);
    });
    let longer: Option<u64> = std::env::var(HOLD_VARIABLE).ok().and_then(|text| text.parse().ok());
    let pollers = (part.first..part.first + part.count).map(|number| {
        let poller = Poller::new(&part.address, &channel(number % part.channels), part.cursor);
        let hold = HOLD.start + u64::try_from(number).unwrap_or(0) % (HOLD.end - HOLD.start);
        let hold = longer.unwrap_or(hold);
        let query = format!("hold={hold}");
        poller.wait_id(format!("browser-{number}")).query(&query).from(part.from).backing_off()
    });
    let crowd = Pollers::start(pollers);
    let mut stdout = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        let answer = answer(&crowd, &line);
        // Whoever asked has gone, and so does this.
        if writeln!(stdout, "{answer}").and_then(|()| stdout.flush()).is_err() {
            return;
        }
    }
}

fn answer(crowd: &Pollers, question: &str) -> Value {
    let mut words = question.split(' ');
    let what = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    match what {
        "held" => {
            let then = instant(number());
            json!(crowd.held_since(then, Duration::from_millis(number())))
        }
        "answered-since" => json!(crowd.answered_since(instant(number()))),
        "reached" => json!(crowd.reached(number())),
        "attempts" => json!(crowd.take_attempts()),
        "answered" => json!(crowd.take_answers()),
        "tally" => {
            let tally = crowd.tally();
            let gaps: u32 = crowd.readings().iter().map(|reading| reading.gaps).sum();
            json!({ "statuses": tally.statuses, "errors": tally.errors, "delays": tally.delays, "gaps": gaps })
        }
        "readings" => {
            let readings = crowd.readings();
            let read = readings.iter().map(|reading| {
                json!([reading.channels, reading.began_after, reading.cursor, reading.events])
            });
            read.collect()
        }
        other => panic!("{other:?} is no question"),
    }
}

/// The clock of another process cannot be compared but by the time of day.
fn instant(then: u64) -> Instant {
    let ago = Duration::from_micros(clock().saturating_sub(then));
    Instant::now().checked_sub(ago).unwrap_or_else(Instant::now)
}
