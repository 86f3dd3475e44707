//! A server that brings events to clients, whoever made it: how to subscribe there, how to publish, what it costs.
//!
//! What a newcomer might miss: the programs differ in what they promise. Everpoll has an event on disk before it says so; the
//! peers keep theirs in memory. Nobody is asked for more than what all of them do: an event of a channel, to all who wait
//! for it.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use everpoll_tests::{Address, Daemon};

use crate::watch::Watched;
use crate::{Log, load};

/// What makes a request one for a WebSocket.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://localhost\r\n";

/// What a browser says of itself, more or less: a head has a realistic length then.
const BROWSER: &str = "Host: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
                       Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n\
                       Cookie: session=0123456789abcdef0123456789abcdef\r\nReferer: http://localhost/page\r\n\r\n";

/// A GET with these headers, each with its line end.
pub(crate) fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\n{headers}{BROWSER}").into_bytes()
}

/// A POST of this JSON.
pub(crate) fn post(target: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// How an event comes to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    LongPoll,
    EventSource,
    WebSocket,
}

impl Transport {
    pub(crate) const ALL: [Self; 3] = [Self::LongPoll, Self::EventSource, Self::WebSocket];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::LongPoll => "long-poll",
            Self::EventSource => "EventSource",
            Self::WebSocket => "WebSocket",
        }
    }
}

/// What is asked next after a reply, and at first after none.
pub(crate) type Asking = Box<dyn FnMut(Option<&load::Reply>) -> Vec<u8> + Send>;

/// How a client subscribes.
pub(crate) enum Subscription {
    /// It asks again and again.
    Polls(Asking),
    /// It asks once; what it is sent first, before any event, contains this.
    Stream(Vec<u8>, &'static [u8]),
}

/// A running server.
pub(crate) trait Site {
    /// Where its clients connect.
    fn address(&self) -> SocketAddr;

    /// All processes whose work it is, but for the database.
    fn processes(&self) -> Vec<u32>;

    /// How client `number` subscribes, where the server has this transport.
    fn subscribe(&self, transport: Transport, channel: &str, number: usize) -> Option<Subscription>;

    /// How long after a subscription it may still do nothing visible before it counts.
    fn settles_in(&self) -> Duration {
        Duration::ZERO
    }

    /// Where to send a publish.
    fn publisher(&self) -> SocketAddr {
        self.address()
    }

    /// A request that publishes this JSON.
    fn publish(&self, channel: &str, json: &str) -> Vec<u8>;
}

/// The memory of all processes of a site that is its own.
pub(crate) fn memory(site: &dyn Site) -> u64 {
    memory_of(&site.processes())
}

/// The memory of some processes that is their own, in bytes: not backed by a file, and each shared page counted once.
pub(crate) fn memory_of(ids: &[u32]) -> u64 {
    let kilobytes = |id: &u32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let lines =
            text.lines().filter(|line| line.starts_with("Pss_Anon:") || line.starts_with("Pss_Shmem:"));
        lines.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).sum()
    };
    ids.iter().map(kilobytes).sum::<u64>() * 1024
}

/// What the kernel keeps for itself in small pieces, sockets and files among them, in bytes.
pub(crate) fn slab() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    let kilobytes: Option<u64> = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Processor time of all processes of a site.
pub(crate) fn processor_time(site: &dyn Site) -> Duration {
    site.processes().into_iter().map(everpoll_tests::process::processor_time).sum()
}

/// Waits until none of its processes does anything.
pub(crate) fn wait_until_quiet(site: &dyn Site) {
    for id in site.processes() {
        Watched(id).wait_until_quiet();
    }
}

/// Everpoll's daemon on a log of its own.
pub(crate) struct Everpoll {
    // In this order: it goes before its log.
    daemon: Daemon,
    id: u32,
    /// Its log.
    pub(crate) log: Log,
}

impl Everpoll {
    /// Starts it; holds last longer than any benchmark.
    pub(crate) fn start(log: Log, settings: &[(&str, &str)]) -> Self {
        let mut start =
            Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600).setting("EVERPOLL_HEARTBEAT", 300);
        for (name, value) in settings {
            start = start.setting(name, value);
        }
        let mut daemon = start.start();
        let id = daemon.process().id();
        Self { daemon, id, log }
    }
}

impl Site for Everpoll {
    fn address(&self) -> SocketAddr {
        tcp(self.daemon.address())
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.id]
    }

    fn subscribe(&self, transport: Transport, channel: &str, number: usize) -> Option<Subscription> {
        Some(subscription(transport, channel, number))
    }

    fn publish(&self, channel: &str, json: &str) -> Vec<u8> {
        publication(channel, json)
    }
}

/// A request that publishes this JSON at Everpoll.
pub(crate) fn publication(channel: &str, json: &str) -> Vec<u8> {
    post("/publish", &format!(r#"{{"channel":"{channel}","type":"cheese_made","data":{json}}}"#))
}

/// How client `number` subscribes at Everpoll.
pub(crate) fn subscription(transport: Transport, channel: &str, number: usize) -> Subscription {
    // Another one each time: the daemon may not have noticed yet that the last one left, and holds one for each browser.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let browser = format!("browser-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let channel = channel.to_owned();
    match transport {
        Transport::LongPoll => {
            // Nothing is published before all of them are held.
            let mut cursor = "now".to_owned();
            Subscription::Polls(Box::new(move |reply| {
                if let Some(reply) = reply {
                    reply
                        .header("x-ps-cursor")
                        .expect("each reply says where to go on")
                        .clone_into(&mut cursor);
                }
                get(&format!("/e/{channel}/{browser}?last_event_id={cursor}&_={number}"), "Accept: */*\r\n")
            }))
        }
        Transport::EventSource => {
            let target = format!("/e/{channel}/{browser}?last_event_id=now&_={number}");
            Subscription::Stream(get(&target, "Accept: text/event-stream\r\n"), b"everpoll:hello")
        }
        Transport::WebSocket => {
            let target = format!("/e/{channel}/{browser}?flavor=websocket&last_event_id=now&_={number}");
            Subscription::Stream(get(&target, UPGRADE), b"everpoll:hello")
        }
    }
}

/// The address, which is not that of a unix socket.
pub(crate) fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) | Address::Tls(address, _) => *address,
        Address::Unix(path) => panic!("clients of the benchmark use TCP, not {}", path.display()),
    }
}
