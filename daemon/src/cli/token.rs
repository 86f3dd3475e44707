//! `everpoll token`: makes tokens for a try-out, and says what is in one and whether it is good here.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use everpoll_protocol::access::{self, Algorithm, Patterns};
use everpoll_protocol::{Timestamp, Tokens};
use everpoll_settings::{Settings, parse_age};

use super::Failure;
use crate::server;

/// Make a token, or explain one
///
/// Tokens say which channels their bearer may read and until when; access = "token" asks for them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll token make 'shop-*' user-17
  everpoll token make --for 5m --key 2026 cheese
  everpoll token explain eyJhbGciOi…")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a token for these channels, signed with a key of token_keys whose secret is there (HS256)
    Make {
        /// Whole names, or beginnings and a *
        #[arg(required = true, value_name = "CHANNEL")]
        channels: Vec<String>,
        /// How long it is valid: seconds, or a number with s, m, h or d
        #[arg(long = "for", value_name = "AGE", default_value = "1h")]
        valid_for: String,
        /// Which key signs; without it the first that can
        #[arg(long, value_name = "KID")]
        key: Option<String>,
        /// The namespace whose keys sign, such as shop:
        #[arg(long, value_name = "PREFIX")]
        namespace: Option<String>,
    },
    /// Say what is in a token, which key has signed it, and until when it is good here, or why it is not
    Explain {
        /// The token; - reads it from standard input
        token: String,
        /// The namespace that it is for, such as shop:
        #[arg(long, value_name = "PREFIX")]
        namespace: Option<String>,
    },
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = super::settings(config)?;
    match &arguments.what {
        What::Make { channels, valid_for, key, namespace } => {
            make(&settings, &tokens(&settings, namespace.as_deref())?, channels, valid_for, key.as_deref())
        }
        What::Explain { token, namespace } => explain(&tokens(&settings, namespace.as_deref())?, token),
    }
}

/// What is said about tokens there.
fn tokens(settings: &Settings, namespace: Option<&str>) -> Result<Tokens, Failure> {
    let Some(prefix) = namespace else { return Ok(settings.tokens()) };
    settings.tokens_in(prefix).ok_or_else(|| {
        Failure::input(format!(
            "--namespace {prefix:?} is none with keys of its own; leave it out, or set token_keys there"
        ))
    })
}

fn make(
    settings: &Settings,
    tokens: &Tokens,
    channels: &[String],
    valid_for: &str,
    key: Option<&str>,
) -> Result<(), Failure> {
    Patterns::parse(channels.iter().map(String::as_str)).map_err(Failure::input)?;
    let age = parse_age(valid_for).map_err(|wrong| Failure::input(format!("--for {valid_for:?} {wrong}")))?;
    let longest = settings.token_valid_max;
    let age = age.filter(|age| *age <= longest).ok_or_else(|| {
        Failure::input(format!("--for {valid_for:?} is longer than token_valid_max, {} s", longest.as_secs()))
    })?;
    let keys = &tokens.keys;
    let fits = |id: &str| key.is_none_or(|wanted| wanted == id);
    let signer = keys.iter().find(|key| key.algorithm() == Algorithm::Hs256 && fits(&key.id));
    let signer = signer.ok_or_else(|| {
        let known: Vec<_> = keys.iter().map(|key| format!("{} ({})", key.id, key.algorithm().name())).collect();
        Failure::input(format!(
            "no such key can sign: that takes the secret of HS256, and for RS256 and EdDSA the settings have the public key \
             only; known are: {}",
            if known.is_empty() { "none".into() } else { known.join(", ") }
        ))
    })?;
    let mut claims = serde_json::json!({"exp": seconds(server::now().plus(age)), "channels": channels});
    for (name, value) in [("aud", &settings.token_audience), ("iss", &settings.token_issuer)] {
        if let Some(value) = value {
            claims[name] = value.as_str().into();
        }
    }
    let token = access::sign(signer, &claims).ok_or_else(|| Failure::failed("the key cannot sign"))?;
    super::print(&token)
}

fn explain(tokens: &Tokens, token: &str) -> Result<(), Failure> {
    let mut text = token.to_owned();
    if token == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).map_err(Failure::failed)?;
    }
    let token = text.trim();
    if let Some((header, claims)) = access::unchecked(token) {
        super::print(&format!("header: {header}"))?;
        super::print(&format!("claims: {claims}"))?;
    }
    let now = server::now();
    let verified = tokens.verify(token.as_bytes(), now);
    let verified =
        verified.map_err(|error| Failure::failed(format!("refused: {error} [{}]", error.code())))?;
    let until = verified.grant.until.unwrap_or(now);
    super::print(&format!("signed by: {}", verified.key))?;
    super::print(&format!("channels: {}", verified.grant.channels))?;
    let left = until.since(now).max(Duration::from_secs(1)).as_secs();
    super::print(&format!("good until: {until}, {left} s from now, token_leeway included"))
}

fn seconds(at: Timestamp) -> u64 {
    at.micros() / 1_000_000
}
