//! The command line: what each command is called, what it takes, and how it ends.
//!
//! Exit codes, the same for all commands: 0 when what was asked is done, 1 when it could not be done now (and may
//! succeed later), 2 when it was asked wrongly (arguments, settings, an event that no log would take). Scripts repeat
//! after 1 and give up after 2.
//!
//! What a newcomer gets wrong: standard output carries results only; everything said to people goes to standard error.
//! A reader that goes away (`| head -1`) is no error.

mod http;
mod migrate;
mod publish;
mod serve;
mod settings;
mod tail;
mod token;
mod trim;
mod up;
mod verify;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use everpoll_log::{Log, LogError, Options};
use everpoll_settings::Settings;

/// Delivers events to web pages and never loses one.
///
/// `everpoll up` starts everything for a try-out and prints what to do next. In production, `everpoll serve` is the
/// daemon, and `everpoll-fallback` answers in its place while it is down.
#[derive(Debug, Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "`everpoll help COMMAND` tells more about a command, `everpoll help settings` about all settings."
)]
struct Arguments {
    /// Settings file (TOML); without it, the one that EVERPOLL_CONFIG names. EVERPOLL_* variables win over it
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Arguments),
    Serve(serve::Arguments),
    Publish(publish::Arguments),
    Tail(tail::Arguments),
    Trim(trim::Arguments),
    Migrate(migrate::Arguments),
    Token(token::Arguments),
    Verify(verify::Arguments),
    /// Answer requests as CGI or FastCGI, as everpoll-fallback does
    ///
    /// The same program as everpoll-fallback, for machines where only one binary is installed. All that follows is passed
    /// on; `everpoll fallback --help` explains it.
    #[command(disable_help_flag = true)]
    Fallback {
        /// What everpoll-fallback takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// List all settings with their meaning and default, or check those that are set
    #[command(long_about = everpoll_settings::describe())]
    Settings(settings::Arguments),
    /// Kills what `everpoll up` started when that is killed itself
    #[command(hide = true)]
    UpGuardian,
}

/// Why a command did not do what was asked.
#[derive(Debug)]
enum Failure {
    /// It was asked wrongly: exit code 2.
    Input(String),
    /// It could not be done now: exit code 1.
    Failed(String),
}

impl Failure {
    fn input(text: impl Display) -> Self {
        Self::Input(text.to_string())
    }

    fn failed(text: impl Display) -> Self {
        Self::Failed(text.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Rejected(_) | LogError::Settings { .. } => Self::input(error),
            _ => Self::failed(error),
        }
    }
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let Arguments { config, command } = Arguments::parse();
    let config = config.as_deref().filter(|path| !path.as_os_str().is_empty());
    let done = match command {
        Command::Up(arguments) => up::run(&arguments, config),
        Command::Serve(arguments) => serve::run(&arguments, config),
        Command::Publish(arguments) => publish::run(&arguments, config),
        Command::Tail(arguments) => tail::run(&arguments, config),
        Command::Trim(arguments) => trim::run(&arguments, config),
        Command::Migrate(arguments) => migrate::run(&arguments, config),
        Command::Token(arguments) => token::run(&arguments, config),
        Command::Verify(arguments) => verify::run(arguments, config),
        Command::Fallback { arguments } => return serve::fallback(arguments, config),
        Command::Settings(arguments) => settings::run(&arguments, config),
        Command::UpGuardian => {
            up::guardian::run();
            Ok(())
        }
    };
    let (text, code) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Failed(text)) => (text, 1),
        Err(Failure::Input(text)) => (text, 2),
    };
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "everpoll: {text}");
    ExitCode::from(code)
}

/// Writes one line of results. A reader that went away has all it wanted.
fn print(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::failed(format!("standard output cannot be written: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// The settings of a command that serves nobody.
fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    Settings::for_command(config).map_err(Failure::input)
}

/// How a command's connections are called in the database.
fn options(command: &str) -> Options {
    Options { application_name: format!("everpoll {command}"), ..Options::default() }
}

/// The log that the settings name.
fn log(settings: &Settings, command: &str) -> Result<Log, Failure> {
    Ok(Log::new(settings.database_url.expose(), options(command))?)
}
