//! Redis servers of the test's own: one alone, a pair with Sentinels, a cluster. Each may be killed, frozen and started again.
//!
//! They keep nothing on the disk: what Everpoll does with Redis is to send hints through it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::http::Address;
use crate::process::Process;
use crate::{TestDir, ports, wait};

mod cluster;
mod sentinel;

pub use cluster::Cluster;
pub use sentinel::Sentinels;

/// A running Redis server on a port of 127.0.0.1 and a unix socket. On drop it is killed.
#[derive(Debug)]
pub struct Redis {
    name: String,
    port: u16,
    arguments: Vec<String>,
    process: Process,
    // Last, so that the directory goes after the server in it.
    directory: TestDir,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments such as `--requirepass`.
    ///
    /// # Panics
    /// When Redis is not installed or does not start.
    #[track_caller]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::launch_somewhere("redis", |_| arguments.iter().map(|text| (*text).to_owned()).collect())
    }

    /// Tries ports until one is free: another process may have come in between. Arguments may depend on it.
    #[track_caller]
    fn launch_somewhere(name: &str, arguments: impl Fn(&TestDir) -> Vec<String>) -> Self {
        for _ in 0..3 {
            let (directory, port) = (TestDir::new(), ports::free());
            let arguments = arguments(&directory);
            let process = launch(name, port, &arguments, &directory);
            let mut redis = Self { name: name.to_owned(), port, arguments, process, directory };
            if redis.wait_until_it_answers() {
                return redis;
            }
        }
        panic!("{name} does not start; its log is above");
    }

    /// Its address for `EVERPOLL_REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::local(self.port)
    }

    /// Its unix socket.
    pub fn socket(&self) -> std::path::PathBuf {
        self.directory.join("redis.sock")
    }

    /// Sends a command and returns its reply as text, the parts of a list as lines.
    ///
    /// # Panics
    /// When there is no reply, or the reply is an error.
    #[track_caller]
    pub fn say(&self, command: &[&str]) -> String {
        say(self.port, command).unwrap_or_else(|error| panic!("{} says to {command:?}: {error}", self.name))
    }

    /// Like [`say`](Self::say), where a password must be given first.
    ///
    /// # Panics
    /// When there is no reply, or the reply is an error.
    #[track_caller]
    pub fn say_as(&self, password: &str, command: &[&str]) -> String {
        let said = converse(self.port, &[&["AUTH", password], command]);
        said.unwrap_or_else(|error| panic!("{} says to {command:?}: {error}", self.name))
    }

    /// Like [`say`](Self::say), for servers that may be away.
    ///
    /// # Errors
    /// When there is no reply, or the reply is an error.
    pub fn try_say(&self, command: &[&str]) -> io::Result<String> {
        say(self.port, command)
    }

    /// Publishes as an old publisher does, and returns how many have heard it.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn publish(&self, channel: &str, text: &str) -> u64 {
        self.say(&["PUBLISH", channel, text]).parse().expect("a number")
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub fn kill_9(&mut self) {
        self.process.kill_9();
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(!self.process.is_running(), "kill it first");
        self.process = launch(&self.name, self.port, &self.arguments, &self.directory);
        assert!(self.wait_until_it_answers(), "{} does not start again", self.name);
    }

    /// Freezes it (SIGSTOP): connections stay and nobody answers.
    pub fn freeze(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Ends a [`freeze`](Self::freeze).
    pub fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it answers; `false` when it ended.
    #[track_caller]
    fn wait_until_it_answers(&mut self) -> bool {
        wait::until_some(&format!("{} answers", self.name), wait::PATIENCE, || {
            if !self.process.is_running() {
                return Some(false);
            }
            // With a password this is an error, and an answer.
            let answer = say(self.port, &["PING"]);
            let refused = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
            (answer.is_ok() || answer.as_ref().is_err_and(refused)).then_some(true)
        })
    }
}

/// A server that has no configuration file but arguments, unless the first of them is one.
fn launch(name: &str, port: u16, arguments: &[String], directory: &TestDir) -> Process {
    let mut command = Command::new("redis-server");
    let (file, arguments) = match arguments.split_first() {
        Some((file, rest)) if file.ends_with(".conf") => (Some(file), rest),
        _ => (None, arguments),
    };
    command.args(file).args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(directory.path());
    command.arg("--unixsocket").arg(directory.join("redis.sock")).args(["--unixsocketperm", "777"]);
    command.args(arguments).current_dir(directory.path());
    Process::start(name, command, directory.path())
}

/// Sends a command to a server on 127.0.0.1 and returns its reply as text, the parts of a list as lines.
///
/// # Errors
/// When there is no reply within a second, or the reply is an error: the latter as `InvalidData`.
pub fn say(port: u16, command: &[&str]) -> io::Result<String> {
    converse(port, &[command])
}

/// Sends commands over one connection, each after the reply to the one before; returns the last reply.
fn converse(port: u16, commands: &[&[&str]]) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut reply = String::new();
    for command in commands {
        let mut request = format!("*{}\r\n", command.len());
        for part in *command {
            request.push_str(&format!("${}\r\n{part}\r\n", part.len()));
        }
        stream.write_all(request.as_bytes())?;
        reply = read_reply(&mut replies)?;
    }
    Ok(reply)
}

/// One reply of the second version of Redis' protocol.
fn read_reply(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let (kind, rest) = line.split_at_checked(1).ok_or(io::ErrorKind::InvalidInput)?;
    let number = || rest.parse::<i64>().map_err(io::Error::other);
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => Err(io::Error::new(io::ErrorKind::InvalidData, rest.to_owned())),
        "$" => {
            let Ok(length) = usize::try_from(number()?) else { return Ok(String::new()) };
            let mut text = vec![0; length + 2];
            stream.read_exact(&mut text)?;
            text.truncate(length);
            String::from_utf8(text).map_err(io::Error::other)
        }
        "*" => {
            let parts = (0..number()?).map(|_| read_reply(stream)).collect::<io::Result<Vec<_>>>()?;
            Ok(parts.join("\n"))
        }
        _ => Err(io::Error::other(format!("a reply that begins with {kind:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_answers_freezes_dies_and_comes_back_at_its_place() {
        let mut redis = Redis::start();
        assert_eq!(redis.say(&["SET", "a", "b\r\nc"]), "OK");
        assert_eq!(redis.say(&["MGET", "a", "none", "a"]), "b\r\nc\n\nb\r\nc");
        assert_eq!(redis.publish("channels:cheese", "1"), 0);
        assert!(redis.try_say(&["NONSENSE"]).is_err_and(|error| error.to_string().contains("NONSENSE")));
        redis.freeze();
        assert!(redis.try_say(&["PING"]).is_err());
        redis.thaw();
        assert_eq!(redis.say(&["PING"]), "PONG");
        redis.kill_9();
        assert!(redis.try_say(&["PING"]).is_err());
        redis.start_again();
        assert_eq!(redis.say(&["GET", "a"]), "");
        assert!(redis.socket().exists());
    }

    #[test]
    fn sentinels_name_another_master_when_theirs_dies() {
        let mut sentinels = Sentinels::start();
        let first = sentinels.master_port();
        sentinels.master().kill_9();
        wait::until("another one is the master", wait::PATIENCE, || sentinels.master_port() != first);
        let second = sentinels.master_port();
        wait::until("it knows that", wait::PATIENCE, || {
            say(second, &["ROLE"]).is_ok_and(|role| role.starts_with("master"))
        });
    }

    #[test]
    fn replica_takes_over_from_a_node_that_dies() {
        let mut cluster = Cluster::start();
        let first = cluster.owner("everpoll");
        cluster.node(first).kill_9();
        wait::until("another node has its slots", wait::PATIENCE, || {
            cluster.try_owner("everpoll").is_some_and(|port| port != first)
        });
    }
}
