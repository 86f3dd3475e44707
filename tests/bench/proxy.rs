//! What a held poll costs in nginx, which stands in front of the daemon: with the shipped configuration, and with smaller
//! pools and buffers, and what these make of large answers.
//!
//! Each client has been answered three times: what nginx took for an answer and does not give back is in it.

use std::net::SocketAddr;
use std::time::Duration;

use everpoll_tests::{Address, Daemon, Fallback, Sqlite, TestDir, WebServer};
use serde_json::json;

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

/// A large answer: so many events, each with so many bytes.
const LARGE: (usize, usize) = (100, 1000);

/// Over so many connections large answers are asked for.
const ASKING: usize = 16;

/// What was measured with one set of directives.
struct Cost {
    /// Bytes for each held poll.
    nginx: f64,
    daemon: f64,
    /// Large answers a second.
    answers: f64,
}

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let clients = scale.held / 2;
    let columns = ["bytes for each held poll", "nginx", "daemon behind it", "large answers a second"];
    let mut table = Table::new(&format!("Memory of nginx at {clients} held polls"), &columns);
    // In turns, so that what else the machine does meets all alike.
    let mut costs: Vec<Vec<Cost>> = TUNINGS.iter().map(|_| Vec::new()).collect();
    for _ in 0..scale.runs {
        for ((_, directives), costs) in TUNINGS.iter().zip(&mut costs) {
            costs.push(measure(directives, clients, scale.time));
        }
    }
    for ((name, _), costs) in TUNINGS.iter().zip(&costs) {
        let all = |figure: fn(&Cost) -> f64| costs.iter().map(figure).collect::<Vec<_>>();
        let memory = [all(|cost| cost.nginx), all(|cost| cost.daemon)].map(|bytes| spread(&bytes, 0));
        let [nginx, daemon] = memory;
        table.row(*name, [nginx, daemon, spread(&all(|cost| cost.answers), 0)]);
    }
    table.note(format!(
        "A large answer has {} events of {} bytes; {ASKING} connections ask for it again and again.",
        LARGE.0, LARGE.1
    ));
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

fn measure(directives: &str, clients: usize, time: Duration) -> Cost {
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
    let all = events(&runtime, &site, Transport::LongPoll, clients);
    let now = memory();
    let [nginx_bytes, daemon_bytes] = [0, 1].map(|at| (now[at] as f64 - base[at] as f64) / clients as f64);
    drop(all);
    let event = json!({"channel": "large", "type": "made", "data": "x".repeat(LARGE.1)}).to_string();
    for _ in 0..LARGE.0 {
        daemon.publish(&event);
    }
    let request = load::poll("large", "browser", "last_event_id=0&flavor=short-poll");
    let pace = load::closed_loop(&runtime, nginx.address(), ASKING, &request, 200, time);
    assert_eq!(pace.refused, 0, "each is answered with 200");
    Cost { nginx: nginx_bytes, daemon: daemon_bytes, answers: pace.per_second }
}
