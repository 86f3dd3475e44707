//! `everpoll tail`: follows the log in the terminal.
//!
//! It reads the log itself, as the fallback does, so it works while no daemon runs. Hints only shorten the wait: it
//! looks every second in any case.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use everpoll_log::{Limit, LogError, Read, Wakeups};
use everpoll_protocol::{Channel, Cursor, Event, Gap, Record};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Failure;

/// Longest wait for a hint, and pause between two tries while the database is away.
const SWEEP: Duration = Duration::from_secs(1);

/// What one read takes.
const LIMIT: Limit = Limit { events: 1000, bytes: 4 * 1024 * 1024 };

/// Follow the log and print its events as they come
///
/// One line for each event: id, time, channel, type and data. It goes on until Ctrl-C, also while the database is away.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll tail
  everpoll tail cheese wine --after 434
  everpoll tail --json --after 0 | head -3
  everpoll tail cheese --after rt-1406125522 --count 1")]
pub(super) struct Arguments {
    /// Channels to follow; none means all
    channels: Vec<String>,
    /// Begin behind this cursor: an event id, rt-SECONDS (Unix time), or now
    #[arg(long, value_name = "CURSOR", default_value = "now")]
    after: String,
    /// Print each event as pages get it, a JSON object a line
    #[arg(long)]
    json: bool,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = super::settings(config)?;
    let channels = arguments.channels.iter().map(|name| Channel::parse(name));
    let channels = channels.collect::<Result<Vec<_>, _>>().map_err(Failure::input)?;
    let mut cursor = Cursor::parse(arguments.after.as_bytes()).map_err(Failure::input)?;
    let mut log = super::log(&settings, "tail")?;
    let mut wakeups = Wakeups::new(settings.database_url.expose(), super::options("tail wake-up"))?;
    end_quietly_on_signals()?;

    let mut away = Away::default();
    let mut left = arguments.count;
    let mut following = false;
    loop {
        match log.read(&channels, cursor, LIMIT) {
            Ok(read) => {
                away.over();
                if !following {
                    following = true;
                    say(&format!("following the log from {}; Ctrl-C ends", read.after));
                }
                print_all(&read, arguments.json, &mut left)?;
                if left == Some(0) {
                    return Ok(());
                }
                cursor = Cursor::After(read.next);
                if read.more {
                    continue;
                }
            }
            // A log that is not there at all is told at once; one that was there is waited for.
            Err(error @ LogError::Unavailable { .. }) if following => away.begins(&error),
            Err(error) => return Err(error.into()),
        }
        // Without hints the log is looked at every second.
        if wakeups.wait(SWEEP).is_err() {
            std::thread::sleep(SWEEP);
        }
    }
}

/// Says once that the database is away, and once that it is back.
#[derive(Default)]
struct Away(bool);

impl Away {
    fn begins(&mut self, error: &LogError) {
        if !std::mem::replace(&mut self.0, true) {
            say(&format!("{error}; trying again every second"));
        }
    }

    fn over(&mut self) {
        if std::mem::take(&mut self.0) {
            say("the database is back");
        }
    }
}

fn print_all(read: &Read, json: bool, left: &mut Option<u64>) -> Result<(), Failure> {
    if let Some(gap) = &read.gap {
        super::print(&gap_line(gap, json))?;
    }
    for event in &read.events {
        super::print(&event_line(event, json))?;
        if let Some(left) = left {
            *left -= 1;
            if *left == 0 {
                break;
            }
        }
    }
    Ok(())
}

fn event_line(event: &Event, json: bool) -> String {
    if json {
        return String::from_utf8_lossy(&Record::from(event).json).into_owned();
    }
    let Event { id, ts, channel, kind, data, .. } = event;
    // JSON may stand on several lines, and what stands in it must not steer the terminal.
    let data: String = data.as_str().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{id} {ts} {channel} {} {data}", kind.as_str())
}

fn gap_line(gap: &Gap, json: bool) -> String {
    let Gap { after, before, reason } = gap;
    let reason = reason.as_str();
    if json {
        return format!("{{\"gap\":{{\"after\":{after},\"before\":{before},\"reason\":\"{reason}\"}}}}");
    }
    format!("gap: events after {after} and before {before} are gone ({reason})")
}

/// Ctrl-C is how this command normally ends, so it ends with 0. Nothing is lost: it only reads, and each line was
/// flushed.
fn end_quietly_on_signals() -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(Failure::failed)?;
    let wait = move || {
        if signals.forever().next().is_some() {
            std::process::exit(0);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(Failure::failed)?;
    Ok(())
}

fn say(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "everpoll: {text}");
}
