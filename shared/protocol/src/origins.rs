//! Whose pages may read from another host: CORS (WHATWG Fetch, section 3.2).
//!
//! What a newcomer gets wrong: the browser enforces this, not the server, and only for what scripts read. A WebSocket it
//! lets through from any page, so there the server itself has to look at the `Origin`.

use std::sync::Arc;

use crate::Headers;

/// The sites whose pages may read from another host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    /// In the form in which browsers send them: lower case, no default port, no slash.
    listed: Arc<[Box<str>]>,
}

/// What is said to a page of another host that may read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Admitted {
    /// Every page may, without its visitor's cookies.
    Any,
    /// This origin may.
    Origin(Box<str>),
}

impl Origins {
    /// Parses `none`, `*`, or origins separated by spaces or commas.
    ///
    /// # Errors
    ///
    /// The part that is no origin.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "none" | "" => Ok(Self::default()),
            "*" => Ok(Self { any: true, ..Self::default() }),
            list => {
                let parts = list.split([' ', ',']).filter(|part| !part.is_empty());
                let origins = parts.map(|part| normal(part).ok_or_else(|| part.to_owned()));
                Ok(Self { any: false, listed: origins.collect::<Result<_, _>>()? })
            }
        }
    }

    /// What is said to the page that sends this request, if it may read across hosts.
    pub(crate) fn admit(&self, headers: &dyn Headers) -> Option<Admitted> {
        if self.any {
            return Some(Admitted::Any);
        }
        // The usual case costs no look at the headers.
        if self.listed.is_empty() {
            return None;
        }
        let origin = headers.header("origin")?;
        let listed = self.listed.iter().find(|listed| listed.as_bytes() == &*origin)?;
        Some(Admitted::Origin(listed.clone()))
    }

    /// Whether the page that sends this request may open a WebSocket: one of the same host, of an allowed one, or no page
    /// at all. Where both name a port, it must be the same; many web servers in front pass on the host without its port.
    pub(crate) fn admits_socket(&self, headers: &dyn Headers) -> bool {
        let Some(origin) = headers.header("origin") else { return true };
        if self.any || self.listed.iter().any(|listed| listed.as_bytes() == &*origin) {
            return true;
        }
        let host = headers.header("host").unwrap_or_default().to_ascii_lowercase();
        let origin = origin.to_ascii_lowercase();
        let Some(page) = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://")) else {
            return false;
        };
        let (name, page_name) = (without_port(&host), without_port(page));
        let (port, page_port) = (&host[name.len()..], &page[page_name.len()..]);
        name == page_name && (port.is_empty() || page_port.is_empty() || port == page_port)
    }
}

/// An origin as browsers write it: `https://shop.example`, with a port only where it is not the scheme's own.
fn normal(text: &str) -> Option<Box<str>> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority, own_port) = match text.split_once("://")? {
        ("http", rest) => ("http", rest, ":80"),
        ("https", rest) => ("https", rest, ":443"),
        _ => return None,
    };
    let authority = authority.strip_suffix(own_port).unwrap_or(authority);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '_');
    let valid = !authority.is_empty() && !authority.starts_with(':') && authority.chars().all(plain);
    valid.then(|| format!("{scheme}://{authority}").into())
}

fn without_port(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|b| *b == b':') {
        // Within brackets stands an IPv6 address.
        Some(colon) if !authority[colon..].contains(&b']') => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;

    #[test]
    fn listed_origins_are_admitted_as_browsers_write_them() {
        let origins = Origins::parse("https://Shop.example:443, http://[::1]:8080").unwrap();
        let admit = |headers: &'static [(&'static str, &'static str)]| origins.admit(&TestHeaders(headers));
        let shop = Admitted::Origin("https://shop.example".into());
        assert_eq!(admit(&[("origin", "https://shop.example")]), Some(shop));
        assert!(admit(&[("origin", "http://[::1]:8080")]).is_some());
        assert_eq!(admit(&[("origin", "http://shop.example")]), None);
        assert_eq!(admit(&[("origin", "null")]), None);
        assert_eq!(admit(&[]), None);
        assert_eq!(Origins::parse("*").unwrap().admit(&TestHeaders(&[])), Some(Admitted::Any));
    }

    #[test]
    fn what_is_no_origin_is_named() {
        for wrong in
            ["shop.example", "https://", "https://shop.example/path", "ftp://shop.example", "https://a b/"]
        {
            assert!(Origins::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Origins::parse("https://a.example b").unwrap_err(), "b");
        assert_eq!(Origins::parse("none").unwrap(), Origins::default());
    }

    #[test]
    fn socket_is_opened_for_pages_of_the_same_host_only() {
        let admits = |headers: &'static [(&'static str, &'static str)]| {
            Origins::parse("https://shop.example").unwrap().admits_socket(&TestHeaders(headers))
        };
        assert!(admits(&[("host", "a.example:8377")]));
        assert!(admits(&[("host", "a.example"), ("origin", "https://a.example:8443")]));
        assert!(admits(&[("host", "[::1]:8377"), ("origin", "http://[::1]:8377")]));
        assert!(admits(&[("host", "a.example"), ("origin", "https://shop.example")]));
        assert!(admits(&[("host", "a.example:8377"), ("origin", "https://A.example")]));
        assert!(!admits(&[("host", "a.example:8377"), ("origin", "https://a.example:8378")]));
        assert!(!admits(&[("host", "[::1]:8377"), ("origin", "http://[::1]:83")]));
        assert!(!admits(&[("host", "a.example"), ("origin", "https://evil.example")]));
        assert!(!admits(&[("host", "a.example"), ("origin", "null")]));
    }
}
