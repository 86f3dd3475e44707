//! What the settings say to the protocol: about requests, readers and publishers.

use std::hash::{BuildHasher, RandomState};

use everpoll_protocol::{
    Channel, Fronts, Limits, Patterns, Proxies, PublishSizes, Publisher, Rates, TokenKey, Tokens,
};

use crate::namespaces::Resolved;
use crate::{Access, NamedKey, Secret, Settings};

impl Settings {
    /// What they say about requests, for a program that listens where only this machine can reach it, or elsewhere.
    #[must_use]
    pub fn limits(&self, listens_locally: bool) -> Limits {
        let of_file = self.keys_file.iter().flat_map(|file| &file.keys.publish);
        let keys = of_file.cloned().chain(self.written_keys());
        let keys = keys.map(|key| key.to_protocol()).collect();
        Limits {
            hold_max: self.hold_max,
            padded_hold_max: self.padded_hold_max,
            heartbeat: self.heartbeat,
            origins: self.allow_origins.clone(),
            jsonp: self.jsonp,
            access: self.protocol_access(&self.for_all()),
            spaces: self.spaces(),
            head_max: usize::try_from(self.head_max).unwrap_or(usize::MAX),
            channels_max: self.channels_max as usize,
            poll_body_max: usize::try_from(self.poll_body_max).unwrap_or(usize::MAX),
            publish_body_max: usize::try_from(self.body_max).unwrap_or(usize::MAX),
            publish_sizes: PublishSizes {
                event_max: usize::try_from(self.event_max).unwrap_or(usize::MAX),
                batch_max: self.batch_max as usize,
            },
            publisher: Publisher::new(keys, listens_locally).with_rate(self.publish_rate),
            // Whose word it is who may read, that is believed in this, too.
            fronts: Fronts::new(self.forwarded_peers.iter().chain(&self.access_peers).copied().collect()),
            rates: Rates::new(self.requests_per_address, RandomState::new().hash_one(())),
            status_peers: self.status_peers.clone(),
            judged: 0,
        }
    }

    /// How readers are told apart in a namespace, or where there is none.
    pub(crate) fn protocol_access(&self, space: &Resolved) -> everpoll_protocol::Access {
        match space.access {
            Access::Open if space.is_written => everpoll_protocol::Access::Open,
            Access::Open => everpoll_protocol::Access::Here,
            Access::Token => everpoll_protocol::Access::Token(match &space.token_keys {
                Some(keys) => self.tokens_by(keys.clone()),
                None => self.tokens(),
            }),
            Access::Proxy => everpoll_protocol::Access::Proxy(Proxies {
                channels_header: self.access_header.to_ascii_lowercase().into(),
                until_header: self.access_until_header.to_ascii_lowercase().into(),
                peers: self.access_peers.clone(),
                recheck: self.access_recheck,
            }),
        }
    }

    /// What they say about tokens, where a namespace has no keys of its own.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        let of_file = self.keys_file.iter().flat_map(|file| &file.keys.token);
        // A name that both have is the file's.
        self.tokens_by(of_file.chain(&self.token_keys).cloned().collect())
    }

    /// What they say about tokens in a namespace; `None` where there is no such namespace, or it has no keys of its own.
    #[must_use]
    pub fn tokens_in(&self, prefix: &str) -> Option<Tokens> {
        let keys = self.resolved().remove(prefix)?.token_keys?;
        Some(self.tokens_by(keys))
    }

    fn tokens_by(&self, keys: Vec<TokenKey>) -> Tokens {
        Tokens {
            keys: keys.into(),
            cookie: self.token_cookie.as_deref().map(Into::into),
            audience: self.token_audience.as_deref().map(Into::into),
            issuer: self.token_issuer.as_deref().map(Into::into),
            leeway: self.token_leeway,
            valid_max: self.token_valid_max,
        }
    }

    /// The key to publish to a channel with, if there is one.
    #[must_use]
    pub fn key_for(&self, channel: &Channel) -> Option<Secret> {
        let of_file = self.keys_file.iter().flat_map(|file| file.keys.publish.iter().cloned());
        let fits = |key: &NamedKey| key.channels.matches(channel);
        self.written_keys().chain(of_file).find(fits).map(|key| key.secret)
    }

    /// The publishing keys that the settings themselves name.
    fn written_keys(&self) -> impl Iterator<Item = NamedKey> {
        let all = self.publish_key.iter().map(|secret| NamedKey {
            name: "publish_key".into(),
            secret: secret.clone(),
            channels: Patterns::all(),
            rate: None,
        });
        all.chain(self.publish_keys.iter().cloned())
    }
}
