//! What a client costs that is held and quiet, beside the peers: all on one channel, each after three events.
//!
//! What is counted is the memory of all processes of a server that is its own, shared memory once. The kernel's memory for
//! sockets is the same for all and not in it.

use crate::audience::{Audience, data};
use crate::load;
use crate::peers::{Peer, attempt};
use crate::site::{self, Everpoll, Site, Transport};
use crate::table::{Better, Table, spread};
use crate::{Log, Scale};

/// Events sent to all clients before memory is looked at.
const EVENTS: u32 = 3;

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let columns = ["bytes for each client", "long-poll", "EventSource", "WebSocket"];
    let title = format!("Memory at {} held clients of one channel, beside the peers", scale.held);
    let mut table = Table::new(&title, &columns);
    let peers = if scale.peers { Peer::installed(&Peer::ALL, &mut table) } else { Vec::new() };
    let who: Vec<_> = [None].into_iter().chain(peers.into_iter().map(Some)).collect();
    for who in who {
        let cells = Transport::ALL.map(|transport| {
            let costs = (0..scale.runs).map_while(|_| attempt(who, || measure(who, transport, scale.held)));
            spread(&costs.collect::<Vec<_>>(), 0)
        });
        match who {
            None => table.row("Everpoll", cells),
            Some(peer) => table.peer(peer.name(), cells),
        }
    }
    table.compare(Better::Less, [1, 2, 3]);
    table.note(
        "The processes' own memory, shared memory counted once, less what they had with ten clients. An empty cell: the \
         program does not have this transport.",
    );
    table
}

/// Bytes for each client; nothing when the transport is missing.
fn measure(who: Option<Peer>, transport: Transport, count: usize) -> Option<f64> {
    let site: Box<dyn Site> = match who {
        None => Box::new(Everpoll::start(Log::sqlite(), &[])),
        Some(peer) => peer.start(),
    };
    // What the first of each kind makes once and for all is no client's.
    let base = {
        let runtime = load::runtime();
        let audience = events(&runtime, site.as_ref(), transport, 10)?;
        let memory = site::memory(site.as_ref());
        drop(audience);
        memory
    };
    let runtime = load::runtime();
    let _audience = events(&runtime, site.as_ref(), transport, count)?;
    let memory = site::memory(site.as_ref());
    Some((memory as f64 - base as f64) / count as f64)
}

/// Gathers so many clients and sends them events.
pub(crate) fn events(
    runtime: &tokio::runtime::Runtime,
    site: &dyn Site,
    transport: Transport,
    count: usize,
) -> Option<Audience> {
    let audience = Audience::gather(runtime, site, transport, count, |_| "cheese-0".to_owned())?;
    for number in 1..=EVENTS {
        let publisher = everpoll_tests::Address::Tcp(site.publisher());
        let request = site.publish("cheese-0", &data(number));
        let reply =
            runtime.block_on(async { load::Connection::open(&publisher).await?.exchange(&request).await });
        let reply = reply.expect("the server runs");
        assert!((200..300).contains(&reply.status()), "{}", String::from_utf8_lossy(reply.body()));
        let got = audience.wait_for(count * number as usize);
        assert_eq!(got, count * number as usize, "not all clients have got event {number}");
        site::wait_until_quiet(site);
    }
    Some(audience)
}
