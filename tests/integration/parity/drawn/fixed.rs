//! Requests that were once answered differently, as small as they could be made.

use super::Mode;

pub(super) const FIXED: &[(Mode, &[u8])] = &[
    // Empty fields, which FastCGI leaves out, were something to the daemon.
    (
        Mode::Proxy,
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nForwarded: \r\nContent-Length: 0\r\n\r\n",
    ),
    (
        Mode::Open,
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Real-IP:\r\nOrigin: \r\nContent-Length: 0\r\n\r\n",
    ),
    // nginx appends to them, and what was empty was an address of somebody else to the daemon.
    (
        Mode::Open,
        b"POST /publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Forwarded-For: \r\nContent-Length: 0\r\n\r\n",
    ),
    // What stands behind a `#` is left out by nginx and hyper, and was read by all others.
    (
        Mode::Open,
        b"POST /publish#x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        Mode::Open,
        b"POST /e/cheese?last_event_id=2#x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nFlavor: short-poll\r\n\
          Content-Length: 0\r\n\r\n",
    ),
    // The handshake was looked at first, so only the daemon told what else was wrong.
    (
        Mode::Open,
        b"GET /e/cheese?flavor=websocket&beat=0.99 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
          Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
    // nginx straightened it for the daemon alone.
    (Mode::Open, b"GET /./publish?x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    // nginx takes spaces off a value, and leaves the other white space of HTTP.
    (
        Mode::Open,
        b"GET /e/cheese HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: https://shop.example\t\r\n\
          Flavor: short-poll\r\n\r\n",
    ),
    (
        Mode::Open,
        b"POST /e/cheese HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: \tapplication/json\r\n\
          Flavor: short-poll\r\nContent-Length: 0\r\n\r\n",
    ),
];
