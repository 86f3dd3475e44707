//! The HTTP/1 front: accepts connections, serves polls, hands the rest to hyper.
//!
//! A held poll keeps no buffer: hyper's connections cost 11 to 18 KB each while they wait, which no setting lowers. So
//! the front reads each head itself, keeps the polls, and gives any other connection away with the bytes read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use everpoll_protocol::{Head, RawRequest, Reply, Request, RequestError, ServeError};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use crate::head::{self, HEAD_MAX, Parsed};
use crate::listen::Listener;
use crate::long_poll::{self, Connection, Outcome};
use crate::server::{self, Counted, Server};
use crate::service;
use crate::stream::Stream;

/// How long accepting pauses when the process has no file left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the daemon stops.
pub(crate) async fn accept(listener: Listener, server: Arc<Server>) {
    let mut stopped = server.stop.subscribe();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match accepted {
            Ok(stream) => {
                let open = server.connections.load(Ordering::Relaxed);
                if open >= server.patience.connections_max {
                    if !full {
                        warn!(open, "too many connections: new ones are sent away; raise connections_max");
                        full = true;
                    }
                    refuse(&stream, &server);
                    continue;
                }
                full &= open * 10 > server.patience.connections_max * 9;
                let server = server.clone();
                tokio::spawn(async move {
                    let _counted = Counted::new(&server.connections);
                    serve(stream, &server).await;
                });
            }
            // The client left before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!("cannot accept a connection: {error}; next try in {ACCEPT_PAUSE:?}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells a client that there is no room for it. What does not fit into the socket's empty buffer is not waited for.
fn refuse(stream: &Stream, server: &Server) {
    let reply = Reply::serve_error(
        ServeError::Overloaded,
        server.reconnect_in(everpoll_protocol::Reconnect::ShortPoll),
        false,
    );
    let _ = stream.try_write(&to_bytes(&reply, Connection { keep_alive: false, http10: false }));
}

/// What is to be done with a connection next.
enum Next {
    /// The request was answered, and another may follow.
    Again,
    /// It is to be closed.
    Close,
    /// It is hyper's.
    Other,
}

async fn serve(stream: Stream, server: &Arc<Server>) {
    let mut buffer = Vec::new();
    loop {
        match serve_one(&stream, &mut buffer, server).await {
            // Whoever waits keeps no buffer; what was pipelined is small and stays.
            Next::Again if buffer.is_empty() => buffer = Vec::new(),
            Next::Again => {}
            Next::Close => return,
            // Boxed, so that a held poll has no room for it.
            Next::Other => return Box::pin(service::serve(stream, buffer, server)).await,
        }
    }
}

/// A request as the front has parsed it.
struct Parse {
    request: Result<Request, RequestError>,
    head_only: bool,
    connection: Connection,
}

async fn serve_one(stream: &Stream, buffer: &mut Vec<u8>, server: &Arc<Server>) -> Next {
    let parse = match read_request(stream, buffer, server).await {
        Ok(Some(parse)) => parse,
        Ok(None) => return Next::Other,
        Err(None) => return Next::Close,
        Err(Some(error)) => {
            // What follows such a head cannot be understood, so nothing is read any more.
            let connection = Connection { keep_alive: false, http10: false };
            let _ = write(stream, &to_bytes(&Reply::request_error(&error, false), connection), server).await;
            linger(stream).await;
            return Next::Close;
        }
    };
    let _busy = Counted::new(&server.busy);
    let connection = parse.connection;
    let bytes = match parse.request {
        Ok(Request::Poll(request)) => {
            let closed = |context: &mut std::task::Context<'_>| stream.poll_closed(buffer, HEAD_MAX, context);
            match long_poll::serve(server, request, connection, closed).await {
                Outcome::Bytes(bytes) => bytes,
                Outcome::Gone => return Next::Close,
            }
        }
        Ok(Request::Options { allow }) => to_bytes(&Reply::options(allow), connection),
        // The front keeps only polls; publishing is hyper's.
        Ok(Request::Publish(_)) => to_bytes(&Reply::serve_error(ServeError::Internal, 0, false), connection),
        Err(error) => to_bytes(&Reply::request_error(&error, parse.head_only), connection),
    };
    match write(stream, &bytes, server).await {
        Ok(()) if connection.keep_alive && !server.draining() => Next::Again,
        _ => Next::Close,
    }
}

/// Reads a head and parses it; `Ok(None)` when it is hyper's, `Err(None)` when there is none.
async fn read_request(
    stream: &Stream,
    buffer: &mut Vec<u8>,
    server: &Server,
) -> Result<Option<Parse>, Option<RequestError>> {
    let mut deadline = None;
    loop {
        if !buffer.is_empty() {
            match head::parse(buffer).map_err(Some)? {
                Parsed::Poll(head) => {
                    let headers = &head.fields;
                    let peer_is_local = stream.peer_is_local();
                    let raw = RawRequest {
                        method: head.method,
                        target: head.target,
                        headers,
                        body: b"",
                        peer_is_local,
                    };
                    let request = Request::parse(&raw, &server.limits);
                    let connection = Connection { keep_alive: head.keep_alive, http10: head.http10 };
                    let (head_only, length) = (head.method == "HEAD", head.length);
                    buffer.drain(..length);
                    return Ok(Some(Parse { request, head_only, connection }));
                }
                Parsed::Other => return Ok(None),
                Parsed::Partial => {}
            }
        }
        match (buffer.is_empty(), deadline) {
            (true, _) => idle(stream, server).await.map_err(|()| None)?,
            (false, None) => deadline = Some(Instant::now() + server.patience.head),
            (false, Some(at)) => match timeout_at(at, stream.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(None),
                Err(_) => return Err(Some(head::timeout(server.patience.head))),
            },
        }
        read_some(stream, buffer).map_err(|_| None)?;
    }
}

/// Waits for a request's first byte.
async fn idle(stream: &Stream, server: &Server) -> Result<(), ()> {
    let mut stopped = server.stop.subscribe();
    tokio::select! {
        readable = timeout(server.patience.idle, stream.readable()) => match readable {
            Ok(Ok(())) => Ok(()),
            _ => Err(()),
        },
        _ = stopped.wait_for(|stopped| *stopped) => Err(()),
    }
}

/// Appends what has arrived. An error also when the client has closed.
fn read_some(stream: &Stream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut some = [0; 4096];
    match stream.try_read(&mut some) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => {
            buffer.extend_from_slice(&some[..read]);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

async fn write(stream: &Stream, bytes: &Bytes, server: &Server) -> io::Result<()> {
    let mut rest = &bytes[..];
    // Nearly always the socket takes all at once, and no timer is needed.
    match stream.try_write(rest) {
        Ok(written) if written == rest.len() => return Ok(()),
        Ok(written) => rest = &rest[written..],
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    let slow = async {
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    Box::pin(timeout(server.patience.write, slow)).await?
}

/// Reads what is still on its way for a moment, so that closing does not reset the connection before the client has
/// read the reply (RFC 9112 section 9.6).
async fn linger(stream: &Stream) {
    let drain = async {
        let mut left = 1024 * 1024_usize;
        let mut some = [0; 4096];
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut some) {
                Ok(0) => return,
                Ok(read) => left = left.saturating_sub(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _ = Box::pin(timeout(Duration::from_secs(1), drain)).await;
}

fn to_bytes(reply: &Reply, connection: Connection) -> Bytes {
    let Connection { keep_alive, http10 } = connection;
    reply.to_http1(Head { keep_alive, http10, date: &server::http_date() })
}
