//! Bytes that are made once and shared by all who are caught up.
//!
//! When an event wakes thousands of polls of one channel, nearly all of them stand at the same cursor and want the same
//! form; the first makes the bytes, the others write them. What must not be shared is not offered: a reply that passes
//! over events for one `wait_id`.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use everpoll_protocol::{Channels, Form};

use crate::hub::lock;
use crate::transport::Connection;

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

impl Key {
    /// Whether it is that of a poll which wants this form, over such a connection.
    pub(crate) fn is_for(&self, connection: Connection, form: &Form) -> bool {
        self.keep_alive == connection.keep_alive && self.http10 == connection.http10 && self.form == *form
    }
}

/// What was written for a state `S` of things, by what makes two requests for it alike.
#[derive(Debug)]
pub(crate) struct Shared<S, K, V>(Mutex<Option<(S, HashMap<K, V>)>>);

/// Replies to held polls, and how many events are in each. They tell the time, so they are good for a second.
pub(crate) type Replies = Shared<(u64, Arc<str>), Key, (Bytes, u32)>;

/// Most values that are kept; only what is asked for right now is worth keeping.
const KEPT_MAX: usize = 64;

impl<S, K, V> Default for Shared<S, K, V> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<S: Clone + PartialEq, K: Eq + Hash, V: Clone> Shared<S, K, V> {
    /// What was written for this state of things, if there is something.
    pub(crate) fn find(&self, state: &S, key: &K) -> Option<V> {
        match &*lock(&self.0) {
            Some((known, values)) if known == state => values.get(key).cloned(),
            _ => None,
        }
    }

    /// Keeps something for the others.
    pub(crate) fn keep(&self, state: &S, key: K, value: V) {
        let mut kept = lock(&self.0);
        match &mut *kept {
            Some((known, values)) if known == state && values.len() < KEPT_MAX => {
                values.insert(key, value);
            }
            _ => *kept = Some((state.clone(), HashMap::from([(key, value)]))),
        }
    }
}
