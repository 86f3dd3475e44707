//! How long events stay in the log.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "retain_for",
        variable: "EVERPOLL_RETAIN_FOR",
        default: "7d",
        form: "seconds, or a number with s, m, h or d, up to 36500d; none or 0 for ever",
        meaning: "How long events stay in the log.",
        advice: "Too low: clients that were away get a gap instead of events. Too high, or none: the log grows on \
                 the disk.",
        secret: false,
        live: true,
    },
    Key {
        name: "retain_count",
        variable: "EVERPOLL_RETAIN_COUNT",
        default: "none",
        form: "events; none or 0 for all",
        meaning: "How many of the newest events stay in the log; retain_for holds as well.",
        advice: "Too low: a burst pushes out events that clients have not read yet, and they get a gap.",
        secret: false,
        live: true,
    },
    Key {
        name: "trim_interval",
        variable: "EVERPOLL_TRIM_INTERVAL",
        default: "30",
        form: "seconds, 1 to 86400",
        meaning: "How often the daemon looks for events that retention does not keep, and removes them.",
        advice: "Too low: looks for nothing. Too high: the log grows meanwhile, and what goes goes all at once, though still \
                 in small batches.",
        secret: false,
        live: true,
    },
    Key {
        name: "trim_batch",
        variable: "EVERPOLL_TRIM_BATCH",
        default: "5000",
        form: "events, 1 to 100000",
        meaning: "Most events that one transaction of retention removes. The daemon begins with 500 and comes nearer to this \
                  while a transaction takes less than 10 ms; after each it leaves the log alone for three times as long.",
        advice: "Too low: a large backlog goes away slowly. Too high: does no harm, since it is adapted to the machine.",
        secret: false,
        live: true,
    },
];
