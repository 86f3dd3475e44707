//! `everpoll verify`: whether each event comes to each client exactly once, on the stack that is there.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use everpoll_settings::{Listen, Settings};
use everpoll_verify::{Cause, Fault, Plan, PlanError, Progress, Report, Stop, Target, Transport, command};

use super::Failure;

/// How often progress is told where nobody looks at a terminal.
const TELL: Duration = Duration::from_secs(10);

/// Publish, subscribe, break things, and check that nothing was lost
///
/// Publishes numbered events on channels of its own (verify-…), subscribes to them with many clients, and holds what each
/// client got against what was published. Exit code 0: each event that was acknowledged came to each client exactly once,
/// in one order. 1: a promise was broken, or could not be checked; the text says which. The events stay in the log until
/// retention removes them.
///
/// What is broken on purpose is yours to say: each --fault has a name, a command that breaks and one that mends. They are
/// run by sh, in random order, again and again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll verify
  everpoll verify --url https://shop.example --for 600 --clients 500 --rate 200 --report verify.json
  everpoll verify --by http,sql --fault 'restart=systemctl restart everpoll' \\
      --fault 'database=systemctl stop postgresql::systemctl start postgresql'")]
pub(super) struct Arguments {
    /// Where clients ask: http://host:port[/prefix], https://… or unix:/path. Several are tried in turn. Default: where the
    /// settings let the daemon listen
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    url: Vec<Target>,
    /// The database for --by sql; default: that of the settings
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Tell this Redis (redis://host:port) of each event that is published by sql, as applications do that used it before
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// How events are published
    #[arg(long, value_enum, value_delimiter = ',', default_value = "http")]
    by: Vec<By>,
    /// For how long events are published, seconds
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60)]
    duration: u64,
    /// Events a second, all together
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// How many channels there are
    #[arg(long, default_value_t = 10)]
    channels: u32,
    /// How many of them each client asks for
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    channels_per_client: u32,
    /// How many clients there are
    #[arg(long, default_value_t = 100)]
    clients: u32,
    /// How clients ask, in turn: long-poll, padded, short-poll, eventsource, websocket, or random for any of them anew
    /// with each request
    #[arg(long, value_name = "TRANSPORT", value_delimiter = ',', default_value = "random")]
    transports: Vec<Transport>,
    /// The hold that clients ask for, seconds
    #[arg(long, default_value_t = 25)]
    hold: u64,
    /// How late an event may be while nothing is broken, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    late: u64,
    /// How long clients may take at the end to get what is left, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    settle: u64,
    /// What is broken: NAME=COMMAND, or NAME=COMMAND::COMMAND with one that mends it. May be given several times
    #[arg(long, value_name = "FAULT", value_parser = fault)]
    fault: Vec<(String, String, Option<String>)>,
    /// How long a fault that is mended lasts, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    fault_for: u64,
    /// How long nothing is broken between two faults, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    calm: u64,
    /// A request that fails breaks a promise, too: for restarts that nobody is to notice
    #[arg(long)]
    no_failed_requests: bool,
    /// Chance, to be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Write all figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Http,
    Sql,
}

/// `NAME=COMMAND[::COMMAND]`.
fn fault(text: &str) -> Result<(String, String, Option<String>), String> {
    let parts = text.split_once('=').filter(|(name, command)| !name.is_empty() && !command.is_empty());
    let (name, commands) = parts.ok_or("a fault is NAME=COMMAND or NAME=COMMAND::COMMAND")?;
    let (strike, mend) = match commands.split_once("::") {
        Some((strike, mend)) => (strike, Some(mend.to_owned())),
        None => (commands, None),
    };
    Ok((name.to_owned(), strike.to_owned(), mend))
}

pub(super) fn run(arguments: Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = super::settings(config)?;
    // Before the run, which may take hours.
    let report_file = match &arguments.report {
        Some(path) => Some(
            File::create(path)
                .map_err(|error| Failure::input(format!("cannot write {}: {error}", path.display())))?,
        ),
        None => None,
    };
    let plan = plan(arguments, &settings)?;
    let stop = Stop::default();
    stop_on_signal(&stop)?;
    let names: Vec<_> = plan.faults.iter().map(|fault| fault.name.clone()).collect();
    let mut teller = Teller { names, last: None, terminal: std::io::stderr().is_terminal() };
    let report =
        everpoll_verify::run(plan, &stop, |progress| teller.tell(progress)).map_err(|error| match error {
            PlanError::Wrong(_) => Failure::input(error),
            _ => Failure::failed(error),
        });
    teller.end();
    let report = report?;
    if let Some(file) = report_file {
        serde_json::to_writer_pretty(file, &report)
            .map_err(|error| Failure::failed(format!("the report cannot be written: {error}")))?;
    }
    super::print(&report.to_string())?;
    judge(&report)
}

fn judge(report: &Report) -> Result<(), Failure> {
    if !report.kept {
        return Err(Failure::failed("promises were broken, see above"));
    }
    match report.fault_errors.as_slice() {
        [] => Ok(()),
        errors => {
            Err(Failure::failed(format!("{} faults could not be made or mended, see above", errors.len())))
        }
    }
}

fn plan(arguments: Arguments, settings: &Settings) -> Result<Plan, Failure> {
    let targets = if arguments.url.is_empty() { vec![daemon(&settings.listen)?] } else { arguments.url };
    let database = arguments.database.unwrap_or_else(|| settings.database_url.expose().to_owned());
    let causes = arguments.by.iter().map(|by| match by {
        By::Http => Cause::Http,
        By::Sql => Cause::Sql,
    });
    let seconds = Duration::from_secs;
    let faults = arguments.fault.into_iter().map(|(name, strike, mend)| Fault {
        name,
        strike: command(&strike),
        // What mends itself has its time in the calm.
        lasts: if mend.is_some() { seconds(arguments.fault_for) } else { Duration::ZERO },
        mend: mend.as_deref().map(command),
    });
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Plan {
        targets,
        causes: causes.collect(),
        database: Some(database),
        redis: arguments.redis,
        publish_key: settings.publish_key.as_ref().map(|key| key.expose().to_owned()),
        rate: arguments.rate,
        channels: arguments.channels,
        channels_per_client: arguments.channels_per_client.min(arguments.channels),
        clients: arguments.clients,
        transports: arguments.transports,
        duration: seconds(arguments.duration),
        settle: seconds(arguments.settle),
        hold: seconds(arguments.hold),
        late_max: seconds(arguments.late),
        faults: faults.collect(),
        calm: seconds(arguments.calm),
        failures_count: arguments.no_failed_requests,
        seed: arguments.seed.unwrap_or(u64::from(clock.subsec_nanos())),
    })
}

/// Where the settings let the daemon listen.
fn daemon(listen: &Listen) -> Result<Target, Failure> {
    let url = match listen {
        Listen::Unix(path) => format!("unix:{}", path.display()),
        Listen::Tcp { host, port } => {
            let host = match host.as_str() {
                "0.0.0.0" | "" => "127.0.0.1",
                "::" => "::1",
                host => host,
            };
            if host.contains(':') {
                format!("http://[{host}]:{port}")
            } else {
                format!("http://{host}:{port}")
            }
        }
    };
    url.parse().map_err(Failure::input)
}

/// The first SIGINT or SIGTERM ends publishing and judges; the second one ends all.
fn stop_on_signal(stop: &Stop) -> Result<(), Failure> {
    let mut signals =
        signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
            .map_err(|error| Failure::failed(format!("cannot listen to signals: {error}")))?;
    let stop = stop.clone();
    std::thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            if count > 0 {
                std::process::exit(1);
            }
            let _ = writeln!(std::io::stderr(), "\neverpoll: publishing ends, waiting for what is under way");
            stop.stop();
        }
    });
    Ok(())
}

/// Says how it goes, on standard error.
struct Teller {
    names: Vec<String>,
    last: Option<Instant>,
    terminal: bool,
}

impl Teller {
    fn tell(&mut self, progress: &Progress) {
        let every = if self.terminal { Duration::from_secs(1) } else { TELL };
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        self.last = Some(Instant::now());
        let Progress { elapsed, acknowledged, unknown, delivered, broken, fault } = progress;
        let fault = fault.map_or("calm", |place| &self.names[place]);
        let line = format!(
            "{:>5} s  {acknowledged} events ({unknown} unknown), {delivered} delivered, {broken} wrong  [{fault}]",
            elapsed.as_secs()
        );
        let mut stderr = std::io::stderr().lock();
        // Nobody may be there to read it.
        let _ = match self.terminal {
            true => write!(stderr, "\r\x1b[K{line}"),
            false => writeln!(stderr, "{line}"),
        };
    }

    fn end(&self) {
        if self.terminal && self.last.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}
