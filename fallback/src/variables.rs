//! The CGI variables of a request (RFC 3875), whether they came as environment or as FastCGI parameters, and the
//! request that they describe.
//!
//! What a newcomer gets wrong: the web server says what came from the client (`HTTP_*`) and what it knows itself (all
//! others); only the latter may be trusted. And no two hosts pass the same: nginx sends all that its configuration lists,
//! Python's `http.server` leaves `REQUEST_URI` out, Apache hides `Authorization` unless it is told not to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::time::SystemTime;

use everpoll_protocol::{Headers, RawRequest, Timestamp, cgi_target};

/// CGI variables by name.
pub trait Variables {
    /// The variable's value, if it is set.
    fn variable(&self, name: &str) -> Option<Cow<'_, [u8]>>;

    /// How many bytes the header fields have that came from the client, as HTTP/1.1 writes them, and how many there are. What the
    /// web server joined is one.
    fn fields(&self) -> (usize, usize);

    /// The variable's value, or nothing.
    fn text(&self, name: &str) -> Cow<'_, [u8]> {
        self.variable(name).unwrap_or_default()
    }
}

/// Variables that came as environment.
#[derive(Clone, Debug, Default)]
pub struct Environment(HashMap<Vec<u8>, Vec<u8>>);

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect())
    }
}

impl Variables for Environment {
    fn variable(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        self.0.get(name.as_bytes()).map(|value| Cow::Borrowed(value.as_slice()))
    }

    fn fields(&self) -> (usize, usize) {
        count_fields(self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice())))
    }
}

/// What [`Variables::fields`] says of these names and values.
pub(crate) fn count_fields<'a>(variables: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> (usize, usize) {
    let of_client = |(name, value): (&[u8], &[u8])| {
        let length = match name {
            b"CONTENT_TYPE" | b"CONTENT_LENGTH" if !value.is_empty() => name.len(),
            _ => name.strip_prefix(b"HTTP_")?.len(),
        };
        Some(length + b": ".len() + value.len() + b"\r\n".len())
    };
    variables.filter_map(of_client).fold((0, 0), |(bytes, fields), length| (bytes + length, fields + 1))
}

/// What the variables say of a request, ready to be parsed with a body.
pub struct Described<'a> {
    variables: &'a dyn Variables,
    method: String,
    target: Vec<u8>,
    peer: Option<IpAddr>,
    web_server: WebServer<'a>,
}

/// What a web server says of itself: variables without `HTTP_`, which no client can set.
struct WebServer<'a>(&'a dyn Variables);

impl Headers for WebServer<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let name = name.to_ascii_uppercase().replace('-', "_");
        self.0.variable(&name).filter(|value| !value.is_empty())
    }
}

impl<'a> Described<'a> {
    /// Reads the variables.
    pub fn new(variables: &'a dyn Variables) -> Self {
        Self {
            variables,
            // What is no method in any case is refused as one that is not allowed.
            method: String::from_utf8_lossy(&variables.text("REQUEST_METHOD")).into_owned(),
            target: target(variables),
            peer: address(&variables.text("REMOTE_ADDR")),
            web_server: WebServer(variables),
        }
    }

    /// The request target.
    pub fn target(&self) -> &[u8] {
        &self.target
    }

    /// How large the head of the request was, in bytes, and how many fields it had. The web server may have left some out.
    pub fn head(&self) -> (usize, usize) {
        let line = self.method.len() + self.target.len() + "  HTTP/1.1\r\n".len();
        let (bytes, fields) = self.variables.fields();
        (line + bytes + b"\r\n".len(), fields)
    }

    /// Whether only the head of a reply is wanted.
    pub fn head_only(&self) -> bool {
        self.method == "HEAD"
    }

    /// The request with this body.
    pub fn with_body(&'a self, body: &'a [u8]) -> RawRequest<'a> {
        RawRequest {
            method: &self.method,
            target: &self.target,
            headers: self,
            body,
            peer_is_local: self.peer.is_some_and(|peer| peer.to_canonical().is_loopback()),
            peer: self.peer,
            // Nothing is held here.
            may_upgrade: false,
            web_server: Some(&self.web_server),
            now: now(),
        }
    }
}

impl Headers for Described<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let variable = name.to_ascii_uppercase().replace('-', "_");
        match name {
            "content-type" | "content-length" => self.variables.variable(&variable),
            "authorization" => (self.variables.variable("HTTP_AUTHORIZATION"))
                // Where Apache's rewriting had to save it; a client cannot set this name.
                .or_else(|| self.variables.variable("REDIRECT_HTTP_AUTHORIZATION")),
            _ => self.variables.variable(&format!("HTTP_{variable}")),
        }
        .filter(|value| !value.is_empty())
    }
}

/// The request target that the variables tell.
pub fn target(variables: &dyn Variables) -> Vec<u8> {
    cgi_target(
        &variables.text("REQUEST_URI"),
        &variables.text("SCRIPT_NAME"),
        &variables.text("PATH_INFO"),
        &variables.text("QUERY_STRING"),
    )
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// An address as in `REMOTE_ADDR`. Nothing, and nginx's `unix:`, are none: whoever stands before it there is not known.
fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    #[test]
    fn headers_are_found_under_their_cgi_names() {
        let variables = environment(&[
            ("CONTENT_TYPE", "application/json"),
            ("HTTP_LAST_EVENT_ID", "7"),
            ("HTTP_CONTENT_TYPE", "text/plain"),
            ("REDIRECT_HTTP_AUTHORIZATION", "Bearer x"),
            ("HTTP_ACCEPT", ""),
            ("PATH", "/bin"),
        ]);
        let described = Described::new(&variables);
        let header =
            |name| described.header(name).map(|value| String::from_utf8(value.into_owned()).unwrap());
        assert_eq!(header("content-type").as_deref(), Some("application/json"));
        assert_eq!(header("last-event-id").as_deref(), Some("7"));
        assert_eq!(header("authorization").as_deref(), Some("Bearer x"));
        assert_eq!(header("accept"), None);
        assert_eq!(header("path"), None);
    }

    #[test]
    fn only_a_loopback_address_is_this_machine() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.7.7.7", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("unix:", false),
            ("", false),
            ("127.0.0.1, 192.0.2.1", false),
        ] {
            let variables = environment(&[("REMOTE_ADDR", address)]);
            assert_eq!(Described::new(&variables).with_body(b"").peer_is_local, local, "{address}");
        }
    }
}
