//! Wine: the place where Internet Explorer's language and requests can be had.
//!
//! `iehost` (`tests/ie/host`) is compiled for Windows and runs scripts in Wine's JScript, which speaks the language of
//! Internet Explorer 6 to 11 with its faults, and sends requests through its MSXML and WinInet.
//!
//! What a newcomer gets wrong:
//! - Making a prefix (Wine's C: drive and registry) takes a quarter of a minute and 700 MB, so one is made for all runs,
//!   below `target/tmp`, and one run at a time uses it.
//! - Wine's server outlives its programs, and its services outlive it. So the server is a process of ours from the start,
//!   and told to stop at the end. Some services belong to the first program, which is never ended before.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use everpoll_tests::process::{self, guardian};
use everpoll_tests::{Process, TestDir, wait};

/// The languages, by the number that the engine knows them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// JScript 5.7: Internet Explorer 6 and 7. No JSON.
    Ie6,
    /// JScript 5.8: Internet Explorer 8. JSON, and nothing else of `ECMAScript` 5.
    Ie8,
    /// `ECMAScript` 5: Internet Explorer 9 to 11.
    Ie9,
}

impl Engine {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Ie6, Self::Ie8, Self::Ie9];

    fn version(self) -> &'static str {
        match self {
            Self::Ie6 => "1",
            Self::Ie8 => "2",
            Self::Ie9 => "1282",
        }
    }
}

/// Scripts that run in an engine. Ended on drop.
#[derive(Debug)]
pub(crate) struct Host {
    process: Process,
    // Last, so that the log goes after who writes it.
    _directory: TestDir,
}

impl Host {
    /// Starts an engine with these scripts, by their paths in the repository, and values for their `argument(name)`.
    ///
    /// # Panics
    /// When Wine or the compiler is not installed, or a script does not exist.
    #[track_caller]
    pub(crate) fn start(engine: Engine, scripts: &[&str], arguments: &[(&str, &str)]) -> Self {
        Self::start_in(Wine::get(), engine, scripts, arguments)
    }

    #[track_caller]
    fn start_in(wine: &Wine, engine: Engine, scripts: &[&str], arguments: &[(&str, &str)]) -> Self {
        let directory = TestDir::new();
        let mut command = wine.command("wine");
        command.arg(&wine.host).args(["-v", engine.version()]);
        for script in scripts {
            command.arg(windows_path(&repository().join(script)));
        }
        command.arg("--").args(arguments.iter().map(|(name, value)| format!("{name}={value}")));
        Self {
            process: Process::start(&format!("{engine:?}"), command, directory.path()),
            _directory: directory,
        }
    }

    /// Its process: log, end, memory.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What the scripts have printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until a script calls `exit(0)`, and returns what was printed.
    ///
    /// # Panics
    /// When it ends otherwise, or not at all; with what was printed.
    #[track_caller]
    pub(crate) fn finish(mut self) -> String {
        let status = self.process.wait(wait::PATIENCE);
        assert!(status.success(), "{status}:\n{}", self.log());
        self.log()
    }
}

/// A prefix with a running server, and the compiled host.
struct Wine {
    prefix: PathBuf,
    host: PathBuf,
    // All that follows lives as long as the test process; the guardian takes the processes down.
    server: Option<Process>,
    first: Option<Host>,
    directory: TestDir,
    _lock: File,
}

impl Wine {
    fn get() -> &'static Self {
        static WINE: OnceLock<Wine> = OnceLock::new();
        WINE.get_or_init(Self::start)
    }

    fn start() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wine");
        fs::create_dir_all(&folder).expect("target can be written");
        // Until this process ends: two servers of one prefix cannot be.
        let lock = File::create(folder.join("lock")).expect("target can be written");
        lock.lock().expect("files can be locked");
        let directory = TestDir::new();
        let mut wine = Self {
            prefix: folder.join("prefix"),
            host: folder.join("iehost.exe"),
            server: None,
            first: None,
            directory,
            _lock: lock,
        };
        wine.compile_host();
        wine.end_old_server();
        wine.make_prefix(&folder.join("made-by"));
        wine.start_server();
        wine
    }

    /// A command of Wine in this prefix.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .env("WINEPREFIX", &self.prefix)
            .env("WINEARCH", "win64")
            // `WINEDEBUG=warn+heap` finds uses of memory that is free.
            .env("WINEDEBUG", std::env::var("WINEDEBUG").unwrap_or_else(|_| "-all".to_owned()))
            // Neither .NET nor a browser is asked for while a prefix is made; no menu entries are made, and no debugger
            // is started for a host that crashes.
            .env("WINEDLLOVERRIDES", "mscoree=d;mshtml=d;winemenubuilder.exe=d;winedbg.exe=d")
            // Without a screen, also where there is one.
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY");
        // Wine takes them for the browser's settings.
        for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        command
    }

    /// Unless it is newer than its sources: the headers of Windows take long.
    fn compile_host(&self) {
        let sources = repository().join("tests/ie/host");
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        let files = fs::read_dir(&sources).expect("the sources are there");
        let newest = files.filter_map(|file| changed(&file.ok()?.path())).max();
        if changed(&self.host) > newest {
            return;
        }
        // Renamed when it is whole, so that a run that is interrupted leaves no half of it.
        let directory = TestDir::new();
        let unfinished = self.host.with_extension("new");
        let mut compiler = Command::new("x86_64-w64-mingw32-gcc");
        compiler.args([
            "-std=c11",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-parameter",
            "-municode",
            "-o",
        ]);
        compiler.arg(&unfinished);
        compiler.args(["main.c", "engine.c", "globals.c", "timer.c"].map(|name| sources.join(name)));
        compiler.args(["-lole32", "-loleaut32", "-luuid"]);
        let mut compiler = Process::start("compiler", compiler, directory.path());
        let status = compiler.wait(wait::PATIENCE * 4);
        assert!(status.success(), "iehost does not compile:\n{}", compiler.log());
        fs::rename(unfinished, &self.host).expect("target can be written");
    }

    /// Of a test process that was killed. It has the prefix to itself, so nobody else's is hit.
    fn end_old_server(&self) {
        for what in ["-k", "-w"] {
            if self.prefix.exists() {
                let mut command = self.command("wineserver");
                command.arg(what);
                // It fails when there is none.
                process::run(command, b"");
            }
        }
    }

    fn make_prefix(&self, made_by: &Path) {
        let mut command = self.command("wine");
        command.arg("--version");
        let (_, version, _) = process::run(command, b"");
        // One that was not finished, or is another Wine's, is worth nothing.
        if fs::read_to_string(made_by).is_ok_and(|by| by == version) {
            return;
        }
        let _ = fs::remove_file(made_by);
        if self.prefix.exists() {
            fs::remove_dir_all(&self.prefix).expect("it was made by a test");
        }
        let mut boot = self.command("wine");
        boot.args(["wineboot", "--init"]);
        // In a process group of its own, so that a test run that is interrupted leaves nothing.
        let directory = TestDir::new();
        let status = Process::start("wineboot", boot, directory.path()).wait(wait::PATIENCE * 4);
        assert!(status.success(), "Wine cannot make a prefix: {status}");
        // The registry is on the disk when its server has ended.
        let mut wait_for_server = self.command("wineserver");
        wait_for_server.arg("-w");
        process::run(wait_for_server, b"");
        fs::write(made_by, version).expect("target can be written");
    }

    fn start_server(&mut self) {
        // Ended by a signal, the server leaves its services running; only when it is told to, it takes them with it.
        let script = "wineserver --foreground --persistent & trap 'wineserver --kill' QUIT; wait; wait";
        let mut command = self.command("sh");
        command.args(["-c", script]);
        let mut server = Process::start("wineserver", command, self.directory.path());
        guardian::quit_first(server.id());
        wait::until("Wine's server runs", wait::PATIENCE, || {
            assert!(server.is_running(), "Wine's server has ended:\n{}", server.log());
            let mut asks = self.command("wineserver");
            asks.arg("-k0");
            process::run(asks, b"").0.success()
        });
        self.server = Some(server);
        let mut first = Host::start_in(self, Engine::Ie6, &["tests/ie/scripts/idle.js"], &[]);
        first.process.wait_for_log("idle");
        self.first = Some(first);
    }
}

/// Where the repository is.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is a folder of the repository").to_owned()
}

/// Wine has the whole file system as drive Z:.
fn windows_path(path: &Path) -> String {
    assert!(path.exists(), "there is no {}", path.display());
    format!("Z:{}", path.display()).replace('/', "\\")
}
