//! A page of another origin in a visitor's browser, who is logged in: it reads nothing, and publishes nothing.

use everpoll_tests::http;
use everpoll_tests::{Script, WebServer};
use serde_json::json;

use crate::access::signer::{Signer, now};
use crate::site::{self, Store};

/// The other site is on another port of the same host: to a browser it is the same *site*, so the visitor's cookies are sent
/// along whatever their `SameSite` says, and another *origin*, so it must not read. That is the best that an attacker can have.
#[test]
fn page_of_another_origin_reads_and_publishes_nothing_in_chromium() {
    let (signer, store) = (Signer::new(), Store::sqlite());
    let keys = signer.settings();
    let settings =
        [("EVERPOLL_ACCESS", "token"), ("EVERPOLL_TOKEN_KEYS", &*keys), ("EVERPOLL_JSONP", "true")];
    let (daemon, fallback) = site::programs(&store, &settings);
    // The same server under two names: the visitor's own site, and the attacker's, which is this page of nginx.
    let page = |config: &str| {
        let own = "location = /page { default_type text/html; return 200 '<!doctype html><title>a page</title><p id=p>here</p>'; }\n";
        if config.contains("location = /publish") { format!("{own}{config}") } else { config.to_owned() }
    };
    let victim = WebServer::nginx_with(daemon.address(), fallback.address(), page);
    let attacker = WebServer::nginx_with(daemon.address(), fallback.address(), page);
    daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda-secret"}"#);
    let token = signer.good(&json!({"exp": now() + 600.0, "channels": ["*"]}));
    let script =
        Script::browser("browser/cross-site.mjs").with("victim", format!("http://{}", victim.address()));
    let script =
        script.with("attacker", format!("http://{}", attacker.address())).with("token", token.clone());
    eprintln!("{}", script.run(|command| panic!("it needs no {command:?}")));
    let all = http::get(&format!("/e/cheese,stolen?last_event_id=0&flavor=short-poll&token={token}"))
        .send(daemon.address());
    assert_eq!(all.events().len(), 1, "published from afar: {}", all.text());
}
