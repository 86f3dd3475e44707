//! A peer as the benchmark `fanout` wants a server: one channel, one transport.

use everpoll_tests::Address;
use tokio::runtime::Runtime;

use super::Peer;
use crate::fanout::{Server, data};
use crate::load::{self, Connection, Reply};
use crate::site::{Site, Subscription, Transport};
use crate::watch::Watched;

const CHANNEL: &str = "cheese-0";

/// A running peer.
pub(crate) struct Fanned {
    site: Box<dyn Site>,
    address: Address,
    transport: Transport,
    // For what is published.
    runtime: Runtime,
}

impl Fanned {
    /// Those that have this transport. Pushpin is not among them: without a backend that knows what was published, it loses
    /// events between two polls, and this benchmark waits until each client has each event.
    pub(crate) fn peers(transport: Transport) -> Vec<Peer> {
        let mut peers = vec![Peer::Nchan(1), Peer::Nchan(2)];
        if transport == Transport::WebSocket {
            peers.push(Peer::Socketio);
        }
        peers
    }

    pub(crate) fn start(peer: Peer, transport: Transport) -> Self {
        let site = peer.start();
        let address = Address::Tcp(site.address());
        Self { site, address, transport, runtime: load::runtime() }
    }

    fn subscription(&self, client: usize) -> Subscription {
        self.site.subscribe(self.transport, CHANNEL, client).expect("only peers that have it are asked")
    }
}

impl Server for Fanned {
    fn address(&self) -> &Address {
        &self.address
    }

    fn processes(&mut self) -> Vec<Watched> {
        self.site.processes().into_iter().map(Watched).collect()
    }

    fn request(&self, client: usize, cursor: Option<&str>) -> Vec<u8> {
        match (cursor, self.subscription(client)) {
            (Some(request), _) => request.as_bytes().to_vec(),
            (None, Subscription::Polls(mut asking)) => asking(None),
            (None, Subscription::Stream(request, _)) => request,
        }
    }

    /// The next request itself: some have their place in several headers.
    fn cursor(&self, reply: &Reply) -> Option<String> {
        let Subscription::Polls(mut asking) = self.subscription(0) else { return None };
        String::from_utf8(asking(Some(reply))).ok()
    }

    fn publish(&mut self, round: usize) {
        let (publisher, request) =
            (Address::Tcp(self.site.publisher()), self.site.publish(CHANNEL, &data(round)));
        let reply =
            self.runtime.block_on(async { Connection::open(&publisher).await?.exchange(&request).await });
        let reply = reply.expect("the server runs");
        assert!((200..300).contains(&reply.status()), "{}", String::from_utf8_lossy(reply.body()));
    }
}
