//! Namespaces: each has readers, keys and sizes of its own, and what one lets in opens nothing in another.

use everpoll_tests::http;
use serde_json::json;

use super::signer::{Signer, With, now};
use super::{Credential, Guarded, TRANSPORTS, request, verdict};

const ROOT: &str = "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr";
const SHOP: &str = "ssssssssssssssssssssssssssssssssssssssss";
const EU: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

/// Who may read is told apart in each of them in another way.
fn namespaces() -> Guarded {
    let key = |name: &str, secret: &str| format!("{name} = {{ algorithm = 'HS256', secret = '{secret}' }}");
    let spaces = [
        format!("'shop:' = {{ token_keys = {{ {} }} }}", key("shop", SHOP)),
        format!("'shop:eu:' = {{ event_max = 100, token_keys = {{ {} }} }}", key("eu", EU)),
        "'shop:open:' = { access = 'open' }".to_owned(),
        "'crm:' = { event_max = '1KiB' }".to_owned(),
        "'news:' = { access = 'open' }".to_owned(),
    ];
    Guarded::with(&[
        ("EVERPOLL_ACCESS", "token"),
        ("EVERPOLL_TOKEN_KEYS", &key("root", ROOT)),
        ("EVERPOLL_NAMESPACES", &spaces.join("\n")),
    ])
}

#[test]
fn each_namespace_lets_in_whom_its_own_rules_let_in() {
    let (guarded, signer) = (namespaces(), Signer::new());
    let token = |kid: &str, secret: &str, channels: &[&str]| {
        let claims = json!({"exp": now() + 600.0, "channels": channels});
        Credential::bearer(&signer.token(&json!({"alg": "HS256", "kid": kid}), &claims, With::Secret(secret)))
    };
    let nothing = Credential::default();
    let root = token("root", ROOT, &["*"]);
    let (shop, one) = (token("shop", SHOP, &["*"]), token("shop", SHOP, &["shop:1"]));
    let eu = token("eu", EU, &["shop:*"]);
    let other = token("root", SHOP, &["*"]);
    // Who asks, for what, the verdict, and the channel that is named where there are others beside it.
    let cases = [
        ("nothing", &nothing, "news:1", "ok", ""),
        ("nothing", &nothing, "news:1,shop:open:1", "ok", ""),
        ("nothing", &nothing, "cheese", "token_missing", ""),
        ("nothing", &nothing, "crm:1", "token_missing", ""),
        ("nothing", &nothing, "shop:1", "token_missing", ""),
        ("nothing", &nothing, "shop:eu:1", "token_missing", ""),
        ("nothing", &nothing, "news:1,shop:1", "token_missing", "shop:1"),
        ("nothing", &nothing, "cheese,news:1", "token_missing", "cheese"),
        ("root", &root, "cheese", "ok", ""),
        ("root", &root, "crm:1", "ok", ""),
        ("root", &root, "shop", "ok", ""),
        ("root", &root, "shops:1", "ok", ""),
        ("root", &root, "Shop:1", "ok", ""),
        ("root", &root, "cheese,crm:1,news:1", "ok", ""),
        ("root", &root, "shop:1", "token_key_unknown", ""),
        ("root", &root, "shop:eu:1", "token_key_unknown", ""),
        ("root", &root, "shop%3A1", "token_key_unknown", ""),
        ("root", &root, "cheese,shop:1", "token_key_unknown", "shop:1"),
        ("root", &root, "crm:1,shop:eu:1", "token_key_unknown", "shop:eu:1"),
        ("shop", &shop, "shop:1", "ok", ""),
        ("shop", &shop, "shop:", "ok", ""),
        ("shop", &shop, "shop:us:1", "ok", ""),
        ("shop", &shop, "shop:1,shop:2,shop:open:1,news:1", "ok", ""),
        ("shop", &shop, "shop:eu:1", "token_key_unknown", ""),
        ("shop", &shop, "shop:1,shop:eu:1", "token_key_unknown", "shop:eu:1"),
        ("shop", &shop, "shop:1,shop:eu:1,shop:z", "token_key_unknown", "shop:eu:1"),
        ("shop", &shop, "cheese", "token_key_unknown", ""),
        ("shop", &shop, "crm:1", "token_key_unknown", ""),
        ("shop", &shop, "cheese,shop:1", "token_key_unknown", "cheese"),
        ("shop for one", &one, "shop:1", "ok", ""),
        ("shop for one", &one, "shop:2", "channel_forbidden", "shop:2"),
        ("shop for one", &one, "news:1,shop:2", "channel_forbidden", "shop:2"),
        ("eu", &eu, "shop:eu:1", "ok", ""),
        ("eu", &eu, "shop:1", "token_key_unknown", ""),
        ("eu", &eu, "cheese", "token_key_unknown", ""),
        ("the root's name, the shop's key", &other, "cheese", "token_signature", ""),
        ("the root's name, the shop's key", &other, "shop:1", "token_key_unknown", ""),
    ];
    let all = [
        "cheese",
        "crm:1",
        "news:1",
        "shop",
        "shops:1",
        "Shop:1",
        "shop:1",
        "shop:",
        "shop:us:1",
        "shop:eu:1",
        "shop:open:1",
    ];
    let events = all.map(|channel| json!({"channel": channel, "type": "made", "data": "gouda"}));
    guarded.daemon.publish(&json!(events).to_string());
    for (name, credential, channels, expected, named) in cases {
        for transport in TRANSPORTS {
            for (door, address) in guarded.doors() {
                let request = request(transport, channels, credential);
                // nginx may send a WebSocket over a kept connection over which it has sent a POST, where it is refused once.
                let direct = door == "daemon" && transport == "websocket";
                let address = if direct { guarded.daemon.address() } else { address };
                let (code, text) = verdict(door, transport, address, &request);
                assert_eq!(code, expected, "{name}, {channels}, {transport}, {door}: {text}");
                let quoted = format!("{named:?}");
                assert!(named.is_empty() || text.contains(&quoted), "{name}, {channels}: {text}");
            }
        }
    }
}

#[test]
fn events_of_a_namespace_are_as_large_as_it_says() {
    let guarded = namespaces();
    for (name, address) in guarded.doors() {
        let publish = |channel: &str, bytes: usize| {
            let data = "x".repeat(bytes - 2);
            let event = json!({"channel": channel, "type": "made", "data": data}).to_string();
            let reply = http::post_json("/publish", event).send(address);
            (reply.status, reply.json()["code"].as_str().unwrap_or_default().to_owned())
        };
        let refused = (413, "data_too_large".to_owned());
        for (channel, limit) in [("crm:1", 1024), ("shop:eu:1", 100), ("shop:eu:x:1", 100)] {
            assert_eq!(publish(channel, limit).0, 201, "{name}, {channel}");
            assert_eq!(publish(channel, limit + 1), refused, "{name}, {channel}");
        }
        for channel in ["cheese", "crm", "shop:1"] {
            assert_eq!(publish(channel, 2000).0, 201, "{name}, {channel}");
        }
        // One of several: none is published.
        let large = json!(
            ["cheese", "crm:1"]
                .map(|channel| { json!({"channel": channel, "type": "made", "data": "x".repeat(2000)}) })
        );
        let reply = http::post_json("/publish", large.to_string()).send(address);
        assert_eq!(reply.status, 413, "{name}");
        assert!(reply.json()["detail"].as_str().is_some_and(|text| text.starts_with("event 1 ")), "{name}");
    }
}
