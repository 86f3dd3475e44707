//! The commands, as people and scripts use them: the real program, its output, its exit codes.

use std::process::Command;

use everpoll_tests::process::{self, Process};
use everpoll_tests::{Daemon, Database, Sqlite, TestDir, http, ports, wait};

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// The program under test, without settings.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_everpoll"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("EVERPOLL_") {
            command.env_remove(name);
        }
    }
    command
}

/// The program on a database.
fn on(url: &str, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).env("EVERPOLL_DATABASE_URL", url);
    command
}

#[track_caller]
fn run_with(command: Command, input: &[u8]) -> Ended {
    let (status, out, err) = process::run(command, input);
    Ended { code: status.code(), out, err }
}

#[track_caller]
fn run(url: &str, arguments: &[&str]) -> Ended {
    run_with(on(url, arguments), b"")
}

/// Publishes and returns the id.
#[track_caller]
fn publish(url: &str, arguments: &[&str]) -> u64 {
    let ended = run(url, &[&["publish"], arguments].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended.out.trim().parse().expect("an id and nothing else")
}

#[test]
fn published_event_is_in_the_log_when_the_command_ends() {
    let log = Sqlite::new();
    let id = publish(&log.url(), &["cheese", "cheese_created", r#"{"name": "Gouda"}"#]);
    publish(&log.url(), &["wine", "opened", "-1"]);

    let tail = run(&log.url(), &["tail", "cheese", "--after", "0", "--count", "1"]);
    let words: Vec<_> = tail.out.trim_end().splitn(5, ' ').collect();
    let id = id.to_string();
    assert_eq!(
        [words[0], words[2], words[3], words[4]],
        [&id, "cheese", "cheese_created", r#"{"name": "Gouda"}"#]
    );

    let tail = run(&log.url(), &["tail", "--json", "--after", "0", "--count", "2"]);
    let lines: Vec<_> = tail.out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with(&format!(r#"{{"id":{id},"channel_id":"cheese","ts":""#)), "{}", lines[0]);
    assert!(
        lines[0].ends_with(r#""data":{"type":"cheese_created","data":{"name":"Gouda"}}}"#),
        "{}",
        lines[0]
    );
    assert!(lines[1].ends_with(r#""data":{"type":"opened","data":-1}}"#), "{}", lines[1]);
}

#[test]
fn same_key_twice_is_one_event() {
    let log = Sqlite::new();
    let first = publish(&log.url(), &["cheese", "made", "1", "--key", "order-17"]);
    assert_eq!(publish(&log.url(), &["cheese", "made", "2", "--key", "order-17"]), first);
    assert_ne!(publish(&log.url(), &["cheese", "made", "3", "--key", "order-18"]), first);
}

#[test]
fn data_is_read_from_standard_input() {
    let log = Sqlite::new();
    let data = format!("\"{}\"", "x".repeat(1024 * 1024 - 2));
    let command = || on(&log.url(), &["publish", "cheese", "made", "-"]);
    let ended = run_with(command(), data.as_bytes());
    assert_eq!(ended.code, Some(0), "{}", ended.err);

    let ended = run_with(command(), format!("{data} ").as_bytes());
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("1048577") && ended.err.contains("1048576"), "{}", ended.err);
    let ended = run_with(command(), b"\xff");
    assert_eq!((ended.code, ended.err.contains("not UTF-8")), (Some(2), true), "{}", ended.err);
}

#[test]
fn event_that_no_log_would_take_ends_with_2_and_the_limit() {
    let log = Sqlite::new();
    let long = "x".repeat(201);
    let cases: [(&[&str], &str); 7] = [
        (&["", "made", "1"], "channel name is empty"),
        (&[&long, "made", "1"], "the limit is 200"),
        (&["a/b", "made", "1"], "'/'"),
        (&["cheese", "", "1"], "type is empty"),
        (&["cheese", "everpoll:gap", "1"], "reserved"),
        (&["cheese", "made", "{"], "data is not JSON"),
        (&["cheese", "made", "1", "--key", &long], "key is 201 bytes long"),
    ];
    for (arguments, text) in cases {
        let ended = run(&log.url(), &[&["publish"], arguments].concat());
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.err.starts_with("everpoll: ") && ended.err.contains(text), "{}", ended.err);
    }
    let tail = run(&log.url(), &["trim", "--count", "0"]);
    assert_eq!(tail.out, "0 events removed\n", "something was published");
}

#[test]
fn database_that_is_away_ends_with_1_without_its_password() {
    let url = format!("postgres://app:geheim@127.0.0.1:{}/app", ports::free());
    for arguments in [
        &["publish", "cheese", "made", "1"][..],
        &["tail"],
        &["trim"],
        &["migrate"],
        &["migrate", "--status"],
    ] {
        let ended = run(&url, arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.err);
        assert!(!ended.err.contains("geheim"), "{}", ended.err);
    }
}

#[test]
fn wrong_settings_end_with_2_and_are_all_named() {
    let mut command = program();
    command.arg("serve").env("EVERPOLL_HOLD_MAX", "25s").env("EVERPOLL_LISTENN", "x");
    let ended = run_with(command, b"");
    assert_eq!(ended.code, Some(2));
    assert_eq!(
        ended.err,
        "everpoll: the settings have 2 problems:\n\
         - EVERPOLL_LISTENN is not a setting; did you mean EVERPOLL_LISTEN?\n\
         - EVERPOLL_HOLD_MAX=\"25s\" is not a number; give seconds from 0 to 3600, such as 25\n"
    );
    let ended = run("postgres://localhost/app", &["serve"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("EVERPOLL_ACCESS=open"), "{}", ended.err);
    let ended = run_with(on("sqlite:/dev/null", &["serve", "--config", "/does/not/exist.toml"]), b"");
    assert_eq!((ended.code, ended.err.contains("/does/not/exist.toml")), (Some(2), true), "{}", ended.err);
    let mut command = program();
    command.arg("serve").env("EVERPOLL_LOG", "everpoll=[");
    let ended = run_with(command, b"");
    assert_eq!((ended.code, ended.err.contains("is not a filter")), (Some(2), true), "{}", ended.err);
}

#[test]
fn settings_come_from_the_file_that_is_named() {
    let log = Sqlite::new();
    let place = TestDir::new();
    let file = place.file("everpoll.toml", format!("database_url = {:?}\n", log.url()));
    let file = file.to_str().unwrap();
    let mut command = program();
    command.args(["publish", "cheese", "made", "1", "--config", file]).current_dir(place.path());
    assert_eq!(run_with(command, b"").code, Some(0));
    assert!(log.path().exists());
    let mut command = program();
    command.args(["tail", "--after", "0", "--count", "1"]).env("EVERPOLL_CONFIG", file);
    assert_eq!(run_with(command, b"").out.lines().count(), 1);
}

#[test]
fn tail_prints_events_as_they_come_and_ctrl_c_ends_it_with_0() {
    let log = Sqlite::new();
    publish(&log.url(), &["cheese", "before", "1"]);
    let place = TestDir::new();
    let mut tail = Process::start("tail", on(&log.url(), &["tail", "cheese"]), place.path());
    tail.wait_for_log("following the log");
    publish(&log.url(), &["wine", "opened", "1"]);
    publish(&log.url(), &["cheese", "made", r#""first""#]);
    tail.wait_for_log(r#"cheese made "first""#);
    publish(&log.url(), &["cheese", "made", r#""second""#]);
    let written = tail.wait_for_log(r#"cheese made "second""#);
    assert!(!written.contains("before") && !written.contains("opened"), "{written}");
    tail.interrupt();
    assert_eq!(tail.wait(wait::PATIENCE).code(), Some(0));
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let log = Sqlite::new();
    for _ in 0..3 {
        publish(&log.url(), &["cheese", "made", "1"]);
    }
    let place = TestDir::new();
    let program = env!("CARGO_BIN_EXE_everpoll");
    let mut shell = Command::new("sh");
    let script = format!("{{ '{program}' tail --after 0; echo \"code $?\" >&2; }} | head -n 1");
    shell.args(["-c", &script]).env("EVERPOLL_DATABASE_URL", log.url());
    let mut shell = Process::start("pipe", shell, place.path());
    shell.wait_for_log("cheese made 1");
    // The second event may have fitted into the pipe before its reader was gone; a later one cannot.
    wait::until("tail has ended", wait::PATIENCE, || {
        publish(&log.url(), &["cheese", "made", "1"]);
        shell.log().contains("code ")
    });
    let written = shell.log();
    assert!(written.contains("code 0") && !written.contains("panicked"), "{written}");
}

#[test]
fn trim_removes_the_oldest_and_tail_shows_the_gap() {
    let log = Sqlite::new();
    let ids: Vec<_> = (0..5).map(|n| publish(&log.url(), &["cheese", "made", &n.to_string()])).collect();
    assert_eq!(run(&log.url(), &["trim"]).out, "0 events removed\n");
    assert_eq!(run(&log.url(), &["trim", "--for", "1d"]).out, "0 events removed\n");
    assert_eq!(run(&log.url(), &["trim", "--count", "2"]).out, "3 events removed\n");
    assert_eq!(run(&log.url(), &["trim", "--for", "yesterday"]).code, Some(2));

    let tail = run(&log.url(), &["tail", "--after", "0", "--count", "2"]);
    let gap = format!("gap: events after 0 and before {} are gone (trimmed)", ids[2] + 1);
    assert_eq!(tail.out.lines().next(), Some(gap.as_str()));
    assert_eq!(tail.out.lines().count(), 3, "{}", tail.out);
    let tail = run(&log.url(), &["tail", "--after", "0", "--count", "1", "--json"]);
    let gap = format!(r#"{{"gap":{{"after":0,"before":{},"reason":"trimmed"}}}}"#, ids[2] + 1);
    assert_eq!(tail.out.lines().next(), Some(gap.as_str()));
}

#[test]
fn migrate_says_what_it_did_and_status_changes_nothing() {
    let database = Database::shared();
    let url = database.url();
    let ended = run(&url, &["migrate", "--status"]);
    assert_eq!((ended.code, ended.err.contains("everpoll migrate")), (Some(1), true), "{}", ended.err);
    let ended = run(&url, &["publish", "cheese", "made", "1"]);
    assert_eq!((ended.code, ended.err.contains("everpoll migrate")), (Some(1), true), "{}", ended.err);
    let ended = run(&url, &["migrate"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("migrated from layout 0 to "), "{}", ended.out);
    assert!(run(&url, &["migrate"]).out.contains("nothing to migrate"));
    assert_eq!(run(&url, &["migrate", "--status"]).code, Some(0));
    publish(&url, &["cheese", "made", "1"]);
}

#[test]
fn tail_outlives_a_restart_of_the_database() {
    let server = everpoll_tests::Postgres::start();
    let database = server.create_database();
    assert_eq!(run(&database.url(), &["migrate"]).code, Some(0));
    let place = TestDir::new();
    let mut tail = Process::start("tail", on(&database.url(), &["tail"]), place.path());
    tail.wait_for_log("following the log");
    server.stop_immediate();
    tail.wait_for_log("trying again");
    server.start_again();
    publish(&database.url(), &["cheese", "made", "1"]);
    let written = tail.wait_for_log("cheese made 1");
    assert!(written.contains("the database is back"), "{written}");
}

#[test]
fn publish_over_http_says_what_the_daemon_says() {
    let log = Sqlite::new();
    let daemon = Daemon::on(log.url()).setting("EVERPOLL_PUBLISH_KEY", "0123456789abcdef").start();
    let url = format!("http://{}", daemon.address());
    let over_http = |event: &[&str], key: Option<&str>| {
        let mut command = program();
        command.arg("publish").args(event).args(["--url", &url]);
        key.map(|key| command.env("EVERPOLL_PUBLISH_KEY", key));
        run_with(command, b"")
    };
    let good = Some("0123456789abcdef");
    let ended = over_http(&["cheese", "made", r#"{"a": "\u00e4"}"#, "--key", "k", "--exclude", "me"], good);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let id: u64 = ended.out.trim().parse().unwrap();
    assert_eq!(publish(&log.url(), &["cheese", "made", "2", "--key", "k"]), id);
    let events = http::get("/e/cheese?last_event_id=0&flavor=short-poll").send(daemon.address()).events();
    assert_eq!(events.len(), 1);
    let mine = http::get("/e/cheese/me?last_event_id=0&flavor=short-poll").send(daemon.address()).events();
    assert_eq!(mine.len(), 0);

    let ended = over_http(&["cheese", "made", "1"], None);
    assert_eq!((ended.code, ended.err.contains("[publish_key_wrong]")), (Some(1), true), "{}", ended.err);
    let nobody = format!("http://127.0.0.1:{}", ports::free());
    let ended = run(&log.url(), &["publish", "cheese", "made", "1", "--url", &nobody]);
    assert_eq!((ended.code, ended.err.contains("does not answer")), (Some(1), true), "{}", ended.err);
    assert_eq!(run(&log.url(), &["publish", "cheese", "made", "1", "--url", "https://x"]).code, Some(2));
}

#[test]
fn every_command_explains_itself() {
    let help = run("", &["help"]);
    assert_eq!(help.code, Some(0));
    for command in ["up", "serve", "publish", "tail", "trim", "migrate", "settings"] {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command} is not listed");
        let ended = run("", &["help", command]);
        assert_eq!(ended.code, Some(0));
        assert!(ended.out.contains("Examples:") || command == "settings", "{command} has no examples");
    }
    let settings = run("", &["help", "settings"]).out;
    for key in everpoll_settings::KEYS {
        assert!(settings.contains(key.name) && settings.contains(key.variable), "{}", key.name);
    }
    assert!(run("", &["settings"]).out.contains("EVERPOLL_RETAIN_FOR"));
    assert!(run("", &["--version"]).out.starts_with("everpoll 0."));
    assert_eq!(run("", &["publsh"]).code, Some(2));
}
