//! A shop as the pages about the client have it: an application with pages and data, Everpoll beside it, and nginx in
//! front.
//!
//! The application is part of the script, which knows what the snippets need of it. nginx passes `/shop/` to it, from
//! the same origin as `/e`. Asked at its own port, it is another origin.

use std::process::Command;

use everpoll_tests::http::Address;
use everpoll_tests::process;
use everpoll_tests::{Daemon, Fallback, Script, TestDir, WebServer, everpoll, ports};
use serde_json::json;

use super::page::Page;
use crate::site::Store;

/// All that runs. Fields are dropped from top to bottom.
pub(super) struct Shop {
    nginx: WebServer,
    _fallback: Fallback,
    daemon: Daemon,
    store: Store,
    application: u16,
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
        Self { nginx, _fallback: fallback, daemon, store, application }
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
    /// - `run NAME WORDS`: runs a shell snippet on this log, with these words in place of what it names, as `from=to`;
    ///   answers what it printed, as a JSON string;
    /// - `accept NAME`: starts a program with this settings file, which must accept it.
    fn answer(&mut self, command: &str, page: &Page) -> String {
        match command.split(' ').collect::<Vec<_>>()[..] {
            ["kill", "daemon"] => self.daemon.kill_9(),
            ["start", "daemon"] => self.daemon.start_again(),
            ["trim"] => drop(self.store.run_well(&["trim", "--count", "0"])),
            ["accept", name] => self.accept(&page.snippet(name).text),
            ["run", name, ref words @ ..] => {
                return json!(self.shell(&page.snippet(name).text, words)).to_string();
            }
            _ => panic!("no script may ask for {command:?}"),
        }
        json!("done").to_string()
    }

    /// A program that does not accept its settings exits with 2 and says why.
    #[track_caller]
    fn accept(&self, settings: &str) {
        let directory = TestDir::new();
        let file = directory.file("everpoll.toml", settings).display().to_string();
        self.store.run_well(&["--config", &file, "publish", "settings", "accepted", "null"]);
    }

    /// Runs a line of shell with `everpoll` in its path.
    fn shell(&self, text: &str, words: &[&str]) -> String {
        let words = words.iter().filter_map(|word| word.split_once('='));
        let text = words.fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        let programs = everpoll::binary("everpoll").parent().expect("it is in a folder").to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.env("EVERPOLL_DATABASE_URL", self.store.url()).env("EVERPOLL_ACCESS", "open");
        shell.args(["-c", &format!("set -e\n{text}")]).env("PATH", format!("{}:{path}", programs.display()));
        shell.env("no_proxy", "127.0.0.1").env_remove("http_proxy");
        let (status, printed, errors) = process::run(shell, b"");
        assert!(status.success(), "failed ({status}): {text}\n{errors}");
        printed
    }
}
