//! Who asks: good and bad credentials in each mode of access.

use everpoll_tests::numbers::Numbers;
use serde_json::json;

use super::request::Drawn;
use crate::access::signer::{NEW, OLD, Signer, With, now};

/// Under which settings is asked, and with what.
pub(super) enum Credentials {
    /// `access = "open"`: those of other modes mean nothing.
    Open,
    /// `access = "token"`: these tokens.
    Token(Vec<String>),
    /// `access = "proxy"`: nginx says what this header has.
    Proxy,
}

/// The header that stands in for what an application answers to nginx.
pub(super) const TOLD_CHANNELS: &str = "Told-Channels";
pub(super) const TOLD_UNTIL: &str = "Told-Until";

impl Credentials {
    /// Good tokens, and such as are refused for each reason. The good ones are good for an hour.
    pub(super) fn tokens(signer: &Signer) -> Self {
        let end = now().floor() + 3600.0;
        let claims = json!({"exp": end, "channels": ["cheese", "wine*", "k\u{e4}se", "nobody"]});
        let but = |name: &str, value| {
            let mut claims = claims.clone();
            claims[name] = value;
            signer.good(&claims)
        };
        let signed = |header, with| signer.token(&header, &claims, with);
        Self::Token(vec![
            signer.good(&claims),
            but("channels", json!(["*"])),
            but("channels", json!(["*"])),
            but("channels", json!([])),
            but("channels", json!(["a*b"])),
            but("channels", json!("*")),
            but("exp", json!(end - 7200.0)),
            but("exp", json!(end + 1e6)),
            but("exp", json!("soon")),
            but("nbf", json!(end)),
            signed(json!({"alg": "HS256"}), With::Secret(OLD)),
            signed(json!({"alg": "RS256", "kid": "rsa"}), With::Private("rsa")),
            signed(json!({"alg": "EdDSA", "kid": "ed"}), With::Private("ed")),
            signed(json!({"alg": "EdDSA", "kid": "ed"}), With::Private("other-ed")),
            signed(json!({"alg": "none"}), With::Nothing),
            signed(json!({"alg": "HS256", "kid": "rsa"}), With::Secret(NEW)),
            signed(json!({"alg": "HS256", "kid": "gone"}), With::Secret(NEW)),
            signed(json!(["HS256", "new", null]), With::Secret(NEW)),
            "a.b.c".to_owned(),
            "x".repeat(4097),
        ])
    }

    /// A token for all channels, where one is needed.
    pub(super) fn good(&self) -> &str {
        match self {
            Self::Token(tokens) => &tokens[1],
            _ => "",
        }
    }

    /// Adds what this one brings along.
    pub(super) fn bring(&self, numbers: &mut Numbers, drawn: &mut Drawn) {
        match self {
            Self::Open => {}
            Self::Token(tokens) => {
                for _ in 0..[0, 1, 1, 1, 1, 2][numbers.below(6)] {
                    // Every other is good.
                    let token = if numbers.below(2) == 0 { &tokens[1] } else { numbers.pick(tokens) };
                    let mut token = token.clone().into_bytes();
                    if numbers.below(8) == 0 {
                        let at = numbers.below(token.len());
                        token[at] = *numbers.pick(b"AZaz09-_.=+/ %\xff");
                    }
                    match numbers.below(6) {
                        0 => drawn.ask([b"token=", token.as_slice()].concat()),
                        1 => drawn.add("Cookie", &[b"a=b; everpoll_token=", token.as_slice()].concat()),
                        2 => drawn
                            .add("Cookie", &[b"everpoll_token=\"", token.as_slice(), b"\"; c=d"].concat()),
                        3 => drawn.add("Authorization", &[b"bearer  ", token.as_slice()].concat()),
                        4 => drawn.add("authorization", &[b"Basic ", token.as_slice()].concat()),
                        _ => drawn.add("Authorization", &[b"Bearer ", token.as_slice()].concat()),
                    }
                }
            }
            Self::Proxy => {
                const CHANNELS: [&[u8]; 9] = [
                    b"*",
                    b"*",
                    b"cheese, wine*",
                    b"k%C3%A4se,cheese",
                    b"k\xc3\xa4se",
                    b"a*b",
                    b"%ff",
                    b" , ",
                    b"\xff",
                ];
                const UNTIL: [&[u8]; 7] = [b"", b"9999999999", b"1", b"1e10", b"inf", b"tomorrow", b"\xff"];
                if numbers.below(8) > 0 {
                    drawn.add(TOLD_CHANNELS, numbers.pick::<&[u8]>(&CHANNELS));
                }
                if numbers.below(3) == 0 {
                    drawn.add(TOLD_UNTIL, numbers.pick::<&[u8]>(&UNTIL));
                }
            }
        }
    }
}
