//! Socket.IO, on node: a room for each channel.
//!
//! The clients speak its protocol (Engine.IO 4) themselves: over WebSocket, and by its own long-polling.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use everpoll_tests::{Process, TestDir};

use super::{group, source};
use crate::site::{Site, Subscription, Transport, UPGRADE, get, post};

/// Where `tests/bench/peers/install` puts it.
pub(super) fn modules() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("peers/socketio/node_modules")
}

/// A running node.
pub(super) struct Socketio {
    address: SocketAddr,
    process: Process,
    _directory: TestDir,
}

impl Socketio {
    pub(super) fn start() -> Self {
        let directory = TestDir::new();
        let mut command = Command::new("node");
        command.arg(source("socketio/server.js")).env("NODE_PATH", modules());
        let mut process = Process::start("socketio", command, directory.path());
        let log = process.wait_for_log(".\n");
        let port = log.trim().trim_start_matches("port ").trim_end_matches('.');
        let address = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("it said so")));
        Self { address, process, _directory: directory }
    }
}

impl Site for Socketio {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn processes(&self) -> Vec<u32> {
        group(self.process.id())
    }

    fn subscribe(&self, transport: Transport, channel: &str, number: usize) -> Option<Subscription> {
        let target = format!("/socket.io/?EIO=4&room={channel}&_={number}");
        match transport {
            Transport::WebSocket => {
                let mut request = get(&format!("{target}&transport=websocket"), UPGRADE);
                // The packet that connects: a text frame, masked with zeros.
                request.extend(*b"\x81\x82\0\0\0\x0040");
                // What answers it, in an unmasked frame.
                Some(Subscription::Stream(request, b"40{"))
            }
            Transport::LongPoll => {
                let target = format!("{target}&transport=polling");
                let (mut session, mut round) = (String::new(), 0);
                Some(Subscription::Polls(Box::new(move |reply| {
                    round += 1;
                    if let (1..=2, Some(reply)) = (round, reply) {
                        let open: serde_json::Value =
                            serde_json::from_slice(&reply.body()[1..]).expect("the session");
                        session = format!("{target}&sid={}", open["sid"].as_str().expect("its key"));
                    }
                    match round {
                        1 => get(&target, ""),
                        2 => post(&session, "40"),
                        _ => get(&session, ""),
                    }
                })))
            }
            Transport::EventSource => None,
        }
    }

    fn publish(&self, channel: &str, json: &str) -> Vec<u8> {
        post(&format!("/publish/{channel}"), json)
    }
}
