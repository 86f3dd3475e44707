//! Everpoll's own programs: daemon, fallback, command line.
//!
//! The binaries are the real ones, built by cargo in the profile of the tests: `cargo test` builds those of the
//! package under test only. To test binaries that lie elsewhere, name their directory in `TEST_BINARIES`.
//!
//! Settings go in as `EVERPOLL_*` variables; none is inherited from whoever runs the tests.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use crate::http::{self, Address, Reply};
use crate::process::{self, Process};
use crate::tls::Certificate;
use crate::{TestDir, disk, ports, wait};

/// What a program is to be started with.
#[derive(Clone, Debug)]
pub struct Start {
    settings: BTreeMap<String, String>,
    address: Option<Address>,
    before: Vec<String>,
}

/// A running daemon (`everpoll serve`), stopped on drop.
#[derive(Debug)]
pub struct Daemon {
    program: Program,
}

/// A running fallback (`everpoll-fallback --listen …`), stopped on drop.
#[derive(Debug)]
pub struct Fallback {
    program: Program,
}

/// A program that listens, with all that is needed to start it again.
#[derive(Debug)]
struct Program {
    name: &'static str,
    before: Vec<String>,
    arguments: Vec<String>,
    settings: BTreeMap<String, String>,
    address: Address,
    process: Process,
    // Last, so that the directory goes after the program in it.
    directory: TestDir,
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub struct Output {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// To start a daemon.
#[derive(Clone, Debug)]
pub struct DaemonStart(Start);

/// To start a fallback.
#[derive(Clone, Debug)]
pub struct FallbackStart(Start);

impl Start {
    fn on(database_url: impl Into<String>) -> Self {
        let mut settings = BTreeMap::new();
        settings.insert("EVERPOLL_DATABASE_URL".to_owned(), database_url.into());
        // With PostgreSQL it must be written down; `open` is what nearly all tests want.
        settings.insert("EVERPOLL_ACCESS".to_owned(), "open".to_owned());
        // The web server's workers are another user when the tests run as root.
        settings.insert("EVERPOLL_SOCKET_MODE".to_owned(), "0666".to_owned());
        Self { settings, address: None, before: Vec::new() }
    }
}

macro_rules! start_methods {
    () => {
        /// Sets a variable such as `EVERPOLL_HOLD_MAX`.
        #[must_use]
        pub fn setting(mut self, name: &str, value: impl ToString) -> Self {
            self.0.settings.insert(name.to_owned(), value.to_string());
            self
        }

        /// Starts it with these words before the command, such as those of [`Disk::inside`](crate::Disk::inside).
        #[must_use]
        pub fn behind(mut self, words: Vec<String>) -> Self {
            self.0.before = words;
            self
        }

        /// Listens there; the default is a place of its own.
        #[must_use]
        pub fn at(mut self, address: &Address) -> Self {
            self.0.address = Some(address.clone());
            self
        }
    };
}

impl DaemonStart {
    start_methods!();

    /// Speaks TLS with this certificate, on a port of its own.
    #[must_use]
    pub fn tls(self, certificate: &Certificate) -> Self {
        let address = (Ipv4Addr::LOCALHOST, ports::free()).into();
        self.setting("EVERPOLL_TLS_CERTIFICATE", certificate.chain.display())
            .setting("EVERPOLL_TLS_KEY", certificate.key.display())
            .at(&Address::Tls(address, certificate.trust.clone()))
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it does not become ready; with its log.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let mut daemon = self.start_unready();
        daemon.wait_until_ready();
        daemon
    }

    /// Starts it and does not wait: for tests of what it does before it is ready.
    ///
    /// # Panics
    /// When it does not listen; with its log.
    #[track_caller]
    pub fn start_unready(self) -> Daemon {
        let Start { settings, address, before } = self.0;
        let address = address.unwrap_or_else(|| Address::local(ports::free()));
        let arguments = vec!["serve".to_owned()];
        Daemon { program: Program::start("everpoll", before, arguments, settings, address, TestDir::new()) }
    }
}

impl Daemon {
    /// A daemon on this database, with a port of its own.
    pub fn on(database_url: impl Into<String>) -> DaemonStart {
        DaemonStart(Start::on(database_url))
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Panics
    /// When it does not, or the daemon ends; with its log.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let address = self.program.address.clone();
        self.program.wait("is ready", || {
            http::get("/readyz").try_send(&address).is_ok_and(|reply| reply.status == 200)
        });
    }

    /// Whether `/readyz` says 200 now.
    pub fn is_ready(&self) -> bool {
        http::get("/readyz").try_send(self.address()).is_ok_and(|reply| reply.status == 200)
    }

    /// Starts it again with the same settings at the same address, and waits until it is ready.
    ///
    /// # Panics
    /// When it still runs, or does not become ready.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_again_unready();
        self.wait_until_ready();
    }

    /// Like [`start_again`](Self::start_again), but waits only until it listens: its database may be away.
    ///
    /// # Panics
    /// When it still runs, or does not listen.
    #[track_caller]
    pub fn start_again_unready(&mut self) {
        self.program.start_again();
    }
}

impl FallbackStart {
    start_methods!();

    /// Starts it and waits until it takes connections.
    ///
    /// # Panics
    /// When it does not; with its log.
    #[track_caller]
    pub fn start(self) -> Fallback {
        let Start { settings, address, before } = self.0;
        let directory = TestDir::new();
        let address = address.unwrap_or_else(|| Address::Unix(directory.join("fallback.sock")));
        let arguments = ["--listen", &address.to_string()].map(str::to_owned);
        Fallback {
            program: Program::start(
                "everpoll-fallback",
                before,
                arguments.into(),
                settings,
                address,
                directory,
            ),
        }
    }
}

impl Fallback {
    /// A fallback on this database, as FastCGI on a unix socket of its own.
    pub fn on(database_url: impl Into<String>) -> FallbackStart {
        FallbackStart(Start::on(database_url))
    }

    /// Starts it again with the same settings at the same address.
    ///
    /// # Panics
    /// When it still runs, or does not take connections.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.program.start_again();
    }
}

macro_rules! program_methods {
    ($program:ident) => {
        impl $program {
            /// Where it listens.
            pub fn address(&self) -> &Address {
                &self.program.address
            }

            /// Its process: signals, log, end.
            pub fn process(&mut self) -> &mut Process {
                &mut self.program.process
            }

            /// What it has logged.
            pub fn log(&self) -> String {
                self.program.process.log()
            }

            /// Kills it at once (SIGKILL) and waits until it is gone.
            pub fn kill_9(&mut self) {
                self.program.process.kill_9();
            }

            /// Asks it to stop (SIGTERM) and waits until it has.
            ///
            /// # Panics
            /// When it does not stop; with its log.
            #[track_caller]
            pub fn stop(&mut self) -> ExitStatus {
                self.program.process.terminate();
                self.program.process.wait(wait::PATIENCE)
            }

            /// A directory that lives as long as the program.
            pub fn directory(&self) -> &Path {
                self.program.directory.path()
            }
        }
    };
}

program_methods!(Daemon);
program_methods!(Fallback);

impl Daemon {
    /// A GET of `target`.
    ///
    /// # Panics
    /// When there is no reply.
    #[track_caller]
    pub fn get(&self, target: &str) -> Reply {
        http::get(target).send(self.address())
    }

    /// Publishes over HTTP and returns the ids.
    ///
    /// # Panics
    /// When the answer is not 201.
    #[track_caller]
    pub fn publish(&self, json: &str) -> Vec<u64> {
        let reply = http::post_json("/publish", json).send(self.address());
        assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
        let ids = reply.json()["ids"].as_array().map(|ids| ids.iter().filter_map(|id| id.as_u64()).collect());
        ids.unwrap_or_else(|| panic!("no ids in {}", String::from_utf8_lossy(&reply.body)))
    }
}

impl Program {
    #[track_caller]
    fn start(
        name: &'static str,
        before: Vec<String>,
        arguments: Vec<String>,
        settings: BTreeMap<String, String>,
        address: Address,
        directory: TestDir,
    ) -> Self {
        let process = Self::launch(name, &before, &arguments, &settings, &address, &directory);
        let mut program = Self { name, before, arguments, settings, address, process, directory };
        program.wait_until_it_listens();
        program
    }

    #[track_caller]
    fn start_again(&mut self) {
        assert!(!self.process.is_running(), "{} still runs", self.name);
        let Self { name, before, arguments, settings, address, directory, .. } = self;
        self.process = Self::launch(name, before, arguments, settings, address, directory);
        self.wait_until_it_listens();
    }

    fn launch(
        name: &str,
        before: &[String],
        arguments: &[String],
        settings: &BTreeMap<String, String>,
        address: &Address,
        directory: &TestDir,
    ) -> Process {
        let mut command = command_behind(before, name);
        // The fallback's address is an argument; a setting that it does not know would be a mistake of ours.
        if name == "everpoll" {
            command.env("EVERPOLL_LISTEN", address.to_string());
        }
        command.args(arguments).envs(settings).current_dir(directory.path());
        Process::start(name, command, directory.path())
    }

    #[track_caller]
    fn wait_until_it_listens(&mut self) {
        let address = self.address.clone();
        self.wait("listens", || address.connect().is_ok());
    }

    #[track_caller]
    fn wait(&mut self, what: &str, mut holds: impl FnMut() -> bool) {
        let found = wait::try_until_some(wait::PATIENCE, || {
            (holds() || !self.process.is_running()).then(|| self.process.is_running())
        });
        if found != Some(true) {
            panic!("waited in vain until {} {what}; its log:\n{}", self.name, self.process.log());
        }
    }
}

/// Runs `everpoll` with these arguments on a database to its end.
///
/// # Panics
/// When it takes longer than a minute.
#[track_caller]
pub fn command_line(database_url: &str, arguments: &[&str], input: &[u8]) -> Output {
    command_line_behind(&[], database_url, arguments, input)
}

/// Like [`command_line`], with these words before the command, such as those of [`Disk::inside`](crate::Disk::inside).
///
/// # Panics
/// When it takes longer than a minute.
#[track_caller]
pub fn command_line_behind(words: &[String], database_url: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = command_behind(words, "everpoll");
    command.args(arguments).env("EVERPOLL_DATABASE_URL", database_url).env("EVERPOLL_ACCESS", "open");
    let (status, stdout, stderr) = process::run(command, input);
    Output { status, stdout, stderr }
}

/// A command of one of our programs, with no settings.
pub fn command(name: &str) -> Command {
    command_behind(&[], name)
}

fn command_behind(words: &[String], name: &str) -> Command {
    let mut command = disk::behind(words, &binary(name));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVERPOLL_") {
            command.env_remove(name);
        }
    }
    command
}

/// The path of one of our programs, `everpoll` or `everpoll-fallback`, built now if it was not.
///
/// # Panics
/// When it cannot be built.
pub fn binary(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let path = DIRECTORY.get_or_init(binaries).join(name);
    assert!(path.exists(), "there is no {}", path.display());
    path
}

fn binaries() -> PathBuf {
    if let Some(directory) = std::env::var_os("TEST_BINARIES") {
        return directory.into();
    }
    // A test is target/<profile>/deps/<name>-<hash>, the programs and the benchmarks are target/<profile>/<name>.
    let test = std::env::current_exe().expect("a running program has a path");
    let folder = test.parent().expect("a program is in a folder");
    let directory =
        if folder.ends_with("deps") { folder.parent().expect("target/<profile>") } else { folder };
    let directory = directory.to_owned();
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(name) => name,
        None => panic!("{} is not where cargo puts tests", test.display()),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--profile",
        profile,
        "-p",
        "everpoll",
        "-p",
        "everpoll-fallback",
        "--bins",
    ]);
    // Any folder of the workspace will do.
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let status = cargo.status().expect("cargo runs, since it runs this test");
    assert!(status.success(), "cargo could not build the programs");
    directory
}

/// How long a poll that is held may be held by default, and then some: for tests that wait for the end of a hold.
pub const LONGER_THAN_A_HOLD: Duration = Duration::from_secs(40);
