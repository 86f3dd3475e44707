//! The load generator: connections that ask and take replies, thousands at a time.
//!
//! A reply is taken as bytes with the time of its last byte; it is looked into when the clock no longer runs. All of it
//! is one thread of tokio's, so that clients take at most one processor, and the floor has the same client as Everpoll.
//!
//! What a newcomer gets wrong: a request that was written is not held yet. [`Watched::wait_until_quiet`] is what tells.
//!
//! [`Watched::wait_until_quiet`]: crate::watch::Watched::wait_until_quiet

mod tls;

use std::io;
use std::time::{Duration, Instant};

use everpoll_tests::Address;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// What a browser sends, more or less: a head has a realistic length then.
const BROWSER: &str = "Host: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
                       Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\n\
                       Cookie: session=0123456789abcdef0123456789abcdef\r\nReferer: http://localhost/page\r\n\r\n";

/// How long a reply may take in which nothing else is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection of one client, kept open.
pub(crate) struct Connection {
    address: Address,
    stream: Stream,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(tls::Secured),
}

/// A complete reply, and when it was.
pub(crate) struct Reply {
    bytes: Vec<u8>,
    body: usize,
    /// When the last byte was read.
    pub(crate) at: Instant,
}

/// What [`closed_loop`] saw.
pub(crate) struct Pace {
    /// Replies per second.
    pub(crate) per_second: f64,
    /// How long half of the replies took at most.
    pub(crate) p50: Duration,
    /// How long 99 of 100 took at most.
    pub(crate) p99: Duration,
    /// Replies with another status than was expected.
    pub(crate) refused: usize,
}

/// A runtime with one thread, for all clients of a benchmark.
pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a thread")
}

/// A poll, as a browser sends it. `wait_id` is a part of the path; `query` begins behind the question mark.
pub(crate) fn poll(channel: &str, wait_id: &str, query: &str) -> Vec<u8> {
    format!("GET /e/{channel}/{wait_id}?{query} HTTP/1.1\r\n{BROWSER}").into_bytes()
}

/// A request for a stream, with the headers that make it one, each with its line end.
pub(crate) fn stream(channel: &str, wait_id: &str, query: &str, headers: &str) -> Vec<u8> {
    format!("GET /e/{channel}/{wait_id}?{query} HTTP/1.1\r\n{headers}{BROWSER}").into_bytes()
}

/// A request for anything else.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{BROWSER}").into_bytes()
}

/// A request to publish.
pub(crate) fn publish(json: &str) -> Vec<u8> {
    let length = json.len();
    format!("POST /publish HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{BROWSER}{json}")
        .into_bytes()
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub(crate) async fn open(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Address::Tls(address, trust) => Stream::Tls(tls::Secured::open(*address, trust).await?),
            Address::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    Ok(stream) => break Stream::Unix(stream),
                    // A unix socket whose queue is full refuses, where TCP waits.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(error) => return Err(error),
                }
            },
        };
        Ok(Self { address: address.clone(), stream })
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// When the connection is broken.
    pub(crate) async fn ask(&self, mut request: &[u8]) -> io::Result<()> {
        while !request.is_empty() {
            match self.stream.try_write(request) {
                Ok(written) => request = &request[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for a reply, as long as it takes.
    ///
    /// # Errors
    ///
    /// When the connection ends before, or what comes is no reply with a `Content-Length`.
    pub(crate) async fn reply(&self) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        loop {
            // Waited for first: a client that waits then has no buffer.
            self.stream.readable().await?;
            bytes.reserve(4096);
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            let at = Instant::now();
            if let Some(body) = complete(&bytes)? {
                return Ok(Reply { bytes, body, at });
            }
        }
    }

    /// Reads on until `sign` has come, which is then the last that matters. Returns what was read, as a reply without a head.
    ///
    /// # Errors
    ///
    /// When the connection ends before.
    pub(crate) async fn read_until(&self, sign: &[u8]) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        loop {
            self.stream.readable().await?;
            bytes.reserve(4096);
            match self.stream.try_read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if bytes.windows(sign.len()).any(|part| part == sign) => {
                    return Ok(Reply { bytes, body: 0, at: Instant::now() });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What has come and was not waited for, as a reply without a head.
    pub(crate) fn rest(&self) -> Reply {
        let mut bytes = Vec::with_capacity(4096);
        while matches!(self.stream.try_read(&mut bytes), Ok(read) if read > 0) {
            bytes.reserve(4096);
        }
        Reply { bytes, body: 0, at: Instant::now() }
    }

    /// Asks and waits for the reply; connects again where the reply says that the connection ends.
    ///
    /// # Errors
    ///
    /// As [`ask`](Self::ask) and [`reply`](Self::reply).
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
        self.ask(request).await?;
        let reply = self.reply().await?;
        if reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            *self = Self::open(&self.address).await?;
        }
        Ok(reply)
    }
}

impl Stream {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
            Self::Tls(stream) => stream.socket.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
            Self::Tls(stream) => stream.socket.writable().await,
        }
    }

    fn try_read(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(bytes),
            Self::Unix(stream) => stream.try_read_buf(bytes),
            Self::Tls(stream) => stream.try_read(bytes),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(stream) => stream.try_write(bytes),
        }
    }
}

impl Reply {
    /// Such as 200; 0 when there is none.
    pub(crate) fn status(&self) -> u16 {
        self.bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
    }

    /// The value of a header; the name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(std::str::from_utf8(&self.bytes[..self.body]).ok()?, name)
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What follows the head.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.body..]
    }
}

/// Opens `count` connections.
///
/// # Panics
///
/// When one is refused.
pub(crate) fn connect(runtime: &Runtime, address: &Address, count: usize) -> Vec<Connection> {
    let address = address.clone();
    let opening = runtime.spawn(async move {
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            match Connection::open(&address).await {
                Ok(connection) => connections.push(connection),
                Err(error) => panic!("connection {number} to {address} is refused: {error}"),
            }
        }
        connections
    });
    runtime.block_on(opening).expect("it panicked with the reason")
}

/// Sends each connection's request, all without waiting for a reply, then lets each wait for one.
///
/// # Panics
///
/// When a connection is broken.
pub(crate) fn ask(
    runtime: &Runtime,
    connections: Vec<Connection>,
    request: impl Fn(usize) -> Vec<u8>,
) -> Vec<JoinHandle<(Connection, Reply)>> {
    let requests: Vec<_> = (0..connections.len()).map(request).collect();
    let waiting = connections.into_iter().zip(requests).enumerate().map(|(number, (connection, request))| {
        runtime.spawn(async move {
            let reply = async {
                connection.ask(&request).await?;
                drop(request);
                connection.reply().await
            };
            match reply.await {
                Ok(reply) => (connection, reply),
                Err(error) => panic!("client {number} got no reply: {error}"),
            }
        })
    });
    waiting.collect()
}

/// Sends each connection's request, and waits for nothing.
///
/// # Panics
///
/// When a connection is broken.
pub(crate) fn send(
    runtime: &Runtime,
    connections: Vec<Connection>,
    request: impl Fn(usize) -> Vec<u8>,
) -> Vec<Connection> {
    let requests: Vec<_> = (0..connections.len()).map(request).collect();
    let sending = runtime.spawn(async move {
        for (connection, request) in connections.iter().zip(requests) {
            connection.ask(&request).await.expect("nobody closes it");
        }
        connections
    });
    runtime.block_on(sending).expect("it panicked with the reason")
}

/// Lets each connection read until `sign` has come.
///
/// # Panics
///
/// When a connection is broken.
pub(crate) fn listen(
    runtime: &Runtime,
    connections: Vec<Connection>,
    sign: &[u8],
) -> Vec<JoinHandle<(Connection, Reply)>> {
    let listening = connections.into_iter().enumerate().map(|(number, connection)| {
        let sign = sign.to_vec();
        runtime.spawn(async move {
            match connection.read_until(&sign).await {
                Ok(reply) => (connection, reply),
                Err(error) => panic!("the stream of client {number} broke: {error}"),
            }
        })
    });
    listening.collect()
}

/// Waits until all have their reply, in the order of [`ask`].
///
/// # Panics
///
/// When one has none after a minute.
pub(crate) fn replies(
    runtime: &Runtime,
    waiting: Vec<JoinHandle<(Connection, Reply)>>,
) -> (Vec<Connection>, Vec<Reply>) {
    let count = waiting.len();
    let all = async {
        let (mut connections, mut replies) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for client in waiting {
            let (connection, reply) = client.await.expect("it panicked with the reason");
            connections.push(connection);
            replies.push(reply);
        }
        (connections, replies)
    };
    let all = runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await });
    all.unwrap_or_else(|_| panic!("after {PATIENCE:?} not all of {count} clients have a reply"))
}

/// Sends the same request over `count` connections for as long as `time`, on each one the next when the reply is there.
/// A fifth of that passes before, uncounted.
///
/// # Panics
///
/// When a connection is refused or breaks.
pub(crate) fn closed_loop(
    runtime: &Runtime,
    address: &Address,
    count: usize,
    request: &[u8],
    status: u16,
    time: Duration,
) -> Pace {
    let connections = connect(runtime, address, count);
    let begin = Instant::now() + time / 5;
    let end = begin + time;
    let clients: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let request = request.to_vec();
            runtime.spawn(async move {
                let (mut took, mut refused) = (Vec::new(), 0);
                loop {
                    let asked = Instant::now();
                    if asked >= end {
                        return (took, refused);
                    }
                    let reply = connection.exchange(&request).await.expect("a server keeps its connections");
                    if asked >= begin && reply.at <= end {
                        took.push(reply.at - asked);
                        refused += usize::from(reply.status() != status);
                    }
                }
            })
        })
        .collect();
    let (mut took, mut refused) = (Vec::new(), 0);
    for client in clients {
        let (times, bad) = runtime.block_on(client).expect("it panicked with the reason");
        took.extend(times);
        refused += bad;
    }
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    Pace { per_second: took.len() as f64 / time.as_secs_f64(), p50: at(50), p99: at(99), refused }
}

/// Where the body begins, once all of it is there.
fn complete(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).map_err(io::Error::other)?;
    let length: Option<usize> = header(head, "content-length").and_then(|length| length.parse().ok());
    let length = length.ok_or_else(|| io::Error::other("a reply without Content-Length"))?;
    Ok((bytes.len() >= end + 4 + length).then_some(end + 4))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_is_complete_with_the_last_byte_of_its_body() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-length: 2\r\n\r\n[]";
        assert!(complete(&bytes[..bytes.len() - 1]).unwrap().is_none());
        assert_eq!(complete(bytes).unwrap(), Some(bytes.len() - 2));
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
