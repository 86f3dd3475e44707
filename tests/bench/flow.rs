//! How many events flow: ten channels with ten subscribers each, and as many publishes in flight as help.
//!
//! Each publish is a request with one event, answered before the next one goes over the same connection. The clock runs from
//! the first publish to the last delivery, so a server that lags behind gains nothing. Everpoll has each event on disk before
//! it answers; the peers have it in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use everpoll_tests::Address;
use tokio::runtime::Runtime;

use crate::audience::{Audience, data};
use crate::load::{self, Connection};
use crate::peers::{Peer, attempt};
use crate::site::{self, Everpoll, Site, Transport};
use crate::table::{Better, Table, spread};
use crate::{Log, Scale};

const CHANNELS: usize = 10;

const SUBSCRIBERS: usize = 10;

/// Publishes in flight that are tried; the best is measured.
const IN_FLIGHT: [usize; 2] = [64, 256];

/// Who is measured.
#[derive(Clone, Copy)]
enum Who {
    Postgres,
    Sqlite,
    Peer(Peer),
}

/// What one server did.
#[derive(Default)]
struct Flow {
    in_flight: usize,
    per_second: Vec<f64>,
    cost: Vec<f64>,
    lost: usize,
    doubled: usize,
}

/// Runs it for a transport and returns the table.
pub(crate) fn run(scale: &Scale, transport: Transport) -> Table {
    let columns = [
        transport.name(),
        "deliveries a second",
        "µs of processor time for each",
        "publishes in flight",
        "lost",
        "doubled",
    ];
    let title =
        format!("Flow through {CHANNELS} channels with {SUBSCRIBERS} subscribers each: {}", transport.name());
    let mut table = Table::new(&title, &columns);
    let peers = if scale.peers { Peer::installed(&Peer::ALL, &mut table) } else { Vec::new() };
    let who = [Who::Postgres, Who::Sqlite].into_iter().chain(peers.into_iter().map(Who::Peer));
    let mut flows: Vec<_> = who.map(|who| (who, Flow::default())).collect();
    // They take turns, so that a busy minute of the machine does not hit one of them alone.
    for run in 0..scale.runs {
        for (who, flow) in &mut flows {
            if run > 0 && flow.in_flight == 0 {
                continue;
            }
            attempt(who.peer(), || {
                let site = who.start();
                if flow.in_flight == 0 {
                    flow.in_flight = best_in_flight(site.as_ref(), transport, scale.time / 3);
                }
                measure(site.as_ref(), transport, flow.in_flight, scale.time, flow);
                Some(())
            });
        }
    }
    for (who, flow) in flows.iter().filter(|(_, flow)| !flow.per_second.is_empty()) {
        let cells = [
            spread(&flow.per_second, 0),
            spread(&flow.cost, 1),
            flow.in_flight.into(),
            flow.lost.into(),
            flow.doubled.into(),
        ];
        match who {
            Who::Peer(peer) => table.peer(peer.name(), cells),
            Who::Postgres | Who::Sqlite => table.row(who.name(), cells),
        }
    }
    table.compare(Better::More, [1]);
    table.compare(Better::Less, [2]);
    table.note(
        "Each event is a request of its own, one after the other on each connection that publishes. Clients, publishers, \
         server and database share the processors. Everpoll's events are on disk (`synchronous_commit = on`; `synchronous = \
         full`) before their publish is answered; the peers' are in memory. Processor time is the server's without the database.",
    );
    table
}

impl Who {
    fn name(self) -> String {
        match self {
            Self::Postgres => "Everpoll on PostgreSQL".to_owned(),
            Self::Sqlite => "Everpoll on SQLite".to_owned(),
            Self::Peer(peer) => peer.name(),
        }
    }

    fn peer(self) -> Option<Peer> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Postgres | Self::Sqlite => None,
        }
    }

    fn start(self) -> Box<dyn Site> {
        match self {
            Self::Postgres => Box::new(Everpoll::start(Log::postgres(), &[])),
            Self::Sqlite => Box::new(Everpoll::start(Log::sqlite(), &[])),
            Self::Peer(peer) => peer.start(),
        }
    }
}

/// How many publishes in flight bring the most; 0 where the transport is missing.
fn best_in_flight(site: &dyn Site, transport: Transport, time: Duration) -> usize {
    let rates = IN_FLIGHT.map(|in_flight| {
        let mut flow = Flow::default();
        measure(site, transport, in_flight, time, &mut flow);
        (in_flight, flow.per_second.first().copied())
    });
    let best = rates.into_iter().filter_map(|(count, rate)| Some((count, rate?)));
    best.max_by(|one, two| one.1.total_cmp(&two.1)).map_or(0, |(count, _)| count)
}

fn measure(site: &dyn Site, transport: Transport, in_flight: usize, time: Duration, flow: &mut Flow) {
    let runtime = load::runtime();
    let channel = |number: usize| format!("cheese-{}", number % CHANNELS);
    let gathered = Audience::gather(&runtime, site, transport, CHANNELS * SUBSCRIBERS, channel);
    let Some(audience) = gathered else { return };
    let before = site::processor_time(site);
    let start = Instant::now();
    let published = publish(&runtime, site, in_flight, time);
    audience.wait_for(published * SUBSCRIBERS);
    let spent = site::processor_time(site).saturating_sub(before);
    // A second copy comes right behind the first, if one comes.
    std::thread::sleep(Duration::from_millis(200));
    let seen = audience.take_seen();
    let last = seen.iter().flatten().map(|(_, at)| *at).max().unwrap_or(start);
    let mut delivered = 0;
    for marks in &seen {
        let mut numbers: Vec<_> = marks.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        flow.doubled += marks.len() - numbers.len();
        delivered += numbers.len();
    }
    flow.lost += (published * SUBSCRIBERS).saturating_sub(delivered);
    flow.per_second.push(delivered as f64 / (last - start).as_secs_f64());
    flow.cost.push(spent.as_secs_f64() * 1e6 / delivered.max(1) as f64);
}

/// Publishes for as long as `time`, over so many connections, to all channels in turn. Returns how many were acknowledged.
///
/// # Panics
///
/// When one is refused.
fn publish(runtime: &Runtime, site: &dyn Site, connections: usize, time: Duration) -> usize {
    let next = Arc::new(AtomicU32::new(0));
    let end = Instant::now() + time;
    let publishing: Vec<_> = (0..connections)
        .map(|_| {
            let (next, address) = (Arc::clone(&next), Address::Tcp(site.publisher()));
            let requests: Vec<_> =
                (0..CHANNELS).map(|channel| Template::new(site, &format!("cheese-{channel}"))).collect();
            runtime.spawn(async move {
                let mut connection = Connection::open(&address).await.expect("the server runs");
                let mut count = 0;
                while Instant::now() < end {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let request = requests[number as usize % CHANNELS].with(number);
                    let reply =
                        connection.exchange(&request).await.expect("the server keeps its connections");
                    assert!(
                        (200..300).contains(&reply.status()),
                        "{}",
                        String::from_utf8_lossy(reply.body())
                    );
                    count += 1;
                }
                count
            })
        })
        .collect();
    publishing.into_iter().map(|one| runtime.block_on(one).expect("it panicked with the reason")).sum()
}

/// A request with places for the number, which always has the same length: the head need not be written anew.
struct Template {
    request: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    const PLACE: u32 = 1_000_000_000;

    fn new(site: &dyn Site, channel: &str) -> Self {
        let request = site.publish(channel, &data(Self::PLACE));
        let digits = Self::PLACE.to_string().into_bytes();
        let places = request.windows(digits.len()).enumerate();
        let places = places.filter(|(_, part)| *part == digits).map(|(at, _)| at).collect();
        Self { request, places }
    }

    fn with(&self, number: u32) -> Vec<u8> {
        let (mut request, digits) = (self.request.clone(), (Self::PLACE + number).to_string());
        for place in &self.places {
            request[*place..place + digits.len()].copy_from_slice(digits.as_bytes());
        }
        request
    }
}
