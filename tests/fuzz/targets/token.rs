//! Tokens, from strangers and from those who have a key.
//!
//! The first byte says which. `t`: the rest is a token as a stranger sends it. `n`, `o`, `e`: the rest are three bytes, a line
//! with the header, and the claims, signed with the new secret, the old one, or the private half of the Ed25519 key; the three
//! bytes say where the token is changed afterwards. `x` and `p` are the same for somebody who has no key: one who made up a
//! secret, and one who takes the public key's text for a secret.
//!
//! Whether a token is good is decided a second time here: with base64, HMAC and the reading of claims written anew, and with
//! public keys that stand here as numbers and not as PEM.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use everpoll_protocol::{
    Access, Algorithm, Channel, Headers, Limits, RawRequest, Request, Timestamp, TokenKey, Tokens,
};
use ring::digest::{SHA256, digest};
use ring::signature::{
    ED25519, Ed25519KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// When all requests come.
const NOW: u64 = 1_700_000_000_000_000;
const LEEWAY: Duration = Duration::from_secs(10);
const VALID_MAX: Duration = Duration::from_secs(3600);
const TOKEN_MAX: usize = 4096;

const NEW: &str = "new-secret-0123456789abcdef-0123456789";
const OLD: &str = "old-secret-0123456789abcdef-0123456789";
const STRANGERS: &str = "his-secret-0123456789abcdef-0123456789";

/// Of the Ed25519 key, the private half: 32 times this byte.
const SEED: u8 = 7;

const ED25519_PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=
-----END PUBLIC KEY-----
";

const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0uCbiGtPP76EgaNgG7Jz
/M8t9OVZCY1NYRmsVnxc3Ap5tDpKKgPSrp2z0yUe2QlVx6bfQdrzf0l1UqdXTAuv
OVOK9dN0hXudthdh38i85HwgZJ4TqCn23+a8OqAaYXym/obfqrul1EdCmTjN7Dco
X0VIsz8/Sh7LdbDin07qQby5ksE9Q6d/YRZ12dcSr9BYMGe6RB+pkwMnLD+EA7UD
XU3PDHzpH/AhSb+Cl8s7v3AqpHIF6KVOIn/ushDBbMa3dSIFLXHY0nM43AioJlyn
3nEcG2J/YxhWcj88Utoa73uJ6FlcNxLCQvLxQuc64aNVHb+TQ1GDNFJZec5KoMsv
PQIDAQAB
-----END PUBLIC KEY-----
";

/// The same RSA key, as `openssl rsa -modulus` prints it. Its exponent is 65537.
const RSA_MODULUS: &str = "D2E09B886B4F3FBE8481A3601BB273FCCF2DF4E559098D4D6119AC567C5CDC0A79B43A4A2A03D2AE9DB3D3251ED90955\
C7A6DF41DAF37F497552A7574C0BAF39538AF5D374857B9DB61761DFC8BCE47C20649E13A829F6DFE6BC3AA01A617CA6FE86DFAABBA5D447429938CDEC37\
285F4548B33F3F4A1ECB75B0E29F4EEA41BCB992C13D43A77F611675D9D712AFD0583067BA441FA99303272C3F8403B5035D4DCF0C7CE91FF02149BF8297\
CB3BBF702AA47205E8A54E227FEEB210C16CC6B77522052D71D8D27338DC08A8265CA7DE711C1B627F631856723F3C52DA1AEF7B89E8595C3712C242F2F1\
42E73AE1A3551DBF9343518334525979CE4AA0CB2F3D";

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| Tokens {
    keys: [
        TokenKey::hs256("new", NEW).expect("it is long"),
        TokenKey::hs256("old", OLD).expect("it is long"),
        TokenKey::public("rsa", Algorithm::Rs256, RSA_PEM).expect("it is one"),
        TokenKey::public("ed", Algorithm::EdDsa, ED25519_PEM).expect("it is one"),
    ]
    .into(),
    cookie: Some("everpoll_token".into()),
    audience: None,
    issuer: None,
    leeway: LEEWAY,
    valid_max: VALID_MAX,
});

/// Where audience and issuer must be right as well.
static STRICT: LazyLock<Tokens> = LazyLock::new(|| Tokens {
    audience: Some("everpoll".into()),
    issuer: Some("shop".into()),
    ..TOKENS.clone()
});

static LIMITS: LazyLock<Limits> =
    LazyLock::new(|| Limits { access: Access::Token(TOKENS.clone()), ..super::limits() });

/// A token is good when a key has signed it and its claims allow it, and never otherwise.
pub(crate) fn check(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match (kind, rest.split_at_checked(3)) {
        (b'n' | b'o' | b'e' | b'x' | b'p', Some((change, rest))) => check_signed(*kind, change, rest),
        _ => {
            check_token(rest);
        }
    }
}

fn check_signed(kind: u8, change: &[u8], rest: &[u8]) {
    let split = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let (header, claims) = (&rest[..split], rest.get(split + 1..).unwrap_or_default());
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let signature = match kind {
        b'n' => hmac(NEW.as_bytes(), message.as_bytes()).to_vec(),
        b'o' => hmac(OLD.as_bytes(), message.as_bytes()).to_vec(),
        b'x' => hmac(STRANGERS.as_bytes(), message.as_bytes()).to_vec(),
        b'p' => hmac(ED25519_PEM.as_bytes(), message.as_bytes()).to_vec(),
        _ => {
            let key = Ed25519KeyPair::from_seed_unchecked(&[SEED; 32]).expect("any seed is one");
            key.sign(message.as_bytes()).as_ref().to_vec()
        }
    };
    let token = format!("{message}.{}", base64url(&signature)).into_bytes();
    let good = check_token(&token);
    assert!(!good || !matches!(kind, b'x' | b'p'), "a stranger's token is good");
    if !good {
        return;
    }
    // Changed anywhere, it is another token, which nobody has signed.
    let place = (usize::from(change[0]) << 8 | usize::from(change[1])) % token.len();
    let mut changed = token.clone();
    changed[place] ^= change[2].max(1);
    assert!(!check_token(&changed), "changed at {place} and still good");
    let mut longer = token.clone();
    longer.push(change[2]);
    assert!(!check_token(&token[..place]) && !check_token(&longer));
    longer.truncate(token.len());
    longer.insert(place, change[2]);
    assert!(!check_token(&longer), "longer at {place} and still good");
}

/// Whether a token is good, which is decided in each way that there is.
fn check_token(token: &[u8]) -> bool {
    let now = Timestamp::from_micros(NOW);
    for (tokens, strict) in [(&*TOKENS, false), (&*STRICT, true)] {
        match (tokens.verify(token, now), judge(token, strict)) {
            (Ok(verified), Some(right)) => {
                assert_eq!(&*verified.key, right.key);
                assert_eq!(verified.grant.until.map(Timestamp::micros), Some(right.until));
                assert_eq!(verified.grant.channels.to_string(), right.channels.join(", "));
            }
            (Err(error), None) => {
                assert_eq!(error.status(), 403);
                assert_eq!(token.len() > TOKEN_MAX, error.code() == "token_too_large");
                super::replies::check_error(&error);
                assert!(!shows(&error, token), "{error}");
            }
            (got, right) => panic!("{got:?}, but it should be {right:?}"),
        }
    }
    let right = judge(token, false);
    check_ways(token, right.as_ref());
    right.is_some()
}

/// Whether a text repeats a signature, with which a token could be put together.
fn shows(error: &impl fmt::Display, token: &[u8]) -> bool {
    let signature = token.rsplit(|b| *b == b'.').next().unwrap_or_default();
    let signature = std::str::from_utf8(signature).ok().filter(|signature| signature.len() > 40);
    signature.is_some_and(|signature| error.to_string().contains(signature))
}

/// Whichever way it comes, the verdict on a poll is the same.
fn check_ways(token: &[u8], right: Option<&Right>) {
    let cheese = Channel::parse("cheese").expect("it is a name");
    let means = |pattern: &String| match pattern.strip_suffix('*') {
        Some(start) => cheese.as_str().starts_with(start),
        None => cheese.as_str() == pattern,
    };
    let may = right.is_some_and(|right| right.channels.iter().any(means));
    let ask = |target: &[u8], header: (&'static str, Vec<u8>)| {
        let headers = One(header);
        let raw = RawRequest { now: Timestamp::from_micros(NOW), ..super::raw("GET", target, &headers, b"") };
        match Request::parse(&raw, &LIMITS) {
            Ok(Request::Poll(poll)) => {
                let left = poll.valid_for.expect("a token has an end");
                assert!(!left.is_zero() && left <= VALID_MAX + 2 * LEEWAY);
                assert!(may, "admitted");
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(!may, "refused: {error}");
                assert_eq!(error.code() == "channel_forbidden", right.is_some(), "{error}");
            }
        }
    };
    if token.is_empty() {
        return;
    }
    if token.trim_ascii() == token {
        ask(b"/e/cheese", ("authorization", [b"Bearer ", token].concat()));
    }
    if token.len() <= 2600 {
        let encoded: String = token.iter().map(|byte| format!("%{byte:02x}")).collect();
        ask(format!("/e/cheese?token={encoded}").as_bytes(), ("x", Vec::new()));
    }
    if !token.iter().any(|b| b.is_ascii_whitespace() || matches!(b, b';' | b',' | b'"')) {
        ask(b"/e/cheese/w", ("cookie", [b"a=b; everpoll_token=", token, b"; c=d"].concat()));
    }
}

/// A single header field.
struct One((&'static str, Vec<u8>));

impl Headers for One {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        (self.0.0 == name).then(|| self.0.1.as_slice().into())
    }
}

/// What a good token grants.
#[derive(Debug)]
struct Right {
    key: &'static str,
    channels: Vec<String>,
    until: u64,
}

/// An object's members as they stand there: twice is not once.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

impl Members {
    fn of(json: &[u8], known: &[&str]) -> Option<Self> {
        let members: Self = serde_json::from_str(std::str::from_utf8(json).ok()?).ok()?;
        let twice = |name: &&str| members.0.iter().filter(|(other, _)| other == name).count() > 1;
        (!known.iter().any(twice)).then_some(members)
    }

    /// The text of a member, if it is there and is not `null`.
    fn raw(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(other, _)| other == name)?.1.get();
        (value != "null").then_some(value)
    }

    /// A member that is text where it is there at all.
    fn text(&self, name: &str) -> Option<Option<String>> {
        self.raw(name).map(serde_json::from_str).transpose().ok()
    }

    /// A member that is a time where it is there at all, in microseconds.
    fn time(&self, name: &str) -> Option<Option<u64>> {
        let Some(raw) = self.raw(name) else { return Some(None) };
        if !raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return None;
        }
        let seconds: f64 = raw.parse().ok()?;
        (0.0..=253_402_300_799.0).contains(&seconds).then_some(Some((seconds * 1e6) as u64))
    }
}

/// What a token grants, if it is good.
fn judge(token: &[u8], strict: bool) -> Option<Right> {
    if token.len() > TOKEN_MAX {
        return None;
    }
    let text = std::str::from_utf8(token).ok()?;
    let [header, claims, signature] = text.split('.').collect::<Vec<_>>().try_into().ok()?;
    let message = format!("{header}.{claims}");
    let header = Members::of(&from_base64url(header)?, &["alg", "kid", "crit"])?;
    let (algorithm, kid) = (header.text("alg")??, header.text("kid")?);
    if header.raw("crit").is_some() {
        return None;
    }
    let signature = from_base64url(signature)?;
    let all = [("new", "HS256"), ("old", "HS256"), ("rsa", "RS256"), ("ed", "EdDSA")];
    let named = all.into_iter().filter(|(key, _)| kid.as_ref().is_none_or(|kid| kid == key));
    let (key, _) = named
        .filter(|(_, of)| *of == algorithm)
        .find(|(key, _)| is_signed(key, message.as_bytes(), &signature))?;

    let claims = Members::of(&from_base64url(claims)?, &["exp", "nbf", "channels", "aud", "iss"])?;
    let (leeway, valid_max) = (LEEWAY.as_micros() as u64, VALID_MAX.as_micros() as u64);
    let end = claims.time("exp")??;
    let from = claims.time("nbf")?.unwrap_or(0);
    if end + leeway <= NOW || from > NOW + leeway || end > NOW + valid_max + leeway {
        return None;
    }
    let issuer = claims.text("iss")?;
    let audience: Vec<String> = match claims.raw("aud").map(serde_json::from_str).transpose().ok()? {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => {
            all.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<_>>()?
        }
        Some(_) => return None,
    };
    if strict && (issuer.as_deref() != Some("shop") || !audience.iter().any(|one| one == "everpoll")) {
        return None;
    }
    let channels: Vec<String> = serde_json::from_str(claims.raw("channels")?).ok()?;
    channels.iter().all(|pattern| is_pattern(pattern)).then_some(Right { key, channels, until: end + leeway })
}

/// Whether this is a channel's name, or the beginning of one and a `*`.
pub(super) fn is_pattern(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    let control = |c: char| matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f);
    !text.is_empty() && name.len() <= 200 && !name.contains(['*', '/', ',']) && !name.chars().any(control)
}

fn is_signed(key: &str, message: &[u8], signature: &[u8]) -> bool {
    match key {
        "new" => hmac(NEW.as_bytes(), message) == *signature,
        "old" => hmac(OLD.as_bytes(), message) == *signature,
        "rsa" => {
            let byte = |n: usize| u8::from_str_radix(&RSA_MODULUS[n..n + 2], 16).expect("two digits");
            let n: Vec<u8> = (0..RSA_MODULUS.len()).step_by(2).map(byte).collect();
            let key = RsaPublicKeyComponents { n, e: vec![1, 0, 1] };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
        }
        _ => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[SEED; 32]).expect("any seed is one");
            let public = ring::signature::KeyPair::public_key(&pair);
            UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
        }
    }
}

/// HMAC with SHA-256 (RFC 2104), for keys that are not longer than a block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    // Longer ones are hashed first.
    let short = if key.len() > 64 { digest(&SHA256, key).as_ref().to_vec() } else { key.to_vec() };
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(&short).for_each(|(pad, key)| *pad ^= key);
        block.to_vec()
    };
    let inner = digest(&SHA256, &[&pad(0x36), message].concat());
    let outer = digest(&SHA256, &[&pad(0x5c), inner.as_ref()].concat());
    outer.as_ref().try_into().expect("32 bytes")
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for URLs, without padding (RFC 4648 section 5).
fn base64url(bytes: &[u8]) -> String {
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        text.extend((0..=three.len()).map(|n| char::from(DIGITS[bits >> (18 - 6 * n) & 63])));
    }
    text
}

/// The bytes, if the text is base64 to the bit.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    // Nothing may be left over: else one token could be written in several ways.
    (count < 6 && bits & ((1 << count) - 1) == 0).then_some(bytes)
}
