//! Which database a URL names.
//!
//! The URL is the operator's text and may hold a password: it is never repeated in an error.

use std::path::PathBuf;

use crate::LogError;
use crate::postgres::Server;

/// A database URL, understood.
#[derive(Debug)]
pub(crate) enum Address {
    Postgres(Box<Server>),
    Sqlite(PathBuf),
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self, LogError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            // sqlite:///var/lib/x is what other programs write for sqlite:/var/lib/x.
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" {
                return Err(settings("the database URL names no file; write sqlite:/path/to/everpoll.db"));
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Server::parse(url).map(Box::new).map(Self::Postgres);
        }
        Err(settings(
            "the database URL begins with neither postgres:// nor sqlite:; write postgres://user:password@host/database or sqlite:/path/to/everpoll.db",
        ))
    }
}

fn settings(detail: &str) -> LogError {
    LogError::Settings { detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(url: &str) -> Option<PathBuf> {
        match Address::parse(url) {
            Ok(Address::Sqlite(path)) => Some(path),
            _ => None,
        }
    }

    #[test]
    fn sqlite_url_is_a_path_with_or_without_slashes() {
        assert_eq!(file("sqlite:./everpoll.db").as_deref(), Some(Path::new("./everpoll.db")));
        assert_eq!(file("sqlite:/var/e.db").as_deref(), Some(Path::new("/var/e.db")));
        assert_eq!(file("sqlite:///var/e.db").as_deref(), Some(Path::new("/var/e.db")));
    }

    #[test]
    fn wrong_url_is_refused_without_showing_the_password() {
        for url in [
            "",
            "sqlite:",
            "sqlite::memory:",
            "mysql://u:geheim@h/d",
            "postgres://u:geheim@h:port/d",
            "postgres://u:geheim@h/d?sslmode=geheim2",
            "postgres://u:geheim@h/d?nonsense=1",
        ] {
            let Err(LogError::Settings { detail }) = Address::parse(url) else {
                panic!("{url} was accepted")
            };
            assert!(!detail.contains("geheim"), "{detail}");
        }
    }
}
