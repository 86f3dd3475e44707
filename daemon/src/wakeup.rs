//! Turns wake-ups into rings of the tailer's bell.
//!
//! They come over *paths*: the log's own ([`log`]: LISTEN on PostgreSQL, a look at the file with SQLite), and Redis
//! ([`redis`]). They are hints: one that is lost costs at most the time until the tailer's sweep. So trouble here is told
//! once and does no harm.
//!
//! What a newcomer gets wrong: a path that is dead looks exactly like one on which nothing happens. A frozen server, a
//! firewall that forgot the connection, a pooler that takes LISTEN and forgets it: none of them is an error that anybody
//! sees. So a *canary* is sent over each path every few seconds, from another connection. Where none arrives, the path is
//! *silent*: its connections are thrown away and made anew until one arrives. See [`Path`].

mod log;
mod path;
mod redis;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Result;
use everpoll_log::{Options, Wakeups};
use everpoll_settings::Settings;

use crate::tailer::Bell;
pub(crate) use path::Path;

/// The name of the only channel that is Everpoll's own, in PostgreSQL and in Redis.
const CHANNEL: &str = "everpoll";

/// How long a canary may take.
fn patience(interval: Duration) -> Duration {
    (interval / 2).clamp(Duration::from_secs(1), Duration::from_secs(10))
}

/// The paths that these settings ask for.
pub(crate) fn paths(settings: &Settings) -> Vec<Arc<Path>> {
    let own = if settings.database_url.is_postgres() { "postgres" } else { "sqlite" };
    let redis = settings.redis_url.as_ref().map(|_| "redis");
    let path = |name| Arc::new(Path::new(name, settings.sweep_interval));
    std::iter::once(own).chain(redis).map(path).collect()
}

/// What is to run, on threads and in a task of the caller's.
pub(crate) struct Work {
    /// Listens to the log; blocks.
    pub(crate) listener: log::Listener,
    /// Sends canaries to it; blocks.
    pub(crate) sender: Option<log::Sender>,
    /// Listens to Redis.
    pub(crate) redis: Option<redis::Redis>,
}

/// Prepares all that rings the bell over `paths`; connects to nothing.
///
/// # Errors
///
/// When the database's URL is wrong.
pub(crate) fn prepare(
    settings: &Settings,
    options: impl Fn(&str) -> Options,
    paths: &[Arc<Path>],
    bell: &Arc<Bell>,
    stopped: &Arc<AtomicBool>,
) -> Result<Work> {
    let interval = settings.canary_interval;
    let wakeups = Wakeups::new(settings.database_url.expose(), options("wake-up"))?;
    let own = paths.first().expect("the log's own path is always there").clone();
    let canary = wakeups.canary(Options { statement_timeout: patience(interval), ..options("canary") });
    let (listener, sender) = log::pair(wakeups, canary, interval, own, bell.clone(), stopped.clone());
    let redis = settings.redis_url.clone().zip(paths.get(1)).map(|(url, path)| redis::Redis {
        url,
        path: path.clone(),
        bell: bell.clone(),
        interval,
    });
    Ok(Work { listener, sender, redis })
}
