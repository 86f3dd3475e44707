//! Tokens that were made to deceive: each is refused with its reason, by both programs, and nobody is asked for a key.
//!
//! What each mistake of an honest signer is told is in `access`; here is what somebody tries who has no key, and, for the claims,
//! what a careless application signs.

use std::net::TcpListener;
use std::time::Duration;

use everpoll_tests::http;
use everpoll_tests::wait;
use serde_json::{Value, json};

use super::{MEMORY_MAX, Stage, code};
use crate::access::signer::{NEW, Signer, With, base64url, now};
use crate::background::Background;
use crate::site::Store;

/// A server that keys might be fetched from, and how many came.
fn key_server() -> (String, Background<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let url = format!("http://{}/keys.json", listener.local_addr().expect("it listens"));
    listener.set_nonblocking(true).expect("it is a socket");
    let server = Background::start(move |stopping| {
        let mut came = 0;
        while !stopping.load(std::sync::atomic::Ordering::SeqCst) {
            came += usize::from(listener.accept().is_ok());
            std::thread::sleep(Duration::from_millis(2));
        }
        came
    });
    (url, server)
}

/// Name, token, and the code of the refusal; none where it is good.
type Case = (String, String, &'static str);

/// Headers that try to choose the key or the algorithm.
fn headers(signer: &Signer, claims: &Value, keys: &str) -> Vec<Case> {
    let public = signer.public("rsa");
    let bare = public.lines().filter(|line| !line.starts_with("---")).collect::<String>();
    let (secret, rsa, nothing) = (With::Secret(NEW), With::Private("other-rsa"), With::Nothing);
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |header: Value, with, code| {
        cases.push((format!("header {header}"), signer.token(&header, claims, with), code));
    };
    for none in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "none ",
        "",
        "null",
        "HS256,none",
        "hs256",
        "HS256 ",
        "HS384",
        "RS512",
        "PS256",
        "ES256",
        "dir",
    ] {
        add(json!({"alg": none, "kid": "new"}), nothing, "token_algorithm");
        add(json!({"alg": none}), secret, "token_algorithm");
    }
    for odd in [json!(null), json!(["HS256"]), json!({"HS256": 1}), json!(256), json!(true)] {
        add(json!({"alg": odd, "kid": "new"}), secret, "token_malformed");
    }
    // The public key is known to everybody; as a secret it opens nothing.
    for key in [&*public, public.trim_end(), &*bare] {
        add(json!({"alg": "HS256", "kid": "rsa"}), With::Secret(key), "token_algorithm");
        add(json!({"alg": "HS256"}), With::Secret(key), "token_signature");
        add(json!({"alg": "RS256", "kid": "new"}), With::Secret(key), "token_algorithm");
    }
    // A key of the attacker's own, which the token brings along, or says where to fetch.
    let jwk = json!({"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "e": "AQAB", "n": base64url([0xc3; 256])});
    for brings in [
        json!({"jwk": jwk}),
        json!({"jku": keys}),
        json!({"x5u": keys}),
        json!({"x5c": [base64url([0x30; 64])]}),
        json!({"x5t": base64url([0x30; 20])}),
        json!({"jwk": jwk, "jku": keys, "x5u": keys}),
        json!({"typ": "JWE", "enc": "A256GCM", "zip": "DEF"}),
        json!({"b64": false}),
    ] {
        let mut header = json!({"alg": "RS256", "kid": "rsa"});
        let fields = brings.as_object().into_iter().flatten();
        fields.for_each(|(name, value)| header[name] = value.clone());
        add(header, rsa, "token_signature");
    }
    let oct = json!({"kty": "oct", "k": base64url("attacker")});
    add(json!({"alg": "HS256", "kid": "new", "jwk": oct}), With::Secret("attacker"), "token_signature");
    for empty in ["0", "00000000000000000000000000000000", "secret", "new"] {
        add(json!({"alg": "HS256", "kid": "new"}), With::Secret(empty), "token_signature");
    }
    // A name is looked for among the keys, and nowhere else.
    for kid in [
        "../../../../dev/null",
        "/dev/null",
        "/proc/self/environ",
        "..\\..\\keys",
        "new\0",
        "new ",
        "NEW",
        "' OR '1'='1",
        "x' UNION SELECT 'attacker' --",
        "; id",
        "$(id)",
        "`id`",
        "\u{ff4e}ew",
        "new\r\nX-Hacked: yes",
        "",
        keys,
        &"k".repeat(2000),
    ] {
        add(json!({"alg": "HS256", "kid": kid}), With::Secret("0"), "token_key_unknown");
    }
    for kid in [json!(0), json!(["new"]), json!({"new": 1}), json!(true)] {
        add(json!({"alg": "HS256", "kid": kid}), secret, "token_malformed");
    }
    for crit in [json!(["exp"]), json!([]), json!("exp"), json!(false), json!(["b64"])] {
        add(json!({"alg": "HS256", "kid": "new", "crit": crit}), secret, "token_malformed");
    }
    cases
}

/// Texts that are no token, or are one in more than one way.
fn shapes(signer: &Signer, claims: &Value) -> Vec<Case> {
    let good = signer.good(claims);
    let parts: Vec<_> = good.split('.').collect();
    let (header, body, signature) = (parts[0], parts[1], parts[2]);
    let named = r#"{"alg":"HS256","kid":"new"}"#;
    let of = |header: &str, claims: &str| signer.token_of(header, claims, With::Secret(NEW));
    let standard = |text: &str| text.replace('-', "+").replace('_', "/");
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, token: String, code| cases.push((name.to_owned(), token, code));
    add("five parts", format!("{good}.{body}.{signature}"), "token_malformed");
    add("four parts", format!("{good}."), "token_malformed");
    add("empty parts", "..".to_owned(), "token_malformed");
    add("only dots", ".".repeat(4000), "token_malformed");
    add("padding", format!("{good}="), "token_malformed");
    add("padding everywhere", format!("{header}==.{body}==.{signature}="), "token_malformed");
    add("the other alphabet", format!("{header}.{body}.{}+/", standard(signature)), "token_malformed");
    add("a blank", format!("{header}.{body}%20.{signature}"), "token_signature");
    add("a line end", format!("{header}%0A.{body}.{signature}"), "token_malformed");
    add("a NUL", format!("{header}.{body}.{signature}%00"), "token_malformed");
    add("a letter more", format!("{good}A"), "token_signature");
    add("two letters more", format!("{good}AA"), "token_malformed");
    // The last letter has bits that mean nothing: there is one spelling of a signature.
    let next = char::from(signature.as_bytes()[signature.len() - 1] + 1);
    add(
        "another spelling",
        format!("{header}.{body}.{}{next}", &signature[..signature.len() - 1]),
        "token_malformed",
    );
    add("another signature", format!("{header}.{body}.{}", base64url([0; 32])), "token_signature");
    add("no signature", format!("{header}.{body}."), "token_signature");
    add("parts exchanged", format!("{body}.{header}.{signature}"), "token_malformed");
    // A header of the attacker's over a signature that was made for another.
    let none = base64url(r#"{"alg":"none"}"#);
    add("another header", format!("{none}.{body}.{signature}"), "token_algorithm");
    add("a token in a token", of(named, &format!("\"{good}\"")), "token_malformed");
    add(
        "an algorithm twice",
        of(r#"{"alg":"none","alg":"HS256","kid":"new"}"#, &claims.to_string()),
        "token_malformed",
    );
    add(
        "a key twice",
        of(r#"{"alg":"HS256","kid":"old","kid":"new"}"#, &claims.to_string()),
        "token_malformed",
    );
    add("a header with an escape", of(r#"{"\u0061lg":"HS256","kid":"n\u0065w"}"#, &claims.to_string()), "");
    add("text behind the header", of(&format!("{named}x"), &claims.to_string()), "token_malformed");
    for (name, text) in [("arrays", "["), ("objects", "{\"a\":")] {
        let deep = text.repeat(10_000 / text.len());
        add(&format!("10,000 bytes of {name}, deep"), of(named, &deep), "token_too_large");
        let deep = text.repeat(2500 / text.len());
        add(&format!("a header of {name}, deep"), of(&deep, "{}"), "token_malformed");
        add(&format!("claims of {name}, deep"), of(named, &deep), "token_malformed");
    }
    let deep = format!("{}{}", "[".repeat(1200), "]".repeat(1200));
    add("a claim 1,200 deep", of(named, &format!(r#"{{"x":{deep},"exp":{},"channels":["*"]}}"#, soon())), "");
    add("oversized", "A".repeat(4097), "token_too_large");
    cases
}

fn soon() -> u64 {
    (now() + 600.0) as u64
}

/// Claims that an application should not have signed.
fn claims(signer: &Signer) -> Vec<Case> {
    let (soon, over) = (soon(), now() as u64 - 1000);
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |claims: String, code| {
        let token = signer.token_of(r#"{"alg":"HS256","kid":"new"}"#, &claims, With::Secret(NEW));
        cases.push((format!("claims {claims}"), token, code));
    };
    for (exp, code) in [
        (format!("{soon}"), ""),
        (format!("{soon}.5"), ""),
        (format!("{}e2", soon / 100), ""),
        (format!("{soon}0"), "token_too_long"),
        (format!("{soon}000"), "token_malformed"),
        (format!("\"{soon}\""), "token_malformed"),
        (format!("[{soon}]"), "token_malformed"),
        (format!("{{\"a\":{soon}}}"), "token_malformed"),
        ("1e400".to_owned(), "token_malformed"),
        ("-1e400".to_owned(), "token_malformed"),
        ("1e308".to_owned(), "token_malformed"),
        ("18446744073709551617".to_owned(), "token_malformed"),
        (format!("{}", u64::MAX), "token_malformed"),
        ("9".repeat(1000), "token_malformed"),
        ("-1".to_owned(), "token_malformed"),
        ("-0".to_owned(), "token_expired"),
        ("0".to_owned(), "token_expired"),
        ("1e-400".to_owned(), "token_expired"),
        (format!("{over}"), "token_expired"),
        ("true".to_owned(), "token_malformed"),
        ("null".to_owned(), "token_malformed"),
        ("NaN".to_owned(), "token_malformed"),
        ("Infinity".to_owned(), "token_malformed"),
        (format!("0x{soon:x}"), "token_malformed"),
        (format!("+{soon}"), "token_malformed"),
    ] {
        add(format!(r#"{{"exp":{exp},"channels":["cheese"]}}"#), code);
    }
    // Whichever of them counts: there must not be two.
    add(format!(r#"{{"exp":{over},"exp":{soon},"channels":["cheese"]}}"#), "token_malformed");
    add(format!(r#"{{"exp":{soon},"exp":{over},"channels":["cheese"]}}"#), "token_malformed");
    add(format!(r#"{{"exp":{soon},"channels":["wine"],"channels":["cheese"]}}"#), "token_malformed");
    add(format!(r#"{{"exp":{soon},"nbf":0,"nbf":{soon},"channels":["cheese"]}}"#), "token_malformed");
    add(format!(r#"{{"\u0065xp":{over},"exp":{soon},"channels":["cheese"]}}"#), "token_malformed");
    for nbf in ["\"0\"", "-1", "1e400", "[]", "true"] {
        add(format!(r#"{{"exp":{soon},"nbf":{nbf},"channels":["cheese"]}}"#), "token_malformed");
    }
    for channels in [
        r#""cheese""#,
        r#"{"cheese":1}"#,
        r#"[["cheese"]]"#,
        r#"["cheese",1]"#,
        r#"[null]"#,
        "true",
        r#"["c*e"]"#,
        r#"["**"]"#,
    ] {
        add(format!(r#"{{"exp":{soon},"channels":{channels}}}"#), "token_malformed");
    }
    for channels in
        [r#"["chees"]"#, r#"["cheese2*"]"#, r#"["wine"]"#, "[]", r#"["Cheese"]"#, r#"["cheese%20"]"#]
    {
        add(format!(r#"{{"exp":{soon},"channels":{channels}}}"#), "channel_forbidden");
    }
    add(format!(r#"{{"exp":{soon},"channels":["*\ud800"]}}"#), "token_malformed");
    add("[]".to_owned(), "token_malformed");
    add("null".to_owned(), "token_malformed");
    add(String::new(), "token_malformed");
    cases
}

#[test]
fn forged_tokens_are_refused() {
    let signer = Signer::new();
    let (url, keys_asked) = key_server();
    let good = json!({"exp": soon(), "channels": ["*"]});
    let mut cases = [headers(&signer, &good, &url), shapes(&signer, &good), claims(&signer)].concat();
    // What is no UTF-8 can be in claims only.
    let latin = signer.token_of(
        r#"{"alg":"HS256","kid":"new"}"#,
        b"{\"exp\":1,\"channels\":[\"k\xe4se\"]}",
        With::Secret(NEW),
    );
    cases.push(("claims in latin-1".to_owned(), latin, "token_malformed"));
    println!("{} tokens", cases.len());
    let settings = [("EVERPOLL_ACCESS", "token"), ("EVERPOLL_TOKEN_KEYS", &*signer.settings())];
    let mut stage = Stage::with(Store::sqlite(), &settings);
    stage.daemon.publish(r#"{"channel":"cheese","type":"made","data":"gouda"}"#);
    let mut bystanders = stage.bystanders_with(&format!("token={}", signer.good(&good)));
    for (name, address) in stage.doors() {
        bystanders.during(&format!("forged tokens at the {name}"), MEMORY_MAX, || {
            for (what, token, expected) in &cases {
                // By turns, as somebody sends it who looks for the one place that was forgotten.
                let poll = format!("/e/cheese?last_event_id=0&flavor=short-poll&token={token}");
                let mut requests = Vec::new();
                if poll.len() < 8000 {
                    requests.push(http::get(&poll));
                }
                if !token.contains('%') {
                    let poll = || http::get("/e/cheese?last_event_id=0&flavor=short-poll");
                    requests.push(poll().header("Authorization", &format!("Bearer {token}")));
                    requests.push(poll().header("Cookie", &format!("everpoll_token={token}")));
                }
                for request in requests {
                    let reply = request.send(address);
                    let text = String::from_utf8_lossy(&reply.body).into_owned();
                    // An empty one in a header or cookie is none.
                    assert_eq!(code(&reply), *expected, "{what} at the {name}: {text}");
                    let status = if expected.is_empty() { 200 } else { 403 };
                    assert_eq!(
                        (reply.status, text.contains("gouda")),
                        (status, expected.is_empty()),
                        "{what}: {text}"
                    );
                    assert!(reply.header("www-authenticate").is_none() && reply.header("location").is_none());
                    // It is not repeated to whoever sees the error.
                    assert!(token.len() < 40 || !text.contains(&token[..40]), "{what}: {text}");
                }
            }
        });
    }
    bystanders.finish();
    stage.assert_well();
    assert_eq!(keys_asked.stop(), 0, "somebody asked for the attacker's keys");
    wait::until("the programs still serve", wait::PATIENCE, || {
        stage.doors().iter().all(|(_, address)| http::get("/e/cheese").send(address).status == 403)
    });
}
