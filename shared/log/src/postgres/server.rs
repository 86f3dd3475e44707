//! A PostgreSQL URL: hosts, database, user, and how TLS is meant.
//!
//! The words of `sslmode` mean what libpq means by them: `prefer` (the default) and `require` encrypt, but do not ask who
//! the server is, as Debian's PostgreSQL offers TLS with a self-signed certificate from the start. `verify-ca` and
//! `verify-full` do ask; both check the host name, too.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::LogError;

/// Where Debian, macOS (Homebrew) and PostgreSQL's own build put the server's socket.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(super) config: Config,
    pub(super) verify: bool,
    pub(super) root_certificates: Option<PathBuf>,
}

impl Server {
    pub(crate) fn parse(url: &str) -> Result<Self, LogError> {
        // The driver knows neither of these two.
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut verify = false;
        let mut root_certificates = None;
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", "verify-ca" | "verify-full")) => {
                    verify = true;
                    kept.push("sslmode=require");
                }
                Some(("sslmode", "allow")) => kept.push("sslmode=prefer"),
                Some(("sslrootcert", path)) => root_certificates = Some(PathBuf::from(decode(path))),
                _ => kept.push(pair),
            }
        }
        let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        let config =
            Config::from_str(&url).map_err(|error| LogError::Settings { detail: explain(&error) })?;
        Ok(Self { config: with_defaults(config), verify, root_certificates })
    }

    /// Whether a connection may use TLS. Not over a unix socket: nobody listens there.
    pub(super) fn wants_tls(&self) -> bool {
        self.config.get_ssl_mode() != SslMode::Disable
            && self.config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)))
    }

    /// Where it is, for people: hosts and database, no user, no password.
    pub(super) fn describe(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(directory) => format!("{}/.s.PGSQL.{port}", directory.display()),
            }
        });
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or("?");
        format!("database {database:?} at {}", hosts.collect::<Vec<_>>().join(", "))
    }
}

fn with_defaults(mut config: Config) -> Config {
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let socket = |directory: &&str| PathBuf::from(directory).join(format!(".s.PGSQL.{port}")).exists();
        config.host_path(
            SOCKET_DIRECTORIES.iter().find(|directory| socket(directory)).unwrap_or(&SOCKET_DIRECTORIES[0]),
        );
    }
    // A database that vanished without a word is noticed within half a minute; the system's default is two hours.
    if config.get_keepalives_idle() == Duration::from_secs(2 * 60 * 60) {
        config.keepalives_idle(Duration::from_secs(10));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(Duration::from_secs(5)).keepalives_retries(3);
    }
    config
}

/// The driver's sentences name the option, not its value; where a value is shown, it is a port or a mode.
fn explain(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!(
        "the database URL is not understood ({cause}); write postgres://user:password@host:port/database?option=value, with special characters percent-encoded"
    )
}

/// `%2F` to `/`, for a path in a URL.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_keeps_several_hosts_and_session_attributes() {
        let server =
            Server::parse("postgres://u:p@a:1,b:2/d?target_session_attrs=read-write&sslmode=verify-full&sslrootcert=%2Fx%2Fy").unwrap();
        assert_eq!(server.config.get_hosts().len(), 2);
        assert_eq!(server.describe(), "database \"d\" at a:1, b:2");
        assert!(server.verify && server.wants_tls());
        assert_eq!(server.root_certificates, Some(PathBuf::from("/x/y")));
    }

    #[test]
    fn url_without_a_host_means_the_local_socket_and_no_tls() {
        let server = Server::parse("postgresql:///d").unwrap();
        assert!(matches!(server.config.get_hosts(), [Host::Unix(_)]));
        assert!(!server.wants_tls());
        let server = Server::parse("postgres://u@%2Frun%2Fpg/d").unwrap();
        assert!(matches!(server.config.get_hosts(), [Host::Unix(_)]) && !server.wants_tls());
    }
}
