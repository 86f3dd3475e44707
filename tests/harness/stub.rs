//! Stand-ins for daemon and fallback that misbehave on command.
//!
//! What a web server does when the daemon dies between a request and its answer cannot be had from a real daemon at
//! the right moment, each time. A stub reads a request and does what the test says; a fallback stub also shows what
//! the web server handed over.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::http::Address;
use crate::{TestDir, wait};

/// What a stub does with a request that it has read.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes these bytes; of a daemon a whole HTTP reply, of a fallback a CGI reply.
    Answer(String),
    /// Closes the connection without a byte.
    HangUp,
    /// Neither answers nor closes, until the other side does.
    Hold,
}

/// A request as a stub got it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The request line, of HTTP.
    pub line: String,
    /// Headers with lower-case names, of HTTP; parameters, of FastCGI.
    pub fields: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// A program that listens on a unix socket and does as the test says.
#[derive(Debug)]
pub struct Stub {
    path: PathBuf,
    address: Address,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _directory: TestDir,
}

#[derive(Debug)]
struct Shared {
    act: Mutex<Act>,
    received: Mutex<Vec<Received>>,
    open: Mutex<Vec<UnixStream>>,
    stopping: Mutex<bool>,
}

impl Stub {
    /// A daemon: reads HTTP/1.1 requests with `Content-Length`.
    ///
    /// # Panics
    /// When there is no room for a socket.
    pub fn daemon(act: Act) -> Self {
        Self::start(act, serve_http)
    }

    /// A fallback: reads FastCGI requests.
    ///
    /// # Panics
    /// When there is no room for a socket.
    pub fn fallback(act: Act) -> Self {
        Self::start(act, serve_fastcgi)
    }

    fn start(act: Act, serve: fn(UnixStream, &Shared) -> io::Result<()>) -> Self {
        let directory = TestDir::new();
        let path = directory.join("stub.sock");
        let listener = UnixListener::bind(&path).expect("a fresh directory takes a socket");
        // The web server's workers are another user when the tests run as root.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("it is ours");
        let shared = Arc::new(Shared {
            act: Mutex::new(act),
            received: Mutex::default(),
            open: Mutex::default(),
            stopping: Mutex::new(false),
        });
        let for_thread = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *lock(&for_thread.stopping) {
                    break;
                }
                let shared = for_thread.clone();
                lock(&shared.open).push(stream.try_clone().expect("another descriptor"));
                // Ends with its connection; an error is the web server hanging up.
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self {
            address: Address::Unix(path.clone()),
            path,
            shared,
            thread: Some(thread),
            _directory: directory,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on does something else.
    pub fn act(&self, act: Act) {
        *lock(&self.shared.act) = act;
    }

    /// All requests so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Waits until there were this many requests, and returns them.
    ///
    /// # Panics
    /// When there are fewer after a while.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) -> Vec<Received> {
        wait::until(&format!("{count} requests came"), wait::PATIENCE, || self.received().len() >= count);
        self.received()
    }

    /// Cuts all connections, as the end of the process would.
    pub fn cut(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        *lock(&self.shared.stopping) = true;
        // Wakes the accepting thread, which then sees that it is over.
        let _ = self.address.connect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.cut();
    }
}

/// Writes a request down and says what to do: the bytes to write, or nothing more.
fn decide(received: Received, shared: &Shared, stream: &mut UnixStream) -> io::Result<Option<String>> {
    lock(&shared.received).push(received);
    let act = lock(&shared.act).clone();
    match act {
        Act::Answer(answer) => Ok(Some(answer)),
        Act::HangUp => stream.shutdown(Shutdown::Both).map(|()| None),
        Act::Hold => stream.read(&mut [0; 1]).map(|_| None),
    }
}

fn serve_http(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default().to_owned();
        let fields: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = fields.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        match decide(Received { line, fields, body }, shared, &mut stream)? {
            Some(answer) => stream.write_all(answer.as_bytes())?,
            None => return Ok(()),
        }
    }
}

/// FastCGI 1.0, only what a well-behaved web server sends: one request at a time on a connection.
fn serve_fastcgi(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    const BEGIN: u8 = 1;
    const END: u8 = 3;
    const PARAMS: u8 = 4;
    const STDIN: u8 = 5;
    const STDOUT: u8 = 6;
    let (mut params, mut body, mut keep) = (Vec::new(), Vec::new(), false);
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut content = vec![0; length + usize::from(header[6])];
        stream.read_exact(&mut content)?;
        content.truncate(length);
        match header[1] {
            BEGIN => keep = content[2] & 1 == 1,
            PARAMS => params.extend(content),
            STDIN if length > 0 => body.extend(content),
            STDIN => {
                let fields = pairs(&std::mem::take(&mut params));
                let received = Received { line: String::new(), fields, body: std::mem::take(&mut body) };
                let Some(answer) = decide(received, shared, &mut stream)? else { return Ok(()) };
                let mut out = record(STDOUT, answer.as_bytes());
                out.extend(record(STDOUT, b""));
                out.extend(record(END, &[0; 8]));
                stream.write_all(&out)?;
                if !keep {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("stubs answer briefly").to_be_bytes();
    let mut bytes = vec![1, kind, 0, 1, length[0], length[1], 0, 0];
    bytes.extend_from_slice(content);
    bytes
}

/// Names and values, each with a length of one byte or, with the highest bit set, four.
fn pairs(mut bytes: &[u8]) -> BTreeMap<String, String> {
    fn length(bytes: &mut &[u8]) -> Option<usize> {
        let (first, rest) = bytes.split_first()?;
        if first & 0x80 == 0 {
            *bytes = rest;
            return Some(usize::from(*first));
        }
        let (four, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        usize::try_from(u32::from_be_bytes(*four) & 0x7fff_ffff).ok()
    }
    let mut pairs = BTreeMap::new();
    while let (Some(name), Some(value)) = (length(&mut bytes), length(&mut bytes)) {
        let Some((text, rest)) = bytes.split_at_checked(name + value) else { break };
        let (name, value) = text.split_at(name);
        pairs.insert(String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned());
        bytes = rest;
    }
    pairs
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    #[test]
    fn stub_daemon_answers_hangs_up_and_remembers() {
        let stub = Stub::daemon(Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_owned()));
        assert_eq!(http::get("/e/a").send(stub.address()).body, b"[]");
        stub.act(Act::HangUp);
        assert!(http::post_json("/publish", "{}").try_send(stub.address()).is_err());
        stub.act(Act::Hold);
        let mut held = http::get("/e/b").begin(stub.address());
        let requests = stub.wait_for_requests(3);
        assert!(held.is_waiting());
        assert_eq!(requests[0].line, "GET /e/a HTTP/1.1");
        assert_eq!(
            (requests[1].body.as_slice(), requests[1].fields["content-type"].as_str()),
            (&b"{}"[..], "application/json")
        );
        stub.cut();
        wait::until("it is cut", wait::PATIENCE, || !held.is_waiting());
    }

    #[test]
    fn long_parameters_are_read() {
        let mut bytes = vec![1, 0x80, 0, 1, 0, b'A'];
        bytes.extend([b'x'; 256]);
        bytes.extend([2, 1, b'B', b'C', b'y']);
        let pairs = pairs(&bytes);
        assert_eq!((pairs["A"].len(), pairs["BC"].as_str()), (256, "y"));
    }
}
