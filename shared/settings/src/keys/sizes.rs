//! How large requests may be, but for the body of a publish.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "event_max",
        variable: "EVERPOLL_EVENT_MAX",
        default: "1MiB",
        form: "bytes, plain or with KiB, MiB or GiB, 64 to 1MiB",
        meaning: "Largest data of an event that is published over HTTP or by everpoll publish, as JSON text.",
        advice: "Too low: events are refused with 413. In SQL the database's own limit holds, 1 MiB.",
        secret: false,
        live: true,
    },
    Key {
        name: "batch_max",
        variable: "EVERPOLL_BATCH_MAX",
        default: "1000",
        form: "events, 1 to 1000",
        meaning: "Most events of one POST /publish.",
        advice: "Too low: publishers need more requests, and more transactions.",
        secret: false,
        live: true,
    },
    Key {
        name: "channels_max",
        variable: "EVERPOLL_CHANNELS_MAX",
        default: "64",
        form: "channels, 1 to 64",
        meaning: "Most channels of one poll or stream.",
        advice: "Too low: pages with more are refused with 400, and need several requests.",
        secret: false,
        live: true,
    },
    Key {
        name: "poll_body_max",
        variable: "EVERPOLL_POLL_BODY_MAX",
        default: "64KiB",
        form: "bytes, plain or with KiB, MiB or GiB, 1KiB to 1MiB",
        meaning: "Largest body of a poll that comes by POST. It has the parameters, a few hundred bytes with a token.",
        advice: "Too low: such polls are refused with 413.",
        secret: false,
        live: true,
    },
    Key {
        name: "head_max",
        variable: "EVERPOLL_HEAD_MAX",
        default: "16KiB",
        form: "bytes, plain or with KiB, MiB or GiB, 4KiB to 64KiB",
        meaning: "Largest head of a request, cookies included. To the fallback it counts what the web server passes on of it.",
        advice: "Too low: visitors with many cookies are refused with 431. Too high: each connection may take that much \
                 memory for head_timeout.",
        secret: false,
        live: true,
    },
];
