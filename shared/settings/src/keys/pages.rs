//! What the daemon serves to people.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "probe",
        variable: "EVERPOLL_PROBE",
        default: "true",
        form: "true or false",
        meaning: "Whether the daemon serves the self-test page, /e/_probe, on which visitors see what their network does \
                  to each transport.",
        advice: "",
        secret: false,
        live: true,
    },
    Key {
        name: "demo",
        variable: "EVERPOLL_DEMO",
        default: "false",
        form: "true or false",
        meaning: "Whether the daemon serves the demo page, /demo. everpoll up switches it on.",
        advice: "Whoever may publish can start its job, which publishes events on the channel cheese.",
        secret: false,
        live: true,
    },
];
