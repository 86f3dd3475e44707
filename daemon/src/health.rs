//! Whether the daemon can serve, for whoever watches it.

use std::sync::{Arc, Mutex};

use everpoll_protocol::Reply;

use crate::hub::lock;
use crate::wakeup::Path;

/// What `/readyz` tells.
#[derive(Debug)]
pub(crate) struct Health {
    state: Mutex<State>,
    paths: Vec<Arc<Path>>,
}

#[derive(Debug)]
enum State {
    Starting,
    Ready,
    LogLost(String),
    Draining,
}

impl Health {
    /// Not ready: the window is not filled yet. Wake-ups come over `paths`.
    pub(crate) fn new(paths: Vec<Arc<Path>>) -> Self {
        Self { state: Mutex::new(State::Starting), paths }
    }

    /// The paths of wake-ups. Where one is silent, the daemon is ready all the same: the sweep delivers.
    pub(crate) fn paths(&self) -> &[Arc<Path>] {
        &self.paths
    }

    pub(crate) fn log_is_read(&self) {
        self.set(State::Ready);
    }

    pub(crate) fn log_is_lost(&self, why: &str) {
        self.set(State::LogLost(why.to_owned()));
    }

    pub(crate) fn draining(&self) {
        self.set(State::Draining);
    }

    fn set(&self, state: State) {
        let mut now = lock(&self.state);
        // A daemon that stops never becomes ready again.
        if !matches!(*now, State::Draining) {
            *now = state;
        }
    }

    /// `/readyz`: 200 when polls are served in full, else 503 and why not.
    pub(crate) fn reply(&self, head_only: bool) -> Reply {
        let paths: Vec<_> = self.paths.iter().map(|path| path.status()).collect();
        let reply = |status, state, detail: &str| Reply::readiness(status, state, detail, &paths, head_only);
        match &*lock(&self.state) {
            State::Ready => reply(200, "ready", "the log is followed"),
            State::Starting => reply(503, "starting", "the window is not filled yet"),
            State::LogLost(why) => reply(503, "log_unavailable", why),
            State::Draining => reply(503, "draining", "the daemon stops"),
        }
    }
}
