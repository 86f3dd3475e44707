//! From text to [`Settings`]: each key through its parser.

use std::path::PathBuf;

use crate::source::Sources;
use crate::value::*;
use crate::{DatabaseUrl, KeysFile, Listen, MIN_BODY_BYTES, Secret, Settings, keyring, namespaces};

impl Settings {
    /// Takes all keys. What is wrong is among the problems then, and the default stands in its place.
    pub(crate) fn from_sources(sources: &mut Sources) -> Self {
        let is = Self::default();
        let access = sources.take("access", access);
        Self {
            listen: sources.take("listen", Listen::parse).unwrap_or(is.listen),
            fallback_status: sources.take("fallback_status", address).unwrap_or(is.fallback_status),
            reuse_port: sources.take("reuse_port", flag).unwrap_or(is.reuse_port),
            socket_mode: sources.take("socket_mode", mode).unwrap_or(is.socket_mode),
            tls: tls(sources),
            database_url: sources.take("database_url", DatabaseUrl::parse).unwrap_or(is.database_url),
            redis_url: sources.take("redis_url", redis).unwrap_or(is.redis_url),
            database_connections: sources
                .take("database_connections", number("connections", 1, 64, 4))
                .unwrap_or(is.database_connections),
            fallback_workers: sources
                .take("fallback_workers", number("workers", 1, 16, 8))
                .unwrap_or(is.fallback_workers),
            hold_max: sources.take("hold_max", seconds(0, 3600, 25)).unwrap_or(is.hold_max),
            padded_hold_max: sources
                .take("padded_hold_max", seconds(0, 3600, 120))
                .unwrap_or(is.padded_hold_max),
            heartbeat: sources.take("heartbeat", seconds(1, 300, 15)).unwrap_or(is.heartbeat),
            allow_origins: sources.take("allow_origins", origins).unwrap_or(is.allow_origins),
            jsonp: sources.take("jsonp", flag).unwrap_or(is.jsonp),
            namespaces: sources.take("namespaces", namespaces::namespaces).unwrap_or_default(),
            probe: sources.take("probe", flag).unwrap_or(is.probe),
            demo: sources.take("demo", flag).unwrap_or(is.demo),
            access: access.unwrap_or(is.access),
            access_header: sources.take("access_header", own_header).unwrap_or(is.access_header),
            access_until_header: sources
                .take("access_until_header", own_header)
                .unwrap_or(is.access_until_header),
            access_peers: sources.take("access_peers", subnets).unwrap_or_default(),
            access_recheck: sources.take("access_recheck", seconds(1, 300, 30)).unwrap_or(is.access_recheck),
            token_keys: sources.take("token_keys", keyring::token_keys).unwrap_or_default(),
            token_cookie: sources.take("token_cookie", cookie).unwrap_or(is.token_cookie),
            token_audience: sources.take("token_audience", optional).unwrap_or(is.token_audience),
            token_issuer: sources.take("token_issuer", optional).unwrap_or(is.token_issuer),
            token_leeway: sources.take("token_leeway", seconds(0, 30, 5)).unwrap_or(is.token_leeway),
            token_valid_max: sources.take("token_valid_max", token_age).unwrap_or(is.token_valid_max),
            publish_key: sources.take("publish_key", Secret::parse).or(is.publish_key),
            publish_keys: sources.take("publish_keys", keyring::publish_keys).unwrap_or_default(),
            keys_file: sources.take("keys_file", KeysFile::open),
            retain_for: sources.take("retain_for", age).unwrap_or(is.retain_for),
            retain_count: sources.take("retain_count", count).unwrap_or(is.retain_count),
            trim_interval: sources.take("trim_interval", seconds(1, 86_400, 30)).unwrap_or(is.trim_interval),
            trim_batch: sources
                .take("trim_batch", number("events", 1, 100_000, 5000))
                .unwrap_or(is.trim_batch),
            window_bytes: sources
                .take("window_bytes", bytes(64 << 10, 64 << 30, "64MiB"))
                .unwrap_or(is.window_bytes),
            sweep_interval: sources.take("sweep_interval", sweep).unwrap_or(is.sweep_interval),
            canary_interval: sources.take("canary_interval", canary).unwrap_or(is.canary_interval),
            catch_up_max: sources
                .take("catch_up_max", number("questions", 1, 1_000_000, 20_000))
                .unwrap_or(is.catch_up_max),
            connections_max: sources
                .take("connections_max", number("connections", 1, 1_000_000, 20_000))
                .unwrap_or(is.connections_max),
            connections_per_address: sources
                .take("connections_per_address", number("connections", 1, 1_000_000, 5000))
                .unwrap_or(is.connections_per_address),
            requests_per_address: sources
                .take("requests_per_address", rate)
                .unwrap_or(is.requests_per_address),
            websockets_per_wait_id: sources
                .take("websockets_per_wait_id", number("WebSockets", 1, 100_000, 64))
                .unwrap_or(is.websockets_per_wait_id),
            forwarded_peers: sources.take("forwarded_peers", subnets).unwrap_or(is.forwarded_peers),
            status_peers: sources.take("status_peers", subnets).unwrap_or(is.status_peers),
            publish_rate: sources.take("publish_rate", rate).unwrap_or(is.publish_rate),
            holds_max: sources
                .take("holds_max", number("requests", 0, 1_000_000, 19_000))
                .unwrap_or(is.holds_max),
            unsent_max: sources
                .take("unsent_max", bytes(1 << 20, 64 << 30, "256MiB"))
                .unwrap_or(is.unsent_max),
            head_timeout: sources.take("head_timeout", seconds(1, 300, 10)).unwrap_or(is.head_timeout),
            idle_timeout: sources.take("idle_timeout", seconds(1, 3600, 125)).unwrap_or(is.idle_timeout),
            write_timeout: sources.take("write_timeout", seconds(1, 3600, 30)).unwrap_or(is.write_timeout),
            ghost_timeout: sources.take("ghost_timeout", seconds(5, 3600, 30)).unwrap_or(is.ghost_timeout),
            drain_timeout: sources.take("drain_timeout", seconds(0, 3600, 10)).unwrap_or(is.drain_timeout),
            body_max: sources
                .take("body_max", bytes(MIN_BODY_BYTES, 256 << 20, "8MiB"))
                .unwrap_or(is.body_max),
            event_max: sources.take("event_max", bytes(64, 1 << 20, "1MiB")).unwrap_or(is.event_max),
            batch_max: sources.take("batch_max", number("events", 1, 1000, 1000)).unwrap_or(is.batch_max),
            channels_max: sources
                .take("channels_max", number("channels", 1, 64, 64))
                .unwrap_or(is.channels_max),
            poll_body_max: sources
                .take("poll_body_max", bytes(1 << 10, 1 << 20, "64KiB"))
                .unwrap_or(is.poll_body_max),
            head_max: sources.take("head_max", bytes(4 << 10, 64 << 10, "16KiB")).unwrap_or(is.head_max),
            log: sources.take("log", log).unwrap_or(is.log),
            log_format: sources.take("log_format", log_format).unwrap_or(is.log_format),
            access_is_written: access.is_some() || sources.has("access"),
        }
    }
}

/// Certificate and key belong together.
fn tls(sources: &mut Sources) -> Option<(PathBuf, PathBuf)> {
    let mut file = |name| sources.take(name, |text| Ok(PathBuf::from(text)));
    match (file("tls_certificate"), file("tls_key")) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            sources.complain("tls_certificate", "wants tls_key beside it, the file with its private key")
        }
        (None, Some(_)) => {
            sources.complain("tls_key", "wants tls_certificate beside it, the file with its certificate")
        }
    }
}
