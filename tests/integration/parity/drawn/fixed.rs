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
];
