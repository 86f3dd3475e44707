//! The ways to a client: how each waits for news and writes it.
//!
//! What is written is the protocol's. Here stands who waits for what: [`hold`] is what a request has while it waits,
//! [`feed`] follows the log for a stream.

pub(crate) mod eventsource;
pub(crate) mod feed;
pub(crate) mod frame;
mod hold;
pub(crate) mod long_poll;
pub(crate) mod padded;
pub(crate) mod websocket;

use std::sync::Arc;

use crate::replies::Shared;
use crate::server::Server;

/// What was written for streams, by the window's generation.
pub(crate) type Streams = Shared<u64, feed::Key, Arc<feed::Written>>;

/// What an HTTP/1 edge needs to know to write the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) keep_alive: bool,
    pub(crate) http10: bool,
}

impl Connection {
    /// While the daemon drains, or has hardly room for more, connections are closed behind their reply.
    fn while_serving(self, server: &Server) -> Self {
        Self { keep_alive: self.keep_alive && !server.draining() && !server.is_crowded(), ..self }
    }
}
