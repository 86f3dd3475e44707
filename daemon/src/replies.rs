//! Reply bytes that are made once and shared by all who are caught up.
//!
//! When an event wakes thousands of polls of one channel, nearly all of them stand at the same cursor and want the same
//! form; the first makes the bytes, the others write them. What must not be shared is not offered: a reply that passes
//! over events for one `wait_id`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use everpoll_protocol::{Channels, Form};

use crate::hub::lock;

/// What makes two replies to held polls the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The poll's channels.
    pub(crate) channels: Channels,
    /// Where it stood.
    pub(crate) cursor: u64,
    /// How it wants the reply.
    pub(crate) form: Form,
    /// What the head says of the connection.
    pub(crate) keep_alive: bool,
    /// Whether the request was HTTP/1.0.
    pub(crate) http10: bool,
}

/// The replies of the window's present state.
#[derive(Debug, Default)]
pub(crate) struct Replies(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    generation: u64,
    date: Option<Arc<str>>,
    replies: HashMap<Key, Bytes>,
}

/// Most replies that are kept; only what is asked for right now is worth keeping.
const KEPT_MAX: usize = 64;

impl Replies {
    /// The reply made for this state of the window in this second, if there is one.
    pub(crate) fn find(&self, generation: u64, date: &Arc<str>, key: &Key) -> Option<Bytes> {
        let cache = lock(&self.0);
        let fresh = cache.generation == generation && cache.date.as_ref() == Some(date);
        if fresh { cache.replies.get(key).cloned() } else { None }
    }

    /// Keeps a reply for the others.
    pub(crate) fn keep(&self, generation: u64, date: &Arc<str>, key: Key, reply: Bytes) {
        let mut cache = lock(&self.0);
        if cache.generation != generation
            || cache.date.as_ref() != Some(date)
            || cache.replies.len() >= KEPT_MAX
        {
            *cache = Cache { generation, date: Some(date.clone()), replies: HashMap::new() };
        }
        cache.replies.insert(key, reply);
    }
}
