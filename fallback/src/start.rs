//! Finds out how the program was started, reads the settings, and runs what fits.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

use everpoll_protocol::Live;
use everpoll_settings::{Listen, LogFormat, Settings};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;
use tracing::info;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::answer::Answers;
use crate::arguments::Arguments;
use crate::cgi;
use crate::fastcgi::listener::Listener;
use crate::fastcgi::responder::Responder;
use crate::fastcgi::server::{self, Limits};
use crate::reload::{self, Served};
use crate::status;
use crate::variables::{Environment, Variables};

/// Files that are open besides connections: the databases', the loop's own.
const OTHER_FILES: u64 = 64;

/// Memory for requests that are not complete or wait, all together: thousands of polls, or a few of the largest bodies.
const MEMORY_MIN: usize = 64 * 1024 * 1024;

/// Bodies of the largest size for which there is memory in any case.
const LARGEST_BODIES: usize = 4;

/// Whether a web server started the program for one request.
pub(crate) fn is_cgi() -> bool {
    ["GATEWAY_INTERFACE", "REQUEST_METHOD"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Runs as whatever the program was started as.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let inherited = if arguments.listen.is_some() { Ok(None) } else { Listener::inherited() };
    let inherited = match inherited {
        Ok(inherited) => inherited,
        Err(error) => return refuse(&[format!("descriptor 0 is a listening socket, but: {error}")], 1),
    };
    if arguments.listen.is_some() || inherited.is_some() {
        return fastcgi(arguments, inherited);
    }
    let variables: Environment = std::env::vars_os().collect();
    if !is_cgi() {
        return refuse(
            &[
                "nobody asks anything: give --listen to serve FastCGI, such as --listen unix:/run/everpoll/fallback.sock"
                    .to_owned(),
                "or let a web server start this program, as CGI or with a listening socket as descriptor 0".to_owned(),
                "everpoll-fallback --help tells more".to_owned(),
            ],
            2,
        );
    }
    cgi(arguments, &variables)
}

/// Writes a text for whoever asked for it.
pub(crate) fn print(text: &str) -> ExitCode {
    // A reader that went away has all it wanted.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Says why the program does not run.
pub(crate) fn refuse(problems: &[String], code: u8) -> ExitCode {
    for problem in problems {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "everpoll-fallback: {problem}");
    }
    ExitCode::from(code)
}

/// One request, from the environment and stdin to stdout.
fn cgi(arguments: &Arguments, variables: &Environment) -> ExitCode {
    // Whether the web server can be reached from elsewhere is not known; where the request comes from, it says.
    let answers = settings(arguments, web_server(variables).as_ref()).and_then(|settings| {
        let _ = diagnostics(&settings);
        let answers = Answers::new(&settings, true).for_one_request();
        let log = answers.log().map_err(|error| vec![error.to_string()])?;
        Ok((answers, log))
    });
    // If it is not taken, the client has left.
    match answers {
        Ok((answers, mut log)) => {
            let reply = cgi::answer(&answers, &mut log, variables, io::stdin());
            let _ = cgi::write(&reply, cgi::Stdout);
            ExitCode::SUCCESS
        }
        Err(problems) => {
            let code = refuse(&problems, 2);
            let _ = cgi::write(&cgi::misconfigured(), cgi::Stdout);
            code
        }
    }
}

/// Where the web server listens that started us, if it says so.
fn web_server(variables: &Environment) -> Option<Listen> {
    let host = String::from_utf8(variables.variable("SERVER_ADDR")?.into_owned()).ok()?;
    Some(Listen::Tcp { host: host.trim_matches(['[', ']']).to_owned(), port: 80 })
}

/// Many requests, until a signal.
fn fastcgi(arguments: &Arguments, inherited: Option<Listener>) -> ExitCode {
    // Before anything else, so that the signal does not end the program.
    let hangups = match Signals::new([SIGHUP]) {
        Ok(hangups) => hangups,
        Err(error) => return refuse(&[format!("cannot watch for signals: {error}")], 1),
    };
    let settings = match settings(arguments, arguments.listen.as_ref()) {
        Ok(settings) => settings,
        Err(problems) => return refuse(&problems, 2),
    };
    let show = diagnostics(&settings);
    let listener = match (inherited, &arguments.listen) {
        (Some(listener), _) => Ok(listener),
        (None, Some(address)) => {
            Listener::bind(address, arguments.socket_mode.unwrap_or(settings.socket_mode))
        }
        (None, None) => unreachable!("one of them is why we are here"),
    };
    let listener = listener.and_then(|listener| match std::env::var("FCGI_WEB_SERVER_ADDRS") {
        Ok(addresses) if !addresses.is_empty() => listener.only_from(&addresses),
        _ => Ok(listener),
    });
    let listener = match listener {
        Ok(listener) => listener,
        Err(problem) => return refuse(&[problem], 1),
    };
    let local = listener.is_local();
    // A socket that was handed over may be a public one.
    if let (false, Some(problem)) = (local, settings.unprotected(&public())) {
        return refuse(&[problem], 2);
    }
    let answers = Answers::new(&settings, local);
    if let Err(error) = answers.log() {
        return refuse(&[error.to_string()], 2);
    }
    let limits = limits(&settings, arguments.workers);
    info!(
        "answering at {} with {} workers, {} connections at most, from {}",
        listener.address(),
        limits.workers,
        limits.connections,
        settings.database_url
    );
    let responder = Arc::new(Responder::new(answers, settings.head_timeout.as_secs()));
    // Its file goes with it.
    let _status = status::serve(&settings, responder.clone());
    let limits = Live::new(limits);
    let running = Served { responder: responder.clone(), limits: limits.clone(), show };
    if let Err(error) = reload::follow(settings, arguments, local, running, hangups) {
        return refuse(&[format!("cannot follow the settings: {error}")], 1);
    }
    match server::serve(listener, &limits, responder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&[format!("cannot go on: {error}")], 1),
    }
}

/// Some address that other machines can reach.
pub(crate) fn public() -> Listen {
    Listen::Tcp { host: "0.0.0.0".to_owned(), port: 0 }
}

/// The settings, if a program with them may serve at `listen`.
pub(crate) fn settings(arguments: &Arguments, listen: Option<&Listen>) -> Result<Settings, Vec<String>> {
    let settings = Settings::for_command(arguments.config.as_deref());
    let settings = settings.map_err(|problems| problems.texts().to_vec())?;
    match settings.unprotected(listen.unwrap_or(&settings.listen)) {
        Some(problem) => Err(vec![problem]),
        None => Ok(settings),
    }
}

pub(crate) fn limits(settings: &Settings, workers: Option<u32>) -> Limits {
    let connections = raise_file_limit(settings.connections_max as usize);
    let body_max = usize::try_from(settings.body_max).unwrap_or(usize::MAX);
    Limits {
        workers: workers.unwrap_or(settings.fallback_workers) as usize,
        connections,
        // A connection has one request at a time, so each that is open may wait.
        waiting: connections,
        memory: MEMORY_MIN.max(body_max.saturating_mul(LARGEST_BODIES)),
        idle: settings.idle_timeout,
        params: settings.head_timeout,
        write: settings.write_timeout,
        drain: settings.drain_timeout,
    }
}

/// Raises the limit of open files as far as the system allows, and returns how many connections fit.
fn raise_file_limit(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let fit = files.map(|files| usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX));
    fit.unwrap_or(usize::MAX).clamp(1, wanted)
}

/// Sends diagnostics to stderr, as the settings say. Returns what changes the filter.
fn diagnostics(settings: &Settings) -> Box<dyn Fn(&str) + Send> {
    let builder = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Where a host program has set something up, that stays.
    match settings.log_format {
        LogFormat::Json => {
            let (shown, handle) = tracing_subscriber::reload::Layer::new(filter(&settings.log));
            let _ = builder.json().flatten_event(true).finish().with(shown).try_init();
            Box::new(move |text| drop(handle.reload(filter(text))))
        }
        LogFormat::Text => {
            let (shown, handle) = tracing_subscriber::reload::Layer::new(filter(&settings.log));
            let _ = builder.finish().with(shown).try_init();
            Box::new(move |text| drop(handle.reload(filter(text))))
        }
    }
}

/// Reads what the daemon reads as an `EnvFilter`. That one brings regular expressions along, for spans, which are not here: a CGI
/// program would be larger by them, and later.
fn filter(text: &str) -> Targets {
    let of_spans = |part: &&str| part.contains(['[', '{', '}', ']']);
    let parts: Vec<_> = text.split(',').filter(|part| !of_spans(part)).collect();
    let Ok(filter) = parts.join(",").parse::<Targets>() else {
        return Targets::new().with_default(LevelFilter::INFO);
    };
    let filter = match filter.default_level() {
        Some(_) => filter,
        None => filter.with_default(LevelFilter::ERROR),
    };
    // Statements with their parameters, that is, with the data of events.
    filter.with_target("tokio_postgres::query", LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn diagnostics_are_chosen_as_the_daemon_chooses_them() {
        let shown = |text: &str, target: &str, level: Level| filter(text).would_enable(target, &level);
        assert!(shown("info", "everpoll_log", Level::INFO) && !shown("info", "everpoll_log", Level::DEBUG));
        assert!(shown("info,everpoll_log=debug", "everpoll_log::postgres", Level::DEBUG));
        assert!(!shown("info,everpoll_log=debug", "everpoll_fallback", Level::DEBUG));
        assert!(
            shown("everpoll_log=debug", "other", Level::ERROR)
                && !shown("everpoll_log=debug", "other", Level::WARN)
        );
        assert!(shown("warn,[poll{channel=a}]=trace", "other", Level::WARN));
        assert!(!shown("off", "other", Level::ERROR));
    }
}
