//! New settings in place of old ones, while a program runs with the old ones.
//!
//! What cannot change then, such as the address, keeps its old value, and is named: whoever has written it shall know that it
//! waits for a restart.

use crate::{KEYS, Settings};

/// What became of the settings that were read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchanged {
    /// The keys that have another value from now on, in the order of the documentation.
    pub changed: Vec<&'static str>,
    /// The keys with another value, which would need a restart to count.
    pub needs_restart: Vec<&'static str>,
}

/// How two settings are compared in one key, and how one takes its value from the other.
struct Part {
    name: &'static str,
    is_same: fn(&Settings, &Settings) -> bool,
    keep: fn(&mut Settings, &Settings),
}

macro_rules! part {
    ($name:ident) => {
        Part {
            name: stringify!($name),
            is_same: |one, other| one.$name == other.$name,
            keep: |new, old| new.$name = old.$name.clone(),
        }
    };
}

macro_rules! parts {
    ($($name:ident)*) => { &[$(part!($name)),*] };
}

/// All keys but those of `tls`, which are two of one value.
const PARTS: &[Part] = parts! {
    listen fallback_status reuse_port socket_mode database_url redis_url database_connections fallback_workers hold_max padded_hold_max
    heartbeat access access_header access_until_header access_peers access_recheck token_keys token_cookie token_audience
    token_issuer token_leeway token_valid_max allow_origins jsonp namespaces probe demo publish_key publish_keys publish_rate keys_file retain_for
    retain_count trim_interval trim_batch window_bytes sweep_interval canary_interval catch_up_max connections_max holds_max
    unsent_max head_timeout idle_timeout write_timeout ghost_timeout drain_timeout body_max connections_per_address requests_per_address websockets_per_wait_id forwarded_peers status_peers
    event_max batch_max channels_max poll_body_max head_max
    log log_format
};

/// Certificate and key.
const TLS: &[Part] = &[
    Part {
        name: "tls_certificate",
        is_same: |one, other| one.tls.as_ref().map(|tls| &tls.0) == other.tls.as_ref().map(|tls| &tls.0),
        keep: |new, old| new.tls = old.tls.clone(),
    },
    Part {
        name: "tls_key",
        is_same: |one, other| one.tls.as_ref().map(|tls| &tls.1) == other.tls.as_ref().map(|tls| &tls.1),
        keep: |new, old| new.tls = old.tls.clone(),
    },
];

impl Settings {
    /// Puts the values of a running program's settings in place of those that need a restart to count, and says which keys
    /// have changed.
    #[must_use]
    pub fn take_over_from(&mut self, old: &Self) -> Exchanged {
        let mut exchanged = Exchanged::default();
        let new = self.clone();
        for key in KEYS {
            let Some(part) = PARTS.iter().chain(TLS).find(|part| part.name == key.name) else { continue };
            if (part.is_same)(old, &new) {
                continue;
            }
            if key.live {
                exchanged.changed.push(key.name);
            } else {
                exchanged.needs_restart.push(key.name);
                (part.keep)(self, old);
            }
        }
        exchanged
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Listen;

    #[test]
    fn every_key_is_compared() {
        for key in KEYS {
            assert!(PARTS.iter().chain(TLS).any(|part| part.name == key.name), "{} is not", key.name);
        }
        assert_eq!(PARTS.len() + TLS.len(), KEYS.len());
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let old = Settings { tls: Some(("a".into(), "b".into())), ..Settings::default() };
        let listen = Listen::Unix("/run/e.sock".into());
        let mut new = Settings { hold_max: Duration::from_secs(7), listen, ..Settings::default() };
        let exchanged = new.take_over_from(&old);
        assert_eq!(exchanged.changed, ["hold_max"]);
        assert_eq!(exchanged.needs_restart, ["listen", "tls_certificate", "tls_key"]);
        assert_eq!(new, Settings { hold_max: Duration::from_secs(7), ..old.clone() });
        assert_eq!(old.clone().take_over_from(&old), Exchanged::default());
    }
}
