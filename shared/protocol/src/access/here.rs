//! Access while nobody has said who may read: for whoever asks for this machine by a name that is always its own.
//!
//! What a newcomer gets wrong: that only this machine can connect keeps no web page out. A page's own name can be made to
//! lead to 127.0.0.1 (DNS rebinding), and then its browser takes what is read there for the page's own. Only the name that
//! was asked for tells the difference; an address has no name that could lead elsewhere.

use std::net::IpAddr;

use crate::{Headers, RequestError};

/// Longest name that an error repeats, in characters.
const SHOWN: usize = 60;

/// Whether the request asks for this machine by address, or as `localhost` (RFC 6761 section 6.3), or by no name at all, as
/// no browser does.
pub(super) fn check(headers: &dyn Headers) -> Result<(), RequestError> {
    let Some(host) = headers.header("host").filter(|host| !host.is_empty()) else { return Ok(()) };
    let host = String::from_utf8_lossy(&host);
    match is_here(host.trim()) {
        true => Ok(()),
        false => Err(RequestError::HostNotLocal { host: host.chars().take(SHOWN).collect() }),
    }
}

/// Whether a `Host` (RFC 9110 section 7.2) is an address or `localhost`, with or without a port.
fn is_here(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;

    #[test]
    fn addresses_and_localhost_are_this_machine() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8377",
            "192.0.2.7:80",
            "[::1]:8377",
            "localhost",
            "LOCALHOST.:8377",
            "shop.localhost:80",
        ] {
            assert!(is_here(host), "{host}");
        }
        assert!(check(&TestHeaders(&[])).is_ok() && check(&TestHeaders(&[("host", "")])).is_ok());
    }

    #[test]
    fn names_that_could_lead_here_are_not() {
        for host in [
            "evil.example",
            "evil.example:8377",
            "localhost.evil.example",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1, evil.example",
            "[::1].evil.example",
            "[evil.example]",
        ] {
            let expected = host.starts_with("[::1]");
            assert_eq!(is_here(host), expected, "{host}");
        }
        let error = check(&TestHeaders(&[("host", "evil.example:8377")])).unwrap_err();
        assert_eq!((error.code(), error.status()), ("host_not_local", 403));
        assert!(error.to_string().contains("evil.example:8377"), "{error}");
    }
}
