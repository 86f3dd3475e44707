//! `everpoll settings`: what can be set, and whether what is set is right.

use std::path::Path;

use clap::{Args, Subcommand};
use everpoll_log::{Log, Options};

use super::Failure;
use crate::reload;
use crate::tls::Tls;

/// What to do with the settings.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read the settings as the daemon would, and say what is wrong with them
    ///
    /// For before a start, or before SIGHUP: what is refused here is refused there, with the same words, and what passes here
    /// counts there. Nothing is opened but files. Exit code 0 when they are right, 2 when they are not.
    Check,
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    match arguments.what {
        None => super::print(everpoll_settings::describe().trim_end()),
        Some(What::Check) => check(config),
    }
}

fn check(config: Option<&Path>) -> Result<(), Failure> {
    let settings = reload::read(config).map_err(Failure::input)?;
    // What only a start looks at: they need one to change.
    Log::new(settings.database_url.expose(), Options::default())?;
    if let Some((certificate, key)) = &settings.tls {
        Tls::read(certificate, key).map_err(|problem| Failure::input(format!("{problem:#}")))?;
    }
    for namespace in settings.describe_namespaces() {
        super::print(&namespace)?;
    }
    super::print("the settings are right")
}
