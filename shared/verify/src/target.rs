//! Where to ask, and connections to there.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// Where to ask: `http://host[:port][/prefix]`, the same with `https`, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    place: Place,
    /// What stands before `/e/` and `/publish`; without a slash at its end.
    prefix: String,
    authority: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

/// An open connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            if path.is_empty() {
                return Err("unix: needs a path, such as unix:/run/everpoll.sock".to_owned());
            }
            let (prefix, authority) = (String::new(), "localhost".to_owned());
            return Ok(Self { place: Place::Unix(path.into()), prefix, authority });
        }
        let (tls, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => {
                return Err(format!(
                    "{url:?} is no address; give http://host:port, https://host or unix:/path"
                ));
            }
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let bad = |c: char| matches!(c, '@' | '?' | '#') || c.is_whitespace() || c.is_control();
        if authority.is_empty() || rest.contains(bad) {
            return Err(format!("{url:?} is no address; give it without user, query and fragment"));
        }
        let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = port.unwrap_or((authority, if tls { 443 } else { 80 }));
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let prefix = path.trim_end_matches('/').to_owned();
        Ok(Self { place: Place::Tcp { host, port, tls }, prefix, authority: authority.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp { tls, .. } => {
                write!(f, "{}://{}{}", if *tls { "https" } else { "http" }, self.authority, self.prefix)
            }
        }
    }
}

impl Target {
    /// What requests call the server.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The path and query of a request for `path`, which begins with a slash.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.place {
            Place::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Place::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                if !tls {
                    return Ok(Box::new(stream));
                }
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Ok(Box::new(connector().connect(name, stream).await?))
            }
        }
    }
}

/// With the certificates that this machine trusts.
fn connector() -> &'static TlsConnector {
    static CONNECTOR: OnceLock<TlsConnector> = OnceLock::new();
    CONNECTOR.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the versions that rustls takes for safe")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read_and_written_alike() {
        for url in
            ["http://127.0.0.1:8377", "https://shop.example", "http://[::1]:80/live", "unix:/run/e.sock"]
        {
            assert_eq!(url.parse::<Target>().unwrap().to_string(), url);
        }
        let target: Target = "http://shop.example/live/".parse().unwrap();
        assert_eq!((target.path("/e/a"), target.authority()), ("/live/e/a".to_owned(), "shop.example"));
        assert_eq!(target.place, Place::Tcp { host: "shop.example".into(), port: 80, tls: false });
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["localhost:80", "ftp://h", "http://", "http://u@h/", "http://h/?a=b", "unix:"] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}
