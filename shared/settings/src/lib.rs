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

mod exchange;
mod keyring;
mod keys;
mod listen;
mod namespaces;
mod problems;
mod read;
mod redis;
mod rules;
mod running;
mod secret;
mod source;
mod value;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use exchange::Exchanged;
pub use keyring::{KeysFile, NamedKey};
pub use keys::{KEYS, Key, describe};
pub use listen::Listen;
pub use namespaces::{Namespace, parse_prefix};
pub use problems::Problems;
pub use redis::{RedisLogin, RedisPlace, RedisServers, RedisUrl};
pub use running::{News, Reload, Running};
pub use secret::{DatabaseUrl, Secret};

use everpoll_protocol::{Origins, Rate, Subnet, TokenKey};
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
    /// Where the fallback tells its metrics. Default: nowhere.
    pub fallback_status: Option<Listen>,
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
    /// Namespaces with settings of their own. Default: none.
    pub namespaces: Vec<Namespace>,
    /// Whether the self-test page is served. Default: yes.
    pub probe: bool,
    /// Whether the demo page is served. Default: no.
    pub demo: bool,
    /// What `POST /publish` must present. Default: none, only this machine may publish.
    pub publish_key: Option<Secret>,
    /// Publishing keys for some channels each. Default: none.
    pub publish_keys: Vec<NamedKey>,
    /// How many events each publishing key may publish that has no rate of its own. Default: without end.
    pub publish_rate: Option<Rate>,
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
    /// Most connections of one address, or polls and streams held for it through a web server, 1–1,000,000. Default: 5,000.
    pub connections_per_address: u32,
    /// How many requests may come from one address. Default: 1,000 a second, 10,000 at once.
    pub requests_per_address: Option<Rate>,
    /// Most WebSockets of one `wait_id`, 1–100,000. Default: 64.
    pub websockets_per_wait_id: u32,
    /// Whose `X-Forwarded-For` is believed, besides whoever connects to a unix socket. Default: this machine.
    pub forwarded_peers: Vec<Subnet>,
    /// Who may see metrics and readiness, besides whoever connects to a unix socket. Default: this machine.
    pub status_peers: Vec<Subnet>,
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
    /// Largest data of an event that is published over HTTP, 64 bytes–1 MiB. Default: 1 MiB.
    pub event_max: u64,
    /// Most events of one publishing request, 1–1,000. Default: 1,000.
    pub batch_max: u32,
    /// Most channels of one poll, 1–64. Default: 64.
    pub channels_max: u32,
    /// Largest body of a poll, 1 KiB–1 MiB. Default: 64 KiB.
    pub poll_body_max: u64,
    /// Largest head of a request, 4–64 KiB. Default: 16 KiB.
    pub head_max: u64,
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

/// All loopback addresses.
fn this_machine() -> Vec<Subnet> {
    ["127.0.0.0/8", "::1"].into_iter().filter_map(Subnet::parse).collect()
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp { host: "127.0.0.1".into(), port: 8377 },
            fallback_status: None,
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
            namespaces: Vec::new(),
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
            connections_per_address: 5000,
            requests_per_address: Some(Rate { per_second: 1000, burst: 10_000 }),
            websockets_per_wait_id: 64,
            forwarded_peers: this_machine(),
            status_peers: this_machine(),
            publish_rate: None,
            holds_max: 19_000,
            unsent_max: 256 * 1024 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(125),
            write_timeout: Duration::from_secs(30),
            ghost_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            body_max: 8 * 1024 * 1024,
            event_max: 1024 * 1024,
            batch_max: 1000,
            channels_max: 64,
            poll_body_max: 64 * 1024,
            head_max: 16 * 1024,
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
        if sources.problems.is_empty() {
            let keys_file = settings.keys_file.as_ref();
            let problem = keys_file.and_then(|file| {
                let problem = settings.keys_file_problem(file)?;
                Some(format!("keys_file {} {problem}", file.path().display()))
            });
            sources.problems.extend(problem);
            sources.problems.extend(settings.namespace_problems(has_keys));
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
