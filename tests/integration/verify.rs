//! `everpoll verify`: what it finds when something lies, and that it finds nothing when nothing does.

/// A proxy that lies.
mod tamper;

use std::process::Stdio;
use std::time::Duration;

use everpoll_tests::{Daemon, Database, TestDir, everpoll, http, process, wait};
use everpoll_verify::{Cause, Fault, Plan, Report, Stop, Transport, run};
use serde_json::Value;

use crate::site::Store;
use tamper::{Lie, Tamper};

const SECOND: Duration = Duration::from_secs(1);

/// A short run of pollers.
fn plan(url: &str) -> Plan {
    let mut plan = Plan::new(url.parse().expect("an address"));
    plan.channels = 2;
    plan.channels_per_client = 1;
    plan.clients = 8;
    plan.rate = 60.0;
    plan.transports = vec![Transport::LongPoll];
    plan.hold = SECOND * 2;
    plan.duration = SECOND * 2;
    plan.settle = SECOND * 30;
    plan.calm = SECOND / 2;
    plan
}

#[track_caller]
fn verdict(plan: Plan) -> Report {
    run(plan, &Stop::default(), |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// What comes out when a proxy lies.
fn through(lie: Lie) -> Report {
    let store = Store::sqlite();
    let daemon = Daemon::on(store.url()).start();
    let tamper = Tamper::before(daemon.address(), lie);
    verdict(plan(&tamper.url()))
}

#[test]
fn run_without_a_lie_finds_nothing() {
    let report = through(Lie::Nothing);
    assert!(report.kept && report.failures.is_empty() && report.findings.is_empty(), "{report}");
    assert!(
        report.total.acknowledged > 60 && report.total.delivered == report.total.acknowledged * 4,
        "{report}"
    );
}

#[test]
fn each_lie_about_events_is_found_for_what_it_is() {
    type Figure = fn(&Report) -> u64;
    let lies: [(Lie, Figure); 6] = [
        (Lie::Drop, |report| report.total.lost),
        (Lie::Double, |report| report.total.doubled),
        (Lie::Reorder, |report| report.total.reordered),
        (Lie::Renumber, |report| report.total.altered),
        (Lie::Add, |report| report.total.foreign),
        (Lie::Cache, |report| report.total.doubled),
    ];
    // At once, since they mostly wait.
    std::thread::scope(|scope| {
        let runs = lies.map(|(lie, figure)| (lie, figure, scope.spawn(move || through(lie))));
        for (lie, figure, run) in runs {
            let report = run.join().expect("it runs");
            assert!(!report.kept && figure(&report) > 0 && !report.findings.is_empty(), "{lie:?}: {report}");
        }
    });
}

#[test]
fn answers_that_are_broken_are_counted_and_asked_for_again() {
    let lies = [
        (Lie::Truncate, "answer cut short"),
        (Lie::Shorten, "answer cut short"),
        (Lie::Portal, "answer is not Everpoll's"),
        (Lie::Cache, "answer to an older request"),
    ];
    std::thread::scope(|scope| {
        let runs = lies.map(|(lie, what)| (lie, what, scope.spawn(move || through(lie))));
        for (lie, what, run) in runs {
            let report = run.join().expect("it runs");
            assert!(report.failures.get(what).is_some_and(|count| *count > 0), "{lie:?}: {report}");
            // What a client asks for again is not lost.
            assert_eq!(report.total.lost, 0, "{lie:?}: {report}");
        }
    });
}

/// Events are trimmed while nobody gets through; then clients are told, or not.
fn trimmed(then: Lie) -> Report {
    let store = Store::sqlite();
    let daemon = Daemon::on(store.url()).start();
    let tamper = Tamper::before(daemon.address(), Lie::Nothing);
    let mut plan = plan(&tamper.url());
    let (url, refuse, mend) = (store.url(), tamper.lie(), tamper.lie());
    let address = daemon.address().clone();
    let trim = move || {
        let trimmed = everpoll::command_line(&url, &["trim", "--count", "0"], b"");
        // Until the daemon has heard of it, it has the events still, and clients miss none.
        wait::until("the daemon knows that they are gone", wait::PATIENCE, || {
            let asked = http::get("/e/no-channel-of-the-run/probe?last_event_id=0&hold=0&envelope=1");
            asked.send(&address).text().contains("everpoll:gap")
        });
        mend(then);
        if trimmed.status.success() { Ok(()) } else { Err(trimmed.stderr) }
    };
    plan.faults = vec![Fault {
        name: "trimmed".to_owned(),
        strike: Box::new(move || {
            refuse(Lie::Refuse);
            Ok(())
        }),
        mend: Some(Box::new(trim)),
        lasts: SECOND,
    }];
    plan.settle = SECOND * 20;
    verdict(plan)
}

#[test]
fn gap_that_is_told_breaks_no_promise_and_a_silent_one_does() {
    std::thread::scope(|scope| {
        let silent = scope.spawn(|| trimmed(Lie::HideGaps));
        let told = trimmed(Lie::Nothing);
        assert!(told.kept && told.total.announced > 0 && told.gap_records > 0, "{told}");
        let silent = silent.join().expect("it runs");
        assert!(!silent.kept && silent.total.lost > 0 && silent.total.announced == 0, "{silent}");
        // One that was on its way when the proxy began to refuse was published before.
        let lost = silent.groups.iter().find(|group| group.name == "trimmed").map(|group| group.lost);
        assert!(lost.is_some_and(|lost| lost > 0), "{silent}");
    });
}

/// A log whose wake-ups go nowhere.
fn muted() -> Database {
    let database = Database::shared();
    database.migrate();
    database.psql(
        "DO $$ DECLARE muted int := 0; f record; BEGIN
           FOR f IN SELECT pg_get_functiondef(p.oid) AS text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
                     WHERE nspname = 'everpoll' AND prosrc ~* 'pg_notify\\s*\\(' LOOP
             EXECUTE regexp_replace(f.text, 'pg_notify\\s*\\([^)]*\\)', '1', 'gi');
             muted := muted + 1;
           END LOOP;
           IF muted = 0 THEN RAISE 'no function notifies'; END IF;
         END $$",
    );
    database
}

#[test]
fn wake_ups_that_are_swallowed_are_found_unless_the_log_is_swept() {
    let lost = |sweep: &str| {
        let database = muted();
        let daemon = Daemon::on(database.url()).setting("EVERPOLL_SWEEP_INTERVAL", sweep).start();
        let mut plan = plan(&format!("http://{}", daemon.address()));
        plan.database = Some(database.url());
        plan.causes = vec![Cause::Sql];
        verdict(plan)
    };
    let (swept, unswept) = (lost("1s"), lost("1h"));
    assert!(swept.kept, "{swept}");
    assert!(!unswept.kept && unswept.total.lost + unswept.total.too_late > 0, "{unswept}");
}

/// The command, on a daemon.
fn command(arguments: &[&str]) -> std::process::Command {
    let mut command = everpoll::command("everpoll");
    command.arg("verify").args(arguments);
    command
}

#[test]
fn command_says_what_it_found_and_ends_accordingly() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let daemon = Daemon::on(store.url()).start();
    let tamper = Tamper::before(daemon.address(), Lie::Drop);
    let report = directory.join("report.json");
    let short = ["--for", "1", "--clients", "4", "--hold", "1", "--settle", "3", "--transports", "long-poll"];
    let direct = format!("http://{}", daemon.address());
    let verify = |url: &str| {
        let mut verify = command(&short);
        verify.args(["--url", url, "--report"]).arg(&report).current_dir(directory.path());
        let (status, out, err) = process::run(verify, b"");
        let written: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        (status.code(), out, err, written)
    };
    let (code, out, _, written) = verify(&direct);
    assert_eq!((code, &written["kept"]), (Some(0), &Value::Bool(true)), "{out}");
    assert!(out.ends_with("kept: each event came to each client exactly once, in one order\n"), "{out}");
    let (code, out, err, written) = verify(&tamper.url());
    assert_eq!((code, &written["kept"]), (Some(1), &Value::Bool(false)), "{out}");
    assert!(out.contains("lost without a gap record") && out.contains("(seed "), "{out}");
    assert!(err.contains("promises were broken"), "{err}");
    assert!(written["total"]["lost"].as_u64() > Some(0), "{written}");
}

#[test]
fn command_that_is_asked_wrongly_says_what_to_change() {
    for (arguments, text) in [
        (&["--transports", "pigeon"][..], "long-poll, padded"),
        (&["--url", "localhost"], "http://host:port"),
        (&["--fault", "nothing"], "NAME=COMMAND"),
        (&["--clients", "0"], "between 1 and 60000"),
        (&["--report", "/nowhere/report.json"], "cannot write /nowhere/report.json"),
    ] {
        let (status, _, err) = process::run(command(arguments), b"");
        assert_eq!(status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(text), "{arguments:?}: {err}");
    }
    let nobody = format!("http://127.0.0.1:{}", everpoll_tests::ports::free());
    let (status, _, err) = process::run(command(&["--url", &nobody, "--clients", "2"]), b"");
    assert_eq!(status.code(), Some(1), "{err}");
    assert!(err.contains("does the daemon or the fallback run?"), "{err}");
}

#[test]
fn interrupted_run_is_judged() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let daemon = Daemon::on(store.url()).start();
    let mut verify = command(&["--for", "3600", "--clients", "4", "--hold", "1", "--rate", "100"]);
    verify.args(["--fault", "note=touch struck::touch mended", "--fault-for", "1", "--calm", "1"]);
    verify.args(["--url", &format!("http://{}", daemon.address())]).current_dir(directory.path());
    verify.stdout(Stdio::null());
    let mut verify = everpoll_tests::Process::start("verify", verify, directory.path());
    wait::until("something was broken and mended", wait::PATIENCE, || {
        directory.join("struck").exists() && directory.join("mended").exists()
    });
    verify.interrupt();
    assert_eq!(verify.wait(wait::PATIENCE).code(), Some(0), "{}", verify.log());
    assert!(verify.log().contains("kept: each event"), "{}", verify.log());
}
