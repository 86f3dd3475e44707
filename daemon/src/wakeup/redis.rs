//! Wake-ups over Redis: one server, the master that Sentinels name, or a cluster.
//!
//! Old publishers send to `channels:<channel>`; whatever they send is a hint and no more. Daemons tell each other on the
//! channel `everpoll` when they have committed what was published over HTTP.
//!
//! What a newcomer gets wrong: a client that "reconnects by itself" hides what matters here. Messages sent meanwhile are
//! gone, so each new subscription must be followed by a look at the log; a server that is frozen raises no error, ever; and
//! after a fail-over the old master may go on answering. So there is a plain loop: a [session] of fresh
//! connections that ends with the first thing that is not right, and a new one after a pause.

mod ears;
mod servers;
mod session;

use std::sync::Arc;
use std::time::Duration;

use everpoll_log::Key;
use everpoll_settings::RedisUrl;

use super::Path;
use crate::tailer::Bell;
use servers::Servers;
use session::Session;

/// Pauses between two sessions: doubled from the one to the other.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What listens to Redis.
pub(crate) struct Redis {
    pub(super) url: RedisUrl,
    pub(super) path: Arc<Path>,
    pub(super) bell: Arc<Bell>,
    /// How often a canary is sent.
    pub(super) interval: Duration,
}

impl Redis {
    /// Listens for ever.
    pub(crate) async fn run(self) {
        let Self { url, path, bell, interval } = self;
        let key = Key::new();
        let mut servers = Servers::new(url, super::patience(interval));
        let mut pause = PAUSES.0;
        loop {
            let why = match Session::begin(&mut servers, &key, &path, &bell).await {
                Ok(mut session) => {
                    let why = session.run(&mut servers, interval).await;
                    if session.has_worked {
                        pause = PAUSES.0;
                    }
                    why
                }
                Err(why) => why,
            };
            path.silent(&why);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}
