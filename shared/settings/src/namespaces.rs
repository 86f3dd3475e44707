//! Namespaces: tables `[namespaces."shop:"]`, each with settings of its own for the channels whose names begin so.
//!
//! What a newcomer gets wrong: what a namespace does not set, it has from the namespace around it, and that from the settings for
//! all. So a part of a guarded namespace is guarded, too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use everpoll_protocol::{Channel, Pattern, SPACE_END, Space, Spaces, TokenKey};
use toml::Value;

use crate::keyring::{self, named, table, text_of};
use crate::{Access, KeysFile, Settings, value};

/// Most namespaces.
pub(crate) const SPACES_MAX: usize = 1000;

/// Smallest `event_max`, bytes.
const MIN_EVENT_BYTES: u64 = 64;

/// One namespace, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// How the names of its channels begin; ends with `:`.
    pub prefix: Box<str>,
    /// Who may read.
    pub access: Option<Access>,
    /// The keys that sign tokens for it; no others do then.
    pub token_keys: Option<Vec<TokenKey>>,
    /// Largest data of an event, bytes.
    pub event_max: Option<u64>,
    /// How long events stay; within it `None` = for ever.
    pub retain_for: Option<Option<Duration>>,
    /// How many events stay; within it `None` = all.
    pub retain_count: Option<Option<u64>>,
}

/// What holds in a namespace, with what it has from around it.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) access: Access,
    /// `None`: those of the settings for all.
    pub(crate) token_keys: Option<Vec<TokenKey>>,
    pub(crate) event_max: u64,
    pub(crate) retain_for: Option<Duration>,
    pub(crate) retain_count: Option<u64>,
    /// Whether somebody wrote down who may read, or it is only the default.
    pub(crate) is_written: bool,
}

/// Parses the tables that `[namespaces]` has.
pub(crate) fn namespaces(text: &str) -> Result<Vec<Namespace>, String> {
    const FORM: &str = "give [namespaces.\"shop:\"] with access, event_max, retain_for, retain_count, and \
                        tables [namespaces.\"shop:\".token_keys.KID]";
    let all = named(table(text)?, SPACES_MAX, FORM, |prefix, mut fields| {
        parse_prefix(prefix)?;
        let access = text_of(&mut fields, "access")?.map(|text| value::access(&text)).transpose();
        let access = access.map_err(|wrong| format!("has an access that {wrong}"))?;
        let token_keys = match fields.remove("token_keys") {
            None => None,
            Some(Value::Table(tables)) => Some(
                keyring::token_tables(tables)
                    .map_err(|wrong| format!("has token_keys of which it {wrong}"))?,
            ),
            Some(_) => return Err("has token_keys that are no tables".into()),
        };
        let event_max = plain(&mut fields, "event_max", value::bytes(MIN_EVENT_BYTES, 1 << 20, "64KiB"))?;
        let retain_for = plain(&mut fields, "retain_for", value::age)?;
        let retain_count = plain(&mut fields, "retain_count", value::count)?;
        let prefix = prefix.into();
        Ok((fields, Namespace { prefix, access, token_keys, event_max, retain_for, retain_count }))
    })?;
    Ok(all.into_iter().map(|(_, namespace)| namespace).collect())
}

/// Reads what namespaces are called by: how the names of their channels begin.
///
/// # Errors
///
/// The rest of a sentence that begins with what was given.
pub fn parse_prefix(prefix: &str) -> Result<Box<str>, String> {
    if !prefix.ends_with(SPACE_END) {
        return Err("does not end with \":\", as namespaces do".into());
    }
    Pattern::parse(&format!("{prefix}*")).map_err(|wrong| format!("begins no channel: it {wrong}"))?;
    Ok(prefix.into())
}

/// A value that is written as text or as a whole number.
fn plain<T>(
    fields: &mut toml::Table,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    let text = match fields.remove(name) {
        None => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Integer(number)) => number.to_string(),
        Some(_) => {
            return Err(format!("has {} {name} that is neither text nor a whole number", article(name)));
        }
    };
    parse(&text).map(Some).map_err(|wrong| format!("has {} {name} that {wrong}", article(name)))
}

fn article(name: &str) -> &'static str {
    if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

impl Settings {
    /// What holds where there is no namespace.
    pub(crate) fn for_all(&self) -> Resolved {
        Resolved {
            access: self.access,
            token_keys: None,
            event_max: self.event_max,
            retain_for: self.retain_for,
            retain_count: self.retain_count,
            is_written: self.access_is_written,
        }
    }

    /// Largest data of an event on this channel, bytes.
    #[must_use]
    pub fn event_max_on(&self, channel: &Channel) -> u64 {
        let around = self.resolved().into_iter().filter(|(prefix, _)| channel.as_str().starts_with(prefix));
        around
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(self.event_max, |(_, resolved)| resolved.event_max)
    }

    /// The namespaces whose events stay for a time of their own: the prefix, how long, and how many; `None` is without limit. All that
    /// belongs to no namespace among them keeps its events together with what is around it.
    pub fn retained_apart(&self) -> impl Iterator<Item = (&str, Option<Duration>, Option<u64>)> {
        let resolved = self.resolved().into_iter();
        resolved.filter_map(|(prefix, resolved)| {
            let own = self.namespaces.iter().find(|space| *space.prefix == *prefix)?;
            let is_apart = own.retain_for.is_some() || own.retain_count.is_some();
            is_apart.then_some((prefix, resolved.retain_for, resolved.retain_count))
        })
    }

    /// All namespaces in words, one a line, for whoever checks the settings.
    #[must_use]
    pub fn describe_namespaces(&self) -> Vec<String> {
        let apart: BTreeSet<_> = self.retained_apart().map(|(prefix, ..)| prefix).collect();
        let one = |(prefix, resolved): (&str, Resolved)| {
            let access = match (resolved.access, &resolved.token_keys) {
                (Access::Open, _) => "open".to_owned(),
                (Access::Proxy, _) => "proxy".to_owned(),
                (Access::Token, None) => "token, with the keys for all".to_owned(),
                (Access::Token, Some(keys)) => {
                    let names: Vec<_> = keys.iter().map(|key| &*key.id).collect();
                    format!("token, with keys of its own: {}", names.join(", "))
                }
            };
            let retention = match (resolved.retain_for, resolved.retain_count) {
                _ if !apart.contains(prefix) => String::new(),
                (None, None) => "; keeps all events".to_owned(),
                (age, count) => {
                    let age = age.map(|age| format!("; retain_for: {} s", age.as_secs()));
                    let count = count.map(|count| format!("; retain_count: {count}"));
                    age.unwrap_or_default() + &count.unwrap_or_default()
                }
            };
            format!(
                "namespace {prefix}  access: {access}; event_max: {} bytes{retention}",
                resolved.event_max
            )
        };
        self.resolved().into_iter().map(one).collect()
    }

    /// All namespaces, with what they have from around them.
    pub(crate) fn resolved(&self) -> BTreeMap<&str, Resolved> {
        let mut all: BTreeMap<&str, Resolved> = BTreeMap::new();
        // In this order, what is around is there already.
        let mut spaces: Vec<_> = self.namespaces.iter().collect();
        spaces.sort_by_key(|space| space.prefix.len());
        for space in spaces {
            let around = all.iter().filter(|(prefix, _)| space.prefix.starts_with(**prefix));
            let mut resolved = match around.max_by_key(|(prefix, _)| prefix.len()) {
                Some((_, around)) => around.clone(),
                None => self.for_all(),
            };
            resolved.is_written |= space.access.is_some();
            resolved.access = space.access.unwrap_or(resolved.access);
            resolved.event_max = space.event_max.unwrap_or(resolved.event_max);
            resolved.retain_for = space.retain_for.unwrap_or(resolved.retain_for);
            resolved.retain_count = space.retain_count.unwrap_or(resolved.retain_count);
            if let Some(keys) = &space.token_keys {
                let of_file = self.keys_file.iter().filter_map(|file| file.keys.spaces.get(&space.prefix));
                // A name that both have is the file's.
                resolved.token_keys = Some(of_file.flatten().chain(keys).cloned().collect());
            }
            all.insert(&space.prefix, resolved);
        }
        all
    }

    /// What they say to the protocol.
    pub(crate) fn spaces(&self) -> Spaces {
        Spaces::new(self.resolved().into_iter().map(|(prefix, resolved)| {
            let access = self.protocol_access(&resolved);
            let event_max = usize::try_from(resolved.event_max).unwrap_or(usize::MAX);
            (prefix.into(), Space { access, event_max })
        }))
    }

    /// What is wrong with a keys file beside these settings, as the rest of a sentence that begins with it. Whether a namespace has keys
    /// of its own is for the settings to say: the last key that is taken out of the file must not open it for the keys for all.
    pub(crate) fn keys_file_problem(&self, file: &KeysFile) -> Option<String> {
        let has_own = |prefix: &str| {
            self.namespaces.iter().any(|space| *space.prefix == *prefix && space.token_keys.is_some())
        };
        let prefix = file.keys.spaces.keys().find(|prefix| !has_own(prefix))?;
        Some(format!(
            "has keys for the namespace {prefix:?}, which has none of its own in the settings; write \
             [namespaces.{prefix:?}.token_keys] there, empty if all of them are in the file"
        ))
    }

    /// What is wrong with namespaces beside the settings for all, of which `has_keys` says whether keys of tokens are among them.
    pub(crate) fn namespace_problems(&self, has_keys: bool) -> Vec<String> {
        let mut problems = Vec::new();
        for (prefix, resolved) in self.resolved() {
            let has_keys = resolved.token_keys.as_ref().map_or(has_keys, |keys| !keys.is_empty());
            let own = self.namespaces.iter().find(|space| *space.prefix == *prefix);
            let own_keys = own.is_some_and(|space| space.token_keys.is_some());
            match resolved.access {
                Access::Token if !has_keys => problems.push(format!(
                    "access of the namespace {prefix:?} is token, and there is no key that could sign one: set \
                     [namespaces.{prefix:?}.token_keys.KID], or token_keys for all"
                )),
                Access::Proxy if self.jsonp => problems.push(format!(
                    "jsonp is on and access of the namespace {prefix:?} is proxy: any page of the web could load what the \
                     visitor's cookies allow; switch jsonp off"
                )),
                Access::Open | Access::Proxy if own_keys => problems.push(format!(
                    "the namespace {prefix:?} has token_keys, and its access is not token: nobody would have to bring one; set \
                     access = \"token\" there"
                )),
                _ => {}
            }
        }
        problems
    }
}
