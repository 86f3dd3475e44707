//! One client: asks, takes what comes, and comes back.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Client, Poller, Shared, clock, lock};
use crate::http::{Address, Reply, ReplyParser};

/// One client, until it is stopped.
pub(super) async fn run(poller: Poller, client: Arc<Client>, shared: Arc<Shared>) {
    let stopped = shared.stopped.notified();
    tokio::pin!(stopped);
    // Registered before the flag is looked at, so that a stop in between is not missed.
    stopped.as_mut().enable();
    if shared.stopping.load(Ordering::SeqCst) {
        return;
    }
    tokio::select! {
        () = stopped => {}
        () = poll_for_ever(&poller, &client, &shared) => {}
    }
}

async fn poll_for_ever(poller: &Poller, client: &Client, shared: &Shared) {
    let mut connection = None;
    let mut cursor = poller.cursor.clone();
    let mut failures = 0;
    for number in 0.. {
        let request = poller.request(&cursor, number);
        let pause = match exchange(&mut connection, poller, &request, client, shared).await {
            Ok(reply) => {
                failures = 0;
                if !reply.keeps_connection() {
                    connection = None;
                }
                take(&reply, client, shared, &mut cursor)
            }
            Err(error) => {
                connection = None;
                *lock(&shared.tally).errors.entry(error.to_string()).or_default() += 1;
                failures += 1;
                // Whoever is refused comes back soon, but not in a tight loop.
                if poller.backs_off { backoff(failures) } else { Duration::from_millis(100) }
            }
        };
        if !pause.is_zero() {
            tokio::time::sleep(pause.min(poller.reconnect_cap)).await;
        }
    }
}

/// How long the browser client stays away after so many failures in a row: as `backoff` in `everpoll.js`.
fn backoff(failures: u32) -> Duration {
    let ceiling = (500_u64 << failures.min(7)).min(60_000);
    let random = RandomState::new().hash_one(failures) % 1000;
    Duration::from_millis(ceiling - ceiling * random / 2000)
}

/// Writes down a reply and says how long to stay away.
fn take(reply: &Reply, client: &Client, shared: &Shared, cursor: &mut String) -> Duration {
    *lock(&shared.tally).statuses.entry(reply.status).or_default() += 1;
    lock(&shared.answers).push(clock() / 1000);
    *lock(&client.answered_last) = Some(Instant::now());
    let reconnect = || reply.header("x-ps-reconnect-in").and_then(|seconds| seconds.parse().ok());
    if let Some(seconds) = reconnect() {
        *lock(&shared.tally).delays.entry(seconds).or_default() += 1;
    }
    let events = if reply.status == 200 { reply.try_events() } else { None };
    let next = reply.header("x-ps-cursor").and_then(|next| next.parse::<u64>().ok());
    let (Some(events), Some(seconds), Some(next)) = (events, reconnect(), next) else {
        lock(&shared.tally).first_bad_reply.get_or_insert_with(|| reply.clone());
        return Duration::from_secs(reconnect().unwrap_or(1));
    };
    if reply.header("x-shortpoll-info") == Some("false") {
        *lock(&client.held_last) = Some(Instant::now());
    }
    let mut reading = lock(&client.reading);
    // A client that began with `now` has promised itself everything after its first cursor.
    let began_after = events.first().map_or(next, |first| first.id - 1);
    reading.began_after.get_or_insert(began_after);
    reading.cursor = next;
    if !events.is_empty() {
        reading.last_news = Some(Instant::now());
    }
    for event in events {
        if let Some(sent) = event.data["sent"].as_u64() {
            let late = clock().saturating_sub(sent) / 1000;
            lock(&shared.lateness).push(u32::try_from(late).unwrap_or(u32::MAX));
        }
        if event.kind == "everpoll:gap" {
            reading.gaps += 1;
        } else {
            reading.events.push((event.id, event.channel));
        }
    }
    *cursor = next.to_string();
    Duration::from_secs(seconds)
}

enum Connection {
    Tcp(TcpStream, ReplyParser),
    Unix(UnixStream, ReplyParser),
    Tls(Box<TlsStream<TcpStream>>, ReplyParser),
}

/// Sends a request, on the connection that is there or a new one, and reads the reply.
async fn exchange(
    connection: &mut Option<Connection>,
    poller: &Poller,
    request: &[u8],
    client: &Client,
    shared: &Shared,
) -> io::Result<Reply> {
    if connection.is_some() {
        let result = send_and_read(connection.as_mut().expect("just seen"), request, client).await;
        match result {
            // A kept connection may close at the moment it is used again; every browser then asks on a new one.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {}
            other => return other,
        }
    }
    lock(&shared.attempts).push(clock() / 1000);
    let fresh = match &poller.address {
        Address::Tcp(address) => Connection::Tcp(connect(*address, poller).await?, ReplyParser::default()),
        Address::Tls(address, trust) => {
            let (stream, connector) = (connect(*address, poller).await?, TlsConnector::from(trust.config()));
            let name = ServerName::try_from("localhost").expect("a name");
            Connection::Tls(Box::new(connector.connect(name, stream).await?), ReplyParser::default())
        }
        Address::Unix(path) => Connection::Unix(UnixStream::connect(path).await?, ReplyParser::default()),
    };
    send_and_read(connection.insert(fresh), request, client).await
}

async fn connect(address: SocketAddr, poller: &Poller) -> io::Result<TcpStream> {
    let stream = match poller.from {
        Some(from) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            socket.connect(address).await?
        }
        None => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn send_and_read(connection: &mut Connection, request: &[u8], client: &Client) -> io::Result<Reply> {
    match connection {
        Connection::Tcp(stream, parser) => send_and_read_on(stream, parser, request, client).await,
        Connection::Unix(stream, parser) => send_and_read_on(stream, parser, request, client).await,
        Connection::Tls(stream, parser) => send_and_read_on(stream, parser, request, client).await,
    }
}

async fn send_and_read_on(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    parser: &mut ReplyParser,
    request: &[u8],
    client: &Client,
) -> io::Result<Reply> {
    stream.write_all(request).await?;
    stream.flush().await?;
    *lock(&client.waiting_since) = Some(Instant::now());
    let reply = read(stream, parser).await;
    *lock(&client.waiting_since) = None;
    reply
}

async fn read(stream: &mut (impl AsyncRead + Unpin), parser: &mut ReplyParser) -> io::Result<Reply> {
    // Small, since there are thousands and most wait.
    let mut buffer = [0; 4096];
    loop {
        if let Some(reply) = parser.next(false, false)? {
            return Ok(reply);
        }
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            let kind =
                if parser.is_empty() { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
            let end = || io::Error::new(kind, "closed without a complete reply");
            return parser.next(false, true)?.ok_or_else(end);
        }
        parser.push(&buffer[..length]);
    }
}
