//! Handshakes of WebSockets: header fields as they come, and what may become of a connection.
//!
//! The input is lines: the first byte says whether the connection could become a WebSocket at all, the rest of its line is
//! the query, then header fields. What must be there is checked a second time here, by other means than the protocol's.

use everpoll_protocol::{Flavor, Headers, RawRequest, Request};

use super::request::Fields;

/// A WebSocket is opened for those who ask for one as RFC 6455 has it, from pages that may, and for nobody else.
pub(crate) fn check(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let may_upgrade = first % 2 == 1;
    let mut lines = rest.split(|b| *b == b'\n');
    let target = [b"/e/cheese?", lines.next().unwrap_or_default()].concat();
    let headers = Fields::of(lines);
    let raw = RawRequest { may_upgrade, ..super::raw("GET", &target, &headers, b"") };
    let parsed = super::replies::check(&raw);
    let wanted = asks(&headers);
    match &parsed {
        Ok(Request::Poll(request)) if request.flavor == Flavor::WebSocket => {
            assert!(may_upgrade && wanted && page_may(&headers));
            let key = request.websocket_key.as_ref().expect("it was checked");
            assert_eq!(headers.header("sec-websocket-key").expect("it was asked for").trim_ascii(), &key[..]);
        }
        Err(error) => match error.code() {
            "upgrade_required" => assert!(!may_upgrade || !wanted),
            "websocket_version" | "websocket_key_malformed" => assert!(may_upgrade && !wanted),
            "origin_not_allowed" => assert!(may_upgrade && wanted && !page_may(&headers)),
            _ => {}
        },
        Ok(_) => {}
    }
}

fn text(headers: &Fields<'_>, name: &str) -> String {
    String::from_utf8_lossy(&headers.header(name).unwrap_or_default()).to_ascii_lowercase()
}

/// RFC 6455 section 4.2.1.
fn asks(headers: &Fields<'_>) -> bool {
    let lists = |name, word| text(headers, name).split(',').any(|part| ascii_trim(part) == word);
    let key = headers.header("sec-websocket-key").unwrap_or_default();
    lists("upgrade", "websocket")
        && lists("connection", "upgrade")
        && text(headers, "sec-websocket-version") == "13"
        && decoded_length(key.trim_ascii()) == Some(16)
}

fn ascii_trim(part: &str) -> &str {
    part.trim_matches(|c: char| c.is_ascii_whitespace())
}

/// The length of what is written in base64, if it is, to the bit (RFC 4648 section 4).
fn decoded_length(base64: &[u8]) -> Option<usize> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if base64.is_empty() || !base64.len().is_multiple_of(4) {
        return None;
    }
    let digits = base64.strip_suffix(b"==").or_else(|| base64.strip_suffix(b"=")).unwrap_or(base64);
    let mut last = 0;
    for digit in digits {
        last = DIGITS.iter().position(|known| known == digit)?;
    }
    let unused = match base64.len() - digits.len() {
        0 => 0,
        1 => last & 0b11,
        _ => last & 0b1111,
    };
    (unused == 0).then_some(digits.len() * 6 / 8)
}

/// Whether the page is of the same host, or of an allowed one; programs send no origin. Where both name a port, it is the same.
fn page_may(headers: &Fields<'_>) -> bool {
    let Some(origin) = headers.header("origin") else { return true };
    if matches!(&*origin, b"https://shop.example" | b"http://[::1]:8080") {
        return true;
    }
    let parts = |authority: &str| match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host.to_owned(), Some(port.to_owned())),
        _ => (authority.to_owned(), None),
    };
    let origin = text(headers, "origin");
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    let (host, port) = parts(&text(headers, "host"));
    authority.is_some_and(|authority| {
        let (page, page_port) = parts(authority);
        page == host && (port.is_none() || page_port.is_none() || port == page_port)
    })
}
