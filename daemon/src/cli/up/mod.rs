//! `everpoll up`: daemon, fallback and, where it is installed, nginx in front, for a try-out.
//!
//! It starts them, waits until each is ready, says what to type, and stays in the foreground. It is made for people who
//! want to see the fail-over with their own eyes: a part that dies stays dead for a while, which is announced, and
//! comes back by itself.
//!
//! What a newcomer gets wrong: the parts lead process groups of their own, so Ctrl-C in the terminal reaches `up` alone and
//! the order of stopping is `up`'s. When `up` is killed before it can stop them, the [guardian] does.

mod child;
pub(super) mod guardian;
mod nginx;
mod place;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Failure;
use child::{Child, Plan};
use guardian::Guardian;
use place::Place;

/// Longest time until a part serves. It takes milliseconds, unless the machine is very busy.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Longest time until a part that was told to stop is killed: longer than the daemon drains.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Start everything for a try-out and say what to do next
///
/// Starts the daemon, the fallback and, where nginx is installed, nginx in front of both, on a SQLite file, reachable from
/// this machine only. Then it prints lines to paste into another terminal. It stays in the foreground;
/// Ctrl-C stops everything it started. The events stay in the directory for the next time.
///
/// Settings reach the programs, but for the addresses and the database, which are chosen here.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll up
  everpoll up --port 9000 --nginx-port 9001 --dir /tmp/everpoll")]
pub(super) struct Arguments {
    /// Port of the daemon on 127.0.0.1
    #[arg(long, default_value_t = 8377, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Port of nginx on 127.0.0.1
    #[arg(long, value_name = "PORT", default_value_t = 8378, value_parser = clap::value_parser!(u16).range(1..))]
    nginx_port: u16,
    /// Directory for the database, sockets and what the programs write; made when it is missing
    #[arg(long, default_value = "everpoll-up")]
    dir: PathBuf,
    /// Leave nginx out
    #[arg(long)]
    no_nginx: bool,
    /// How long a part that died stays dead, seconds: time to look at what the others do
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    restart_after: u64,
}

/// What happens while everything runs.
#[derive(Debug)]
enum Happening {
    /// SIGINT, SIGTERM or SIGHUP: stop.
    Signal,
    /// A part ended, by its pid.
    Ended(u32, std::process::ExitStatus),
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let (happen, happenings) = mpsc::channel();
    // Before anything is started, so that no signal can leave a part behind.
    watch_signals(happen.clone())?;
    let place = Place::prepare(arguments, config)?;
    let mut up = Up {
        guardian: Guardian::start(&place.program)
            .map_err(|e| Failure::failed(format!("cannot start a process: {e}")))?,
        parts: place.plans(arguments)?.into_iter().map(|plan| Part { plan, state: State::New }).collect(),
        happen,
        happenings,
        restart_after: Duration::from_secs(arguments.restart_after),
    };
    let outcome = match up.start_all() {
        Ok(()) => {
            place.explain(arguments, |name| up.pid(name))?;
            up.keep()
        }
        Err(ended) => Err(ended),
    };
    up.stop_all();
    match outcome {
        Ok(()) | Err(Ended::Asked) => Ok(()),
        Err(Ended::Failed(text)) => Err(Failure::failed(text)),
    }
}

fn watch_signals(happen: Sender<Happening>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Failure::failed)?;
    let watch = move || signals.forever().all(|_| happen.send(Happening::Signal).is_ok());
    std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(Failure::failed)?;
    Ok(())
}

/// Why there is no going on.
enum Ended {
    /// A signal came.
    Asked,
    Failed(String),
}

/// One program and what is known of it.
struct Part {
    plan: Plan,
    state: State,
}

enum State {
    New,
    Runs(Child),
    /// Dead until then.
    Restarts(Instant),
}

impl Part {
    fn pid(&self) -> Option<u32> {
        match &self.state {
            State::Runs(child) => Some(child.pid()),
            _ => None,
        }
    }
}

struct Up {
    guardian: Guardian,
    parts: Vec<Part>,
    happen: Sender<Happening>,
    happenings: Receiver<Happening>,
    restart_after: Duration,
}

impl Up {
    /// The process of a part; 0 when it does not run.
    fn pid(&self, name: &str) -> u32 {
        self.parts.iter().find(|part| part.plan.name == name).and_then(Part::pid).unwrap_or_default()
    }

    fn start_all(&mut self) -> Result<(), Ended> {
        (0..self.parts.len()).try_for_each(|index| self.start(index))
    }

    /// Starts a part and waits until it serves.
    fn start(&mut self, index: usize) -> Result<(), Ended> {
        let part = &mut self.parts[index];
        let name = part.plan.name;
        let child = Child::start(&mut part.plan, &mut self.guardian, self.happen.clone())
            .map_err(|error| Ended::Failed(format!("{name} cannot be started: {error}")))?;
        part.state = State::Runs(child);
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            match &self.parts[index] {
                Part { plan, state: State::Runs(_) } if (plan.ready)() => return Ok(()),
                Part { state: State::Runs(_), .. } => {}
                Part { plan, .. } => {
                    return Err(Ended::Failed(format!(
                        "{name} ended before it served:\n{}",
                        plan.last_words()
                    )));
                }
            }
            if Instant::now() >= deadline {
                let words = self.parts[index].plan.last_words();
                return Err(Ended::Failed(format!(
                    "{name} does not serve after {} s:\n{words}",
                    READY_WITHIN.as_secs()
                )));
            }
            if let Ok(happening) = self.happenings.recv_timeout(LOOK) {
                self.take(happening, Some(index))?;
            }
        }
    }

    /// Waits for signals and deaths, and starts again what died.
    fn keep(&mut self) -> Result<(), Ended> {
        loop {
            let next = self.parts.iter().enumerate().filter_map(|(index, part)| match part.state {
                State::Restarts(at) => Some((at, index)),
                _ => None,
            });
            let happening = match next.min() {
                None => self.happenings.recv().map_err(|_| Ended::Asked)?,
                Some((at, index)) => {
                    match self.happenings.recv_timeout(at.saturating_duration_since(Instant::now())) {
                        Ok(happening) => happening,
                        Err(_) => {
                            self.restart(index)?;
                            continue;
                        }
                    }
                }
            };
            self.take(happening, None)?;
        }
    }

    fn restart(&mut self, index: usize) -> Result<(), Ended> {
        match self.start(index) {
            Ok(()) => {
                let part = &self.parts[index];
                say(&format!("{} runs again, PID {}", part.plan.name, part.pid().unwrap_or_default()));
                Ok(())
            }
            Err(Ended::Asked) => Err(Ended::Asked),
            Err(Ended::Failed(text)) => {
                let wait = self.restart_after.max(Duration::from_secs(1));
                self.forget(index);
                self.parts[index].state = State::Restarts(Instant::now() + wait);
                say(&format!("{text}\nnext try in {} s", wait.as_secs()));
                Ok(())
            }
        }
    }

    /// Takes in what happened. `starting` is the part whose death is somebody else's to tell.
    fn take(&mut self, happening: Happening, starting: Option<usize>) -> Result<(), Ended> {
        let Happening::Ended(pid, status) = happening else { return Err(Ended::Asked) };
        let Some(index) = self.parts.iter().position(|part| part.pid() == Some(pid)) else { return Ok(()) };
        self.forget(index);
        self.parts[index].state = State::Restarts(Instant::now() + self.restart_after);
        if starting != Some(index) {
            let plan = &self.parts[index].plan;
            let seconds = self.restart_after.as_secs();
            say(&format!(
                "{} (PID {pid}) has ended: {status}; {}. It is started again in {seconds} s",
                plan.name, plan.without
            ));
        }
        Ok(())
    }

    /// A process is gone, or given up: so must be what it started, and its pid may soon be another's.
    fn forget(&mut self, index: usize) {
        if let State::Runs(child) = &self.parts[index].state {
            child.kill();
            self.guardian.forget(child.pid());
        }
    }

    /// Stops all parts: the daemon first, so that nginx is there to pass its last replies on.
    fn stop_all(&mut self) {
        let mut patient = true;
        for index in 0..self.parts.len() {
            let State::Runs(child) = &self.parts[index].state else { continue };
            let pid = child.pid();
            child.terminate();
            let deadline = Instant::now() + STOP_WITHIN;
            while let State::Runs(child) = &self.parts[index].state {
                let left = deadline.saturating_duration_since(Instant::now());
                match self.happenings.recv_timeout(if patient { left } else { Duration::ZERO }) {
                    Ok(Happening::Ended(ended, _)) => self.gone(ended),
                    // Asked twice: at once, then.
                    Ok(Happening::Signal) => patient = false,
                    Err(_) => {
                        say(&format!("{} (PID {pid}) is killed", self.parts[index].plan.name));
                        child.kill();
                        if let Ok(Happening::Ended(ended, _)) = self.happenings.recv_timeout(STOP_WITHIN) {
                            self.gone(ended);
                        }
                        break;
                    }
                }
            }
        }
        self.guardian.dismiss();
    }

    fn gone(&mut self, pid: u32) {
        if let Some(index) = self.parts.iter().position(|part| part.pid() == Some(pid)) {
            self.forget(index);
            self.parts[index].state = State::New;
        }
    }
}

fn say(text: &str) {
    // The terminal may be gone; that is no reason to leave the parts alone.
    let _ = writeln!(std::io::stdout(), "everpoll: {text}");
}
