//! Who may publish over HTTP.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "publish_key",
        variable: "EVERPOLL_PUBLISH_KEY",
        default: "none",
        form: "text, at least 16 characters, ASCII without spaces",
        meaning: "What POST /publish must present as Authorization: Bearer. Without it only this machine may publish over \
                  HTTP, and only while the program listens on an address of this machine.",
        advice: "Too short is refused, since it could be guessed. It may publish to every channel; publish_keys are for some.",
        secret: true,
        live: true,
    },
    Key {
        name: "publish_keys",
        variable: "EVERPOLL_PUBLISH_KEYS",
        default: "none",
        form: "tables [publish_keys.NAME], each with key and channels, and rate if it has one; in the variable the same as TOML",
        meaning: "Publishing keys with names, each for some channels: whole names, or beginnings and a *, such as \
                  channels = [\"shop-*\"]; [\"*\"] is for all. They are presented as publish_key is, beside which they hold.",
        advice: "Give each application its own: one that leaks can be taken out alone, and publishes to its own channels only. \
                 The name stands in errors.",
        secret: true,
        live: true,
    },
    Key {
        name: "publish_rate",
        variable: "EVERPOLL_PUBLISH_RATE",
        default: "none",
        form: "events a second, 1 to 1000000, and how many at once where that is not ten times as many: \"100 burst 5000\"; or none",
        meaning: "How many events each publishing key may publish over HTTP, and this machine where no key is set. Beyond it, nothing of a \
                  request is published, and the answer is 429. A key of publish_keys or keys_file may have a rate of its own.",
        advice: "The daemon and the fallback count each for itself, and under plain CGI nothing is counted. A request with more events than \
                 may come at once is taken when there were none for a while.",
        secret: false,
        live: true,
    },
    Key {
        name: "keys_file",
        variable: "EVERPOLL_KEYS_FILE",
        default: "none",
        form: "a whole path",
        meaning: "A TOML file with further keys, in the same tables: [publish_keys.NAME], [token_keys.KID], and \
                  [namespaces.\"shop:\".token_keys.KID] for a namespace that has token_keys in the settings. It is read again each second, so \
                  keys are exchanged without a restart.",
        advice: "Put a new file in place of the old one (mv), readable for the programs' user alone. One that is wrong is \
                 reported and changes nothing; at the start it is a problem. Without its last key, nobody may publish over HTTP.",
        secret: false,
        live: true,
    },
];
