//! Where `everpoll up` puts everything, what it starts there, and what it tells people to type.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoll_settings::Listen;

use super::child::Plan;
use super::{Arguments, nginx};
use crate::cli::{Failure, http, print};

/// Where everything is.
pub(super) struct Place {
    dir: PathBuf,
    pub(super) program: PathBuf,
    config: Option<PathBuf>,
    nginx: Option<PathBuf>,
    fallback: Listen,
    /// Says "somebody is here" for as long as it is open.
    _lock: File,
}

impl Place {
    pub(super) fn prepare(arguments: &Arguments, config: Option<&Path>) -> Result<Self, Failure> {
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
    pub(super) fn plans(&self, arguments: &Arguments) -> Result<Vec<Plan>, Failure> {
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
            command.env("EVERPOLL_DEMO", "true");
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
    pub(super) fn explain(&self, arguments: &Arguments, pid: impl Fn(&str) -> u32) -> Result<(), Failure> {
        let daemon = format!("http://127.0.0.1:{}", arguments.port);
        let through_nginx = format!("http://127.0.0.1:{}", arguments.nginx_port);
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
        let in_front = if self.nginx.is_some() { &through_nginx } else { &daemon };
        text += &format!(
            "Open it in a browser, where events arrive as they are published:\n\n     {in_front}/demo\n\nOr in a terminal:\n\n"
        );
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
        print(&text)
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
