//! Everpoll's settings: one TOML file and one environment, read alike by the daemon and by the fallback.
//!
//! Two layers. The raw one (`source`) knows where each value was written and what it says there, as text; the
//! other is [`Settings`], in which a duration is a [`Duration`] and nothing needs to be checked again. Between them
//! stands [`Settings::load`], which collects *all* problems before it gives up: whoever sets up a server wants to
//! mend five mistakes in one round.
//!
//! What a newcomer gets wrong: an environment variable wins over the file; an *empty* variable counts as not set,
//! since process managers and containers pass on what nobody filled in; an unknown key is a problem and not a
//! remark, because a mistyped `retain_for` would delete events; and a new key needs its row in [`KEYS`], from which
//! `everpoll help settings` is printed and against which `docs/reference/configuration.md` is tested.

mod keyring;
mod keys;
mod listen;
mod problems;
mod redis;
mod secret;
mod source;
mod value;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use keyring::{KeysFile, NamedKey};
pub use keys::{KEYS, Key, describe};
pub use listen::Listen;
pub use problems::Problems;
pub use redis::{RedisLogin, RedisPlace, RedisServers, RedisUrl};
pub use secret::{DatabaseUrl, Secret};

use everpoll_protocol::{
    Channel, Limits, Live, Origins, Patterns, Proxies, Publisher, Subnet, TokenKey, Tokens,
};
use keyring::Keys;
use source::Sources;

/// The environment variable that names the settings file.
pub const CONFIG_VARIABLE: &str = "EVERPOLL_CONFIG";

/// Smallest `body_max`: the largest event, its other fields, and the JSON around them.
pub const MIN_BODY_BYTES: u64 = 1024 * 1024 + 64 * 1024;

/// Everything that can be set, checked. [`Settings::default`] is what holds when nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the daemon listens. Default: 127.0.0.1:8377.
    pub listen: Listen,
    /// Whether a daemon may take the place of another at the same address. Default: no.
    pub reuse_port: bool,
    /// Permissions of a unix socket that a program makes, 0–0o777. Default: 0o660.
    pub socket_mode: u32,
    /// Certificate and key for TCP ports, both PEM files. Default: `None`, without TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where the log is. Default: `sqlite:./everpoll.db`.
    pub database_url: DatabaseUrl,
    /// Redis, when it is to wake the daemon up as well. Default: `None`.
    pub redis_url: Option<RedisUrl>,
    /// Connections that the daemon opens for catching up and for publishing, 1–64. Default: 4.
    pub database_connections: u32,
    /// Workers of the fallback, each with a database connection of its own, 1–16. Default: 8.
    pub fallback_workers: u32,
    /// Longest hold of a poll, 0–3600 s. Default: 25 s.
    pub hold_max: Duration,
    /// Longest padded hold of a poll, 0–3600 s. Default: 120 s.
    pub padded_hold_max: Duration,
    /// How often a quiet stream gets a sign of life, 1–300 s. Default: 15 s.
    pub heartbeat: Duration,
    /// Who may read.
    pub access: Access,
    /// The header in which a web server in front says which channels. Default: `X-Everpoll-Channels`.
    pub access_header: String,
    /// The header in which it says until when. Default: `X-Everpoll-Until`.
    pub access_until_header: String,
    /// Who may say so, besides whoever connects to a unix socket. Default: nobody.
    pub access_peers: Vec<Subnet>,
    /// After how long it must say so again, 1–300 s. Default: 30 s.
    pub access_recheck: Duration,
    /// The keys that sign tokens. Default: none.
    pub token_keys: Vec<TokenKey>,
    /// The cookie that a token may come in. Default: `everpoll_token`.
    pub token_cookie: Option<String>,
    /// What a token's `aud` must name. Default: nothing.
    pub token_audience: Option<String>,
    /// What a token's `iss` must be. Default: nothing.
    pub token_issuer: Option<String>,
    /// How far the clock of whoever makes tokens may be wrong, 0–30 s. Default: 5 s.
    pub token_leeway: Duration,
    /// How far in the future a token's end may be, 1 min–366 days. Default: 1 day.
    pub token_valid_max: Duration,
    /// The sites whose pages may read from another host. Default: none.
    pub allow_origins: Origins,
    /// Whether polls may be answered as a script. Default: no.
    pub jsonp: bool,
    /// Whether the self-test page is served. Default: yes.
    pub probe: bool,
    /// Whether the demo page is served. Default: no.
    pub demo: bool,
    /// What `POST /publish` must present. Default: none, only this machine may publish.
    pub publish_key: Option<Secret>,
    /// Publishing keys for some channels each. Default: none.
    pub publish_keys: Vec<NamedKey>,
    /// A file with further keys, which may change while a program runs. Default: none.
    pub keys_file: Option<KeysFile>,
    /// How long events stay; `None` = for ever. Default: 7 days.
    pub retain_for: Option<Duration>,
    /// How many events stay; `None` = all that [`retain_for`](Self::retain_for) lets stay. Default: `None`.
    pub retain_count: Option<u64>,
    /// How often events that retention does not keep are looked for, 1–86,400 s. Default: 30 s.
    pub trim_interval: Duration,
    /// Most events that one transaction of retention removes, 1–100,000. Default: 5,000.
    pub trim_batch: u32,
    /// Memory for the newest events in the daemon, bytes. Default: 64 MiB.
    pub window_bytes: u64,
    /// How often the daemon reads the log without a wake-up, 100 ms–1 h. Default: 1 s.
    pub sweep_interval: Duration,
    /// How often a canary is sent over each path of wake-ups, 1 s–1 h. Default: 5 s.
    pub canary_interval: Duration,
    /// Most different questions to the daemon's database at once, 1–1,000,000. Default: 20,000.
    pub catch_up_max: u32,
    /// Most connections that a program holds at once. Default: 20,000.
    pub connections_max: u32,
    /// Most polls and streams that are held at once, 0–1,000,000. Default: 19,000.
    pub holds_max: u32,
    /// Most bytes of replies that wait for slow clients, all together, 1 MiB–64 GiB. Default: 256 MiB.
    pub unsent_max: u64,
    /// How long a request's head may take to arrive, 1–300 s. Default: 10 s.
    pub head_timeout: Duration,
    /// How long a connection without a request is kept, 1–3600 s. Default: 125 s.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of a reply, 1–3600 s. Default: 30 s.
    pub write_timeout: Duration,
    /// How long a TCP client may not acknowledge what it was sent, 5–3600 s. Default: 30 s.
    pub ghost_timeout: Duration,
    /// How long a stopping program waits for the requests in hand, 0–3600 s. Default: 10 s.
    pub drain_timeout: Duration,
    /// Largest body of `POST /publish`, bytes, at least [`MIN_BODY_BYTES`]. Default: 8 MiB.
    pub body_max: u64,
    /// Which diagnostics are written, as `tracing-subscriber`'s `EnvFilter` reads it. Default: `info`.
    pub log: String,
    /// How diagnostics look. Default: text.
    pub log_format: LogFormat,
    /// Whether somebody wrote `access` down, or it is only the default.
    access_is_written: bool,
}

/// How readers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Whoever reaches the program reads any channel.
    Open,
    /// Each brings a token that says which channels.
    Token,
    /// The web server in front says which channels.
    Proxy,
}

/// How diagnostics look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp { host: "127.0.0.1".into(), port: 8377 },
            reuse_port: false,
            socket_mode: 0o660,
            tls: None,
            database_url: DatabaseUrl::new("sqlite:./everpoll.db"),
            redis_url: None,
            database_connections: 4,
            fallback_workers: 8,
            hold_max: Duration::from_secs(25),
            padded_hold_max: Duration::from_secs(120),
            heartbeat: Duration::from_secs(15),
            access: Access::Open,
            access_header: "X-Everpoll-Channels".into(),
            access_until_header: "X-Everpoll-Until".into(),
            access_peers: Vec::new(),
            access_recheck: Duration::from_secs(30),
            token_keys: Vec::new(),
            token_cookie: Some("everpoll_token".into()),
            token_audience: None,
            token_issuer: None,
            token_leeway: Duration::from_secs(5),
            token_valid_max: Duration::from_secs(24 * 3600),
            allow_origins: Origins::default(),
            jsonp: false,
            probe: true,
            demo: false,
            publish_key: None,
            publish_keys: Vec::new(),
            keys_file: None,
            retain_for: Some(Duration::from_secs(7 * 24 * 3600)),
            retain_count: None,
            trim_interval: Duration::from_secs(30),
            trim_batch: 5000,
            window_bytes: 64 * 1024 * 1024,
            sweep_interval: Duration::from_secs(1),
            canary_interval: Duration::from_secs(5),
            catch_up_max: 20_000,
            connections_max: 20_000,
            holds_max: 19_000,
            unsent_max: 256 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(125),
            write_timeout: Duration::from_secs(30),
            ghost_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            body_max: 8 * 1024 * 1024,
            log: "info".into(),
            log_format: LogFormat::Text,
            access_is_written: false,
        }
    }
}

/// Reads a duration as [`Settings::retain_for`] is written: seconds, or a number with `s`, `m`, `h` or `d`; `none` or 0
/// is for ever.
///
/// # Errors
///
/// The rest of a sentence that begins with what was given.
pub fn parse_age(text: &str) -> Result<Option<Duration>, String> {
    value::age(text)
}

impl Settings {
    /// The settings of a program that serves: from the file that `config` or `EVERPOLL_CONFIG` names, if any, and
    /// from this process's environment.
    ///
    /// # Errors
    ///
    /// All [`Problems`] at once; the program prints them and exits with 2.
    pub fn from_process(config: Option<&Path>) -> Result<Self, Problems> {
        let settings = Self::for_command(config);
        let access = settings.as_ref().map_or_else(|p| p.unprotected.clone(), |s| s.unprotected(&s.listen));
        refuse_unprotected(settings, access)
    }

    /// The settings of a command that serves nobody, such as `everpoll publish`: as [`from_process`](Self::from_process), but
    /// `access` need not be written.
    ///
    /// # Errors
    ///
    /// All [`Problems`] at once.
    pub fn for_command(config: Option<&Path>) -> Result<Self, Problems> {
        let from_variable = std::env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty());
        let path = config.or(from_variable.as_deref().map(Path::new));
        let text = match path.map(|path| (path, std::fs::read_to_string(path))) {
            None => None,
            Some((path, Ok(text))) => Some((path, text)),
            Some((path, Err(error))) => {
                let text = format!("the settings file {} cannot be read: {error}", path.display());
                return Err(Problems::new(vec![text]));
            }
        };
        // A variable whose very name is not UTF-8 is none of ours.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self::read(text.as_ref().map(|(path, text)| (*path, text.as_str())), variables)
    }

    /// The settings of a program that serves, from a file's path and text and from an environment.
    ///
    /// # Errors
    ///
    /// All [`Problems`] at once, among them that `access` must be written down.
    pub fn load(
        file: Option<(&Path, &str)>,
        environment: impl Iterator<Item = (String, OsString)>,
    ) -> Result<Self, Problems> {
        let settings = Self::read(file, environment);
        let access = settings.as_ref().map_or_else(|p| p.unprotected.clone(), |s| s.unprotected(&s.listen));
        refuse_unprotected(settings, access)
    }

    /// Why a program with these settings must not serve at `listen`, if so: a loopback address or a unix socket is
    /// no protection, since a web server stands in front; so `access` must be written down before
    /// events of a real database, or at a public address, can be read. For an address that is not
    /// [`listen`](Self::listen): the fallback's `--listen`.
    #[must_use]
    pub fn unprotected(&self, listen: &Listen) -> Option<String> {
        if self.access_is_written {
            return None;
        }
        let why = if self.database_url.is_postgres() {
            "the database is PostgreSQL".to_owned()
        } else if !listen.is_local() {
            format!("{listen} can be reached from other machines")
        } else {
            return None;
        };
        Some(format!(
            "access is not set, and {why}: everyone who reaches the web server could read every channel; \
             if that is what you want, write access = \"open\" or EVERPOLL_ACCESS=open"
        ))
    }

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
            access: self.protocol_access(),
            publish_body_max: usize::try_from(self.body_max).unwrap_or(usize::MAX),
            publisher: Publisher::new(keys, listens_locally),
        }
    }

    /// Reads `keys_file` again each second, on a thread of its own, for requests under `limits`, which are these settings' own.
    /// `report` is told when keys were exchanged, and once why they cannot be.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub fn follow_keys(
        &self,
        limits: &Limits,
        report: impl Fn(&Path, Result<(), String>) + Send + 'static,
    ) -> std::io::Result<()> {
        let Some(file) = self.keys_file.clone() else { return Ok(()) };
        let path = file.path().to_owned();
        let written = Keys { publish: self.written_keys().collect(), token: self.token_keys.clone() };
        keyring::follow(file, written, limits, move |told| report(&path, told))
    }

    fn protocol_access(&self) -> everpoll_protocol::Access {
        match self.access {
            Access::Open => everpoll_protocol::Access::Open,
            Access::Token => everpoll_protocol::Access::Token(self.tokens()),
            Access::Proxy => everpoll_protocol::Access::Proxy(Proxies {
                channels_header: self.access_header.to_ascii_lowercase().into(),
                until_header: self.access_until_header.to_ascii_lowercase().into(),
                peers: self.access_peers.clone(),
                recheck: self.access_recheck,
            }),
        }
    }

    /// What they say about tokens.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        let of_file = self.keys_file.iter().flat_map(|file| &file.keys.token);
        Tokens {
            // A name that both have is the file's.
            keys: Live::new(of_file.chain(&self.token_keys).cloned().collect()),
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
        });
        all.chain(self.publish_keys.iter().cloned())
    }

    fn read(
        file: Option<(&Path, &str)>,
        environment: impl Iterator<Item = (String, OsString)>,
    ) -> Result<Self, Problems> {
        let mut sources = Sources::collect(file, environment);
        let settings = Self::from_sources(&mut sources);
        let of_file = settings.keys_file.as_ref().is_some_and(|file| !file.keys.token.is_empty());
        // A key that is wrong is said already.
        let has_keys = of_file || sources.has("token_keys");
        if settings.access == Access::Token && !has_keys && sources.problems.is_empty() {
            let text = "access is token, and there is no key that could sign one: set token_keys, or put \
                        [token_keys.NAME] into keys_file";
            sources.problems.push(text.into());
        }
        if settings.access == Access::Proxy && settings.jsonp {
            let text = "jsonp is on and access is proxy: any page of the web could load what the visitor's cookies allow; \
                        switch jsonp off, or give tokens to pages that need scripts";
            sources.problems.push(text.into());
        }
        if sources.problems.is_empty() {
            return Ok(settings);
        }
        let unprotected = settings.unprotected(&settings.listen);
        Err(Problems { texts: sources.problems, unprotected })
    }

    fn from_sources(sources: &mut Sources) -> Self {
        use value::*;
        let is = Self::default();
        let access = sources.take("access", access);
        Self {
            listen: sources.take("listen", Listen::parse).unwrap_or(is.listen),
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

/// Adds what the safety rule has to say to the other problems.
fn refuse_unprotected(
    settings: Result<Settings, Problems>,
    unprotected: Option<String>,
) -> Result<Settings, Problems> {
    match (settings, unprotected) {
        (settings, None) => settings,
        (Ok(_), Some(text)) => Err(Problems::new(vec![text])),
        (Err(mut problems), Some(text)) => {
            problems.texts.push(text);
            Err(problems)
        }
    }
}

#[cfg(test)]
mod tests;
