//! The HTTP/1 front: accepts connections, serves polls, hands the rest to hyper.
//!
//! A held poll keeps no buffer: hyper's connections cost 11 to 18 KB each while they wait, which no setting lowers. So
//! the front reads each head itself, keeps the polls, and gives any other connection away with the bytes read.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use everpoll_protocol::{
    Flavor, Head, PollRequest, RawRequest, Reconnect, Reply, Request, RequestError, ServeError,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::warn;

use crate::head::{self, HEAD_MAX, Parsed, PollHead};
use crate::listen::Listener;
use crate::metrics::{COUNTS, Limit, Way};
use crate::server::{self, Counted, Server};
use crate::service;
use crate::stream::Stream;
use crate::transport::{Connection, eventsource, long_poll, padded, websocket};

/// How long accepting pauses when the process has no file left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// How long no connection must have come before a daemon that stops no longer listens, and how long it listens at most.
/// Those that the kernel has taken for us would be reset, with the requests that they have sent.
const LAST_CONNECTIONS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a new connection may take to begin its request once the daemon stops.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How long a connection without a request is kept while nearly all are used. The next clients need them.
const IDLE_CROWDED: Duration = Duration::from_secs(5);

/// Accepts connections until the daemon stops. Returns whether another daemon listens there then.
pub(crate) async fn accept(mut listener: Listener, server: Arc<Server>) -> bool {
    accept_all(&mut listener, &server).await;
    listener.close().await
}

async fn accept_all(listener: &mut Listener, server: &Arc<Server>) {
    let mut closing = server.closing.subscribe();
    let mut stops_at = None;
    loop {
        let accepted = match stops_at {
            None => tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => {
                    if !listener.close_door() {
                        return;
                    }
                    stops_at = Some(Instant::now() + LAST_CONNECTIONS.1);
                    continue;
                }
            },
            Some(at) => match timeout(LAST_CONNECTIONS.0, listener.accept()).await {
                Ok(accepted) if Instant::now() < at => accepted,
                _ => return,
            },
        };
        match accepted {
            Ok(stream) => {
                let open = server.connections.load(Ordering::Relaxed);
                if open >= server.patience.connections_max {
                    COUNTS.hit(Limit::Connections);
                    COUNTS.error(ServeError::Overloaded.code());
                    send_away(&stream, server);
                    continue;
                }
                COUNTS.accepted.one();
                // Now and not in the task, which may run later: a daemon that stops waits for all of them.
                server.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, server.clone()));
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
fn send_away(stream: &Stream, server: &Server) {
    let reconnect_in = server.reconnect_in(Reconnect::ShortPoll);
    let reply = Reply::serve_error(ServeError::Overloaded, reconnect_in, false);
    let _ = stream.try_write(&to_bytes(&reply, Connection { keep_alive: false, http10: false }));
}

/// Serves a connection until it is closed.
///
/// This is the state of every held poll, so what is large and not needed while a poll is held is boxed.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
fn serve(stream: Stream, server: Arc<Server>) -> impl Future<Output = ()> + Send {
    async move {
        let _counted = Counted::already(&server.connections);
        let mut buffer = Vec::new();
        // Not the time itself: with its 16 bytes, the task's memory would be of the next size.
        let mut first = true;
        loop {
            if buffer.is_empty() && !Box::pin(begins(&stream, first, &server)).await {
                return;
            }
            let (request, connection) = match Box::pin(next_poll(&stream, &mut buffer, &server)).await {
                Next::Poll(request, connection) => (request, connection),
                Next::Again => continue,
                Next::Other => return Box::pin(service::serve(stream, buffer, &server)).await,
                Next::Close => return,
            };
            // Whoever waits keeps no buffer; what was pipelined is small and stays.
            if buffer.is_empty() {
                buffer = Vec::new();
            }
            let _busy = Counted::new(&server.busy);
            COUNTS.requests[Way::of(&request) as usize].one();
            let stays = match request.flavor {
                Flavor::EventSource => {
                    Box::pin(eventsource::serve(&stream, &mut buffer, &server, &request, connection)).await;
                    return;
                }
                Flavor::WebSocket => {
                    return Box::pin(websocket::serve(stream, buffer, &server, &request)).await;
                }
                _ if request.pad.is_some() => {
                    Box::pin(padded::serve(&stream, &mut buffer, &server, &request, connection)).await
                }
                Flavor::LongPoll | Flavor::ShortPoll => {
                    let closed =
                        |context: &mut Context<'_>| stream.poll_closed(&mut buffer, HEAD_MAX, context);
                    match long_poll::answer(&server, &request, Some(connection), closed).await {
                        Some(answered) => {
                            let bytes = long_poll::to_bytes(&server, &request, connection, answered);
                            stream.send(&bytes, &server.patience).await.is_ok()
                        }
                        None => false,
                    }
                }
            };
            if !stays || !stays_open(&server, connection) {
                return;
            }
            first = false;
        }
    }
}

/// What a connection goes on with.
enum Next {
    /// A poll.
    Poll(Box<PollRequest>, Connection),
    /// Something that hyper serves.
    Other,
    /// Another request: this one is answered, or it was none.
    Again,
    /// Nothing.
    Close,
}

/// Reads a request that has begun, and answers it if that takes no poll.
async fn next_poll(stream: &Stream, buffer: &mut Vec<u8>, server: &Server) -> Next {
    match read_request(stream, buffer, server).await {
        Read::Poll(request, connection) => Next::Poll(request, connection),
        Read::Other => Next::Other,
        Read::Reply(bytes, connection) => match stream.send(&bytes, &server.patience).await {
            Ok(()) if stays_open(server, connection) => Next::Again,
            _ => Next::Close,
        },
        Read::Refuse(bytes) => {
            Box::pin(refuse(stream, &bytes, server)).await;
            Next::Close
        }
        Read::Nothing => Next::Again,
        Read::Close => Next::Close,
    }
}

fn stays_open(server: &Server, connection: Connection) -> bool {
    connection.keep_alive && !server.draining() && !server.is_crowded()
}

/// What came of reading a request.
enum Read {
    /// A poll.
    Poll(Box<PollRequest>, Connection),
    /// Something else that is answered already.
    Reply(Bytes, Connection),
    /// A head that cannot be understood; what follows it cannot either.
    Refuse(Bytes),
    /// Something that hyper serves.
    Other,
    /// Nothing yet.
    Nothing,
    /// Nothing any more: the client has left.
    Close,
}

/// Reads a head that has begun, waits for the rest of it, and parses it.
async fn read_request(stream: &Stream, buffer: &mut Vec<u8>, server: &Server) -> Read {
    if buffer.is_empty() {
        if read_some(stream, buffer).is_err() {
            return Read::Close;
        }
        if buffer.is_empty() {
            return Read::Nothing;
        }
    }
    let deadline = Instant::now() + server.patience.head;
    loop {
        match head::parse(buffer) {
            Ok(Parsed::Poll(head)) => {
                let (read, length) = (parse(&head, stream, server), head.length);
                buffer.drain(..length);
                return read;
            }
            Ok(Parsed::Other) => return Read::Other,
            Ok(Parsed::Partial) => {}
            Err(error) => return refusal(&error),
        }
        if !readable_until(deadline, stream).await {
            COUNTS.hit(Limit::HeadTime);
            return refusal(&head::timeout(server.patience.head));
        }
        if read_some(stream, buffer).is_err() {
            return Read::Close;
        }
    }
}

fn parse(head: &PollHead<'_>, stream: &Stream, server: &Server) -> Read {
    let connection = Connection { keep_alive: head.keep_alive, http10: head.http10 };
    let raw = RawRequest {
        method: head.method,
        target: head.target,
        headers: &head.fields,
        body: b"",
        peer_is_local: stream.peer_is_local(),
        peer: stream.peer(),
        may_upgrade: !head.http10,
    };
    let reply = match Request::parse(&raw, &server.limits) {
        Ok(Request::Poll(request)) => return Read::Poll(Box::new(request), connection),
        Ok(Request::Options { allow, form }) => Reply::options(allow, &form),
        // The front keeps only polls; the others are hyper's.
        Ok(Request::Publish(_) | Request::Script(_)) => Reply::serve_error(ServeError::Internal, 0, false),
        Err(error) => {
            COUNTS.error(error.code());
            Reply::refused(&error, &raw, &server.limits)
        }
    };
    Read::Reply(to_bytes(&reply, connection), connection)
}

fn refusal(error: &RequestError) -> Read {
    COUNTS.error(error.code());
    let reply = Reply::request_error(error, false);
    Read::Refuse(to_bytes(&reply, Connection { keep_alive: false, http10: false }))
}

/// Waits for a request's first byte; `false` when none is to be expected any more. Once the daemon stops, the `first` one of
/// a connection is waited for a moment; the next ones are sent by clients that know that a kept connection may close.
async fn begins(stream: &Stream, first: bool, server: &Server) -> bool {
    let patience = if first { FIRST_REQUEST } else { Duration::ZERO };
    let mut stopped = server.stop.subscribe();
    let mut stopping = *stopped.borrow_and_update();
    let mut stopped = pin!(stopped.changed());
    let idle =
        if server.is_crowded() { IDLE_CROWDED.min(server.patience.idle) } else { server.patience.idle };
    let mut timer = pin!(sleep(if stopping { patience } else { idle }));
    // The state of every idle connection: `select!`, `timeout` and `readable` would take twice the memory.
    poll_fn(|context| {
        if stream.poll_readable(context).is_ready() {
            return Poll::Ready(true);
        }
        if !stopping && stopped.as_mut().poll(context).is_ready() {
            stopping = true;
            timer.as_mut().reset(Instant::now() + patience);
        }
        timer.as_mut().poll(context).map(|()| false)
    })
    .await
}

/// Waits until there is something to read, or the client has left; `false` when neither came in time.
async fn readable_until(at: Instant, stream: &Stream) -> bool {
    let mut timer = pin!(sleep_until(at));
    poll_fn(|context| {
        if stream.poll_readable(context).is_ready() {
            return Poll::Ready(true);
        }
        timer.as_mut().poll(context).map(|()| false)
    })
    .await
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

/// Answers a head that cannot be understood. What is still on its way is read for a moment, so that closing does not
/// reset the connection before the client has read the reply (RFC 9112 section 9.6).
async fn refuse(stream: &Stream, bytes: &Bytes, server: &Server) {
    if stream.send(bytes, &server.patience).await.is_err() {
        return;
    }
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
    let _ = timeout(LINGER, drain).await;
}

fn to_bytes(reply: &Reply, connection: Connection) -> Bytes {
    let Connection { keep_alive, http10 } = connection;
    reply.to_http1(Head { keep_alive, http10, date: &server::http_date() })
}
