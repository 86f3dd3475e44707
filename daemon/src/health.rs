//! Whether the daemon can serve, for whoever watches it.

use std::sync::Mutex;

use everpoll_protocol::Reply;

use crate::hub::lock;

/// What `/readyz` tells.
#[derive(Debug)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug)]
enum State {
    Starting,
    Ready,
    LogLost(String),
    Draining,
}

impl Health {
    /// Not ready: the window is not filled yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::Starting))
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
        let mut now = lock(&self.0);
        // A daemon that stops never becomes ready again.
        if !matches!(*now, State::Draining) {
            *now = state;
        }
    }

    /// `/readyz`: 200 when polls are served in full, else 503 and why not.
    pub(crate) fn reply(&self, head_only: bool) -> Reply {
        match &*lock(&self.0) {
            State::Ready => Reply::health(200, "ready", "the log is followed", head_only),
            State::Starting => Reply::health(503, "starting", "the window is not filled yet", head_only),
            State::LogLost(why) => Reply::health(503, "log_unavailable", why, head_only),
            State::Draining => Reply::health(503, "draining", "the daemon stops", head_only),
        }
    }
}
