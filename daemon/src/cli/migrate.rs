//! `everpoll migrate`: brings the log to the layout of this version.

use std::path::Path;

use clap::Args;
use everpoll_log::LogError;

use super::Failure;

/// Bring the database to the layout of this version
///
/// Safe to run twice and at once, and while programs of the running and of this version work. SQLite files
/// migrate themselves; PostgreSQL needs it once, and after an update, as a role that may create schemas.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  EVERPOLL_DATABASE_URL=postgres://owner@localhost/app everpoll migrate
  everpoll migrate --status && echo ready")]
pub(super) struct Arguments {
    /// Change nothing; the exit code is 0 when nothing is to be done
    #[arg(long)]
    status: bool,
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = super::settings(config)?;
    let mut log = super::log(&settings, "migrate")?;
    let url = &settings.database_url;
    if arguments.status {
        return match log.bounds() {
            Ok(_) => super::print(&format!("{url}: nothing to migrate")),
            Err(error @ LogError::NotMigrated { .. }) => Err(Failure::failed(format!("{url}: {error}"))),
            Err(error) => Err(error.into()),
        };
    }
    let done = log.migrate()?;
    super::print(&match (done.from, done.to) {
        (from, to) if from == to => format!("{url}: nothing to migrate, the layout is {to}"),
        (from, to) => format!("{url}: migrated from layout {from} to {to}"),
    })
}
