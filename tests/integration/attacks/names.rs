//! Names that look like another one, or are hardly text: each is itself or is refused, by both programs alike.

use everpoll_tests::http::{self, Address};
use serde_json::json;

use super::{Stage, code};
use crate::access::signer::{Signer, now};
use crate::site::Store;

/// Percent-encodings that are no text, or none that may be a name, and what is said to them. nginx refuses some by itself.
const WRONG: &[(&str, &str)] = &[
    // The same characters in more bytes than they need.
    ("%C0%AF", "channel_not_utf8"),
    ("%E0%80%AF", "channel_not_utf8"),
    ("%F0%80%80%AF", "channel_not_utf8"),
    ("%C0%AE%C0%AE", "channel_not_utf8"),
    ("%C1%A3heese", "channel_not_utf8"),
    ("a%C0%80b", "channel_not_utf8"),
    // Halves of surrogates, both halves, more than there is, the beginning and the end of a character.
    ("%ED%A0%80", "channel_not_utf8"),
    ("%ED%B0%80", "channel_not_utf8"),
    ("%ED%A0%BE%ED%B7%80", "channel_not_utf8"),
    ("%F4%90%80%80", "channel_not_utf8"),
    ("%F8%88%80%80%80", "channel_not_utf8"),
    ("k%C3", "channel_not_utf8"),
    ("%A4se", "channel_not_utf8"),
    ("%FE%FF", "channel_not_utf8"),
    ("k%E4se", "channel_not_utf8"),
    ("a%C2%80b", "channel_character"),
    ("a%C2%9Fb", "channel_character"),
    ("a%7Fb", "channel_character"),
    ("a%09b", "channel_character"),
    ("a%2Fb", "channel_character"),
    ("a%2Cb", "channel_character"),
];

/// Names that people and programs take for `käse`, or for `cheese`.
const TWINS: &[&str] = &[
    // In two characters; as compatibility forms; with letters of other alphabets.
    "ka%CC%88se",
    "%EF%BD%8B%C3%A4se",
    "%D1%81heese",
    "che%D0%B5se",
    "%EF%BD%83heese",
    "ch%C4%97ese",
    "c%CD%8Fheese",
    // With what is not seen.
    "%EF%BB%BFcheese",
    "cheese%E2%80%8B",
    "che%E2%80%8Dese",
    "%E2%80%AEcheese",
    "cheese%C2%A0",
    "%20cheese",
    "cheese%20",
    "cheese+",
    "chee%C2%ADse",
    // In another case, with what some take for the end, encoded twice.
    "Cheese",
    "K%C3%84SE",
    "cheese%2E",
    "cheese.",
    "cheese%3B",
    "cheese;a=b",
    "cheese%23",
    "cheese%3F",
    "%2563heese",
    "cheese%2500",
    "*",
    "%2A",
    "ch*",
    "_heese",
    "%25",
];

fn poll(channel: &str, more: &str, address: &Address) -> everpoll_tests::Reply {
    http::get(&format!("/e/{channel}?last_event_id=0&flavor=short-poll{more}")).send(address)
}

#[test]
fn what_is_no_text_is_refused_alike() {
    let stage = Stage::new();
    for (name, address) in stage.doors() {
        for (channel, expected) in WRONG {
            let reply = poll(channel, "", address);
            assert_eq!((reply.status, &*code(&reply)), (400, *expected), "{channel} at the {name}");
            if *expected == "channel_not_utf8" {
                let wait_id = http::get(&format!("/e/cheese/{channel}?flavor=short-poll")).send(address);
                assert_eq!(code(&wait_id), "wait_id_character", "{channel} at the {name}");
                let cursor =
                    http::get(&format!("/e/cheese?flavor=short-poll&last_event_id={channel}")).send(address);
                assert_eq!(code(&cursor), "cursor_malformed", "{channel} at the {name}");
            }
        }
    }
}

#[test]
fn names_that_look_alike_are_different_ones() {
    let signer = Signer::new();
    let token = signer.good(&json!({"exp": now() + 600.0, "channels": ["cheese", "k\u{e4}se"]}));
    for guarded in [false, true] {
        let keys = signer.settings();
        let access = if guarded { "token" } else { "open" };
        let stage =
            Stage::with(Store::sqlite(), &[("EVERPOLL_ACCESS", access), ("EVERPOLL_TOKEN_KEYS", &keys)]);
        let more = if guarded { format!("&token={token}") } else { String::new() };
        for channel in ["cheese", "k\u{e4}se"] {
            stage.daemon.publish(&json!({"channel": channel, "type": "made", "data": "gouda"}).to_string());
        }
        for (name, address) in stage.doors() {
            for own in ["cheese", "k%C3%A4se", "k%c3%a4se", "%63heese", "c%68%65ese"] {
                assert_eq!(poll(own, &more, address).events().len(), 1, "{own} at the {name}");
            }
            for twin in TWINS {
                let reply = poll(twin, &more, address);
                let text = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(!text.contains("gouda"), "{twin} at the {name}: {text}");
                let expected = if guarded { (403, "channel_forbidden") } else { (200, "") };
                assert_eq!((reply.status, &*code(&reply)), expected, "{twin} at the {name}: {text}");
            }
        }
    }
}
