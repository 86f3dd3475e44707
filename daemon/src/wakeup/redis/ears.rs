//! What comes in over the connection that is subscribed.
//!
//! It is called for each message from the task that reads the socket, so it only notes that something came: a publisher
//! that sends ten thousand messages a second fills no queue here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use everpoll_log::{Key, Signal};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::super::{CHANNEL, Path};
use crate::hub::lock;
use crate::tailer::Bell;

/// What has been heard so far.
pub(super) struct Ears {
    key: Key,
    path: Arc<Path>,
    bell: Arc<Bell>,
    /// The newest canary that came as a message to all nodes.
    classic: AtomicU64,
    /// The newest canary that came over the shard's channel.
    sharded: AtomicU64,
    ended: Mutex<Option<&'static str>>,
    changed: Notify,
}

impl Ears {
    pub(super) fn new(key: Key, path: Arc<Path>, bell: Arc<Bell>) -> Self {
        let (classic, sharded) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { key, path, bell, classic, sharded, ended: Mutex::default(), changed: Notify::new() }
    }

    /// Takes in what the server sent without being asked.
    pub(super) fn hear(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Message | PushKind::PMessage => self.message(&push.data, &self.classic),
            PushKind::SMessage => self.message(&push.data, &self.sharded),
            PushKind::Disconnection => self.end("Redis closed the connection"),
            // Nobody here unsubscribes.
            PushKind::Unsubscribe | PushKind::PUnsubscribe | PushKind::SUnsubscribe => {
                self.end("Redis took the subscription away, as when its slot moves to another node");
            }
            _ => {}
        }
    }

    /// A message: its channel and its text are the last two parts, whether it came by a pattern or not.
    fn message(&self, parts: &[Value], newest: &AtomicU64) {
        let [.., channel, text] = parts else { return };
        // What anybody sends to old publishers' channels is a hint, whatever it looks like.
        let signal = match (bytes(channel), bytes(text)) {
            (Some(channel), Some(text)) if channel == CHANNEL.as_bytes() => {
                str::from_utf8(text).map_or(Signal::News, |text| self.key.read(text))
            }
            _ => Signal::News,
        };
        match signal {
            Signal::News => {
                self.path.messages.fetch_add(1, Ordering::Relaxed);
                self.bell.ring();
            }
            Signal::Canary(number) => {
                newest.fetch_max(number, Ordering::Relaxed);
                self.path.canaries.fetch_add(1, Ordering::Relaxed);
                self.changed.notify_one();
            }
            Signal::Other => {}
        }
    }

    fn end(&self, why: &'static str) {
        lock(&self.ended).get_or_insert(why);
        self.changed.notify_one();
    }

    /// Waits until this canary has come on all ways that are used; an error is the end of the connection. Cancel safe.
    pub(super) async fn wait_for(&self, number: u64, with_sharded: bool) -> Result<(), &'static str> {
        loop {
            if let Some(why) = *lock(&self.ended) {
                return Err(why);
            }
            let came = |newest: &AtomicU64| newest.load(Ordering::Relaxed) >= number;
            if came(&self.classic) && (!with_sharded || came(&self.sharded)) {
                return Ok(());
            }
            self.changed.notified().await;
        }
    }

    /// Waits until the connection has ended. Cancel safe.
    pub(super) async fn ended(&self) -> &'static str {
        loop {
            if let Some(why) = *lock(&self.ended) {
                return why;
            }
            self.changed.notified().await;
        }
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}
