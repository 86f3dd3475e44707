//! `everpoll trim`: removes what retention no longer keeps, now.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use everpoll_log::{Part, Retention};
use everpoll_settings::{Settings, parse_age, parse_prefix};

use super::Failure;
use crate::retention::{self, Trimmer};

/// Remove old events from the log
///
/// The daemon does this by itself, as retain_for and retain_count say; the command is for machines without one (in
/// cron), and for making room now. Without options it keeps what the settings keep; with options, what they say, on all channels
/// alike or in one namespace.
/// Clients whose cursor lies before what was removed are told so by a gap.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll trim
  everpoll trim --for 12h
  everpoll trim --count 100000
  everpoll trim --namespace shop: --count 0")]
pub(super) struct Arguments {
    /// Keep events of this age: seconds, or a number with s, m, h or d
    #[arg(long = "for", value_name = "AGE", value_parser = age)]
    keep_for: Option<Age>,
    /// Keep this many of the newest events; 0 removes all
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Only on channels whose names begin so; without one inside it for which the settings keep events apart
    #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
    namespace: Option<Box<str>>,
}

/// `None` is for ever. (clap would read a bare `Option` as "may be absent".)
#[derive(Clone, Copy, Debug)]
struct Age(Option<Duration>);

fn age(text: &str) -> Result<Age, String> {
    parse_age(text).map(Age)
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = super::settings(config)?;
    let parts = parts(arguments, &settings)?;
    let mut log = super::log(&settings, "trim")?;
    let mut trimmer = Trimmer::new(parts, settings.trim_batch);
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

fn parts(arguments: &Arguments, settings: &Settings) -> Result<Vec<Part>, Failure> {
    let said = match (arguments.keep_for, arguments.count) {
        (None, None) => None,
        (keep_for, count) => Some(Retention { max_age: keep_for.and_then(|age| age.0), max_events: count }),
    };
    let Some(namespace) = &arguments.namespace else {
        return Ok(said.map_or_else(|| retention::parts(settings), |keep| vec![Part::whole(keep)]));
    };
    let of_settings = settings.retained_apart().find(|(prefix, ..)| *prefix == &**namespace);
    let of_settings = of_settings.map(|(_, max_age, max_events)| Retention { max_age, max_events });
    let Some(keep) = said.or(of_settings) else {
        return Err(Failure::input(format!(
            "the settings have no retain_for and no retain_count for the namespace {namespace:?}; give --for or --count"
        )));
    };
    // The others keep everything for this once.
    let others = settings.retained_apart().map(|(prefix, ..)| (prefix.into(), Retention::default()));
    let others = others.filter(|(prefix, _)| prefix != namespace);
    Ok(Part::split(Retention::default(), others.chain([(namespace.clone(), keep)])))
}
