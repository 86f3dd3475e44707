//! Who is sent away: told why, so that it comes back when it should, and at a price that is bounded.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use everpoll_protocol::{Client, Failure, RawRequest, Reconnect, Reply, ServeError};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::to_bytes;
use crate::metrics::{COUNTS, Limit};
use crate::server::Server;
use crate::stream::Stream;
use crate::tls::Greeting;
use crate::transport::Connection;
use crate::visitors::Visit;

/// How long a refused client may take to read why, and how much it may send meanwhile, in bytes.
const LINGER: Duration = Duration::from_secs(1);
const HEAD_LEFT: usize = 1024 * 1024;

/// Most clients at a time that are told over TLS that there is no room for them, each a file and a handshake.
pub(crate) const GOODBYES: usize = 64;

/// How long each of them takes the place of another at least, and how long its handshake may take.
const GOODBYE_PAUSE: Duration = Duration::from_secs(1);
const GOODBYE_PATIENCE: Duration = Duration::from_secs(2);

/// Lets a new connection in, or sends it away.
pub(super) fn admit(stream: Stream, peer: Option<IpAddr>, server: &Arc<Server>) -> Option<Stream> {
    let stream = match stream {
        Stream::Tcp(stream, visit) if server.tls.is_some() => Stream::Fresh(stream, visit),
        stream => stream,
    };
    // A web server in front has many clients behind it: what each of them holds is counted instead.
    let client = peer.filter(|peer| !server.rules().limits.fronts.includes(*peer)).map(Client::at);
    let open = server.connections.load(Ordering::Relaxed);
    let (limit, error) = match Visit::begin(client, server.rules().patience.per_address) {
        _ if open >= server.rules().patience.connections_max => (Limit::Connections, ServeError::Overloaded),
        None => (Limit::ConnectionsPerAddress, ServeError::TooManyConnections),
        Some(visit) => return Some(stream.of_visit(visit)),
    };
    COUNTS.hit(limit);
    COUNTS.error(error.code());
    send_away(stream, error, server);
    None
}

/// Tells a client that there is no room for it. What does not fit into the socket's empty buffer is not waited for.
fn send_away(stream: Stream, error: ServeError, server: &Arc<Server>) {
    let reconnect_in = server.reconnect_in(Reconnect::ShortPoll);
    let reply = Reply::serve_error(error, reconnect_in, false);
    let bytes = to_bytes(&reply, Connection { keep_alive: false, http10: false });
    match stream {
        Stream::Fresh(socket, _) => say_goodbye(socket, bytes, server),
        stream => drop(stream.write_now(&bytes)),
    }
}

/// The same where it takes a handshake to tell it. That has a price, which is bounded: [`GOODBYES`] at a time, none of which makes room
/// within [`GOODBYE_PAUSE`]. Those above see the end of their connection.
fn say_goodbye(socket: TcpStream, bytes: Bytes, server: &Arc<Server>) {
    let Ok(permit) = server.goodbyes.clone().try_acquire_owned() else { return };
    let server = server.clone();
    tokio::spawn(async move {
        let pause = tokio::time::sleep(GOODBYE_PAUSE);
        if let Some(tls) = &server.tls
            && let Greeting::Secured(secured) = tls.greet(socket, GOODBYE_PATIENCE).await
        {
            refuse(&Stream::Tls(secured, Visit::go_on(None)), &bytes, &server).await;
        }
        pause.await;
        drop(permit);
    });
}

/// The answer to a request that is one too many.
pub(crate) fn too_many(
    error: ServeError,
    raw: &RawRequest<'_>,
    connection: Connection,
    server: &Server,
) -> Bytes {
    let failure = Failure::Serve(error);
    COUNTS.failure(&failure);
    let reply =
        Reply::refused(&failure, raw, &server.rules().limits, || server.reconnect_in(Reconnect::ShortPoll));
    to_bytes(&reply, connection)
}

/// Answers a head that cannot be understood.
pub(super) async fn refuse(stream: &Stream, bytes: &Bytes, server: &Server) {
    if stream.send(bytes, &server.rules().patience).await.is_err() {
        return;
    }
    linger(stream, HEAD_LEFT, LINGER).await;
}

/// Ends a connection whose client may still be sending: closed at once, it would be reset, and the reply lost before it is read
/// (RFC 9112 section 9.6). So it is told that nothing follows, and what it sends is read, but kept nowhere: so many bytes at most,
/// for so long.
pub(crate) async fn linger(stream: &Stream, mut bytes: usize, patience: Duration) {
    stream.end();
    let read = async {
        let mut some = [0; 4096];
        while bytes > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut some) {
                Ok(0) => return,
                Ok(read) => bytes = bytes.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = timeout(patience, read).await;
}
