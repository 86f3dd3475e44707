//! As many polls as this machine holds: six daemons behind one nginx, which sends a channel always to the same daemon.
//!
//! What limits it is printed: the files of a process (20,000 here), the ports of an address (some 28,000), or memory. The
//! clients are processes of their own, each with an address of its own.

use std::time::{Duration, Instant};

use everpoll_tests::pollers::clock;
use everpoll_tests::{Address, Crowd, Daemon, Fallback, TestDir, WebServer};

use crate::peers::group;
use crate::storm::{crowd_program, losses, many_files, publish};
use crate::table::{Table, spread};
use crate::{Log, Scale, site};

const DAEMONS: usize = 6;

/// What a poll that is out for so long is: held.
const HELD: Duration = Duration::from_secs(1);

const PATIENCE: Duration = Duration::from_secs(300);

/// Megabytes and milliseconds of each run.
#[derive(Default)]
struct Figures {
    gather: Vec<f64>,
    daemons: Vec<f64>,
    nginx: Vec<f64>,
    clients: Vec<f64>,
    kernel: Vec<f64>,
    last: Vec<f64>,
    half: Vec<f64>,
    lost: usize,
    doubled: usize,
}

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let clients = scale.many;
    let mut table = Table::new(
        &format!("{clients} held polls: {DAEMONS} daemons behind one nginx"),
        &["", "median (range)"],
    );
    let mut figures = Figures::default();
    let mut spread_over = Vec::new();
    for _ in 0..scale.runs {
        spread_over = measure(clients, &mut figures);
    }
    let each = |megabytes: &[f64]| {
        let bytes: Vec<_> = megabytes.iter().map(|value| value * 1024.0 * 1024.0 / clients as f64).collect();
        spread(&bytes, 0)
    };
    table.row("seconds until all were held", [spread(&figures.gather, 1)]);
    table.row("daemons' memory, MB", [spread(&figures.daemons, 0)]);
    table.row("the same, bytes for each poll", [each(&figures.daemons)]);
    table.row("nginx' memory, MB", [spread(&figures.nginx, 0)]);
    table.row("the same, bytes for each poll", [each(&figures.nginx)]);
    table.row("kernel's memory for sockets and files (slab), MB", [spread(&figures.kernel, 0)]);
    table.row("the clients' memory, MB", [spread(&figures.clients, 0)]);
    table.row("one event for everybody: ms until half had it", [spread(&figures.half, 0)]);
    table.row("ms until the last had it", [spread(&figures.last, 0)]);
    table.row("events lost", [figures.lost]);
    table.row("doubled", [figures.doubled]);
    table.note(format!(
        "The event is one row for each of {} channels, in one transaction. Polls at the daemons: {}. The limit met: a process \
         may have {} files here, and nginx needs two for each client, so it runs {} processes, and a daemon holds less than \
         that; the clients are {} processes on as many addresses, as an address has some 28,000 ports.",
        channels(clients),
        spread_over.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(0),
        clients.div_ceil(8_500).max(2),
        clients.div_ceil(5_000).max(2),
    ));
    table
}

/// Fewer, and the shares of the daemons are so uneven that one has more than its files.
fn channels(clients: usize) -> usize {
    (clients / 25).max(10)
}

/// Returns how many polls each daemon holds.
fn measure(clients: usize, figures: &mut Figures) -> Vec<usize> {
    let Log::Postgres(database) = Log::postgres() else { unreachable!("it was asked for") };
    let sockets = TestDir::new();
    let mut daemons: Vec<_> = (0..DAEMONS)
        .map(|number| {
            let address = Address::Unix(sockets.join(&format!("daemon-{number}.sock")));
            Daemon::on(database.url()).setting("EVERPOLL_HOLD_MAX", 3600).at(&address).start()
        })
        .collect();
    let fallback = Fallback::on(database.url()).start();
    let upstream = daemons.iter().map(|daemon| match daemon.address() {
        // Weights make the shares even: each one adds 160 places on the ring.
        Address::Unix(path) => format!("    server unix:{} max_fails=0 weight=20;\n", path.display()),
        Address::Tcp(address) | Address::Tls(address, _) => {
            format!("    server {address} max_fails=0 weight=20;\n")
        }
    });
    let upstream: String = upstream.collect();
    let first = format!("    server unix:{} max_fails=0;\n", sockets.join("daemon-0.sock").display());
    let edit = |text: &str| {
        let text = text.replacen(&first, &format!("    hash $everpoll_channel consistent;\n{upstream}"), 1);
        let text = text.replace(
            "map $http_upgrade $everpoll_connection {",
            "map $uri $everpoll_channel {\n    default \"\";\n    \"~^/e/(?<everpoll_name>[^/]+)\" $everpoll_name;\n}\n\
             map $http_upgrade $everpoll_connection {",
        );
        text.replace("proxy_read_timeout 75s;", "proxy_read_timeout 1h;")
    };
    let mut nginx = WebServer::nginx_edited(daemons[0].address(), fallback.address(), edit, |example| {
        many_files(example, clients)
    });
    let ids: Vec<_> = daemons.iter_mut().map(|daemon| daemon.process().id()).collect();
    let leader = nginx.process().id();
    let memory = |ids: &[u32]| site::memory_of(ids) as f64 / 1024.0 / 1024.0;
    let (before, nginx_before) = (memory(&ids), memory(&group(leader)));
    let slab = site::slab();

    let began = Instant::now();
    let mut crowd =
        Crowd::start_holding(&crowd_program(), nginx.address(), clients, channels(clients), 0, Some(3000));
    crowd.wait_until_held(0, HELD, PATIENCE);
    figures.gather.push((began.elapsed() - HELD).as_secs_f64());
    figures.daemons.push(memory(&ids) - before);
    figures.nginx.push(memory(&group(leader)) - nginx_before);
    figures.clients.push(memory(&crowd.processes()));
    figures.kernel.push((site::slab() as f64 - slab as f64) / 1024.0 / 1024.0);
    let held = daemons.iter().map(held).collect();

    let then = clock();
    let newest = publish(&database, 0..channels(clients), 1);
    crowd.wait_until_reached(newest + 1 - channels(clients) as u64, PATIENCE);
    let answers = crowd.answers(then, Duration::from_millis(10));
    let (mut count, mut half) = (0, None);
    for (at, number) in answers.iter().enumerate() {
        count += number;
        if count >= clients / 2 && half.is_none() {
            half = Some(at * 10 + 10);
        }
        if count >= clients {
            figures.last.push((at * 10 + 10) as f64);
            break;
        }
    }
    figures.half.push(half.unwrap_or(0) as f64);
    let (lost, doubled) = losses(&database, &crowd.readings());
    figures.lost += lost;
    figures.doubled += doubled;
    held
}

/// What a daemon says that it holds.
fn held(daemon: &Daemon) -> usize {
    let page = daemon.get("/metrics");
    let text = String::from_utf8_lossy(&page.body);
    let lines = text.lines().filter(|line| line.starts_with("everpoll_held{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}
