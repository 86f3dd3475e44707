//! The handshake of a WebSocket (RFC 6455 section 4.2.1): what is checked before a connection becomes one.
//!
//! What a newcomer gets wrong: many proxies drop `Upgrade` and pass on a plain GET. Held like a poll, it would keep a client
//! waiting that understands no poll; so its URL says `flavor=websocket`, and such a request is refused at once.

use crate::{Headers, Origins, RawRequest, RequestError};

/// `Sec-WebSocket-Key`: 16 bytes in base64.
pub type Key = Box<[u8; 24]>;

pub(crate) fn check(raw: &RawRequest<'_>, origins: &Origins) -> Result<Key, RequestError> {
    let names = |header, word: &[u8]| names(raw.headers, header, word);
    if !raw.may_upgrade || !names("upgrade", b"websocket") || !names("connection", b"upgrade") {
        return Err(RequestError::UpgradeRequired);
    }
    if raw.headers.header("sec-websocket-version").as_deref() != Some(b"13") {
        return Err(RequestError::WebSocketVersion);
    }
    let key = raw.headers.header("sec-websocket-key").unwrap_or_default();
    let key = <&[u8; 24]>::try_from(key.trim_ascii()).ok().filter(|key| is_key(key));
    let key = key.ok_or(RequestError::WebSocketKeyMalformed)?;
    if !origins.admits_socket(raw.headers) {
        return Err(RequestError::OriginNotAllowed);
    }
    Ok(Box::new(*key))
}

/// Whether a header that is a list names `word`.
fn names(headers: &dyn Headers, header: &str, word: &[u8]) -> bool {
    let list = headers.header(header).unwrap_or_default();
    list.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

/// 16 bytes are 22 digits of base64, of which the last has four bits only, and two signs to fill up.
fn is_key(key: &[u8; 24]) -> bool {
    let digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key[..22].iter().all(digit) && matches!(key[21], b'A' | b'Q' | b'g' | b'w') && key[22..] == *b"=="
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn code(changed: (&'static str, &'static str), may_upgrade: bool) -> Result<(), &'static str> {
        let mut headers: Vec<_> = GOOD.into_iter().filter(|header| header.0 != changed.0).collect();
        headers.push(changed);
        let headers = TestHeaders(headers.leak());
        let raw = RawRequest {
            method: "GET",
            target: b"/e/c",
            headers: &headers,
            body: b"",
            peer_is_local: true,
            peer: None,
            may_upgrade,
            web_server: None,
            now: crate::Timestamp::default(),
        };
        check(&raw, &Origins::default()).map(|_| ()).map_err(|error| error.code())
    }

    #[test]
    fn handshake_is_checked() {
        assert_eq!(code(("x", ""), true), Ok(()));
        assert_eq!(code(("x", ""), false), Err("upgrade_required"));
        assert_eq!(code(("upgrade", "h2c"), true), Err("upgrade_required"));
        assert_eq!(code(("connection", "close"), true), Err("upgrade_required"));
        assert_eq!(code(("sec-websocket-version", "8"), true), Err("websocket_version"));
        for wrong in
            ["", "short", "dGhlIHNhbXBsZSBub25jZQ=A", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBs*SBub25jZQ=="]
        {
            assert_eq!(code(("sec-websocket-key", wrong), true), Err("websocket_key_malformed"), "{wrong}");
        }
        assert_eq!(code(("origin", "https://evil.example"), true), Err("origin_not_allowed"));
    }
}
