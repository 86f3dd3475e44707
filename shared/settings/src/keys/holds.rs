//! How long requests are held.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "hold_max",
        variable: "EVERPOLL_HOLD_MAX",
        default: "25",
        form: "seconds, 0 to 3600",
        meaning: "The longest hold of a poll. A client may ask for less.",
        advice: "Too low: more requests for nothing; 0 turns long-polling off. Too high: proxies on the way cut \
                 the request, many at 30 or 60 seconds; the web server in front must wait longer than this.",
        secret: false,
        live: true,
    },
    Key {
        name: "padded_hold_max",
        variable: "EVERPOLL_PADDED_HOLD_MAX",
        default: "120",
        form: "seconds, 0 to 3600",
        meaning: "The longest padded hold: one that sends a space every few seconds, so that proxies do not cut it. \
                  Clients ask for it once a proxy has cut them.",
        advice: "Too low: more requests for nothing; 0 turns padded holds off. Too high: some proxies cut what lasts longer \
                 than a minute or two, however much is sent.",
        secret: false,
        live: true,
    },
    Key {
        name: "heartbeat",
        variable: "EVERPOLL_HEARTBEAT",
        default: "15",
        form: "seconds, 1 to 300",
        meaning: "How often a quiet EventSource gets a comment, and a WebSocket a ping. A WebSocket that answers none of two \
                  is closed.",
        advice: "Too low: work for nothing. Too high: proxies cut streams that are quiet, many after 30 or 60 seconds, \
                 and clients that are gone are noticed late.",
        secret: false,
        live: true,
    },
];
