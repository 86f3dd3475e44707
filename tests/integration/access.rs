//! Who may read: each credential, on each transport, to both programs through nginx, with the same verdict.

mod ends;
mod namespaces;
mod proxy;
mod secrets;
mod sessions;

pub(crate) mod signer;

use std::io::{Read, Write};

use everpoll_tests::http::{self, Address, Request};
use everpoll_tests::{Daemon, Fallback, TestDir, WebServer, everpoll, wait, websocket};
use serde_json::{Value, json};

use crate::site::{self, Store};
use signer::{NEW, OLD, Signer, With, base64url, now};

/// Both programs, each behind an nginx of its own with the shipped configuration. Fields are dropped from top to bottom.
struct Guarded {
    to_daemon: WebServer,
    to_fallback: WebServer,
    fallback: Fallback,
    daemon: Daemon,
    _store: Store,
    _nobody: TestDir,
}

impl Guarded {
    fn with(settings: &[(&str, &str)]) -> Self {
        Self::on(Store::sqlite(), settings)
    }

    fn on(store: Store, settings: &[(&str, &str)]) -> Self {
        let (daemon, fallback) = site::programs(&store, settings);
        let nobody = TestDir::new();
        let away = Address::Unix(nobody.join("nobody.sock"));
        let to_daemon = WebServer::nginx(daemon.address(), fallback.address());
        let to_fallback = WebServer::nginx(&away, fallback.address());
        Self { to_daemon, to_fallback, fallback, daemon, _store: store, _nobody: nobody }
    }

    /// Under `access = "token"`, with these settings besides.
    fn by_token(signer: &Signer, more: &[(&str, &str)]) -> Self {
        let keys = signer.settings();
        let access =
            [("EVERPOLL_ACCESS", "token"), ("EVERPOLL_TOKEN_KEYS", &*keys), ("EVERPOLL_LOG", "debug")];
        Self::with(&[&access, more].concat())
    }

    fn doors(&self) -> [(&'static str, &Address); 2] {
        [("daemon", self.to_daemon.address()), ("fallback", self.to_fallback.address())]
    }

    /// What all three have written.
    fn logs(&self) -> String {
        self.daemon.log() + &self.fallback.log()
    }
}

/// Each way to ask.
const TRANSPORTS: [&str; 5] = ["long-poll", "short-poll", "POST", "eventsource", "websocket"];

/// What is brought along with a request.
#[derive(Clone, Default)]
struct Credential {
    headers: Vec<(&'static str, String)>,
    /// The parameter `token`.
    token: Option<String>,
}

impl Credential {
    fn bearer(token: &str) -> Self {
        Self::default().and("Authorization", format!("Bearer {token}"))
    }

    fn parameter(token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..Self::default() }
    }

    fn and(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A request for channels from the beginning of the log.
fn request(transport: &str, channels: &str, credential: &Credential) -> Request {
    let token = credential.token.as_ref().map(|token| format!("&token={token}")).unwrap_or_default();
    let target = format!("/e/{channels}?last_event_id=0{token}");
    let request = match transport {
        "long-poll" => http::get(&target),
        "POST" => {
            let form = format!("last_event_id=0{token}");
            let request = http::request("POST", &format!("/e/{channels}")).body(form);
            request.header("Content-Type", "application/x-www-form-urlencoded")
        }
        "websocket" => websocket::request(&target),
        flavor => http::get(&format!("{target}&flavor={flavor}")),
    };
    credential.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// The status, and the body as far as it says how long it is; of a stream what comes with its head.
fn ask(address: &Address, request: &Request) -> (u16, String) {
    let mut stream = address.connect().expect("it listens");
    stream.write_all(&request.bytes()).expect("it listens");
    let (mut bytes, mut some) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if length.is_none_or(|length: usize| body.len() >= length) {
                assert!(!lower.contains("www-authenticate") && !lower.contains("\nlocation:"), "{head}");
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                return (status.unwrap_or_else(|| panic!("no reply: {head}")), body.to_owned());
            }
        }
        match stream.read(&mut some).expect("it answers") {
            0 => panic!("closed in the middle of {text:?}"),
            length => bytes.extend_from_slice(&some[..length]),
        }
    }
}

/// `ok`, or the code of the refusal; and the refusal's text.
fn verdict(door: &str, transport: &str, address: &Address, request: &Request) -> (String, String) {
    let (mut status, mut body) = ask(address, request);
    // nginx may send a WebSocket over a kept connection over which it has sent a POST, where it is refused once.
    for _ in 0..10 {
        if door == "daemon" && transport == "websocket" && status == 426 {
            (status, body) = ask(address, request);
        }
    }
    if matches!(status, 200 | 101) {
        return ("ok".to_owned(), body);
    }
    assert!(!body.contains("\"events\"") && !body.contains("gouda"), "{body}");
    let problem: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status} with {body}"));
    let (code, text) =
        (problem["code"].as_str().unwrap_or_default(), problem["detail"].as_str().unwrap_or_default());
    // The fallback has no WebSockets; that is said only to those who may read.
    if door == "fallback" && transport == "websocket" && code == "upgrade_required" {
        return ("ok".to_owned(), String::new());
    }
    assert_eq!(status, 403, "{door}, {transport}: {body}");
    (code.to_owned(), text.to_owned())
}

/// A line of the table: what it is, what is brought along, the channels, and the verdict.
type Case = (&'static str, Credential, &'static str, &'static str);

fn cases(signer: &Signer) -> Vec<Case> {
    use Credential as By;
    let soon = now().floor() + 600.0;
    let claims =
        json!({"exp": soon, "aud": "site", "iss": "shop", "channels": ["cheese", "shop-*", "k\u{e4}se"]});
    let but = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signer.good(&claims)
    };
    let signed = |header: Value, with| signer.token(&header, &claims, with);
    let good = signer.good(&claims);
    let public = signer.public("rsa");
    let parts: Vec<_> = good.split('.').collect();
    let more = base64url(json!({"exp": soon, "aud": "site", "iss": "shop", "channels": ["*"]}).to_string());
    let tampered = format!("{}.{more}.{}", parts[0], parts[2]);
    let cookie = |text: String| By::default().and("Cookie", text);
    let bearer = |token: &str| By::bearer(token);
    vec![
        ("nothing", By::default(), "cheese", "token_missing"),
        ("a good one", bearer(&good), "cheese", "ok"),
        ("for a pattern", bearer(&good), "shop-17", "ok"),
        ("for a pattern's bare beginning", bearer(&good), "shop-", "ok"),
        ("for a name that is encoded", bearer(&good), "k%C3%A4se", "ok"),
        ("for several", bearer(&good), "cheese,shop-1,shop-2", "ok"),
        ("for another", bearer(&good), "wine", "channel_forbidden"),
        ("for one of several", bearer(&good), "cheese,wine,shop-1", "channel_forbidden"),
        ("for another case", bearer(&good), "Cheese", "channel_forbidden"),
        ("for a longer name", bearer(&good), "cheese2", "channel_forbidden"),
        ("for a pattern, literally", bearer(&good), "shop", "channel_forbidden"),
        ("for all", bearer(&but("channels", json!(["*"]))), "wine", "ok"),
        ("for none", bearer(&but("channels", json!([]))), "cheese", "channel_forbidden"),
        ("as parameter", By::parameter(&good), "cheese", "ok"),
        ("as cookie", cookie(format!("everpoll_token={good}")), "cheese", "ok"),
        ("as one cookie of several", cookie(format!("a=b; everpoll_token={good}; c=d")), "cheese", "ok"),
        ("as another cookie", cookie(format!("xeverpoll_token={good}")), "cheese", "token_missing"),
        (
            "scheme in lower case",
            By::default().and("Authorization", format!("bearer {good}")),
            "cheese",
            "ok",
        ),
        (
            "another scheme",
            By::default().and("Authorization", "Basic eDp5".into()),
            "cheese",
            "token_missing",
        ),
        (
            "another scheme and a parameter",
            By::parameter(&good).and("Authorization", "Basic eDp5".into()),
            "cheese",
            "ok",
        ),
        (
            "header before parameter",
            By::parameter(&good).and("Authorization", "Bearer x".into()),
            "cheese",
            "token_malformed",
        ),
        (
            "parameter before cookie",
            By::parameter("x").and("Cookie", format!("everpoll_token={good}")),
            "cheese",
            "token_malformed",
        ),
        ("expired", bearer(&but("exp", json!(now() - 60.0))), "cheese", "token_expired"),
        ("expired, within the leeway", bearer(&but("exp", json!(now() - 1.0))), "cheese", "ok"),
        ("not yet valid", bearer(&but("nbf", json!(now() + 60.0))), "cheese", "token_not_yet"),
        ("valid too long", bearer(&but("exp", json!(now() + 100_000.0))), "cheese", "token_too_long"),
        ("without end", bearer(&but("exp", Value::Null)), "cheese", "token_malformed"),
        ("end in milliseconds", bearer(&but("exp", json!(soon * 1000.0))), "cheese", "token_malformed"),
        ("end as text", bearer(&but("exp", json!(format!("{soon}")))), "cheese", "token_malformed"),
        ("without channels", bearer(&but("channels", Value::Null)), "cheese", "token_malformed"),
        ("a pattern that is none", bearer(&but("channels", json!(["a*b"]))), "cheese", "token_malformed"),
        ("another audience", bearer(&but("aud", json!("other"))), "cheese", "token_audience"),
        ("one audience of several", bearer(&but("aud", json!(["other", "site"]))), "cheese", "ok"),
        ("no audience", bearer(&but("aud", Value::Null)), "cheese", "token_audience"),
        ("another issuer", bearer(&but("iss", json!("other"))), "cheese", "token_issuer"),
        (
            "the old key",
            bearer(&signed(json!({"alg": "HS256", "kid": "old"}), With::Secret(OLD))),
            "cheese",
            "ok",
        ),
        ("no kid", bearer(&signed(json!({"alg": "HS256"}), With::Secret(OLD))), "cheese", "ok"),
        (
            "RS256",
            bearer(&signed(json!({"alg": "RS256", "kid": "rsa"}), With::Private("rsa"))),
            "cheese",
            "ok",
        ),
        ("RS256 without kid", bearer(&signed(json!({"alg": "RS256"}), With::Private("rsa"))), "shop-1", "ok"),
        ("EdDSA", bearer(&signed(json!({"alg": "EdDSA", "kid": "ed"}), With::Private("ed"))), "cheese", "ok"),
        (
            "another RSA key",
            bearer(&signed(json!({"alg": "RS256", "kid": "rsa"}), With::Private("other-rsa"))),
            "cheese",
            "token_signature",
        ),
        (
            "another Ed25519 key",
            bearer(&signed(json!({"alg": "EdDSA", "kid": "ed"}), With::Private("other-ed"))),
            "cheese",
            "token_signature",
        ),
        (
            "another secret",
            bearer(&signed(json!({"alg": "HS256", "kid": "new"}), With::Secret(OLD))),
            "cheese",
            "token_signature",
        ),
        (
            "unknown kid",
            bearer(&signed(json!({"alg": "HS256", "kid": "newest"}), With::Secret(NEW))),
            "cheese",
            "token_key_unknown",
        ),
        ("alg none", bearer(&signed(json!({"alg": "none"}), With::Nothing)), "cheese", "token_algorithm"),
        (
            "alg none with kid",
            bearer(&signed(json!({"alg": "none", "kid": "new"}), With::Nothing)),
            "cheese",
            "token_algorithm",
        ),
        (
            "the public key as secret",
            bearer(&signed(json!({"alg": "HS256", "kid": "rsa"}), With::Secret(&public))),
            "cheese",
            "token_algorithm",
        ),
        (
            "the public key as secret, no kid",
            bearer(&signed(json!({"alg": "HS256"}), With::Secret(&public))),
            "cheese",
            "token_signature",
        ),
        (
            "RS256 for the key of a secret",
            bearer(&signed(json!({"alg": "RS256", "kid": "new"}), With::Private("rsa"))),
            "cheese",
            "token_algorithm",
        ),
        (
            "HS512",
            bearer(&signed(json!({"alg": "HS512", "kid": "new"}), With::Secret(NEW))),
            "cheese",
            "token_algorithm",
        ),
        (
            "crit",
            bearer(&signed(json!({"alg": "HS256", "kid": "new", "crit": ["x"], "x": 1}), With::Secret(NEW))),
            "cheese",
            "token_malformed",
        ),
        ("other claims", bearer(&tampered), "wine", "token_signature"),
        ("cut signature", bearer(&good[..good.len() - 3]), "cheese", "token_signature"),
        ("no signature", bearer(&good[..=good.rfind('.').unwrap_or(0)]), "cheese", "token_signature"),
        ("garbage", bearer("a.b.c"), "cheese", "token_malformed"),
        ("two parts", bearer("a.b"), "cheese", "token_malformed"),
        (
            "an array",
            bearer(&format!("{}.{}.x", base64url("[]"), base64url("[]"))),
            "cheese",
            "token_malformed",
        ),
        ("too large", bearer(&"x".repeat(4097)), "cheese", "token_too_large"),
    ]
}

#[test]
fn every_credential_gets_the_same_verdict_on_each_transport_from_both_programs() {
    let signer = Signer::new();
    let guarded =
        Guarded::by_token(&signer, &[("EVERPOLL_TOKEN_AUDIENCE", "site"), ("EVERPOLL_TOKEN_ISSUER", "shop")]);
    guarded.daemon.publish(
        &json!(
            ["cheese", "shop-17", "shop-", "k\u{e4}se", "shop-1", "wine"]
                .map(|channel| json!({"channel": channel, "type": "made", "data": "gouda"}))
        )
        .to_string(),
    );
    let cases = cases(&signer);
    assert!(cases.len() * TRANSPORTS.len() * 2 >= 500, "only {} credentials", cases.len());
    for (name, credential, channels, expected) in &cases {
        for transport in TRANSPORTS {
            for (door, address) in guarded.doors() {
                let request = request(transport, channels, credential);
                let (code, text) = verdict(door, transport, address, &request);
                assert_eq!(code, *expected, "{name}, {transport}, {door}: {text}");
                if code == "channel_forbidden" && channels.contains("wine") {
                    assert!(text.contains("\"wine\""), "{name}: {text}");
                }
                if code == "ok" && matches!(transport, "long-poll" | "short-poll" | "POST") {
                    assert!(text.contains("gouda"), "{name}, {transport}, {door}: {text}");
                }
            }
        }
    }
    // What was brought along is in no log, whatever level it has.
    for (name, credential, ..) in &cases {
        let tokens = credential.headers.iter().map(|(_, value)| value).chain(&credential.token);
        for signature in tokens.filter_map(|token| token.rsplit('.').next()).filter(|part| part.len() > 40) {
            assert!(!guarded.logs().contains(signature), "{name} is logged");
        }
    }
}

#[test]
fn scripts_are_not_answered_for_a_cookie() {
    let signer = Signer::new();
    let guarded = Guarded::by_token(&signer, &[("EVERPOLL_JSONP", "true")]);
    guarded.daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
    let token = signer.good(&json!({"exp": now() + 600.0, "channels": ["cheese"]}));
    for (name, address) in guarded.doors() {
        let script = |target: &str| {
            let request = http::get(&format!("{target}?cb=f&last_event_id=0&flavor=short-poll"));
            request.header("Cookie", &format!("everpoll_token={token}")).send(address).text().to_owned()
        };
        // Any page of the web can load it, and the browser sends the cookie.
        assert!(script("/e/cheese").contains("token_missing"), "{name}");
        let named = http::get(&format!("/e/cheese?cb=f&last_event_id=0&flavor=short-poll&token={token}"));
        assert!(named.send(address).text().contains("gouda"), "{name}");
    }
}

#[test]
fn until_access_is_written_down_no_page_of_another_name_reads() {
    // Not set, as in a try-out.
    let guarded = Guarded::with(&[("EVERPOLL_ACCESS", "")]);
    guarded.daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
    let doors = guarded.doors().into_iter().chain([("daemon", guarded.daemon.address())]);
    for ((door, address), transport) in doors.flat_map(|door| TRANSPORTS.map(|transport| (door, transport))) {
        let ask = |host: &str| {
            let request = request(transport, "cheese", &Credential::default());
            verdict(door, transport, address, &request.header("Host", host))
        };
        // What a page's name leads to, its own server decides.
        let (code, text) = ask("evil.example:8377");
        assert_eq!(code, "host_not_local", "{door}, {transport}");
        assert!(text.contains("evil.example") && text.contains("access = \"open\""), "{text}");
        for own in ["localhost:8377", "127.0.0.1", "[::1]:8377", "shop.localhost"] {
            assert_eq!(ask(own).0, "ok", "{door}, {transport}, {own}");
        }
    }
    let written = Guarded::with(&[("EVERPOLL_ACCESS", "open")]);
    for (door, address) in written.doors() {
        let request = request("short-poll", "cheese", &Credential::default()).header("Host", "shop.example");
        assert_eq!(verdict(door, "short-poll", address, &request).0, "ok", "{door}");
    }
}

#[test]
fn keys_of_tokens_are_exchanged_without_a_restart() {
    let (signer, directory) = (Signer::new(), TestDir::new());
    let put = |kid: &str, secret: &str| {
        let text = format!("[token_keys.{kid}]\nalgorithm = 'HS256'\nsecret = '{secret}'\n");
        std::fs::rename(directory.file("keys.new", text), directory.join("keys.toml"))
            .expect("both are ours");
    };
    put("old", OLD);
    let path = directory.join("keys.toml").display().to_string();
    let guarded = Guarded::with(&[("EVERPOLL_ACCESS", "token"), ("EVERPOLL_KEYS_FILE", &path)]);
    let claims = json!({"exp": now() + 600.0, "channels": ["cheese"]});
    let old = signer.token(&json!({"alg": "HS256", "kid": "old"}), &claims, With::Secret(OLD));
    let new = signer.good(&claims);
    let code = |door: &str, address: &Address, token: &str| {
        verdict(door, "short-poll", address, &request("short-poll", "cheese", &Credential::bearer(token))).0
    };
    for (door, address) in guarded.doors() {
        assert_eq!(code(door, address, &old), "ok", "{door}");
        assert_eq!(code(door, address, &new), "token_key_unknown", "{door}");
    }
    put("new", NEW);
    for (door, address) in guarded.doors() {
        wait::until("the new key holds", wait::PATIENCE, || code(door, address, &new) == "ok");
        assert_eq!(code(door, address, &old), "token_key_unknown", "{door}");
    }
}

/// The code that `docs/how-to/access.md` shows in this language.
fn shown(language: &str) -> String {
    let page = include_str!("../../docs/how-to/access.md");
    let (_, rest) = page.split_once(&format!("   ```{language}\n")).expect("the page has it");
    let (code, _) = rest.split_once("   ```\n").expect("it ends");
    code.lines().map(|line| line.strip_prefix("   ").unwrap_or(line).to_owned() + "\n").collect()
}

#[test]
fn tokens_made_as_the_how_to_shows_are_good() {
    let signer = Signer::new();
    let guarded = Guarded::by_token(&signer, &[]);
    let call = |call: &str| format!("{call}('{NEW}', 'new', ['shop-*', 'k\u{e4}se'])");
    let python = shown("python") + &format!("print({})", call("everpoll_token"));
    let php = shown("php") + &format!("echo {};", call("everpoll_token"));
    let node = shown("js") + &format!("console.log({});", call("everpollToken"));
    for (program, flag, code) in [("python3", "-c", &python), ("php", "-r", &php), ("node", "-e", &node)] {
        let output =
            std::process::Command::new(program).args([flag, code]).output().expect("it is installed");
        let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        let by = Credential::bearer(&token);
        for (door, address) in guarded.doors() {
            for (channel, expected) in [("shop-1", "ok"), ("k%C3%A4se", "ok"), ("wine", "channel_forbidden")]
            {
                let (code, text) = verdict(door, "short-poll", address, &request("short-poll", channel, &by));
                assert_eq!(code, expected, "{program}, {channel}, {door}: {text}");
            }
        }
    }
}

#[test]
fn command_makes_tokens_and_explains_them() {
    let signer = Signer::new();
    let guarded = Guarded::by_token(&signer, &[("EVERPOLL_TOKEN_ISSUER", "shop")]);
    let keys = signer.settings();
    let run = |arguments: &[&str]| {
        let mut command = everpoll::command("everpoll");
        command.arg("token").args(arguments).env("EVERPOLL_TOKEN_KEYS", &keys);
        let output = command.env("EVERPOLL_TOKEN_ISSUER", "shop").output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, token, _) = run(&["make", "--for", "10m", "--key", "old", "shop-*", "cheese"]);
    assert_eq!(code, Some(0));
    let token = token.trim();
    for (door, address) in guarded.doors() {
        let by = Credential::bearer(token);
        assert_eq!(
            verdict(door, "short-poll", address, &request("short-poll", "shop-1", &by)).0,
            "ok",
            "{door}"
        );
    }
    let (code, told, _) = run(&["explain", token]);
    assert_eq!(code, Some(0), "{told}");
    for says in
        ["\"kid\":\"old\"", "\"iss\":\"shop\"", "signed by: old", "channels: shop-*, cheese", "good until: "]
    {
        assert!(told.contains(says), "{told}");
    }
    let expired = signer.good(&json!({"exp": now() - 60.0, "channels": ["cheese"]}));
    let (code, told, refused) = run(&["explain", &expired]);
    assert_eq!(code, Some(1));
    assert!(told.contains("\"cheese\"") && refused.contains("[token_expired]"), "{told}{refused}");
    assert_eq!(run(&["make", "--for", "2d", "cheese"]).0, Some(2));
    let (code, _, refused) = run(&["make", "--key", "rsa", "cheese"]);
    assert!(code == Some(2) && refused.contains("rsa (RS256)"), "{refused}");
}
