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

use everpoll_tests::wait;

use crate::site::Store;
use pages::{Pages, Publisher, Served};
use wine::{Engine, Host};

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
fn old_pages_get_each_event_once_while_the_daemon_dies_and_returns() {
    let mut served = Served::by_nginx(Store::postgres());
    let pages = Pages::old(served.address());
    let mut publisher = Publisher::to(served.address());
    pages.wait_until_all_say("asking");
    through_a_death(&mut served, &mut publisher, &pages);
    pages.finish(&publisher);
}

/// Publishes while the daemon lives, while it is dead, and when it is back.
fn through_a_death(served: &mut Served, publisher: &mut Publisher, pages: &Pages) {
    for _ in 0..EVENTS / 4 {
        publisher.publish();
    }
    pages.wait_until_read(publisher);
    served.daemon.kill_9();
    for _ in 0..EVENTS / 2 {
        publisher.publish();
    }
    pages.wait_until_read(publisher);
    served.daemon.start_again();
    while publisher.count() < EVENTS - 1 {
        publisher.publish();
    }
    pages.wait_until_read(publisher);
    publisher.publish_last();
}
