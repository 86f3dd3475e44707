//! The browser client's own tests: its decisions, its failures, and many tabs, in node.

use std::path::Path;
use std::process::Command;

use everpoll_tests::script::Script;

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
    let log = Script::command("npm test in shared/client", command).run(|word| panic!("the client wants {word:?}"));
    // A runner that found no test would pass, too.
    for part in ["is ES3 and ASCII", "each event comes exactly once to each tab", "bytes behind gzip"] {
        assert!(log.contains(part), "nothing is said of {part:?}:\n{log}");
    }
}
