//! Requests as CGI hosts describe them.
//!
//! The input is lines: REQUEST_URI, SCRIPT_NAME, PATH_INFO, QUERY_STRING, REQUEST_METHOD, CONTENT_TYPE, the
//! `Last-Event-Id`, and, in all that follows, the body.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use everpoll_fallback::variables::{Described, Environment, target};
use everpoll_protocol::{Route, cgi_target};
use percent_encoding::percent_decode;

const NAMES: [&str; 7] = [
    "REQUEST_URI",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "REQUEST_METHOD",
    "CONTENT_TYPE",
    "HTTP_LAST_EVENT_ID",
];

/// A request is understood wherever the program is mounted, and means what its variables say.
pub(crate) fn check(input: &[u8]) {
    let mut parts = input.splitn(NAMES.len() + 1, |b| *b == b'\n');
    let values: Vec<_> = NAMES.iter().map(|_| parts.next().unwrap_or_default()).collect();
    let body = parts.next().unwrap_or_default();
    let variable = |name: &str, value: &[u8]| (OsString::from(name), OsString::from_vec(value.to_vec()));
    let environment: Environment =
        NAMES.iter().zip(&values).map(|(name, value)| variable(name, value)).collect();
    let described = Described::new(&environment);
    let _ = super::replies::check(&described.with_body(body));

    let (uri, info) = (values[0], values[2]);
    assert_eq!(described.target(), target(&environment));
    // At the root of a site the target is what the client sent.
    if Route::of(uri) != Route::Elsewhere && uri.starts_with(b"/") {
        assert_eq!(cgi_target(uri, b"", info, b""), uri);
        assert_eq!(
            cgi_target(&[b"/shop".as_slice(), uri].concat(), b"/shop/e.php", b"", b"").len(),
            uri.len()
        );
    }
    // Where only the decoded path is known, it arrives as it is.
    if info.starts_with(b"/") {
        let target = cgi_target(b"", b"/cgi-bin/ep", info, b"x=1");
        let (path, query) = target.split_at(target.len() - 4);
        assert_eq!(query, b"?x=1");
        assert_eq!(percent_decode(path).collect::<Vec<_>>(), info);
        assert!(!path.contains(&b'?') && path.iter().all(|b| b.is_ascii_graphic()));
    }
}
