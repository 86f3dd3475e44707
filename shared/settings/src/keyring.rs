//! Keys: tables in the settings file, and a file of their own that may change while programs run.
//!
//! What a newcomer gets wrong: nothing of a key may get into a problem's text, and TOML's own errors quote what they do not
//! understand. So each value is taken out of its table by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use everpoll_protocol::{Algorithm, Patterns, PublishKey, Rate, TokenKey};
use toml::{Table, Value};

use crate::namespaces::{SPACES_MAX, parse_prefix};
use crate::{Secret, value};

/// Most keys of a kind.
const KEYS_MAX: usize = 100;

/// A publishing key with a name, and where it may publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedKey {
    /// What it is called in errors.
    pub name: Box<str>,
    /// What is presented.
    pub secret: Secret,
    /// Where it may publish.
    pub channels: Patterns,
    /// How many events a second; `None` is as `publish_rate` says, `Some(None)` without end.
    pub rate: Option<Option<Rate>>,
}

impl NamedKey {
    /// As the protocol compares it.
    pub(crate) fn to_protocol(&self) -> PublishKey {
        PublishKey::new(&self.name, self.secret.expose(), self.channels.clone()).with_rate(self.rate)
    }
}

/// `keys_file`, as it was read last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysFile {
    path: PathBuf,
    pub(crate) keys: Keys,
}

/// What a keys file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) publish: Vec<NamedKey>,
    pub(crate) token: Vec<TokenKey>,
    /// By prefix: those of namespaces.
    pub(crate) spaces: BTreeMap<Box<str>, Vec<TokenKey>>,
}

impl KeysFile {
    /// Reads the file, for the setting that names it.
    pub(crate) fn open(path: &str) -> Result<Self, String> {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            return Err("is no whole path; give one such as /etc/everpoll/keys.toml".into());
        }
        let keys = Keys::parse(&read(&path)?)?;
        Ok(Self { path, keys })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it now.
    pub(crate) fn again(&self) -> Result<Self, String> {
        let keys = Keys::parse(&read(&self.path)?)?;
        Ok(Self { path: self.path.clone(), keys })
    }
}

impl Keys {
    /// Parses a keys file.
    fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str =
            "give [publish_keys.NAME], [token_keys.KID] or [namespaces.\"shop:\".token_keys.KID]";
        let mut keys = Self::default();
        for (name, value) in table(text)? {
            let Value::Table(tables) = value else {
                return Err(format!("has {name:?} outside of a table; {FORM} first"));
            };
            match name.as_str() {
                "publish_keys" => keys.publish = publish_tables(tables)?,
                "token_keys" => keys.token = token_tables(tables)?,
                "namespaces" => keys.spaces = space_tables(tables)?,
                _ => return Err(format!("has a table {name:?}, which is not known; {FORM}")),
            }
        }
        Ok(keys)
    }
}

/// Keys of namespaces. All else about a namespace is for the settings themselves.
fn space_tables(tables: Table) -> Result<BTreeMap<Box<str>, Vec<TokenKey>>, String> {
    const FORM: &str = "give [namespaces.\"shop:\".token_keys.KID]";
    let spaces = named(tables, SPACES_MAX, FORM, |prefix, mut fields| {
        parse_prefix(prefix)?;
        let keys = match fields.remove("token_keys") {
            None => Vec::new(),
            Some(Value::Table(tables)) => {
                token_tables(tables).map_err(|wrong| format!("has token_keys of which it {wrong}"))?
            }
            Some(_) => return Err("has token_keys that are no tables".into()),
        };
        Ok((fields, keys))
    })?;
    Ok(spaces.into_iter().map(|(prefix, keys)| (prefix.into(), keys)).collect())
}

/// Publishing keys, as the tables that `[publish_keys]` has.
pub(crate) fn publish_keys(text: &str) -> Result<Vec<NamedKey>, String> {
    publish_tables(table(text)?)
}

fn publish_tables(tables: Table) -> Result<Vec<NamedKey>, String> {
    const FORM: &str =
        "give [publish_keys.NAME] with key = \"…\" and channels = [\"shop-*\"], and rate = 100 if it has one";
    named(tables, KEYS_MAX, FORM, |_, mut fields| {
        let secret = text_of(&mut fields, "key")?.ok_or("has no key")?;
        let secret = Secret::parse(&secret).map_err(|wrong| format!("has a key that {wrong}"))?;
        let Some(channels) = fields.remove("channels") else {
            return Err("does not say for which channels it is; [\"*\"] is for all".into());
        };
        let texts =
            channels.as_array().and_then(|all| all.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let texts = texts.ok_or("has channels that are no list of texts")?;
        let channels = Patterns::parse(texts).map_err(|wrong| format!("has the channels {wrong}"))?;
        let rate = match fields.remove("rate") {
            None => None,
            Some(Value::Integer(number)) => Some(number.to_string()),
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err("has a rate that is neither a number nor a text".into()),
        };
        let rate = rate.map(|text| value::rate(&text)).transpose();
        let rate = rate.map_err(|wrong| format!("has a rate that {wrong}"))?;
        Ok((fields, (secret, channels, rate)))
    })
    .map(|keys| {
        let key = |(name, (secret, channels, rate)): (String, (Secret, Patterns, _))| NamedKey {
            name: name.into(),
            secret,
            channels,
            rate,
        };
        keys.into_iter().map(key).collect()
    })
}

/// Keys that sign tokens, as the tables that `[token_keys]` has.
pub(crate) fn token_keys(text: &str) -> Result<Vec<TokenKey>, String> {
    token_tables(table(text)?)
}

pub(crate) fn token_tables(tables: Table) -> Result<Vec<TokenKey>, String> {
    const FORM: &str = "give [token_keys.KID] with algorithm = \"HS256\" and secret = \"…\", or with algorithm = \"RS256\" \
                        or \"EdDSA\" and public_key_file = \"/…\"";
    let keys = named(tables, KEYS_MAX, FORM, |id, mut fields| {
        let name = text_of(&mut fields, "algorithm")?.ok_or("has no algorithm")?;
        let algorithm = Algorithm::parse(&name)
            .ok_or_else(|| format!("has the algorithm {name:?}, which is none of HS256, RS256 and EdDSA"))?;
        if algorithm == Algorithm::Hs256 {
            let secret = text_of(&mut fields, "secret")?.ok_or("has no secret")?;
            let key = TokenKey::hs256(id, &secret).map_err(|wrong| format!("has a secret that {wrong}"))?;
            return Ok((fields, key));
        }
        let written = text_of(&mut fields, "public_key")?;
        let pem = match (written, text_of(&mut fields, "public_key_file")?) {
            (Some(pem), None) => pem,
            (None, Some(path)) if Path::new(&path).is_absolute() => read(Path::new(&path))
                .map_err(|wrong| format!("has the public_key_file {path:?}, which {wrong}"))?,
            (None, Some(path)) => {
                return Err(format!("has the public_key_file {path:?}, which is no whole path"));
            }
            (None, None) => return Err("has neither public_key nor public_key_file".into()),
            (Some(_), Some(_)) => return Err("has both public_key and public_key_file".into()),
        };
        let key = TokenKey::public(id, algorithm, &pem)
            .map_err(|wrong| format!("has a public key that {wrong}"))?;
        Ok((fields, key))
    })?;
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

/// Goes through tables by name; `parse` returns the fields that it did not take.
pub(crate) fn named<T>(
    tables: Table,
    most: usize,
    form: &str,
    parse: impl Fn(&str, Table) -> Result<(Table, T), String>,
) -> Result<Vec<(String, T)>, String> {
    if tables.len() > most {
        return Err(format!(
            "has {} of them, the limit is {most}; take out those that nobody uses",
            tables.len()
        ));
    }
    let mut all = Vec::with_capacity(tables.len());
    for (name, value) in tables {
        if name.is_empty() || name.len() > 100 || name.chars().any(char::is_control) {
            return Err(format!("has a name that is empty, longer than 100 bytes or not printable; {form}"));
        }
        let Value::Table(fields) = value else {
            return Err(format!("has {name:?}, which is no table; {form}"));
        };
        let (rest, parsed) =
            parse(&name, fields).map_err(|wrong| format!("has {name:?}, which {wrong}; {form}"))?;
        if let Some(unknown) = rest.keys().next() {
            return Err(format!("has {name:?} with {unknown:?}, which is not known; {form}"));
        }
        all.push((name, parsed));
    }
    Ok(all)
}

pub(crate) fn text_of(fields: &mut Table, name: &str) -> Result<Option<String>, String> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("has a {name} that is no text")),
    }
}

pub(crate) fn table(text: &str) -> Result<Table, String> {
    text.parse().map_err(|error: toml::de::Error| {
        // Its own text would show the line, and on that may be a key.
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        format!("is not TOML: line {line}")
    })
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tables_by_name() {
        let text = "[shop]\nkey = '0123456789abcdef'\nchannels = ['shop-*', 'cart']\n[all]\nkey = 'fedcba9876543210'\nchannels = ['*']";
        let keys = publish_keys(text).unwrap();
        assert_eq!(keys.iter().map(|key| &*key.name).collect::<Vec<_>>(), ["all", "shop"]);
        assert_eq!(keys[1].channels.to_string(), "shop-*, cart");
        let rates = publish_keys(
            "[a]\nkey = '0123456789abcdef'\nchannels = ['*']\nrate = 5\n[b]\nkey = '0123456789abcdef'\nchannels = ['*']\nrate = 'none'",
        );
        let rates: Vec<_> = rates.unwrap().into_iter().map(|key| key.rate).collect();
        assert_eq!(rates, [Some(Some(Rate { per_second: 5, burst: 50 })), Some(None)]);
        let one_line = publish_keys("shop = { key = '0123456789abcdef', channels = ['*'] }").unwrap();
        assert_eq!(one_line[0].secret.expose(), "0123456789abcdef");
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_the_key() {
        for (text, says) in [
            ("[shop]\nchannels = ['*']", "has no key"),
            ("[shop]\nkey = 'geheim'\nchannels = ['*']", "6 characters long; give at least 16"),
            ("[shop]\nkey = 'geheim-geheim-geheim'", "for which channels"),
            ("[shop]\nkey = 'geheim-geheim-geheim'\nchannels = 'geheim'", "no list of texts"),
            ("[shop]\nkey = ['geheim']\nchannels = ['*']", "a key that is no text"),
            (
                "[shop]\nkey = 'geheim-geheim-geheim'\nchannels = ['a*b']",
                "\"a*b\" has a * that is not its end",
            ),
            ("[shop]\nkey = 'geheim-geheim-geheim'\nchannels = ['*']\nchanel = 'geheim'", "\"chanel\""),
            ("shop = 'geheim-geheim-geheim'", "is no table"),
            ("[shop]\nkey = 'geheim-geheim", "not TOML: line 2"),
        ] {
            let problem = publish_keys(text).unwrap_err();
            assert!(problem.contains(says) && !problem.contains("geheim"), "{text}: {problem}");
        }
        for (text, says) in [
            ("[k]\nsecret = 'geheim'", "has no algorithm"),
            ("[k]\nalgorithm = 'none'\nsecret = 'geheim'", "\"none\", which is none of HS256"),
            ("[k]\nalgorithm = 'HS256'\nsecret = 'geheim'", "6 bytes long; give at least 32"),
            ("[k]\nalgorithm = 'RS256'\nsecret = 'geheim'", "neither public_key nor public_key_file"),
            ("[k]\nalgorithm = 'RS256'\npublic_key_file = 'a.pem'", "no whole path"),
            ("[k]\nalgorithm = 'EdDSA'\npublic_key_file = '/nowhere/a.pem'", "cannot be read"),
            ("[k]\nalgorithm = 'EdDSA'\npublic_key = '-----BEGIN PRIVATE KEY-----'", "is a private key"),
        ] {
            let problem = token_keys(text).unwrap_err();
            assert!(problem.contains(says) && !problem.contains("geheim"), "{text}: {problem}");
        }
        for (text, says) in [
            ("[namespaces.shop.token_keys.k]\nsecret = 'geheim'", "does not end with \":\""),
            ("[namespaces.'shop:']\naccess = 'geheim'", "with \"access\", which is not known"),
            ("[namespaces.'shop:'.token_keys.k]\nalgorithm = 'HS256'\nsecret = 'geheim'", "6 bytes long"),
            ("[namespaces.'shop:']\ntoken_keys = 'geheim'", "no tables"),
        ] {
            let problem = Keys::parse(text).unwrap_err();
            assert!(problem.contains(says) && !problem.contains("geheim"), "{text}: {problem}");
        }
        assert!(Keys::parse("[publish_key.shop]\nkey = 'x'").unwrap_err().contains("\"publish_key\""));
    }
}
