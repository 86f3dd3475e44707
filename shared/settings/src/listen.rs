//! Where a program listens: `host:port` or `unix:/path`.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// An address to listen on. Nothing is resolved or opened here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp {
        /// Name or address, IPv6 without brackets.
        host: String,
        /// 0 lets the system choose a free one.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// Longest path of a unix socket that every system takes, bytes: macOS has 104 with the closing NUL, Linux 108.
const MAX_SOCKET_PATH: usize = 103;

impl Listen {
    /// Parses `host:port`, `[ipv6]:port` or `unix:/path`.
    ///
    /// # Errors
    ///
    /// What is wrong and what would be right, to be put behind the name and value of what was set.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLES: &str = "give host:port such as 127.0.0.1:8377, or unix:/run/everpoll/daemon.sock";
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err("names a unix socket without its whole path; give one such as unix:/run/everpoll/daemon.sock".into());
            }
            if path.len() > MAX_SOCKET_PATH {
                let length = path.len();
                return Err(format!(
                    "names a unix socket by {length} bytes, the limit is {MAX_SOCKET_PATH}; choose a shorter path"
                ));
            }
            return Ok(Self::Unix(path.into()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("has no port; {EXAMPLES}"))?;
        let port = port.parse().map_err(|_| format!("has no port from 0 to 65535; {EXAMPLES}"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                rest.strip_suffix(']').ok_or_else(|| format!("has a [ without its ]; {EXAMPLES}"))?
            }
            None if host.contains(':') => {
                return Err(format!("is an IPv6 address without brackets; give [{host}]:{port}"));
            }
            None => host,
        };
        if host.is_empty() || host == "*" {
            return Err(format!(
                "has no host; for all addresses of this machine give 0.0.0.0:{port} or [::]:{port}"
            ));
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(format!("is no address; {EXAMPLES}"));
        }
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    /// Whether only this machine can reach it: a unix socket, a loopback address, or `localhost`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => match host.parse::<IpAddr>() {
                Ok(address) => address.to_canonical().is_loopback(),
                Err(_) => host.eq_ignore_ascii_case("localhost"),
            },
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_shows_as_it_was_written() {
        for text in ["127.0.0.1:8377", "[::1]:80", "localhost:0", "unix:/run/everpoll.sock"] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn address_that_cannot_be_is_refused_with_one_that_can() {
        for text in
            ["8377", ":8377", "*:80", "::1:80", "[::1:80", "a b:80", "h:65536", "h:", "unix:x", "http://h:1"]
        {
            assert!(Listen::parse(text).unwrap_err().contains("give"), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(103));
        assert!(Listen::parse(&long).unwrap_err().contains("the limit is 103"));
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_local() {
        for text in
            ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "LocalHost:1", "unix:/a"]
        {
            assert!(Listen::parse(text).unwrap().is_local(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "example.org:1", "localhost.example.org:1"] {
            assert!(!Listen::parse(text).unwrap().is_local(), "{text}");
        }
    }
}
