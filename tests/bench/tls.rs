//! What TLS costs: in the daemon that faces its clients itself, and in nginx in front of it.
//!
//! Each client shakes hands in full, as one that comes for the first time, with a certificate of ECDSA P-256, which certbot makes.

use std::time::Duration;

use everpoll_tests::tls::Authority;
use everpoll_tests::{Address, Daemon, Fallback, Sqlite, TestDir, WebServer};

use crate::Scale;
use crate::load;
use crate::peers::group;
use crate::site;
use crate::storm::many_files;
use crate::table::{Table, spread};
use crate::watch::Watched;

/// How often each client is answered before memory is looked at.
const ANSWERS: usize = 3;

/// Clients that come and go before anything is measured.
const FIRST: usize = 20;

/// Who speaks TLS.
#[derive(Clone, Copy, PartialEq)]
enum Front {
    Nobody,
    Daemon,
    Nginx,
    NginxWithTls,
}

const FRONTS: [(&str, Front); 4] = [
    ("daemon, without TLS", Front::Nobody),
    ("daemon, with TLS", Front::Daemon),
    ("nginx and daemon, without TLS", Front::Nginx),
    ("nginx with TLS, and daemon", Front::NginxWithTls),
];

/// What one client costs.
struct Cost {
    daemon: f64,
    nginx: f64,
    coming: f64,
    answer: f64,
}

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let clients = scale.held / 2;
    let columns = [
        "each held poll",
        "bytes in the daemon",
        "bytes in nginx",
        "\u{b5}s until it is held",
        "\u{b5}s for each answer",
    ];
    let mut table = Table::new(&format!("What TLS costs, at {clients} held polls"), &columns);
    for (name, front) in FRONTS {
        let costs: Vec<_> = (0..scale.runs).map(|_| measure(front, clients)).collect();
        let cell = |value: fn(&Cost) -> f64| spread(&costs.iter().map(value).collect::<Vec<_>>(), 0);
        let cells = [cell(|c| c.daemon), cell(|c| c.nginx), cell(|c| c.coming), cell(|c| c.answer)];
        table.row(name, cells);
    }
    table.note(
        "The processes' own memory after three answers, less what they had after a few clients, and the processor time of daemon and \
         nginx together: to connect, shake hands in full, and be held; to be answered by an event for all, and be held again.",
    );
    table
}

fn measure(front: Front, clients: usize) -> Cost {
    let (log, sockets, authority) = (Sqlite::new(), TestDir::new(), Authority::new());
    let certificate = authority.sign("server");
    let trust = certificate.trust.without_resumption();
    let start = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600);
    let mut daemon = match front {
        Front::Nobody => start.start(),
        Front::Daemon => start.tls(&certificate).start(),
        Front::Nginx | Front::NginxWithTls => start.at(&Address::Unix(sockets.join("daemon.sock"))).start(),
    };
    let fallback = Fallback::on(log.url()).start();
    let mut nginx = matches!(front, Front::Nginx | Front::NginxWithTls).then(|| {
        let longer = |text: &str| text.replace("proxy_read_timeout 75s;", "proxy_read_timeout 1h;");
        let secure = |example: &str| {
            let example = many_files(example, clients);
            if front == Front::Nginx {
                return example;
            }
            let (chain, key) = (certificate.chain.display(), certificate.key.display());
            let files = format!("reuseport ssl; ssl_certificate {chain}; ssl_certificate_key {key};");
            example.replace("backlog=4096 reuseport;", &format!("backlog=4096 {files}"))
        };
        WebServer::nginx_edited(daemon.address(), fallback.address(), longer, secure)
    });
    let address = match (&nginx, daemon.address()) {
        (Some(nginx), _) if front == Front::NginxWithTls => Address::Tls(site::tcp(nginx.address()), trust),
        (Some(nginx), _) => nginx.address().clone(),
        (None, Address::Tls(address, _)) => Address::Tls(*address, trust),
        (None, address) => address.clone(),
    };
    let (daemons, others) =
        ([daemon.process().id()], nginx.as_mut().map_or_else(Vec::new, |nginx| group(nginx.process().id())));
    let all: Vec<_> = daemons.iter().chain(&others).map(|id| Watched(*id)).collect();
    let quiet = || all.iter().for_each(|one| one.wait_until_quiet());
    let spent = || all.iter().map(|one| one.processor_time()).sum::<Duration>().as_secs_f64() * 1e6;
    let memory = || [site::memory_of(&daemons), site::memory_of(&others)].map(|bytes| bytes as f64);
    let event = r#"{"channel":"cheese","type":"cheese_made","data":{"name":"Sbrinz"}}"#;

    let runtime = load::runtime();
    let mut newest = daemon.publish(event)[0];
    let ask = |connections, newest| {
        load::ask(&runtime, connections, move |number| {
            load::poll("cheese", &format!("browser-{number}"), &format!("last_event_id={newest}&_={number}"))
        })
    };
    let first = ask(load::connect(&runtime, &address, FIRST), newest);
    quiet();
    newest = daemon.publish(event)[0];
    drop(load::replies(&runtime, first));
    quiet();
    let (before, began) = (memory(), spent());
    let mut waiting = ask(load::connect(&runtime, &address, clients), newest);
    quiet();
    let held = spent();
    for _ in 0..ANSWERS {
        newest = daemon.publish(event)[0];
        let (connections, replies) = load::replies(&runtime, waiting);
        assert!(replies.iter().all(|reply| reply.status() == 200), "not the answer that was due");
        waiting = ask(connections, newest);
        quiet();
    }
    let (answered, now) = (spent(), memory());
    assert!(waiting.iter().all(|client| !client.is_finished()), "all are held");
    let each = |whole: f64| whole / clients as f64;
    Cost {
        daemon: each(now[0] - before[0]),
        nginx: each(now[1] - before[1]),
        coming: each(held - began),
        answer: each(answered - held) / ANSWERS as f64,
    }
}
