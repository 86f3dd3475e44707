//! The client in Internet Explorer's engine: the three languages of versions 6 to 11, and its requests, by Wine.
//!
//! What a newcomer gets wrong: this is the engine without a page. There is no `window` and no `document`, requests are
//! ActiveX objects, and Wine's WinInet does not cache, nor limit connections, nor give the error codes of the original as a
//! status. What it has is what no stand-in has thought of: requests that never end after a reset, a `status` that throws,
//! bodies cut short that are a success.

/// Wine, and hosts of scripts in it.
mod wine;

/// Pages of all three engines, what was published to them, and what they made of it.
mod pages;

use std::time::{Duration, Instant};

use everpoll_tests::cutter::{Cutter, Mode};
use everpoll_tests::{Daemon, process, wait};

use crate::site::Store;
use pages::{Pages, Publisher, Served};
use wine::{Engine, Host};

/// Longer than any cutter here suffers silence.
const SILENCE: Duration = Duration::from_secs(5);

/// How many events each page gets.
const EVENTS: usize = 200;

#[test]
fn engines_are_what_they_say() {
    let said = |engine| {
        let mut host =
            Host::start(engine, &["tests/ie/scripts/engine.js"], &[("name", "a=ä"), ("code", "7")]);
        assert_eq!(host.process().wait(wait::PATIENCE).code(), Some(7), "{}", host.log());
        host.log().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let old = said(Engine::Ie6);
    let expected = [
        "JSON undefined",
        "indexOf undefined",
        "trailing comma in an object no",
        "trailing comma counts 3",
        "reserved word as a name no",
        "index of a string undefined",
        "vertical tab is v true",
        "captures in split 2",
        "setTimeout object, its call undefined",
        "window undefined, document undefined",
        "umlaut, separator, emoji: ä \u{2028} 😀",
        "argument a=ä, another undefined",
    ];
    assert_eq!(old, expected);
    let differs = |engine| -> Vec<String> {
        said(engine)
            .into_iter()
            .zip(expected)
            .filter(|(line, old)| line != old)
            .map(|(line, _)| line)
            .collect()
    };
    let in_ie8 = ["JSON object", "trailing comma in an object yes", "index of a string a"];
    assert_eq!(differs(Engine::Ie8)[..3], in_ie8);
    assert!(differs(Engine::Ie9).contains(&"indexOf function".to_owned()));
}

#[test]
fn fault_in_a_script_fails_its_test() {
    for engine in Engine::ALL {
        let mut host = Host::start(engine, &["tests/ie/scripts/faulty.js"], &[]);
        assert_eq!(host.process().wait(wait::PATIENCE).code(), Some(3));
        assert!(host.log().contains("faulty.js:3: script error"), "{}", host.log());
    }
}

#[test]
fn client_passes_its_own_tests_in_each_engine() {
    let scripts = client_tests();
    let scripts: Vec<_> = scripts.iter().map(String::as_str).collect();
    // At once, since one engine uses one processor.
    let hosts = Engine::ALL.map(|engine| Host::start(engine, &scripts, &[]));
    for mut host in hosts {
        host.process().wait(wait::PATIENCE * 8);
        let log = host.finish();
        let passed = log.lines().filter(|line| line.starts_with("ok ")).count();
        assert!(log.contains(&format!("# {passed} tests, 0 failed\n")) && passed > 100, "{log}");
    }
}

/// The client as it is written, and its tests, which are written for any engine.
fn client_tests() -> Vec<String> {
    let folder = "shared/client/test/core";
    let files = std::fs::read_dir(wine::repository().join(folder)).expect("the tests are there");
    let mut names: Vec<_> =
        files.map(|file| format!("{folder}/{}", file.expect("it is there").file_name().display())).collect();
    names.sort();
    let mut scripts =
        vec!["tests/ie/scripts/few-seeds.js".to_owned(), "shared/client/everpoll.js".to_owned()];
    scripts.append(&mut names);
    scripts.push("tests/ie/scripts/end.js".to_owned());
    scripts
}

#[test]
fn client_gets_each_event_once_from_the_daemon() {
    let store = Store::sqlite();
    let daemon = Daemon::on(store.url()).start();
    let pages = Pages::with_client(daemon.address());
    let mut publisher = Publisher::to(daemon.address());
    pages.wait_until_asking();
    publisher.publish_up_to(EVENTS - 1);
    publisher.publish_last();
    pages.finish(&publisher);
}

#[test]
fn pages_old_and_new_get_each_event_once_while_the_daemon_dies_and_returns() {
    let mut served = Served::by_nginx(Store::postgres());
    let pages = Pages::with_client(served.address()).and(Pages::old(served.address()));
    let mut publisher = Publisher::to(served.address());
    pages.wait_until_asking();
    publisher.publish_up_to(EVENTS / 4);
    pages.wait_until_read(&publisher);
    served.daemon.kill_9();
    // By the fallback, which answers pages, too.
    publisher.publish_up_to(EVENTS * 3 / 4);
    pages.wait_until_read(&publisher);
    served.daemon.start_again();
    publisher.publish_up_to(EVENTS - 1);
    pages.wait_until_read(&publisher);
    publisher.publish_last();
    pages.finish(&publisher);
}

#[test]
fn client_gets_each_event_once_through_hostile_proxies() {
    let store = Store::sqlite();
    let daemon = Daemon::on(store.url()).start();
    let soon = Duration::from_secs(3);
    let modes = [
        Mode::Fin(soon),
        Mode::Rst(soon),
        Mode::Blackhole(soon),
        Mode::Html200(soon),
        Mode::Truncate(3),
        Mode::Http10,
    ];
    // All at once: they mostly wait.
    std::thread::scope(|scope| {
        for mode in modes {
            let daemon = &daemon;
            scope.spawn(move || through(mode, daemon));
        }
    });
}

/// Through a cutter of this mode for each page: busy, in silence that is cut, and when the client knows about that.
#[track_caller]
fn through(mode: Mode, daemon: &Daemon) {
    let began = Instant::now();
    let channel: String = format!("{mode:?}").chars().filter(char::is_ascii_alphanumeric).collect();
    let cutters = Engine::ALL.map(|_| Cutter::before(daemon.address(), mode));
    let faults = || cutters.each_ref().map(|cutter| cutter.counters().cut + cutter.counters().truncated);
    let pages = Pages::behind(cutters.each_ref().map(Cutter::address), &channel);
    let mut publisher = Publisher::on(&channel, daemon.address());
    pages.wait_until_asking();
    publisher.publish_up_to(EVENTS / 3);
    pages.wait_until_read(&publisher);
    if mode != Mode::Http10 {
        wait::until("each page has met the fault", wait::PATIENCE * 2, || {
            faults().iter().all(|count| *count > 0)
        });
    }
    publisher.publish_up_to(EVENTS * 2 / 3);
    pages.wait_until_read(&publisher);
    for _ in 0..3 {
        let silent = Instant::now();
        wait::until("the silence was longer than the cutter's", SILENCE * 2, || silent.elapsed() >= SILENCE);
        publisher.publish();
        pages.wait_until_read(&publisher);
    }
    publisher.publish_up_to(EVENTS - 1);
    publisher.publish_last();
    let failed = pages.finish(&publisher);
    eprintln!(
        "{mode:?}: {EVENTS} events by three pages in {:.1?}, faults {:?}, of which the client saw {failed:?}",
        began.elapsed(),
        faults()
    );
    // Truncation has nothing to do with time, and nothing can be learned about it.
    if !matches!(mode, Mode::Truncate(_)) {
        // A browser keeps two connections, which a black hole swallows both: the second is found dead by the next request.
        let most = if matches!(mode, Mode::Blackhole(_)) { 4 } else { 2 };
        assert!(
            failed.iter().all(|count| *count <= most),
            "{mode:?}: {failed:?} requests failed, and nothing learned"
        );
    }
}

#[test]
fn memory_of_a_page_stays_as_it_is_over_two_thousand_polls() {
    let store = Store::sqlite();
    let daemon = Daemon::on(store.url()).start();
    let url = format!("http://{}/e", daemon.address());
    // What Wine's requests take by themselves is shown by pages without the client.
    let bare = ["tests/ie/scripts/bare-requests.js"];
    let client = [pages::CLIENT, "tests/ie/scripts/memory.js"];
    let runs: [(Engine, &[&str]); 4] =
        [(Engine::Ie6, &bare), (Engine::Ie6, &client), (Engine::Ie9, &bare), (Engine::Ie9, &client)];
    let mut hosts = runs.map(|(engine, scripts)| {
        let mut host = Host::start(engine, scripts, &[("url", &url), ("channel", "cheese")]);
        host.process().wait_for_log("asking\n");
        host
    });
    // Each event is an answer to each of them.
    let mut memory_after = |polls: u32| {
        let said = format!("polls {polls}\n");
        let mut memory = [None; 4];
        wait::until_some(&said, wait::PATIENCE * 10, || {
            daemon.publish(r#"{"channel":"cheese","type":"made","data":{"name":"Gouda"}}"#);
            for (host, memory) in hosts.iter_mut().zip(&mut memory) {
                if memory.is_none() && host.log().contains(&said) {
                    *memory = Some(process::resident_kilobytes(host.process().id()));
                }
            }
            memory.iter().all(Option::is_some).then(|| memory.map(Option::unwrap))
        })
    };
    let (before, after) = (memory_after(500), memory_after(2_000));
    for (index, (engine, scripts)) in runs.iter().enumerate() {
        let (before, after) = (before[index], after[index]);
        eprintln!("{engine:?}, {}: {before} KB after 500 polls, {after} KB after 2,000", scripts[0]);
    }
    for with_client in [1, 3] {
        let (before, after) = (before[with_client], after[with_client]);
        assert!(after <= before + before / 10 + 2_000, "{before} KB after 500 polls, {after} KB after 2,000");
    }
}
