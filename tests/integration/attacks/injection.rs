//! Line ends in everything that a reply or a log may repeat: none of it becomes a header, a second reply, or a line of a log.

use everpoll_tests::http::Address;

use super::{MEMORY_MAX, Stage, attack, each};
use crate::site::Store;

/// What is to be made a header, a body, and a line of a log.
const MARK: &str = "X-Hacked";

/// Line ends as they stand in a target, in all forms that somebody may decode.
const ENCODED: &[&str] = &[
    "%0d%0a",
    "%0D%0A",
    "%0a",
    "%0d",
    "%0d%0a%20",
    "%0d%0a%09",
    "%250d%250a",
    "%u000d%u000a",
    "%c4%8d%c4%8a",
    "%e5%98%8d%e5%98%8a",
    "%c2%85",
    "%e2%80%a8",
    "%e2%80%a9",
    "%0b",
    "%0c",
    "%00",
    "%1b%5b2J",
    "\\r\\n",
    "%5cr%5cn",
    "&#13;&#10;",
    "%c0%8d%c0%8a",
    "%0d%00%0a",
];

/// Targets with this in each place.
fn targets(text: &str) -> Vec<String> {
    [
        "/e/TEXT",
        "/e/cheese,TEXT",
        "/e/cheese/TEXT",
        "/e.php/cheese/TEXT",
        "/e/cheese?last_event_id=TEXT",
        "/e/cheese?flavor=TEXT",
        "/e/cheese?hold=TEXT",
        "/e/cheese?envelope=TEXT",
        "/e/cheese?tab=TEXT&n=1",
        "/e/cheese?tab=a&n=TEXT",
        "/e/cheese?pad=TEXT",
        "/e/cheese?beat=TEXT",
        "/e/cheese?cut=TEXT",
        "/e/cheese?ct=TEXT",
        "/e/cheese?cb=TEXT",
        "/e/cheese?token=TEXT",
        "/e/cheese?_=TEXT",
        "/e/cheese?TEXT=1",
        "/TEXT",
        "/publish/TEXT",
        "/everpoll.TEXT.js",
        "/e/_probe/TEXT",
    ]
    .map(|target| target.replace("TEXT", text))
    .into()
}

/// Nothing of the mark stands at the beginning of a line, and there is one head.
#[track_caller]
fn assert_harmless(what: &str, reply: &str) {
    for end in ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'] {
        let hacked = format!("{end}{MARK}").to_ascii_lowercase();
        assert!(!reply.to_ascii_lowercase().contains(&hacked), "{what}: {reply}");
    }
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((reply, ""));
    assert!(!head.to_ascii_lowercase().contains("hacked"), "{what}: {reply}");
    assert!(!body.contains("HTTP/1.1 200"), "{what}: {reply}");
    // What is repeated in an error is no part of a page.
    assert!(!body.contains("<script"), "{what}: {reply}");
    assert!(!reply.contains('\u{1b}') && !reply.contains('\0'), "{what}: {reply:?}");
}

#[track_caller]
fn try_all(name: &str, address: &Address) {
    each(ENCODED, |end| {
        let text = format!("a{end}{MARK}:%20yes{end}{end}%3Cscript%3E");
        for target in targets(&text) {
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: a\r\nFlavor: short-poll\r\nConnection: close\r\n\r\n"
            );
            assert_harmless(&format!("{target} at the {name}"), &attack(address, request.as_bytes()).text());
        }
        // A header cannot have a line end, but the text of one; and what is not ASCII.
        let text = format!("a{end}{MARK}: yes");
        for header in [
            "Origin",
            "Last-Event-Id",
            "Flavor",
            "Accept",
            "Cookie",
            "Authorization",
            "Sec-WebSocket-Protocol",
            "Access-Control-Request-Headers",
            "X-Forwarded-For",
            "Host",
            "If-None-Match",
        ] {
            // What is asked for here may be repeated.
            let method = if header.starts_with("Access-Control") { "OPTIONS" } else { "GET" };
            let host = if header == "Host" { "" } else { "Host: a\r\n" };
            let request = format!(
                "{method} /e/cheese?hold=0 HTTP/1.1\r\n{host}Connection: close\r\n{header}: {text}\r\n\r\n"
            );
            assert_harmless(
                &format!("{header}: {text} at the {name}"),
                &attack(address, request.as_bytes()).text(),
            );
        }
    });
    // As they are, they end the line, or make it none.
    each(&["\r", "\n", "\r\n", "\0", "\u{b}", "\u{85}", "\u{2028}", "\u{1b}[2J"], |end| {
        for target in targets(&format!("a{end}{MARK}:yes")) {
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: a\r\nFlavor: short-poll\r\nConnection: close\r\n\r\n"
            );
            let answer = attack(address, request.as_bytes());
            assert_harmless(&format!("{target:?} at the {name}"), &answer.text());
        }
    });
}

#[test]
fn line_ends_stay_text_in_replies_and_logs() {
    let settings = [
        ("EVERPOLL_JSONP", "true"),
        ("EVERPOLL_ALLOW_ORIGINS", "https://shop.example"),
        ("EVERPOLL_LOG", "trace"),
    ];
    let mut stage = Stage::with(Store::sqlite(), &settings);
    let mut bystanders = stage.bystanders();
    for (name, address) in stage.doors() {
        bystanders.during(&format!("line ends at the {name}"), MEMORY_MAX, || try_all(name, address));
    }
    bystanders.finish();
    let logs = stage.logs();
    assert!(!logs.is_empty());
    for line in logs.split(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']) {
        assert!(!line.trim_start().starts_with(MARK), "{line}");
        assert!(!line.contains('\u{1b}') && !line.contains('\0'), "{line:?}");
    }
    stage.assert_well();
}
