//! Channels whose names begin alike.

use super::Key;

pub(super) const KEYS: &[Key] = &[Key {
    name: "namespaces",
    variable: "EVERPOLL_NAMESPACES",
    default: "none",
    form: "tables [namespaces.\"shop:\"], each with access, event_max, retain_for, retain_count, and tables \
           [namespaces.\"shop:\".token_keys.KID]; in the variable the same as TOML",
    meaning: "Applications or tenants that share one log: what is set here holds for the channels whose names begin so. A name ends \
              with a colon; the longest that fits is the channel's. What a namespace does not set, it has from the one around it, and \
              that from the settings for all. One that has token_keys knows no others. One that has retain_for or retain_count keeps its \
              events apart: what it has is counted, removed, and told as a gap by itself.",
    advice: "A token of one namespace is no good in another that has keys of its own. A request for channels of several must be let in \
             by each.",
    secret: true,
    live: true,
}];
