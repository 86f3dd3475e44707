//! The browser client's own tests: its decisions, its failures, and many tabs; in node, and in a browser.

use std::path::Path;
use std::process::Command;

use everpoll_tests::{Daemon, Script, Sqlite};

#[test]
fn client_passes_its_own_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/client");
    assert!(
        folder.join("node_modules").exists(),
        "the packages of {} are not installed; run tests/run, or npm ci there",
        folder.display()
    );
    let mut command = Command::new("npm");
    command.args(["test", "--silent"]).current_dir(&folder);
    // A second of work, but beside everything else that runs.
    let script = Script::command("npm test in shared/client", command).within(400);
    let log = script.run(|word| panic!("the client wants {word:?}"));
    // A runner that found no test would pass, too.
    for part in ["is ES3 and ASCII", "each event comes exactly once to each tab", "bytes behind gzip"] {
        assert!(log.contains(part), "nothing is said of {part:?}:\n{log}");
    }
}

#[test]
fn tabs_share_one_request_by_locks_by_messages_and_by_storage() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).start();
    let said = Script::browser("client/tabs.mjs")
        .with("url", format!("http://{}", daemon.address()))
        .within(300)
        .run(|word| panic!("the tabs want {word:?}"));
    eprintln!("{said}");
}

#[test]
fn page_whose_address_asks_too_often_comes_back_and_does_not_stop() {
    let log = Sqlite::new();
    // All who come here are one address.
    let daemon = Daemon::on(log.url())
        .setting("EVERPOLL_FORWARDED_PEERS", "none")
        .setting("EVERPOLL_REQUESTS_PER_ADDRESS", "2 burst 30")
        .start();
    let said = Script::browser("client/too-many.mjs")
        .with("url", format!("http://{}", daemon.address()))
        .within(200)
        .run(|word| panic!("the page wants {word:?}"));
    eprintln!("{said}");
}
