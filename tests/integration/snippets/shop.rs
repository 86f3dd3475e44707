//! A shop as the pages about the client have it: an application with pages and data, Everpoll beside it, and nginx in
//! front.
//!
//! The application is part of the script, which knows what the snippets need of it. nginx passes `/shop/` to it, from
//! the same origin as `/e`. Asked at its own port, it is another origin.

use std::collections::BTreeMap;
use std::process::Command;

use everpoll_tests::http::Address;
use everpoll_tests::process::{self, Process};
use everpoll_tests::{Daemon, Fallback, Script, TestDir, WebServer, everpoll, ports};
use serde_json::json;

use super::page::Page;
use crate::foreign;
use crate::site::Store;

/// All that runs. Fields are dropped from top to bottom.
pub(super) struct Shop {
    nginx: WebServer,
    _fallback: Fallback,
    daemon: Daemon,
    store: Store,
    application: u16,
    /// Those of snippets, by their names.
    programs: BTreeMap<String, Process>,
    // Last, since the programs write into it.
    folder: TestDir,
}

impl Shop {
    /// Starts all but the application. Its pages may read from their own port, too.
    pub(super) fn start(settings: &[(&str, &str)]) -> Self {
        let (store, application) = (Store::sqlite(), ports::free());
        let origin = format!("http://127.0.0.1:{application}");
        let all = [("EVERPOLL_ALLOW_ORIGINS", origin.as_str())];
        let all = || all.iter().chain(settings);
        let start = Daemon::on(store.url()).at(&Address::local(ports::free()));
        let daemon = all().fold(start, |start, (name, value)| start.setting(name, value)).start();
        let start = Fallback::on(store.url());
        let fallback = all().fold(start, |start, (name, value)| start.setting(name, value)).start();
        let own = format!(
            "location /shop/ {{ proxy_pass {origin}; }}\nlocation = /status {{ stub_status; access_log off; }}\n"
        );
        let nginx = WebServer::nginx_with(daemon.address(), fallback.address(), |part| {
            // Only the second part has locations.
            if part.contains("location = /publish") { format!("{own}{part}") } else { part.to_owned() }
        });
        let (programs, folder) = (BTreeMap::new(), TestDir::new());
        Self { nginx, _fallback: fallback, daemon, store, application, programs, folder }
    }

    /// Runs a page's script.
    #[track_caller]
    pub(super) fn run(&mut self, script: Script, page: &Page) {
        let nginx = format!("http://{}", self.nginx.address());
        let daemon = format!("http://{}", self.daemon.address());
        let script = script.with("url", nginx).with("daemon", daemon).with("application", self.application);
        script.run(|command| self.answer(command, page));
    }

    /// Does what a script asks for:
    ///
    /// - `kill daemon` (SIGKILL), `start daemon`: done when it is gone, or ready;
    /// - `trim`: removes all events;
    /// - `run NAME CHANGES`: runs a shell snippet on this log; `start NAME CHANGES`, a program in Python, until
    ///   `stop NAME`; `log NAME` is what it has printed;
    /// - `accept NAME CHANGES`: starts a program with this settings file, which must accept it.
    ///
    /// Answers with what was printed, as a JSON string.
    fn answer(&mut self, command: &str, page: &Page) -> String {
        let mut printed = String::new();
        match command.splitn(3, ' ').collect::<Vec<_>>()[..] {
            ["kill", "daemon"] => self.daemon.kill_9(),
            ["start", "daemon"] => self.daemon.start_again(),
            ["trim"] => drop(self.store.run_well(&["trim", "--count", "0"])),
            ["run", name, changes] => printed = self.run_shell(&page.changed(name, changes)),
            ["start", name, changes] => self.start_program(name, &page.changed(name, changes)),
            ["log", name] => printed = self.programs[name].log(),
            ["stop", name] => drop(self.programs.remove(name).expect("it was started")),
            ["accept", name, changes] => self.accept(&page.changed(name, changes)),
            _ => panic!("no script may ask for {command:?}"),
        }
        json!(printed).to_string()
    }

    /// Runs lines of shell with `everpoll` in their path.
    #[track_caller]
    fn run_shell(&self, text: &str) -> String {
        let programs = everpoll::binary("everpoll").parent().expect("it is in a folder").to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.env("EVERPOLL_DATABASE_URL", self.store.url()).env("EVERPOLL_ACCESS", "open");
        shell.args(["-c", &format!("set -e\n{text}")]).env("PATH", format!("{}:{path}", programs.display()));
        let (status, printed, errors) = process::run(without_proxies(shell), b"");
        assert!(status.success(), "failed ({status}): {text}\n{errors}");
        printed
    }

    /// Starts a program in Python, with the packages that the tests have.
    fn start_program(&mut self, name: &str, text: &str) {
        let file = self.folder.file(name, text);
        let mut python = Command::new(foreign::interpreter());
        python.arg(file);
        // What it printed when it ran before is not to be seen again.
        let folder = self.folder.directory(&format!("run-{}", ports::free()));
        let process = Process::start(name, without_proxies(python), &folder);
        self.programs.insert(name.to_owned(), process);
    }

    /// A program that does not accept its settings exits with 2 and says why.
    #[track_caller]
    fn accept(&self, settings: &str) {
        let file = self.folder.file("everpoll.toml", settings).display().to_string();
        self.store.run_well(&["--config", &file, "publish", "settings", "accepted", "null"]);
    }
}

/// A proxy of whoever runs the tests must not come in between.
fn without_proxies(mut command: Command) -> Command {
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}
