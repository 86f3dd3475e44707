//! Values that must not appear in diagnostics: the publishing key and passwords.

use std::fmt;

/// A text that does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Shortest publishing key, characters: 16 random ones cannot be guessed over a network.
const MIN_KEY: usize = 16;

impl Secret {
    /// Hides a text.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. For comparing and sending, never for diagnostics.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Parses a publishing key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let length = text.chars().count();
        if length < MIN_KEY {
            return Err(format!(
                "is {length} characters long; give at least {MIN_KEY}, for example the output of: openssl rand -hex 16"
            ));
        }
        // It travels in a header: anything else could never be presented.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "has spaces, control characters or letters outside ASCII; a header cannot carry them, \
                        take letters and digits"
                    .into(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where the log is: `postgres://…`, `postgresql://…` or `sqlite:path`. Shows itself without what may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Takes a URL that is known to be good.
    pub(crate) fn new(url: &str) -> Self {
        Self(url.to_owned())
    }

    /// The URL with its password. For connecting, never for diagnostics.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is a PostgreSQL server's, and not a SQLite file's.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        !self.0.starts_with("sqlite:")
    }

    /// Checks the scheme; the rest is the log's to read.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let known = ["postgres://", "postgresql://", "sqlite:"];
        match known.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some("") => {
                Err("names no database; give postgres://user@host/database or sqlite:/path/to/file".into())
            }
            Some(_) => Ok(Self::new(text)),
            None => Err(
                "begins neither with postgres:// nor with sqlite:; give postgres://user@host/database or \
                         sqlite:/path/to/file"
                    .into(),
            ),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    /// A SQLite URL whole; of a PostgreSQL URL the hosts and the database, without user, password and parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://").filter(|_| self.is_postgres()) else {
            return f.write_str(&self.0);
        };
        match (rest.rfind('@'), rest.find('?')) {
            // Nobody can tell whether a password before the host has a '?', or one among the parameters an '@'.
            (Some(at), Some(parameters)) if parameters < at => write!(f, "{scheme}://(hidden)"),
            (at, parameters) => {
                // A password may itself contain an '@' that nobody encoded: the last one ends it.
                let host = &rest[at.map_or(0, |at| at + 1)..parameters.unwrap_or(rest.len())];
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_shown_without_what_may_be_a_password() {
        for (url, shown) in [
            ("postgres://app:p@ss@db1,db2/site?user=x", "postgres://db1,db2/site"),
            ("postgres://db/site?password=p@ss", "postgres://(hidden)"),
            ("postgres://app:p?s@db/site", "postgres://(hidden)"),
            ("postgresql://db", "postgresql://db"),
            ("sqlite:/var/lib/a@b", "sqlite:/var/lib/a@b"),
        ] {
            assert_eq!(DatabaseUrl::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", DatabaseUrl::new(url)), shown);
        }
    }
}
