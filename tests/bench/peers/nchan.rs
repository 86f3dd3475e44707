//! nchan, a module of nginx: publishers POST to one location, subscribers ask at another.
//!
//! Messages are in its shared memory, without its Redis option: that is its fastest way, and the one in which they are
//! gone when nginx is.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use everpoll_tests::{Address, Process, TestDir, ports, wait};

use super::group;
use crate::site::{Site, Subscription, Transport, UPGRADE, get, post, tcp};

/// Debian's.
pub(super) const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// A running nginx with nchan.
pub(super) struct Nchan {
    address: SocketAddr,
    process: Process,
    _directory: TestDir,
}

impl Nchan {
    pub(super) fn start(workers: usize) -> Self {
        let (directory, port) = (TestDir::new(), ports::free());
        let config = directory.file("nginx.conf", configuration(workers, port));
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(directory.path()).arg("-c").arg(config);
        let mut process = Process::start("nchan", command, directory.path());
        let address = Address::local(port);
        let listens = wait::try_until_some(Duration::from_secs(10), || {
            (address.connect().is_ok() || !process.is_running()).then(|| process.is_running())
        });
        assert_eq!(listens, Some(true), "nchan does not start:\n{}", process.log());
        Self { address: tcp(&address), process, _directory: directory }
    }
}

impl Site for Nchan {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        group(self.process.id())
    }

    fn subscribe(&self, transport: Transport, channel: &str, number: usize) -> Option<Subscription> {
        let target = format!("/sub/{channel}?_={number}");
        Some(match transport {
            Transport::LongPoll => Subscription::Polls(Box::new(move |reply| {
                // Where to go on is a pair of headers.
                let place = reply.map_or_else(String::new, |reply| {
                    let field = |name| reply.header(name).unwrap_or_default();
                    let (time, tag) = (field("last-modified"), field("etag"));
                    format!("If-Modified-Since: {time}\r\nIf-None-Match: {tag}\r\n")
                });
                get(&target, &place)
            })),
            Transport::EventSource => {
                Subscription::Stream(get(&target, "Accept: text/event-stream\r\n"), b"\r\n\r\n")
            }
            Transport::WebSocket => Subscription::Stream(get(&target, UPGRADE), b"\r\n\r\n"),
        })
    }

    fn publish(&self, channel: &str, json: &str) -> Vec<u8> {
        post(&format!("/pub/{channel}"), json)
    }
}

fn configuration(workers: usize, port: u16) -> String {
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    format!(
        "load_module {MODULE};
{user}
worker_processes {workers};
pid nginx.pid;
error_log stderr;
events {{ worker_connections 19000; }}
http {{
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_header_timeout 1h;
    nchan_shared_memory_size 512M;
    server {{
        listen 127.0.0.1:{port} backlog=4096{reuseport};
        location ~ ^/pub/([a-z0-9-]+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            # The default of 10 messages is too few for subscribers that ask again after each.
            nchan_message_buffer_length 5000;
            nchan_message_timeout 1h;
        }}
        location ~ ^/sub/([a-z0-9-]+)$ {{
            nchan_subscriber websocket eventsource longpoll;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
            nchan_websocket_ping_interval 0;
        }}
    }}
}}
",
        // Otherwise the first worker to wake up takes most of the connections.
        reuseport = if workers > 1 { " reuseport" } else { "" },
    )
}
