//! Files of the pages, which are part of the program.

use bytes::Bytes;
use everpoll_protocol::content_hash;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::Body;

/// One file.
pub(crate) struct Asset {
    /// Its last path segment; empty for the page itself.
    pub(super) name: &'static str,
    content_type: &'static str,
    content: &'static [u8],
    hash: [u8; 16],
}

/// What the pages may load, and who may frame them. Nobody: a page of another site could make people press the demo's
/// buttons. Where the browser does not count WebSockets to `'self'` (Safari before 15.4), they are named.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Asset {
    /// A file with this last path segment.
    pub(super) const fn new(name: &'static str, content_type: &'static str, content: &'static [u8]) -> Self {
        Self { name, content_type, content, hash: content_hash(content) }
    }

    /// Answers with the file, or that the client has it already.
    pub(super) fn respond(&self, request: &HeaderMap) -> Response<Body> {
        let tag = format!("\"{}\"", String::from_utf8_lossy(&self.hash));
        // A web server that compresses makes a weak tag of it (`W/"…"`), which is as good here.
        let is_known = request.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
            tags.to_str().is_ok_and(|tags| {
                tags.split(',')
                    .map(|one| one.trim().trim_start_matches("W/"))
                    .any(|one| one == tag || one == "*")
            })
        });
        let content = if is_known { &b""[..] } else { self.content };
        let mut response = Response::new(Full::new(Bytes::from_static(content)).boxed_unsync());
        let headers = response.headers_mut();
        let policy = policy(request);
        // After an update of the program, the files must fit each other: asked for each time, sent when they changed.
        for (name, value) in [
            (header::CACHE_CONTROL, "no-cache"),
            (header::ETAG, &tag),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "same-origin"),
            (header::CONTENT_SECURITY_POLICY, &policy),
        ] {
            insert(headers, name, value);
        }
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            insert(headers, header::CONTENT_TYPE, self.content_type);
            headers.insert(header::CONTENT_LENGTH, self.content.len().into());
        }
        response
    }
}

/// The policy for a page that was asked for at this host. Whatever its port: web servers pass on the host without it.
fn policy(request: &HeaderMap) -> String {
    let host = request.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(name_of);
    match host {
        Some(name) => format!("{POLICY}; connect-src 'self' ws://{name}:* wss://{name}:*"),
        None => POLICY.to_owned(),
    }
}

/// The host without its port, if it is a name or an address and nothing that could say more in a policy.
fn name_of(host: &str) -> Option<&str> {
    let name = match host.split_once(']') {
        Some((address, _)) => &host[..=address.len()],
        None => host.split(':').next()?,
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    (!name.is_empty() && name.bytes().all(allowed)).then_some(name)
}

pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_names_a_host_and_nothing_else() {
        let policy = |host: &'static str| {
            policy(&HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]))
        };
        let sockets = |name| format!("{POLICY}; connect-src 'self' ws://{name}:* wss://{name}:*");
        assert_eq!(policy("shop.example:8378"), sockets("shop.example"));
        assert_eq!(policy("[::1]:8378"), sockets("[::1]"));
        assert_eq!(policy("a; script-src *"), POLICY);
        assert_eq!(policy(""), POLICY);
    }
}
