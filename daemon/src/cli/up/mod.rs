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

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use clap::Args;
use everpoll_settings::Listen;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, http};
use child::{Child, Plan};
use guardian::Guardian;

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
            place.explain(arguments, &up)?;
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

/// Where everything is.
struct Place {
    dir: PathBuf,
    program: PathBuf,
    config: Option<PathBuf>,
    nginx: Option<PathBuf>,
    fallback: Listen,
    /// Says "somebody is here" for as long as it is open.
    _lock: File,
}

impl Place {
    fn prepare(arguments: &Arguments, config: Option<&Path>) -> Result<Self, Failure> {
        if arguments.port == arguments.nginx_port && !arguments.no_nginx {
            return Err(Failure::input("--port and --nginx-port are the same; give two"));
        }
        let given = arguments.dir.display();
        let unusable = |error| {
            Failure::failed(format!(
                "the directory {given} cannot be used: {error}; choose another with --dir"
            ))
        };
        std::fs::create_dir_all(&arguments.dir).map_err(unusable)?;
        let dir = arguments.dir.canonicalize().map_err(unusable)?;
        if dir.to_str().is_none_or(|dir| dir.contains(['"', '\\', '\n', '\r', '$'])) {
            return Err(Failure::input(format!(
                "the directory {} has a name that nginx cannot take; choose another with --dir",
                dir.display()
            )));
        }
        // The programs are started in another directory.
        let from_variable =
            std::env::var_os(everpoll_settings::CONFIG_VARIABLE).filter(|path| !path.is_empty());
        let config = config.map(Path::to_owned).or(from_variable.map(PathBuf::from));
        let config = config.map(|path| match path.canonicalize() {
            Ok(path) => Ok(path),
            Err(error) => {
                Err(Failure::input(format!("the settings file {} cannot be read: {error}", path.display())))
            }
        });
        let config = config.transpose()?;
        let lock = lock(&dir, arguments)?;
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find the own program: {error}")))?;
        let nginx = if arguments.no_nginx { None } else { nginx::find() };
        free(arguments.port, "--port")?;
        if nginx.is_some() {
            free(arguments.nginx_port, "--nginx-port")?;
        }
        let fallback = Listen::parse(&format!("unix:{}/fallback.sock", dir.display())).map_err(|_| {
            Failure::input(format!(
                "the directory {} has too long a name for a unix socket; choose another with --dir",
                dir.display()
            ))
        })?;
        Ok(Self { dir, program, config, nginx, fallback, _lock: lock })
    }

    fn database_url(&self) -> String {
        format!("sqlite:{}/everpoll.db", self.dir.display())
    }

    /// What is to be started, in this order, which is also the order of stopping.
    fn plans(&self, arguments: &Arguments) -> Result<Vec<Plan>, Failure> {
        let own = |arguments: &[&str], port: u16| {
            let mut command = Command::new(&self.program);
            command.args(arguments).current_dir(&self.dir);
            command.env_remove("EVERPOLL_SOCKET_MODE");
            match &self.config {
                Some(path) => command.env(everpoll_settings::CONFIG_VARIABLE, path),
                None => command.env_remove(everpoll_settings::CONFIG_VARIABLE),
            };
            command.env("EVERPOLL_DATABASE_URL", self.database_url());
            command.env("EVERPOLL_LISTEN", format!("127.0.0.1:{port}"));
            command
        };
        let port = arguments.port;
        let server = http::Server::Tcp(format!("127.0.0.1:{port}"));
        let mut plans = vec![Plan {
            name: "daemon",
            without: if self.nginx.is_some() {
                "through nginx the fallback answers now, short polls only"
            } else {
                "nobody answers now"
            },
            command: own(&["serve"], port),
            log: self.dir.join("daemon.log"),
            written_before: 0,
            ready: Box::new(move || {
                server.request("GET", "/readyz", "", b"").is_ok_and(|reply| reply.status == 200)
            }),
        }];
        if let Some(program) = &self.nginx {
            let config =
                nginx::configure(&self.dir, arguments.nginx_port, port, &self.fallback).map_err(|error| {
                    Failure::failed(format!("{} cannot be written: {error}", self.dir.display()))
                })?;
            let address = format!("127.0.0.1:{}", arguments.nginx_port);
            plans.push(Plan {
                name: "nginx",
                without: "ask the daemon itself for now",
                command: nginx::command(program, &self.dir, &config),
                log: self.dir.join("nginx.log"),
                written_before: 0,
                ready: Box::new(move || std::net::TcpStream::connect(&address).is_ok()),
            });
        }
        let Listen::Unix(socket) = self.fallback.clone() else { unreachable!("it was parsed from unix:") };
        plans.push(Plan {
            name: "fallback",
            without: "nobody notices, unless the daemon dies as well",
            command: own(&["fallback", "--listen", &self.fallback.to_string()], port),
            log: self.dir.join("fallback.log"),
            written_before: 0,
            ready: Box::new(move || std::os::unix::net::UnixStream::connect(&socket).is_ok()),
        });
        Ok(plans)
    }

    /// What to do next.
    fn explain(&self, arguments: &Arguments, up: &Up) -> Result<(), Failure> {
        let daemon = format!("http://127.0.0.1:{}", arguments.port);
        let through_nginx = format!("http://127.0.0.1:{}", arguments.nginx_port);
        let pid = |name| {
            up.parts.iter().find(|part| part.plan.name == name).and_then(Part::pid).unwrap_or_default()
        };
        let publish = format!(
            "EVERPOLL_DATABASE_URL={} {} publish cheese cheese_created '{{\"name\":\"Gouda\"}}'",
            quote(&self.database_url()),
            quote(&self.program.display().to_string()),
        );
        let mut text = format!(
            "Everpoll runs, on SQLite, for this machine only. Ctrl-C stops it. Its files: {}\n\n\
             \x20 daemon    {daemon}  PID {}\n",
            self.dir.display(),
            pid("daemon"),
        );
        if self.nginx.is_some() {
            text += &format!("  nginx     {through_nginx}  PID {}, in front of both\n", pid("nginx"));
        }
        text += &format!("  fallback  {}  PID {}\n\n", self.fallback, pid("fallback"));
        text += &format!(
            "1. In another terminal, wait for an event. The request is held until there is one, at most 25 s:\n\n\
             \x20    curl -i {daemon}/e/cheese/tab-1\n\n\
             2. In a third one, publish it. The curl ends with the event:\n\n\
             \x20    {publish}\n\n"
        );
        if self.nginx.is_some() {
            text += &format!(
                "3. The same through nginx:\n\n\
                 \x20    curl -i {through_nginx}/e/cheese/tab-1\n\n\
                 4. Kill the daemon. nginx asks the fallback instead, which holds nothing and answers at once with what there\n\
                 \x20  is; publishing goes on. After {} s the daemon is started again:\n\n\
                 \x20    kill -9 {}\n\
                 \x20    curl -i '{through_nginx}/e/cheese/tab-1?last_event_id=0'\n",
                arguments.restart_after,
                pid("daemon"),
            );
        } else if arguments.no_nginx {
            text += "3. Without --no-nginx, nginx stands in front, and the fallback answers when the daemon is killed.\n";
        } else {
            text += "3. nginx is not installed (on Debian: apt install nginx-light). With it, `everpoll up` shows how the\n\
                     \x20  fallback answers when the daemon is killed.\n";
        }
        super::print(&text)
    }
}

/// Makes sure that no other `up` uses the directory.
fn lock(dir: &Path, arguments: &Arguments) -> Result<File, Failure> {
    let path = dir.join("up.lock");
    let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.map_err(|error| {
        Failure::failed(format!(
            "{} cannot be opened: {error}; choose another directory with --dir",
            path.display()
        ))
    })?;
    if file.try_lock().is_err() {
        let pid = std::fs::read_to_string(&path).unwrap_or_default();
        return Err(Failure::failed(format!(
            "another `everpoll up` (PID {}) uses the directory {}; stop it, or choose other ports and another directory with \
             --port, --nginx-port and --dir",
            pid.trim(),
            arguments.dir.display(),
        )));
    }
    // For the text above only.
    let _ =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// Makes sure that a port is free, before a program that finds it taken has to explain.
fn free(port: u16, option: &str) -> Result<(), Failure> {
    TcpListener::bind(("127.0.0.1", port)).map(drop).map_err(|error| {
        Failure::failed(format!("127.0.0.1:{port} cannot be listened on: {error}; stop what listens there, or choose another port with {option}"))
    })
}

/// A word that a shell takes as it is.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn say(text: &str) {
    // The terminal may be gone; that is no reason to leave the parts alone.
    let _ = writeln!(std::io::stdout(), "everpoll: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_is_quoted_when_a_shell_would_read_more_into_it() {
        assert_eq!(quote("/usr/bin/everpoll"), "/usr/bin/everpoll");
        assert_eq!(quote("/my dir/it's"), "'/my dir/it'\\''s'");
        assert_eq!(quote("~/x"), "'~/x'");
        assert_eq!(quote(""), "''");
    }
}
