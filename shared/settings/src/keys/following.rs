//! How the daemon follows the log.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "window_bytes",
        variable: "EVERPOLL_WINDOW_BYTES",
        default: "64MiB",
        form: "bytes, plain or with KiB, MiB or GiB, 64KiB to 64GiB",
        meaning: "Memory for the newest events in the daemon. Clients that are behind by no more than this do not touch \
                  the database.",
        advice: "Too low: after a restart the returning clients load the database. Too high: a slower start, and memory \
                 that nobody needs.",
        secret: false,
        live: false,
    },
    Key {
        name: "sweep_interval",
        variable: "EVERPOLL_SWEEP_INTERVAL",
        default: "1s",
        form: "seconds, or a number with ms, s, m or h, 100ms to 1h",
        meaning: "How often the daemon reads the log although nothing woke it up: the latest that an event comes when wake-ups \
                  are lost.",
        advice: "Too low: statements for nothing. Too high: while wake-ups are lost, events come as late as this; longer \
                 than a few seconds is only good for seeing whether wake-ups come.",
        secret: false,
        live: false,
    },
    Key {
        name: "canary_interval",
        variable: "EVERPOLL_CANARY_INTERVAL",
        default: "5s",
        form: "seconds, or a number with ms, s, m or h, 1s to 1h",
        meaning: "How often the daemon sends a canary over each path of wake-ups. A path on which none arrives within half of \
                  that (at least 1s, at most 10s) is silent: it is logged, shown in /readyz, and connected anew.",
        advice: "Too low: a path is called silent because the database was busy for a moment. Too high: a path that \
                 delivers nothing is noticed late, and events come with the sweep until then.",
        secret: false,
        live: false,
    },
];
