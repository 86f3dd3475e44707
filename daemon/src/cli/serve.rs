//! `everpoll serve` and `everpoll fallback`: the programs that serve.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use everpoll_settings::{LogFormat, Settings};
use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::reload::{self, Source};

/// Run the daemon: hold polls and answer them when there is news
///
/// It runs in the foreground, writes diagnostics to standard error, and stops on SIGTERM or SIGINT after it has answered
/// the polls that it holds. GET /readyz answers 200 once it serves. `everpoll help settings` lists what can be set.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll serve
  EVERPOLL_LISTEN=127.0.0.1:9000 everpoll serve
  everpoll serve --config /etc/everpoll.toml")]
pub(super) struct Arguments {}

pub(super) fn run(_: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = reload::read(config).map_err(Failure::input)?;
    let source = Source { config: config.map(Path::to_path_buf), show: start_diagnostics(&settings) };
    crate::serve::run(&settings, source).map_err(|error| Failure::failed(format!("{error:#}")))
}

/// Passes everything on to the fallback.
pub(super) fn fallback(arguments: Vec<OsString>, config: Option<&Path>) -> ExitCode {
    let config = config.map(|path| [OsString::from("--config"), path.into()]);
    everpoll_fallback::run(config.into_iter().flatten().chain(arguments))
}

/// What is shown. Never statements with their parameters, nor frames with what is in them: both have the data of events, whatever
/// level is asked for.
fn filter(text: &str) -> EnvFilter {
    ["tokio_postgres::query=off", "tungstenite::protocol=off"]
        .iter()
        .fold(EnvFilter::new(text), |filter, one| filter.add_directive(one.parse().expect("a directive")))
}

/// Returns what changes the filter.
fn start_diagnostics(settings: &Settings) -> Box<dyn Fn(&str) + Send> {
    // Colours are for eyes: in a file they would be noise.
    let ansi = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_env_filter(filter(&settings.log));
    match settings.log_format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |text| drop(handle.reload(filter(text))))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |text| drop(handle.reload(filter(text))))
        }
    }
}
