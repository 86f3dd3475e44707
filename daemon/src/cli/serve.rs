//! `everpoll serve` and `everpoll fallback`: the programs that serve.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use everpoll_settings::{LogFormat, Settings};
use tracing_subscriber::EnvFilter;

use super::Failure;

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
    let settings = Settings::from_process(config).map_err(Failure::input)?;
    start_diagnostics(&settings)?;
    crate::serve::run(&settings).map_err(|error| Failure::failed(format!("{error:#}")))
}

/// Passes everything on to the fallback.
pub(super) fn fallback(arguments: Vec<OsString>, config: Option<&Path>) -> ExitCode {
    let config = config.map(|path| [OsString::from("--config"), path.into()]);
    everpoll_fallback::run(config.into_iter().flatten().chain(arguments))
}

fn start_diagnostics(settings: &Settings) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|error| {
        Failure::input(format!(
            "log={:?} is not a filter: {error}; give one such as info,everpoll=debug",
            settings.log
        ))
    })?;
    // Colours are for eyes: in a file they would be noise.
    let ansi = std::io::stderr().is_terminal();
    let diagnostics =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    match settings.log_format {
        LogFormat::Text => diagnostics.init(),
        LogFormat::Json => diagnostics.json().flatten_event(true).init(),
    }
    Ok(())
}
