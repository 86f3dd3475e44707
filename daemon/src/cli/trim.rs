//! `everpoll trim`: removes what retention no longer keeps, now.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use everpoll_log::Retention;
use everpoll_settings::parse_age;

use super::Failure;
use crate::retention::Trimmer;

/// Remove old events from the log
///
/// The daemon does this by itself, as retain_for and retain_count say; the command is for machines without one (in
/// cron), and for making room now. Without options it keeps what the settings keep; with options, what they say.
/// Clients whose cursor lies before what was removed are told so by a gap.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll trim
  everpoll trim --for 12h
  everpoll trim --count 100000")]
pub(super) struct Arguments {
    /// Keep events of this age: seconds, or a number with s, m, h or d
    #[arg(long = "for", value_name = "AGE", value_parser = age)]
    keep_for: Option<Age>,
    /// Keep this many of the newest events; 0 removes all
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// `None` is for ever. (clap would read a bare `Option` as "may be absent".)
#[derive(Clone, Copy, Debug)]
struct Age(Option<Duration>);

fn age(text: &str) -> Result<Age, String> {
    parse_age(text).map(Age)
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = super::settings(config)?;
    let keep = match (arguments.keep_for, arguments.count) {
        (None, None) => Retention { max_age: settings.retain_for, max_events: settings.retain_count },
        (keep_for, count) => Retention { max_age: keep_for.and_then(|age| age.0), max_events: count },
    };
    let mut log = super::log(&settings, "trim")?;
    let mut trimmer = Trimmer::new(keep, settings.trim_batch);
    let mut removed = 0;
    loop {
        match trimmer.batch(&mut log) {
            Ok((batch, pause)) => {
                removed += batch;
                let Some(pause) = pause else { break };
                std::thread::sleep(pause);
            }
            Err(error) if removed > 0 => {
                return Err(Failure::failed(format!("{error} ({removed} events are removed already)")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    super::print(&format!("{removed} events removed"))
}
