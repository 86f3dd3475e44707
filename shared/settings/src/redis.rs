//! Where Redis is: one server, one that Sentinels name, or a cluster.
//!
//! The URL's form is the one that Redis clients agree on, with two more schemes for several hosts. It may hold a password,
//! so no error and no diagnostic repeats it.

use std::fmt;
use std::path::PathBuf;

use crate::Secret;

/// What to write, for each error.
const FORMS: &str = "give redis://host:6379, unix:/path, redis-sentinel://host:26379,host:26379/master-name or \
     redis-cluster://host:6379,host:6379; rediss for TLS; user:password@ before the hosts, percent-encoded";

/// Redis' own port.
const PORT: u16 = 6379;

/// Its Sentinels' port.
const SENTINEL_PORT: u16 = 26379;

/// Where Redis is and how to log in. Shows itself without passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Which servers.
    pub servers: RedisServers,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Who logs in at the servers.
    pub login: RedisLogin,
}

/// A user and a password, each if there is one.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RedisLogin {
    /// The user; `None` is Redis' default user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
}

/// Which servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// One server.
    One(RedisPlace),
    /// The server that Sentinels call the master.
    Sentinel {
        /// Where the Sentinels are.
        sentinels: Vec<RedisPlace>,
        /// What they call the master.
        master: String,
        /// Who logs in at the Sentinels.
        login: RedisLogin,
    },
    /// A cluster, of which these nodes are asked for all others.
    Cluster(Vec<RedisPlace>),
}

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RedisPlace {
    /// A host, without the brackets of IPv6, and a port.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

impl RedisUrl {
    /// Reads a URL.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text).map_err(|what| format!("{what}; {FORMS}"))
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::read_unix(path);
        }
        let (scheme, rest) = text.split_once("://").ok_or("is not a URL")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // A password may itself contain an '@' that nobody encoded: the last one ends it.
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (RedisLogin::read(login)?, rest),
            None => (RedisLogin::default(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let tls = scheme.starts_with("rediss");
        let servers = match scheme {
            "redis" | "rediss" => {
                let [place] = <[_; 1]>::try_from(places(hosts, PORT)?)
                    .map_err(|_| "names several hosts, which redis-sentinel:// and redis-cluster:// do")?;
                // Pub/sub knows no databases; the number is taken, since it is in many URLs.
                if !path.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err("has something else than the number of a database behind the host");
                }
                RedisServers::One(place)
            }
            "redis-sentinel" | "rediss-sentinel" => {
                // The same: some write the number of a database behind the name.
                let (name, number) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err("does not end with the name of the master, as the Sentinels have it");
                }
                let login = RedisLogin {
                    user: parameter(query, "sentinel_user")?,
                    password: parameter(query, "sentinel_password")?.map(Secret::new),
                };
                RedisServers::Sentinel {
                    sentinels: places(hosts, SENTINEL_PORT)?,
                    master: decode(name)?,
                    login,
                }
            }
            "redis-cluster" | "rediss-cluster" if path.is_empty() => {
                RedisServers::Cluster(places(hosts, PORT)?)
            }
            "redis-cluster" | "rediss-cluster" => return Err("has something behind the hosts"),
            _ => return Err("begins with none of the known schemes"),
        };
        let known: &[&str] = match servers {
            RedisServers::Sentinel { .. } => &["sentinel_user", "sentinel_password"],
            _ => &[],
        };
        refuse_others(query, known)?;
        Ok(Self { servers, tls, login })
    }

    /// `unix:/path?user=…&password=…`: there is no place for a login before a path.
    fn read_unix(rest: &str) -> Result<Self, &'static str> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err("names no socket");
        }
        refuse_others(query, &["user", "password"])?;
        let login = RedisLogin {
            user: parameter(query, "user")?,
            password: parameter(query, "password")?.map(Secret::new),
        };
        Ok(Self { servers: RedisServers::One(RedisPlace::Unix(path.into())), tls: false, login })
    }
}

impl RedisLogin {
    fn read(text: &str) -> Result<Self, &'static str> {
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, Some(Secret::new(decode(password)?))),
            None => (text, None),
        };
        let user = Some(decode(user)?).filter(|user| !user.is_empty());
        Ok(Self { user, password })
    }
}

/// Hosts with ports, joined by commas.
fn places(hosts: &str, port: u16) -> Result<Vec<RedisPlace>, &'static str> {
    let place = |text: &str| {
        let (host, rest) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or("has an address with '[' but without ']'")?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("has a port that is none")?,
            None if rest.is_empty() => port,
            None => return Err("has something between a host and its port"),
        };
        // Whatever else is in there is a mistake, such as a '#' or a space after a comma.
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(fits) {
            return Err("has a host that is none");
        }
        Ok(RedisPlace::Tcp(host.to_owned(), port))
    };
    hosts.split(',').map(place).collect()
}

/// The value of a parameter, if it is there.
fn parameter(query: &str, name: &str) -> Result<Option<String>, &'static str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| decode(value)).transpose()
}

fn refuse_others(query: &str, known: &[&str]) -> Result<(), &'static str> {
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let all_known =
        query.split('&').filter(|pair| !pair.is_empty()).all(|pair| known.contains(&&*name(pair)));
    all_known.then_some(()).ok_or("has a parameter behind '?' that is not known")
}

/// `%40` to `@`.
fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("has a '%' that is not followed by two hexadecimal digits (write %25 for '%')");
        };
        bytes.push(u8::try_from(high * 16 + low).expect("two digits are a byte"));
    }
    String::from_utf8(bytes).map_err(|_| "has a user or password that is not UTF-8")
}

impl fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for RedisUrl {
    /// Without logins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |places: &[RedisPlace]| places.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let s = if self.tls { "s" } else { "" };
        match &self.servers {
            RedisServers::One(place @ RedisPlace::Unix(_)) => write!(f, "{place}"),
            RedisServers::One(place) => write!(f, "redis{s}://{place}"),
            RedisServers::Sentinel { sentinels, master, .. } => {
                write!(f, "redis{s}-sentinel://{}/{master}", list(sentinels))
            }
            RedisServers::Cluster(nodes) => write!(f, "redis{s}-cluster://{}", list(nodes)),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for RedisLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(login)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> RedisPlace {
        RedisPlace::Tcp(host.to_owned(), port)
    }

    fn parse(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|wrong| panic!("{text} {wrong}"))
    }

    fn password(login: &RedisLogin) -> Option<&str> {
        login.password.as_ref().map(Secret::expose)
    }

    #[test]
    fn one_server_is_a_host_or_a_socket() {
        assert_eq!(parse("redis://cache").servers, RedisServers::One(tcp("cache", 6379)));
        assert_eq!(parse("redis://[::1]:7000/3").servers, RedisServers::One(tcp("::1", 7000)));
        let url = parse("rediss://shop:a%3Ab@c@cache:1");
        assert!(url.tls && url.login.user.as_deref() == Some("shop"));
        assert_eq!(password(&url.login), Some("a:b@c"));
        let url = parse("redis://:secret@cache");
        assert_eq!((url.login.user.as_deref(), password(&url.login)), (None, Some("secret")));
        for text in ["unix:/run/redis.sock?password=secret", "unix:///run/redis.sock?password=secret"] {
            let url = parse(text);
            assert_eq!(url.servers, RedisServers::One(RedisPlace::Unix("/run/redis.sock".into())));
            assert_eq!(password(&url.login), Some("secret"));
        }
    }

    #[test]
    fn several_servers_are_sentinels_or_a_cluster() {
        let url = parse("redis-sentinel://u:p@a,b:1/main?sentinel_password=q");
        let RedisServers::Sentinel { sentinels, master, login } = &url.servers else { panic!("{url}") };
        assert_eq!((sentinels.as_slice(), master.as_str()), (&[tcp("a", 26379), tcp("b", 1)][..], "main"));
        assert_eq!((password(&url.login), password(login)), (Some("p"), Some("q")));
        assert!(!url.tls && parse("rediss-sentinel://a/main/0").tls);
        let url = parse("rediss-cluster://a,b:1");
        assert_eq!(url.servers, RedisServers::Cluster(vec![tcp("a", 6379), tcp("b", 1)]));
        assert!(url.tls);
    }

    #[test]
    fn url_shows_itself_without_passwords() {
        for (text, shown) in [
            ("redis://u:geheim@[::1]:1/2", "redis://[::1]:1"),
            (
                "rediss-sentinel://u:geheim@a,b:1/main?sentinel_password=geheim",
                "rediss-sentinel://a:26379,b:1/main",
            ),
            ("redis-cluster://:geheim@a,b", "redis-cluster://a:6379,b:6379"),
            ("unix:/run/r.sock?password=geheim", "unix:/run/r.sock"),
        ] {
            let url = parse(text);
            assert_eq!((url.to_string().as_str(), format!("{url:?}").as_str()), (shown, shown));
            assert!(!format!("{:?}", url.servers).contains("geheim"));
        }
    }

    #[test]
    fn wrong_url_is_refused_with_what_to_write_and_without_the_password() {
        for text in [
            "geheim",
            "http://u:geheim@host",
            "redis://",
            "redis://u:geheim@",
            "redis://u:geheim@a,b",
            "redis://u:geheim@a:0",
            "redis://u:geheim@a:70000",
            "redis://u:geheim@a/x",
            "redis://u:geheim%@a",
            "redis://u:geheim@a?password=geheim",
            "redis://u:geheim@a b",
            "redis://[::1",
            "redis-sentinel://u:geheim@a,b",
            "redis-sentinel://u:geheim@a,,b/main",
            "redis-cluster://u:geheim@a/0",
            "unix:redis.sock",
            "unix:/run/redis.sock?pass=geheim",
        ] {
            let wrong = RedisUrl::parse(text).map(|url| url.to_string()).unwrap_err();
            assert!(wrong.contains("; give redis://host:6379, unix:/path,"), "{text} {wrong}");
            assert!(!wrong.contains("geheim"), "{text} {wrong}");
        }
    }
}
