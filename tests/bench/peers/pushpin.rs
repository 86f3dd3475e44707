//! Pushpin: a proxy that holds what its backend tells it to hold, and publishes what it is sent.
//!
//! The backend, which only says so, is an nginx with fixed answers; it is asked once for each request and not counted.
//! Pushpin has no history: what is published while a client does not wait is lost to it, unless the backend can be asked
//! for what it missed. Such losses are counted.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use everpoll_tests::{Address, Process, TestDir, ports, wait};

use crate::site::{Site, Subscription, Transport, UPGRADE, get, post, tcp};

/// Debian's.
pub(super) const PROGRAM: &str = "/usr/bin/pushpin";

/// How its programs find each other.
const INTERNAL: &str = "/usr/lib/pushpin/internal.conf";

/// A running Pushpin, with its backend.
pub(super) struct Pushpin {
    address: SocketAddr,
    publisher: SocketAddr,
    // Its programs, one by one: what starts them otherwise gives each a group of its own, in which they survive it.
    processes: Vec<Process>,
    _backend: Process,
    _directory: TestDir,
}

impl Pushpin {
    pub(super) fn start() -> Self {
        let directory = TestDir::new();
        let [backend, clients, push, pull, subscribe, commands] = std::array::from_fn(|_| ports::free());
        let config = directory.file("nginx.conf", configuration(backend));
        directory.file("routes", format!("* 127.0.0.1:{backend},over_http\n"));
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(directory.path()).arg("-c").arg(config);
        let backend = Process::start("backend", command, directory.path());
        let here = directory.path().display();
        // Debian's would use the zurl that runs as a service.
        let internal = fs::read_to_string(INTERNAL).unwrap_or_else(|error| panic!("{INTERNAL}: {error}"));
        let internal = internal.replace("/var/run/zurl/", "{rundir}/{ipc_prefix}");
        let internal = directory.file("internal.conf", internal);
        let config = format!(
            "[global]\ninclude={internal}\nrundir={here}\nipc_prefix=bench-\nport_offset=0\n\
             [runner]\nservices=\nhttp_port={clients}\nlogdir={here}\nlog_level=1\n\
             [proxy]\nroutesfile={here}/routes\n\
             [handler]\npush_in_spec=tcp://127.0.0.1:{pull}\npush_in_sub_specs=tcp://127.0.0.1:{subscribe}\n\
             push_in_http_addr=127.0.0.1\npush_in_http_port={push}\npush_in_http_max_headers_size=10000\n\
             push_in_http_max_body_size=1000000\nstats_spec=ipc://{{rundir}}/{{ipc_prefix}}stats\n\
             command_spec=tcp://127.0.0.1:{commands}\nmessage_rate=1000000\nmessage_hwm=1000000\n",
            internal = internal.display(),
        );
        let config = directory.file("pushpin.conf", config).display().to_string();
        let zurl = format!(
            "[General]\nin_spec=ipc://{here}/bench-zurl-in\nin_stream_spec=ipc://{here}/bench-zurl-in-stream\n\
             out_spec=ipc://{here}/bench-zurl-out\nin_req_spec=\ndefpolicy=allow\nallow=\ndeny=\nmax_open_requests=10000\nin_hwm=100000\nout_hwm=100000\n"
        );
        let zurl = directory.file("zurl.conf", zurl).display().to_string();
        let start = |name: &str, arguments: &[&str]| {
            let mut command = Command::new(name);
            command.args(arguments);
            Process::start(name, command, directory.path())
        };
        let processes = vec![
            start(
                "condure",
                &[
                    "--log-level=1",
                    &format!("--listen=127.0.0.1:{clients},stream"),
                    &format!("--zclient-stream=ipc://{here}/bench-condure"),
                    "--buffer-size=8192",
                    "--stream-maxconn=50000",
                ],
            ),
            start("zurl", &[&format!("--config={zurl}"), "--loglevel=1"]),
            start(
                "pushpin-proxy",
                &[&format!("--config={config}"), "--ipc-prefix=bench-", "--loglevel=1", "--quiet-check"],
            ),
            start("pushpin-handler", &[&format!("--config={config}"), "--ipc-prefix=bench-", "--loglevel=1"]),
        ];
        let (address, publisher) = (Address::local(clients), Address::local(push));
        let logs = || processes.iter().map(Process::log).collect::<String>();
        let listens = wait::try_until_some(Duration::from_secs(20), || {
            (answers(&address) && publisher.connect().is_ok()).then_some(())
        });
        assert!(listens.is_some(), "Pushpin does not start:\n{}", logs());
        let (address, publisher) = (tcp(&address), tcp(&publisher));
        Self { address, publisher, processes, _backend: backend, _directory: directory }
    }
}

/// Whether a request gets through to the backend.
fn answers(address: &Address) -> bool {
    everpoll_tests::http::get("/ready").try_send(address).is_ok_and(|reply| reply.status == 200)
}

impl Site for Pushpin {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    fn subscribe(&self, transport: Transport, channel: &str, number: usize) -> Option<Subscription> {
        let target = |kind: &str| format!("/{kind}/{channel}?_={number}");
        Some(match transport {
            Transport::LongPoll => {
                let target = target("poll");
                Subscription::Polls(Box::new(move |_| get(&target, "")))
            }
            Transport::EventSource => {
                Subscription::Stream(get(&target("stream"), "Accept: text/event-stream\r\n"), b": hi\n")
            }
            Transport::WebSocket => Subscription::Stream(get(&target("ws"), UPGRADE), b"hi"),
        })
    }

    fn settles_in(&self) -> Duration {
        // Its proxy hands a held request to its handler, which may ask the backend again a second later.
        Duration::from_secs(2)
    }

    fn publisher(&self) -> SocketAddr {
        self.publisher
    }

    fn publish(&self, channel: &str, json: &str) -> Vec<u8> {
        let stream = format!("event: cheese_made\ndata: {json}\n\n");
        let item = serde_json::json!({ "items": [{ "channel": channel, "formats": {
            "http-response": { "headers": { "Content-Type": "application/json" }, "body": json },
            "http-stream": { "content": stream },
            "ws-message": { "content": json },
        }}]});
        post("/publish/", &item.to_string())
    }
}

fn configuration(port: u16) -> String {
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    format!(
        r#"{user}
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 20000; }}
http {{
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    access_log off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /ready {{ return 200 "ready"; }}
        location ~ ^/poll/([a-z0-9-]+)$ {{
            add_header Grip-Hold response;
            add_header Grip-Channel $1;
            add_header Grip-Timeout 3600;
            default_type application/json;
            return 200 "[]";
        }}
        location ~ ^/stream/([a-z0-9-]+)$ {{
            add_header Grip-Hold stream;
            add_header Grip-Channel $1;
            default_type text/event-stream;
            return 200 ": hi\n\n";
        }}
        location ~ ^/ws/([a-z0-9-]+)$ {{
            add_header Sec-WebSocket-Extensions "grip; message-prefix=\"\"";
            default_type application/websocket-events;
            return 200 "OPEN\r\nTEXT {length}\r\nc:{{\"type\":\"subscribe\",\"channel\":\"$1\"}}\r\nTEXT 2\r\nhi\r\n";
        }}
    }}
}}
"#,
        // Of a channel's name with eight bytes: `channel0`.
        length = format_args!("{:x}", r#"c:{"type":"subscribe","channel":"channel0"}"#.len()),
    )
}
