//! Access by token: a JSON Web Token (RFC 7519, RFC 7515) that says which channels its bearer may read, and until when.
//!
//! What a newcomer gets wrong: the header of a token is written by whoever made it up. So the algorithm is the key's, and a
//! token that names another is refused; nothing of the claims is looked at before the signature is known to be good.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Algorithm, Grant, Patterns, TokenKey, bearer};
use crate::error::brief;
use crate::{Headers, RequestError, Timestamp};

/// Longest token, in bytes. More is refused unread.
pub(crate) const MAX_TOKEN_BYTES: usize = 4096;

/// What the settings say about tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The keys that sign them.
    pub keys: Arc<[TokenKey]>,
    /// The cookie that a token may come in.
    pub cookie: Option<Box<str>>,
    /// What `aud` must name.
    pub audience: Option<Box<str>>,
    /// What `iss` must be.
    pub issuer: Option<Box<str>>,
    /// How far the clock of whoever made it may be wrong.
    pub leeway: Duration,
    /// How far in the future its end may be.
    pub valid_max: Duration,
}

/// What a token says, once its signature is known to be good.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Which channels its bearer may read, and until when.
    pub grant: Grant,
    /// The `kid` of the key that had signed it.
    pub key: Box<str>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    // What must be understood and is not (RFC 7515 section 4.1.11).
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    aud: Option<Audience>,
    iss: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Tokens {
    /// The token that a request brings: in `Authorization`, else as parameter, else in the cookie. The first one counts, even
    /// where it is refused.
    pub(crate) fn find(
        &self,
        headers: &dyn Headers,
        parameter: Option<&[u8]>,
        may_use_cookie: bool,
    ) -> Option<Vec<u8>> {
        let header = headers.header("authorization").unwrap_or_default();
        // Another scheme is the affair of the web server in front.
        if let Some(token) = bearer(&header) {
            return Some(token.to_vec());
        }
        if let Some(token) = parameter {
            return Some(token.to_vec());
        }
        let name = self.cookie.as_deref().filter(|_| may_use_cookie)?;
        cookie(&headers.header("cookie")?, name.as_bytes()).map(<[u8]>::to_vec)
    }

    /// Checks a token at the time `now`.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<Verified, RequestError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(RequestError::TokenTooLarge { bytes: token.len() });
        }
        let malformed = |reason: &str| RequestError::TokenMalformed { reason: brief(&reason) };
        let mut parts = token.split(|b| *b == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("it has not three parts with dots between them"));
        };
        let message = &token[..header.len() + 1 + claims.len()];
        let decode =
            |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed("a part is not base64url"));
        let header: Header = object(&decode(header)?)
            .map_err(|_| malformed("its header is no JSON object with alg, and kid if any as text"))?;
        if header.crit.is_some() {
            return Err(malformed("its header has crit, which is not understood here"));
        }
        let key = self.signer(&header, message, &decode(signature)?)?;
        let claims = decode(claims)?;
        let claims: Claims<'_> = object(&claims)
            .map_err(|error| malformed(&format!("its claims are not as they should be: {error}")))?;
        Ok(Verified { grant: self.grant(&claims, now)?, key })
    }

    /// The `kid` of the key that has signed this.
    fn signer(&self, header: &Header, message: &[u8], signature: &[u8]) -> Result<Box<str>, RequestError> {
        let named = |algorithm: &str| RequestError::TokenAlgorithm {
            algorithm: algorithm.chars().take(20).collect(),
        };
        let algorithm = Algorithm::parse(&header.alg).ok_or_else(|| named(&header.alg))?;
        let keys = &self.keys;
        let candidates: Vec<_> = match &header.kid {
            Some(id) => keys.iter().filter(|key| *key.id == **id).collect(),
            None => keys.iter().filter(|key| key.algorithm() == algorithm).collect(),
        };
        if candidates.is_empty() {
            let id = header.kid.as_deref().unwrap_or("none").chars().take(40).collect();
            return Err(RequestError::TokenKeyUnknown { id });
        }
        if candidates.iter().any(|key| key.algorithm() != algorithm) {
            return Err(named(&header.alg));
        }
        let signer = candidates.into_iter().find(|key| key.verifies(message, signature));
        signer.map(|key| key.id.clone()).ok_or(RequestError::TokenSignature)
    }

    fn grant(&self, claims: &Claims<'_>, now: Timestamp) -> Result<Grant, RequestError> {
        let malformed = |reason: String| RequestError::TokenMalformed { reason: brief(&reason) };
        let time = |name: &str, claim: Option<&RawValue>| match claim {
            None => Ok(None),
            Some(value) => match instant(value.get()) {
                Some(at) => Ok(Some(at)),
                None => Err(malformed(format!("{name} is no number of seconds since 1970"))),
            },
        };
        let until = time("exp", claims.exp)?.ok_or_else(|| malformed("it has no exp".into()))?;
        // With the leeway it is over that much later: where both clocks are right, the page has a fresh one long before.
        let end = until.plus(self.leeway);
        if end <= now {
            return Err(RequestError::TokenExpired { at: until });
        }
        if let Some(from) = time("nbf", claims.nbf)?
            && from > now.plus(self.leeway)
        {
            return Err(RequestError::TokenNotYet { at: from });
        }
        if until > now.plus(self.valid_max).plus(self.leeway) {
            return Err(RequestError::TokenTooLong { seconds: self.valid_max.as_secs() });
        }
        if let Some(issuer) = &self.issuer
            && claims.iss.as_deref() != Some(issuer)
        {
            return Err(RequestError::TokenIssuer);
        }
        if let Some(audience) = &self.audience {
            let named = match &claims.aud {
                None => false,
                Some(Audience::One(one)) => **one == **audience,
                Some(Audience::Several(all)) => all.iter().any(|one| **one == **audience),
            };
            if !named {
                return Err(RequestError::TokenAudience);
            }
        }
        let Some(channels) = &claims.channels else {
            return Err(malformed("it has no channels, a list such as [\"shop-*\"]".into()));
        };
        let channels = Patterns::parse(channels.iter().map(String::as_str));
        let channels = channels.map_err(|wrong| malformed(format!("its channel {wrong}")))?;
        Ok(Grant { channels, until: Some(end) })
    }
}

/// Makes a token for HS256; `None` for a public key, which cannot sign.
#[must_use]
pub fn sign(key: &TokenKey, claims: &serde_json::Value) -> Option<String> {
    let header = serde_json::json!({"alg": key.algorithm().name(), "typ": "JWT", "kid": key.id});
    let encode = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", encode(&header), encode(claims));
    let signature = key.sign(message.as_bytes())?;
    Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// The header and the claims of a token, as they stand in it, unchecked: to be shown to people.
#[must_use]
pub fn unchecked(token: &str) -> Option<(serde_json::Value, serde_json::Value)> {
    let mut parts = token.split('.');
    let mut next = || serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok();
    Some((next()?, next()?))
}

/// Reads a JSON object. `serde` alone would also take an array of the members in their order, and any bytes in members that
/// nobody asks for.
fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if !text.trim_ascii_start().starts_with('{') {
        return Err("it is no object".into());
    }
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Seconds since 1970 with an optional fraction (RFC 7519, "NumericDate").
fn instant(json: &str) -> Option<Timestamp> {
    let seconds: f64 = json.parse().ok()?;
    // Beyond the year 9999 it is a slip, such as milliseconds.
    (0.0..=253_402_300_799.0).contains(&seconds).then(|| Timestamp::from_micros((seconds * 1e6) as u64))
}

/// The value of a cookie (RFC 6265 section 4.2.1); of several with this name the first.
fn cookie<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    header.split(|b| matches!(b, b';' | b',')).find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value)).filter(|value| !value.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::request::tests::TestHeaders;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_700_000_000;

    fn tokens() -> Tokens {
        let keys = vec![
            TokenKey::hs256("new", SECRET).unwrap(),
            TokenKey::hs256("old", &SECRET.to_uppercase()).unwrap(),
        ];
        Tokens {
            keys: keys.into(),
            cookie: Some("everpoll_token".into()),
            audience: None,
            issuer: None,
            leeway: Duration::from_secs(10),
            valid_max: Duration::from_secs(3600),
        }
    }

    fn code_with(tokens: &Tokens, token: &str) -> &'static str {
        match tokens.verify(token.as_bytes(), Timestamp::from_micros(NOW * 1_000_000)) {
            Ok(_) => "ok",
            Err(error) => {
                assert_eq!(error.status(), 403);
                assert!(error.to_string().len() < 1000, "{error}");
                error.code()
            }
        }
    }

    fn claims_code(tokens: &Tokens, claims: &serde_json::Value) -> &'static str {
        code_with(tokens, &sign(&tokens.keys[0], claims).unwrap())
    }

    /// A token with this header over good claims, signed with the first key whatever the header says.
    fn with_header(header: &serde_json::Value) -> String {
        let claims = json!({"exp": NOW + 60, "channels": ["*"]});
        let encode = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", encode(header), encode(&claims));
        let signature = tokens().keys[0].sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn key_decides_on_the_algorithm_and_not_the_token() {
        for (header, code) in [
            (json!({"alg": "HS256", "kid": "new"}), "ok"),
            (json!({"alg": "HS256"}), "ok"),
            (json!({"alg": "HS256", "kid": "old"}), "token_signature"),
            (json!({"alg": "HS256", "kid": "other"}), "token_key_unknown"),
            (json!({"alg": "none", "kid": "new"}), "token_algorithm"),
            (json!({"alg": "None"}), "token_algorithm"),
            (json!({"alg": "RS256", "kid": "new"}), "token_algorithm"),
            (json!({"alg": "RS256"}), "token_key_unknown"),
            (json!({"alg": "HS512", "kid": "new"}), "token_algorithm"),
            (json!({"kid": "new"}), "token_malformed"),
            (json!({"alg": "HS256", "kid": 7}), "token_malformed"),
            (json!({"alg": "HS256", "kid": "new", "crit": ["b64"], "b64": false}), "token_malformed"),
        ] {
            assert_eq!(code_with(&tokens(), &with_header(&header)), code, "{header}");
        }
        let bare = with_header(&json!({"alg": "none"}));
        assert_eq!(code_with(&tokens(), &bare[..=bare.rfind('.').unwrap()]), "token_algorithm");
    }

    #[test]
    fn claims_are_looked_at_one_by_one() {
        let all = tokens();
        let strict = Tokens { issuer: Some("shop".into()), audience: Some("everpoll".into()), ..tokens() };
        let good = json!({"exp": NOW + 60, "channels": ["shop-*"], "iss": "shop", "aud": ["x", "everpoll"]});
        assert_eq!((claims_code(&all, &good), claims_code(&strict, &good)), ("ok", "ok"));
        for (change, code) in [
            (json!({"exp": null}), "token_malformed"),
            (json!({"exp": "1700000060"}), "token_malformed"),
            (json!({"exp": (NOW + 60) * 1000}), "token_malformed"),
            (json!({"exp": -1}), "token_malformed"),
            (json!({"exp": NOW - 9}), "ok"),
            (json!({"exp": NOW - 10}), "token_expired"),
            (json!({"exp": NOW as f64 - 9.5}), "ok"),
            (json!({"exp": NOW + 3610}), "ok"),
            (json!({"exp": NOW + 3611}), "token_too_long"),
            (json!({"nbf": NOW + 10}), "ok"),
            (json!({"nbf": NOW + 11}), "token_not_yet"),
            (json!({"nbf": "soon"}), "token_malformed"),
            (json!({"channels": null}), "token_malformed"),
            (json!({"channels": "shop-*"}), "token_malformed"),
            (json!({"channels": ["a*b"]}), "token_malformed"),
            (json!({"channels": "x".repeat(2000)}), "token_malformed"),
            (json!({"iss": "other"}), "token_issuer"),
            (json!({"iss": null}), "token_issuer"),
            (json!({"aud": "other"}), "token_audience"),
            (json!({"aud": "everpoll"}), "ok"),
            (json!({"aud": null}), "token_audience"),
        ] {
            let mut claims = good.clone();
            for (name, value) in change.as_object().unwrap() {
                claims[name] = value.clone();
            }
            assert_eq!(claims_code(&strict, &claims), code, "{change}");
        }
    }

    #[test]
    fn claims_are_an_object_in_utf_8() {
        let tokens = tokens();
        assert_eq!(claims_code(&tokens, &json!([NOW + 60, null, ["*"], null, null])), "token_malformed");
        let sign = |claims: &[u8]| {
            let message = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
                URL_SAFE_NO_PAD.encode(claims)
            );
            let signature = tokens.keys[0].sign(message.as_bytes()).unwrap();
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        let claims = format!(r#"{{"exp":{},"channels":["*"],"x":"?"}}"#, NOW + 60);
        assert_eq!(code_with(&tokens, &sign(claims.as_bytes())), "ok");
        let claims: Vec<u8> = claims.bytes().map(|b| if b == b'?' { 0xff } else { b }).collect();
        assert_eq!(code_with(&tokens, &sign(&claims)), "token_malformed");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = with_header(&json!({"alg": "HS256"}));
        assert_eq!(code_with(&tokens(), &good), "ok");
        let other_claims = URL_SAFE_NO_PAD.encode(json!({"exp": NOW + 60, "channels": ["x"]}).to_string());
        let parts: Vec<_> = good.split('.').collect();
        let mixed = format!("{}.{other_claims}.{}", parts[0], parts[2]);
        for (token, code) in [
            ("", "token_malformed"),
            ("a.b", "token_malformed"),
            (&format!("{good}.x"), "token_malformed"),
            (&format!("{good}="), "token_malformed"),
            (&good[..good.len() - 3], "token_signature"),
            (&mixed, "token_signature"),
            (&"x".repeat(4097), "token_too_large"),
            (&with_header(&json!(["HS256", "new", null])), "token_malformed"),
        ] {
            assert_eq!(code_with(&tokens(), token), code, "{token}");
        }
    }

    #[test]
    fn token_of_a_key_that_is_gone_is_refused() {
        let token = with_header(&json!({"alg": "HS256", "kid": "new"}));
        assert_eq!(code_with(&tokens(), &token), "ok");
        let without = Tokens { keys: [].into(), ..tokens() };
        assert_eq!(code_with(&without, &token), "token_key_unknown");
    }

    #[test]
    fn header_wins_over_parameter_and_parameter_over_cookie() {
        let find = |headers: &'static [(&'static str, &'static str)], parameter: Option<&str>, cookies| {
            let found = tokens().find(&TestHeaders(headers), parameter.map(str::as_bytes), cookies);
            found.map(|token| String::from_utf8(token).unwrap())
        };
        let both = &[("authorization", "bearer h"), ("cookie", "a=b; everpoll_token=c; x=y")];
        assert_eq!(find(both, Some("p"), true).as_deref(), Some("h"));
        let cookie = &[("cookie", "a=b; everpoll_token=c; x=y"), ("authorization", "Basic eDp5")];
        assert_eq!(find(cookie, Some("p"), true).as_deref(), Some("p"));
        assert_eq!(find(cookie, None, true).as_deref(), Some("c"));
        assert_eq!(find(cookie, None, false), None);
        assert_eq!(
            find(&[("cookie", "xeverpoll_token=c; everpoll_tokens=d; everpoll_token=")], None, true),
            None
        );
        assert_eq!(find(&[("cookie", "everpoll_token=\"q\"")], None, true).as_deref(), Some("q"));
    }
}
