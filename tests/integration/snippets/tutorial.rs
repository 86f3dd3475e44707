//! The three terminals of the tutorial.
//!
//! What is typed is what is printed, but for the ports, which are the test's own, and the way to the program, which is
//! built already.

use std::fs;
use std::process::Command;

use everpoll_tests::process::{self, Process};
use everpoll_tests::{Address, TestDir, everpoll, ports, wait};
use serde_json::json;

use super::page::Page;

/// The folder of the reader's page, and where the test has it.
const HOME_FOLDER: &str = "~/cheese-shop";
const FOLDER: &str = "cheese-shop";

/// What the tutorial has in place of the daemon's PID.
const PID: &str = "4711";

pub(super) struct Terminals {
    page: Page,
    /// Those that do not end by themselves, by the names of their snippets.
    running: Vec<(String, Process)>,
    /// What the reader has exported in the third terminal.
    exports: String,
    ports: [(&'static str, u16); 3],
    // Last: its programs have to go first.
    folder: TestDir,
}

impl Terminals {
    pub(super) fn open(page: Page) -> Self {
        // Built before the clock runs.
        everpoll::binary("everpoll");
        let ports = ["8377", "8378", "8000"].map(|port| (port, ports::free()));
        Self { page, running: Vec::new(), exports: String::new(), ports, folder: TestDir::new() }
    }

    /// Where the reader's browser finds the page.
    pub(super) fn shop(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[2].1)
    }

    /// Where the daemon answers.
    pub(super) fn daemon(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0].1)
    }

    /// Does what the script asks for:
    ///
    /// - `start NAME`: types a command that stays; done when it serves; `stop NAME` is Ctrl-C;
    /// - `log NAME`: what it has printed;
    /// - `run NAME`: types a command that ends;
    /// - `write NAME`: writes a file of the reader's page;
    /// - `cursors`: how often the shop has asked for a cursor.
    ///
    /// Answers with what was printed, as a JSON string, in the words of the tutorial.
    pub(super) fn answer(&mut self, command: &str) -> String {
        // Behind the name stand changes, of which there are none here.
        let printed = match command.split(' ').collect::<Vec<_>>()[..] {
            ["start", name, "{}"] => self.start(name),
            ["stop", name, "{}"] => self.stop(name),
            ["log", name, "{}"] => self.running(name).log(),
            ["run", name, "{}"] => self.run(name),
            ["write", name, "{}"] => {
                let text = self.with_own_ports(&self.page.snippet(name).text);
                self.folder.file(&format!("{FOLDER}/{name}"), text);
                String::new()
            }
            ["cursors"] => {
                // Polls of pages have a wait_id behind the channel.
                let log = self.folder.join("everpoll-up/nginx/access.log");
                let log = fs::read_to_string(log).expect("nginx writes it");
                log.matches("\"GET /e/cheese\"").count().to_string()
            }
            _ => panic!("no script may ask for {command:?}"),
        };
        json!(self.with_printed_ports(&printed)).to_string()
    }

    fn start(&mut self, name: &str) -> String {
        let mut text = self.typed(name);
        let up = name == "up";
        let (folder, port) = if up {
            text = format!("{} --port {} --nginx-port {}", text.trim_end(), self.ports[0].1, self.ports[1].1);
            (self.folder.path().to_owned(), self.ports[1].1)
        } else {
            (self.folder.join(FOLDER), self.ports[2].1)
        };
        let mut shell = shell(&text);
        // What Python prints would stay in a buffer.
        shell.current_dir(folder).env("PYTHONUNBUFFERED", "1");
        let mut process = Process::start(name, shell, self.folder.path());
        if up {
            process.wait_for_log("kill -9");
        }
        let address = Address::local(port);
        wait::until(&format!("{name} serves"), wait::PATIENCE, || {
            assert!(process.is_running(), "{name} has ended:\n{}", process.log());
            address.connect().is_ok()
        });
        self.running.push((name.to_owned(), process));
        String::new()
    }

    fn stop(&mut self, name: &str) -> String {
        let place = self.running.iter().position(|(other, _)| other == name).expect("it was started");
        // The shell's whole group, as the terminal's Ctrl-C.
        drop(self.running.remove(place));
        String::new()
    }

    fn running(&self, name: &str) -> &Process {
        self.running
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, process)| process)
            .expect("it was started")
    }

    fn run(&mut self, name: &str) -> String {
        let text = self.typed(name);
        let mut shell = shell(&format!("set -e\n{}{text}", self.exports));
        shell.current_dir(self.folder.path());
        let (status, printed, errors) = process::run(shell, b"");
        assert!(status.success(), "{name} failed ({status}): {text}\n{errors}");
        self.exports
            .extend(text.lines().filter(|line| line.starts_with("export ")).flat_map(|line| [line, "\n"]));
        printed
    }

    /// A snippet as it is typed here.
    fn typed(&self, name: &str) -> String {
        let program = everpoll::binary("everpoll").display().to_string();
        let folder = self.folder.join(FOLDER).display().to_string();
        let mut text = self
            .with_own_ports(&self.page.snippet(name).text)
            .replace("cargo run --release --", &program)
            .replace("target/release/everpoll", &program)
            .replace(HOME_FOLDER, &folder);
        if text.contains(PID) {
            text = text.replace(PID, &self.daemon_pid());
        }
        text
    }

    /// As the first terminal shows it.
    fn daemon_pid(&self) -> String {
        let log = self.running("up").log();
        let line = log.lines().find(|line| line.trim_start().starts_with("daemon ")).expect("it is printed");
        line.rsplit(' ').next().expect("the line ends with it").to_owned()
    }

    fn with_own_ports(&self, text: &str) -> String {
        self.ports
            .iter()
            .fold(text.to_owned(), |text, (printed, own)| text.replace(printed, &own.to_string()))
    }

    fn with_printed_ports(&self, text: &str) -> String {
        self.ports
            .iter()
            .fold(text.to_owned(), |text, (printed, own)| text.replace(&own.to_string(), printed))
    }
}

fn shell(text: &str) -> Command {
    let mut shell = Command::new("sh");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVERPOLL_") {
            shell.env_remove(name);
        }
    }
    // Where the reader's own browser would find them, so does curl.
    shell.args(["-c", text]).env("no_proxy", "127.0.0.1").env_remove("http_proxy");
    shell
}
