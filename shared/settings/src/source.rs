//! The raw layer: which value was written where, as text.
//!
//! The file comes first, the environment overwrites it. Nothing is interpreted here but names: an unknown one is a
//! problem, with a guess at what was meant.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::CONFIG_VARIABLE;
use crate::keys::{KEYS, Key};

/// All that was set, and what is wrong with it so far.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    raw: BTreeMap<&'static str, Raw>,
    pub(crate) problems: Vec<String>,
}

/// One value and how to speak of it.
#[derive(Debug)]
struct Raw {
    text: String,
    /// `hold_max = "25s" in everpoll.toml`, or `EVERPOLL_HOLD_MAX="25s"`; a secret's value is left out.
    said: String,
}

impl Sources {
    /// Collects from a file's path and text, then from an environment.
    pub(crate) fn collect(
        file: Option<(&Path, &str)>,
        environment: impl Iterator<Item = (String, OsString)>,
    ) -> Self {
        let mut sources = Self::default();
        if let Some((path, text)) = file {
            sources.add_file(path, text);
        }
        // Sorted, so that the same mistakes give the same text each time.
        let variables: BTreeMap<_, _> =
            environment.filter(|(name, value)| name.starts_with("EVERPOLL_") && !value.is_empty()).collect();
        for (name, value) in variables {
            sources.add_variable(&name, value);
        }
        sources
    }

    /// Takes a key's value through `parse`. `None` if it is not set, or is wrong and now among the problems.
    pub(crate) fn take<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let raw = self.raw.get(name)?;
        match parse(&raw.text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.problems.push(format!("{} {wrong}", raw.said));
                None
            }
        }
    }

    /// Adds what is wrong with a value beside others.
    pub(crate) fn complain<T>(&mut self, name: &str, wrong: &str) -> Option<T> {
        if let Some(raw) = self.raw.get(name) {
            self.problems.push(format!("{} {wrong}", raw.said));
        }
        None
    }

    /// Whether a key is set, rightly or wrongly.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw.contains_key(name)
    }

    fn add_file(&mut self, path: &Path, text: &str) {
        let path = path.display();
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // Its own text would show the line, and on that may be a password.
                let line =
                    error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
                self.problems.push(format!("{path} is not TOML: line {line}: {}", error.message()));
                return;
            }
        };
        for (name, value) in table {
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                self.problems.push(unknown(&format!("{name} in {path}"), &name, |key| key.name));
                continue;
            };
            let text = match value {
                toml::Value::String(text) => text,
                // 0o660 and 432 are one number to TOML, and 660 is another: only text says what is meant.
                toml::Value::Integer(number) if key.name != "socket_mode" => number.to_string(),
                toml::Value::Boolean(on) => on.to_string(),
                toml::Value::Array(parts) if parts.iter().all(toml::Value::is_str) => {
                    parts.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(" ")
                }
                // Its tables are read as they would be from a variable.
                toml::Value::Table(tables) if key.name.ends_with("_keys") || key.name == "namespaces" => {
                    tables.to_string()
                }
                _ => {
                    let example = if key.default == "none" {
                        "a text in quotes".into()
                    } else {
                        format!("{:?}", key.default)
                    };
                    self.problems.push(format!(
                        "{name} in {path} is neither text nor a whole number; give one such as {example}"
                    ));
                    continue;
                }
            };
            let said = match key.secret {
                true => format!("{name} in {path}"),
                false => format!("{name} = {text:?} in {path}"),
            };
            self.raw.insert(key.name, Raw { text, said });
        }
    }

    fn add_variable(&mut self, name: &str, value: OsString) {
        if name == CONFIG_VARIABLE {
            return;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable == name) else {
            self.problems.push(unknown(name, name, |key| key.variable));
            return;
        };
        let Ok(text) = value.into_string() else {
            self.problems.push(format!("{name} is not UTF-8; give text"));
            return;
        };
        let said = if key.secret { name.to_owned() } else { format!("{name}={text:?}") };
        self.raw.insert(key.name, Raw { text, said });
    }
}

/// The text for a name that is no key, with the most similar one if it is similar at all.
fn unknown(said: &str, name: &str, of: impl Fn(&Key) -> &'static str) -> String {
    let bare = |name: &str| name.strip_prefix("EVERPOLL_").unwrap_or(name).to_ascii_lowercase();
    let nearest =
        KEYS.iter().map(|key| (distance(&bare(name), key.name), key)).min_by_key(|(apart, _)| *apart);
    match nearest {
        // One letter in three may be wrong: with more, the guess would only confuse.
        Some((apart, key)) if apart * 3 <= key.name.len() => {
            format!("{said} is not a setting; did you mean {}?", of(key))
        }
        _ => format!("{said} is not a setting; everpoll help settings lists them all"),
    }
}

/// How many letters have to be changed, added or left out to make `a` of `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}
