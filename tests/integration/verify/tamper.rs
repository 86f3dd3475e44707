//! A proxy that lies: it changes the answers to polls.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use everpoll_tests::http::{Address, ReplyParser};
use everpoll_tests::{Reply, ports};
use serde_json::{Value, json};

/// What it does to each third answer that has events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    Nothing,
    /// An event is taken out.
    Drop,
    /// An event stands there twice.
    Double,
    /// An event is held back until a later one has come.
    Reorder,
    /// An event gets another id.
    Renumber,
    /// An event of another channel comes along.
    Add,
    /// The answer before comes again, whatever was asked.
    Cache,
    /// Half of the answer comes, and then the end of the connection.
    Truncate,
    /// Half of the answer comes, and the head says that this is all.
    Shorten,
    /// A page of HTML comes in its place, as from a login portal.
    Portal,
    /// Nobody gets through.
    Refuse,
    /// Gap records are taken out.
    HideGaps,
}

/// A running proxy. On drop it takes no more connections.
#[derive(Debug)]
pub(super) struct Tamper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: Address,
    port: u16,
    lie: Mutex<Lie>,
    /// Answers with events so far.
    seen: AtomicUsize,
    /// By path: what was held back, or kept.
    kept: Mutex<HashMap<String, Value>>,
    stopped: AtomicBool,
}

impl Tamper {
    /// Starts one.
    pub(super) fn before(origin: &Address, lie: Lie) -> Self {
        let port = ports::free();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port was just free");
        let shared = Arc::new(Shared {
            origin: origin.clone(),
            port,
            lie: Mutex::new(lie),
            seen: AtomicUsize::new(0),
            kept: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = accepting.clone();
                // When either side has gone, both have.
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { shared }
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.shared.port)
    }

    /// Lies otherwise from now on.
    pub(super) fn lie(&self) -> impl Fn(Lie) + Send + 'static {
        let shared = self.shared.clone();
        move |lie| *lock(&shared.lie) = lie
    }
}

impl Drop for Tamper {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // So that it sees that.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.shared.port));
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut server = self.origin.connect().ok()?;
        let (mut bytes, mut some) = (Vec::new(), [0; 8192]);
        loop {
            let end = loop {
                if let Some(end) = whole(&bytes) {
                    break end;
                }
                match client.read(&mut some).ok()? {
                    0 => return None,
                    length => bytes.extend_from_slice(&some[..length]),
                }
            };
            let request: Vec<u8> = bytes.drain(..end).collect();
            server.write_all(&request).ok()?;
            let mut parser = ReplyParser::default();
            let reply = loop {
                let length = server.read(&mut some).ok()?;
                parser.push(&some[..length]);
                match parser.next(false, length == 0).ok()? {
                    Some(reply) => break reply,
                    None if length == 0 => return None,
                    None => {}
                }
            };
            let line = String::from_utf8_lossy(&request);
            let path = line.split(['?', ' ']).nth(1).unwrap_or_default().to_owned();
            if !path.starts_with("/e/") {
                client.write_all(&write(&reply)).ok()?;
            } else if self.answer(&path, reply, &mut client).is_none() {
                let _ = client.shutdown(Shutdown::Both);
                return None;
            }
        }
    }

    /// Answers a poll; `None` when the connection is to end.
    fn answer(&self, path: &str, mut reply: Reply, client: &mut TcpStream) -> Option<()> {
        let lie = *lock(&self.lie);
        if lie == Lie::Refuse {
            reply.status = 503;
            reply.body = b"busy".to_vec();
            return client.write_all(&write(&reply)).ok();
        }
        let mut body: Value = serde_json::from_slice(&reply.body).ok()?;
        let gap = |record: &Value| record["data"]["type"] == "everpoll:gap";
        if lie == Lie::HideGaps {
            body["events"].as_array_mut()?.retain(|record| !gap(record));
        }
        let news = body["events"].as_array().is_some_and(|events| !events.is_empty());
        let turn = news && self.seen.fetch_add(1, Ordering::SeqCst) % 3 == 2;
        let mut kept = lock(&self.kept);
        if lie == Lie::Reorder
            && news
            && let Some(held_back) = kept.remove(path)
        {
            body["events"].as_array_mut()?.push(held_back);
        } else if turn {
            let events = body["events"].as_array_mut()?;
            match lie {
                Lie::Drop => drop(events.remove(0)),
                Lie::Double => events.push(events[0].clone()),
                Lie::Reorder => drop(kept.insert(path.to_owned(), events.remove(0))),
                Lie::Renumber => events[0]["id"] = json!(events[0]["id"].as_u64()? + 1_000_000),
                Lie::Add => {
                    let mut other = events[0].clone();
                    other["channel_id"] = json!("elsewhere");
                    events.push(other);
                }
                Lie::Cache => {
                    if let Some(before) = kept.get(path) {
                        body = before.clone();
                    }
                }
                _ => {}
            }
        } else if lie == Lie::Cache && news {
            kept.insert(path.to_owned(), body.clone());
        }
        drop(kept);
        reply.body = body.to_string().into_bytes();
        let half = reply.body.len() / 2;
        match lie {
            Lie::Shorten if turn => reply.body.truncate(half),
            Lie::Portal if turn => reply.body = b"<html><body>Please log in</body></html>".to_vec(),
            _ => {}
        }
        let bytes = write(&reply);
        if lie == Lie::Truncate && turn {
            client.write_all(&bytes[..bytes.len() - half]).ok()?;
            return None;
        }
        client.write_all(&bytes).ok()
    }
}

/// Where the first request ends, when it is there as a whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some(end)
}

fn write(reply: &Reply) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} {}\r\n", reply.status, reply.reason).into_bytes();
    for (name, value) in &reply.headers {
        if !["content-length", "connection"].contains(&name.to_ascii_lowercase().as_str()) {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
    }
    bytes.extend(format!("Content-Length: {}\r\n\r\n", reply.body.len()).into_bytes());
    bytes.extend_from_slice(&reply.body);
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
