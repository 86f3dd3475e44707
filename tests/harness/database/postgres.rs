//! A PostgreSQL server of the test's own, which it may stop, freeze and start again.
//!
//! The server's programs come from the highest version in /usr/lib/postgresql (Debian) or from the path. PostgreSQL
//! refuses to run as root, so tests that run as root start it as user `postgres`, which Debian's package makes.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::process::Signal;

use super::{Database, run_psql};
use crate::process::{self, Process, guardian};
use crate::{TestDir, ports, wait};

/// A PostgreSQL server of the test's own. Clones are handles to the same server; the last one takes it down.
#[derive(Clone, Debug)]
pub struct Postgres {
    server: Arc<Server>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    environment: Vec<(String, String)>,
    process: Mutex<Process>,
    // Last, so that the directory goes after the server in it.
    directory: TestDir,
}

impl Postgres {
    /// Makes and starts a server, on a free port of 127.0.0.1 and a unix socket in its directory.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Like [`start`](Self::start), with further lines of `postgresql.conf`.
    ///
    /// # Panics
    /// See [`start`](Self::start).
    pub fn start_with(more: &str) -> Self {
        Self::make(more, &[], None)
    }

    /// Like [`start`](Self::start), with these variables in its environment, and its write-ahead log in a directory that is
    /// made for it, if one is named.
    ///
    /// # Panics
    /// See [`start`](Self::start).
    pub fn start_in(environment: &[(&str, &str)], wal: Option<&Path>) -> Self {
        Self::make("", environment, wal)
    }

    fn make(more: &str, environment: &[(&str, &str)], wal: Option<&Path>) -> Self {
        let directory = TestDir::new();
        let data = directory.directory("data");
        if let Some((uid, gid)) = server_user() {
            for path in [directory.path(), &data] {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may do that");
            }
        }
        let mut initdb = as_server_user("initdb", directory.path());
        // The disk is asked to really write later, by the running server; making it need not be durable.
        initdb
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data);
        if let Some(wal) = wal {
            // Small pieces, for a small disk.
            initdb.arg("--wal-segsize=1").arg("--waldir").arg(wal);
        }
        let (status, out, err) = process::run(initdb, b"");
        assert!(status.success(), "initdb failed:\n{out}{err}");
        // More connections than Debian's 100 and little memory: many tests use one server, each for a short time.
        let settings = "fsync = on\nshared_buffers = 32MB\nmax_connections = 300\nautovacuum = on\n\
                        log_min_messages = warning\nlisten_addresses = '127.0.0.1'\nmax_wal_size = 256MB\n";
        let file = data.join("postgresql.auto.conf");
        fs::write(&file, format!("{settings}{more}")).expect("the data directory is there");

        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for _ in 0..5 {
            let port = ports::free();
            if let Some(process) = launch(&directory, port, &environment) {
                let process = Mutex::new(process);
                return Self { server: Arc::new(Server { port, environment, process, directory }) };
            }
        }
        let log = fs::read_to_string(directory.join("postgres.log")).unwrap_or_default();
        panic!("PostgreSQL does not start:\n{log}");
    }

    /// A new server that follows this one as a standby: it can be read, a moment behind, and not written.
    ///
    /// # Panics
    /// When that fails.
    pub fn standby(&self) -> Self {
        let directory = TestDir::new();
        let mut copy = hand_over(directory.path(), program_path("pg_basebackup"));
        copy.args(["--write-recovery-conf", "--no-sync", "--checkpoint=fast", "--pgdata"])
            .arg(directory.join("data"))
            .args(["--dbname", &self.url("postgres", "postgres")]);
        let (status, out, err) = process::run(copy, b"");
        assert!(status.success(), "pg_basebackup failed:\n{out}{err}");
        for _ in 0..3 {
            let port = ports::free();
            if let Some(process) = launch(&directory, port, &[]) {
                let (environment, process) = (Vec::new(), Mutex::new(process));
                return Self { server: Arc::new(Server { port, environment, process, directory }) };
            }
        }
        panic!("the standby does not start; its log is above");
    }

    /// A new, empty database on this server.
    ///
    /// # Panics
    /// When the server does not run.
    pub fn create_database(&self) -> Database {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.psql(&format!("CREATE DATABASE {name}"));
        Database::on(self.clone(), name)
    }

    /// Runs SQL in the server's own database `postgres`, as superuser; see [`Database::psql`].
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        match run_psql(&self.url("postgres", "postgres"), sql) {
            Ok(rows) => rows,
            Err(error) => panic!("psql failed: {error}; it ran:\n{sql}"),
        }
    }

    /// Stops it as a crash would (SIGQUIT, as `pg_ctl stop -m immediate`): connections break, nothing is flushed, and
    /// the next start recovers from the write-ahead log.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop_immediate(&self) {
        self.stop(Signal::QUIT);
    }

    /// Stops it as an administrator would (SIGINT, as `pg_ctl stop -m fast`): sessions are ended, the data flushed.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop_fast(&self) {
        self.stop(Signal::INT);
    }

    /// Freezes it (SIGSTOP to all of its processes): connections stay and nobody answers, as with a hung disk.
    /// [`thaw`](Self::thaw) lets it go on.
    pub fn freeze(&self) {
        self.signal_all("STOP");
    }

    /// Ends a [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal_all("CONT");
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When that fails.
    pub fn start_again(&self) {
        let mut process = self.process();
        assert!(!process.is_running(), "stop it first");
        let Server { directory, port, environment, .. } = &*self.server;
        let started = launch(directory, *port, environment);
        *process = started.expect("it ran on this port before; its log is above");
    }

    /// The address for clients: on 127.0.0.1, without a password.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.server.port)
    }

    /// The directory of its unix socket, for `host=` in a connection string.
    pub fn socket_directory(&self) -> &Path {
        self.server.directory.path()
    }

    /// Its port, on 127.0.0.1 and in the name of the unix socket.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Whether it runs: a server without room for its write-ahead log ends by itself.
    pub fn is_running(&self) -> bool {
        self.process().is_running()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process().log()
    }

    fn stop(&self, signal: Signal) {
        let mut process = self.process();
        process.signal(signal);
        process.wait(wait::PATIENCE);
    }

    /// The backends are in sessions of their own, so the process group does not reach them.
    fn signal_all(&self, signal: &str) {
        let leader = self.process().id();
        let mut list = Command::new("ps");
        list.args(["-A", "-o", "pid=", "-o", "ppid="]);
        let (_, processes, _) = process::run(list, b"");
        let mut ids = vec![leader.to_string()];
        ids.extend(processes.lines().filter_map(|line| {
            let (id, parent) = line.trim().split_once(' ')?;
            (parent.trim() == leader.to_string()).then(|| id.to_owned())
        }));
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}")).args(ids);
        // One of them may just have ended; the others have got the signal all the same.
        let _ = process::run(kill, b"");
    }

    fn process(&self) -> std::sync::MutexGuard<'_, Process> {
        self.server.process.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        // SIGKILL would leave shared memory behind.
        process.signal(Signal::CONT);
        process.signal(Signal::QUIT);
        let _ = wait::try_until_some(wait::PATIENCE, || (!process.is_running()).then_some(()));
    }
}

/// Starts the server in `directory`; `None` when it ended, which is mostly a port taken in between.
fn launch(directory: &TestDir, port: u16, environment: &[(String, String)]) -> Option<Process> {
    let mut command = as_server_user("postgres", directory.path());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.arg("-D").arg(directory.join("data")).args(["-p", &port.to_string(), "-k"]).arg(directory.path());
    let mut process = Process::start("postgres", command, directory.path());
    guardian::quit_first(process.id());
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?connect_timeout=2");
    wait::until_some("PostgreSQL answers", wait::PATIENCE, || {
        if !process.is_running() {
            return Some(false);
        }
        postgres::Client::connect(&url, postgres::NoTls).is_ok().then_some(true)
    })
    .then_some(process)
}

/// A command of a PostgreSQL program, to be run by whoever runs the tests.
pub fn tool(program: &str) -> Command {
    let mut command = Command::new(program_path(program));
    // Settings of the developer's own must not lead the tests to another server.
    for name in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE", "PGOPTIONS", "PGDATA"]
    {
        command.env_remove(name);
    }
    command
}

/// A command that runs as the user the server runs as, in `directory`, which that user may enter.
fn as_server_user(program: &str, directory: &Path) -> Command {
    let mut command = tool(program);
    command.current_dir(directory);
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// A command of another server that refuses to run as root: as that user, in `directory`, which is given to it.
pub fn hand_over(directory: &Path, program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    if let Some((uid, gid)) = server_user() {
        std::os::unix::fs::chown(directory, Some(uid), Some(gid)).expect("root may do that");
        command.uid(uid).gid(gid);
    }
    command
}

/// The path of a PostgreSQL program: the highest version of Debian's layout, else by the search path.
fn program_path(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())))
        .map(|(version, path)| (version, path.join("bin").join(program)))
        .filter(|(_, path)| path.exists())
        .max_by_key(|(version, _)| *version);
    newest.map_or_else(|| PathBuf::from(program), |(_, path)| path)
}

/// The user and group that the server must run as: `None` unless the tests run as root.
pub(crate) fn server_user() -> Option<(u32, u32)> {
    static USER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *USER.get_or_init(|| {
        let id = |flag: &str, user: &str| {
            let mut command = Command::new("id");
            command.args([flag, user]);
            let (status, out, _) = process::run(command, b"");
            status.success().then(|| out.trim().parse::<u32>().ok()).flatten()
        };
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let found = ["postgres", "nobody"].iter().find_map(|user| Some((id("-u", user)?, id("-g", user)?)));
        Some(found.expect("as root, the tests need a user `postgres` or `nobody` to run PostgreSQL as"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_keeps_what_was_committed_before_it_was_stopped_at_once() {
        let postgres = Postgres::start();
        let database = postgres.create_database();
        let mut client = database.connect();
        database.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7);");
        postgres.stop_immediate();
        assert!(client.simple_query("SELECT 1").is_err());
        assert!(database.try_psql("SELECT 1").is_err());
        postgres.start_again();
        assert_eq!(database.psql("SELECT n FROM kept"), "7\n");
    }

    #[test]
    fn frozen_server_answers_again_when_it_is_thawed() {
        let postgres = Postgres::start();
        let database = postgres.create_database();
        let mut client = database.connect();
        postgres.freeze();
        let answer = std::thread::spawn(move || client.query_one("SELECT 1", &[]).is_ok());
        postgres.thaw();
        assert!(answer.join().unwrap());
    }
}
