//! One session with Redis: fresh connections, a subscription, and canaries until something is not right.

use std::sync::Arc;
use std::time::Duration;

use everpoll_log::Key;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, cmd};
use tokio::time::{sleep, timeout};

use super::super::{CHANNEL, Path};
use super::ears::Ears;
use super::servers::{Found, Servers};
use crate::tailer::Bell;

/// The pattern of the channels that old publishers send to.
const OLD_CHANNELS: &str = "channels:*";

/// Connections that belong together, and end together.
pub(super) struct Session {
    // Dropping it would end the subscription.
    _listener: MultiplexedConnection,
    ears: Arc<Ears>,
    key: Key,
    path: Arc<Path>,
    bell: Arc<Bell>,
    found: Found,
    senders: Vec<Sender>,
    number: u64,
    /// Whether a canary has arrived.
    pub(super) has_worked: bool,
}

/// A connection that sends, and the command by which it does.
struct Sender {
    connection: MultiplexedConnection,
    verb: &'static str,
}

impl Session {
    /// Finds the servers, connects, subscribes, and lets the log be read: what was sent before is gone.
    pub(super) async fn begin(
        servers: &mut Servers,
        key: &Key,
        path: &Arc<Path>,
        bell: &Arc<Bell>,
    ) -> Result<Self, String> {
        let found = servers.find().await?;
        let ears = Arc::new(Ears::new(key.clone(), path.clone(), bell.clone()));
        let heard = ears.clone();
        let hears = AsyncConnectionConfig::new().set_push_sender(move |push| {
            heard.hear(&push);
            Ok::<(), redis::aio::SendError>(())
        });
        let mut listener = servers.connect(&found.listener, "everpoll-wake-up", hears).await?;
        let mut senders = Vec::new();
        if found.is_cluster {
            // One command each: their replies are counted.
            let subscribed = cmd("SSUBSCRIBE").arg(CHANNEL).exec_async(&mut listener).await;
            subscribed.map_err(|error| servers.explain(&found.listener, &error))?;
            let connection =
                servers.connect(&found.listener, "everpoll-canary", AsyncConnectionConfig::new()).await?;
            senders.push(Sender { connection, verb: "SPUBLISH" });
        }
        for pattern in [OLD_CHANNELS, CHANNEL] {
            let subscribed = listener.psubscribe(pattern).await;
            subscribed.map_err(|error| servers.explain(&found.listener, &error))?;
        }
        let connection =
            servers.connect(&found.sender, "everpoll-canary", AsyncConnectionConfig::new()).await?;
        senders.push(Sender { connection, verb: "PUBLISH" });
        bell.ring();
        let (key, path, bell) = (key.clone(), path.clone(), bell.clone());
        Ok(Self { _listener: listener, ears, key, path, bell, found, senders, number: 0, has_worked: false })
    }

    /// Sends canaries, and what is announced, until something is not right; says what.
    pub(super) async fn run(&mut self, servers: &mut Servers, interval: Duration) -> String {
        loop {
            if let Err(why) = self.canary(servers).await {
                return why;
            }
            self.has_worked = true;
            self.path.works();
            let pause = sleep(interval);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    why = self.ears.ended() => return format!("{}: {why}", self.found.listener),
                    () = self.bell.announced() => {
                        let text = self.key.news();
                        // In a cluster the first sender is that of the shard.
                        if let Err(why) = send(servers, &self.found, &mut self.senders[0], &text).await {
                            return why;
                        }
                    }
                }
            }
        }
    }

    /// Sends a canary over each way and waits until it has come.
    async fn canary(&mut self, servers: &mut Servers) -> Result<(), String> {
        servers.confirm(&self.found).await?;
        self.number += 1;
        let text = self.key.canary(self.number);
        for sender in &mut self.senders {
            send(servers, &self.found, sender, &text).await?;
        }
        let arrival = self.ears.wait_for(self.number, self.found.is_cluster);
        match timeout(servers.patience(), arrival).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(format!("{}: {why}", self.found.listener)),
            Err(_) => Err(format!(
                "{} took the canary and did not deliver it within {:?}: the connection that listens is dead",
                self.found.listener,
                servers.patience()
            )),
        }
    }
}

async fn send(servers: &Servers, found: &Found, sender: &mut Sender, text: &str) -> Result<(), String> {
    let sent = cmd(sender.verb).arg(CHANNEL).arg(text).exec_async(&mut sender.connection).await;
    let place = if sender.verb == "PUBLISH" { &found.sender } else { &found.listener };
    sent.map_err(|error| servers.explain(place, &error))
}
