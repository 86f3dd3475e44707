//! What is said about it.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "log",
        variable: "EVERPOLL_LOG",
        default: "info",
        form: "error, warn, info, debug or trace, also for parts: info,everpoll=debug",
        meaning: "Which diagnostics are written to standard error.",
        advice: "Too low: nobody learns of a lost database. Too high: a line for each request.",
        secret: false,
        live: true,
    },
    Key {
        name: "log_format",
        variable: "EVERPOLL_LOG_FORMAT",
        default: "text",
        form: "text or json",
        meaning: "How diagnostics look: lines for people, or one JSON object a line.",
        advice: "",
        secret: false,
        live: false,
    },
];
