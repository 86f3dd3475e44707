//! What a held poll costs in nginx, which stands in front of the daemon: with the shipped configuration, and with smaller
//! pools and buffers.
//!
//! Each client has been answered three times: what nginx took for an answer and does not give back is in it.

use std::net::SocketAddr;

use everpoll_tests::{Address, Daemon, Fallback, Sqlite, TestDir, WebServer};

use crate::Scale;
use crate::load;
use crate::memory::events;
use crate::peers::group;
use crate::site::{self, Site, Subscription, Transport, publication, subscription, tcp};
use crate::storm::many_files;
use crate::table::{Table, spread};

/// Directives that make nginx smaller, one set after the other; each goes into the http block.
const TUNINGS: [(&str, &str); 5] = [
    ("as shipped", ""),
    ("request_pool_size 1k", "request_pool_size 1k;"),
    ("request_pool_size 2k", "request_pool_size 2k;"),
    ("client_header_buffer_size 512", "client_header_buffer_size 512;"),
    (
        "all of it, and proxy_buffer_size 2k",
        "request_pool_size 1k; connection_pool_size 256; client_header_buffer_size 512; proxy_buffer_size 2k; proxy_buffers 2 2k; proxy_busy_buffers_size 2k;",
    ),
];

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let clients = scale.held / 2;
    let columns = ["bytes for each held poll", "nginx", "daemon behind it"];
    let mut table = Table::new(&format!("Memory of nginx at {clients} held polls"), &columns);
    for (name, directives) in TUNINGS {
        let costs: Vec<_> = (0..scale.runs).map(|_| measure(directives, clients)).collect();
        let [nginx, daemon] =
            [0, 1].map(|at| costs.iter().map(|cost: &[f64; 2]| cost[at]).collect::<Vec<_>>());
        table.row(name, [spread(&nginx, 0), spread(&daemon, 0)]);
    }
    table.note("The processes' own memory, less what they had with ten clients.");
    table
}

/// A daemon behind nginx.
struct Proxied {
    address: SocketAddr,
    nginx: u32,
    daemon: u32,
}

impl Site for Proxied {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        let mut all = group(self.nginx);
        all.push(self.daemon);
        all
    }

    fn subscribe(&self, transport: Transport, channel: &str, number: usize) -> Option<Subscription> {
        Some(subscription(transport, channel, number))
    }

    fn publish(&self, channel: &str, json: &str) -> Vec<u8> {
        publication(channel, json)
    }
}

/// Bytes for each poll, in nginx and in the daemon.
fn measure(directives: &str, clients: usize) -> [f64; 2] {
    let (log, sockets) = (Sqlite::new(), TestDir::new());
    let mut daemon = Daemon::on(log.url())
        .setting("EVERPOLL_HOLD_MAX", 3600)
        .at(&Address::Unix(sockets.join("daemon.sock")))
        .start();
    let fallback = Fallback::on(log.url()).start();
    let longer = |text: &str| text.replace("proxy_read_timeout 75s;", "proxy_read_timeout 1h;");
    let mut nginx = WebServer::nginx_edited(daemon.address(), fallback.address(), longer, |example| {
        many_files(example, clients)
            .replace("include everpoll.conf;", &format!("include everpoll.conf; {directives}"))
    });
    let site =
        Proxied { address: tcp(nginx.address()), nginx: nginx.process().id(), daemon: daemon.process().id() };
    let memory = || [site::memory_of(&group(site.nginx)), site::memory_of(&[site.daemon])];
    let base = {
        let runtime = load::runtime();
        let _few = events(&runtime, &site, Transport::LongPoll, 10);
        memory()
    };
    let runtime = load::runtime();
    let _all = events(&runtime, &site, Transport::LongPoll, clients);
    let now = memory();
    [0, 1].map(|at| (now[at] as f64 - base[at] as f64) / clients as f64)
}
