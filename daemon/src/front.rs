//! The HTTP/1 front: accepts connections, serves polls, hands the rest to hyper.
//!
//! A held poll keeps no buffer: hyper's connections cost 11 to 18 KB each while they wait, which no setting lowers. So
//! the front reads each head itself, keeps the polls, and gives any other connection away with the bytes read. A task is only
//! what has something to do or to say; whoever merely waits does so in a [lot](crate::lot).

mod goodbye;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use everpoll_protocol::{
    Ended, Flavor, Head, Place, PollRequest, RawRequest, Reconnect, Reply, Request, RequestError, ServeError,
    Wire,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::warn;

pub(crate) use goodbye::{GOODBYES, linger, too_many};
use goodbye::{admit, refuse};

use crate::head::{self, HEAD_MAX, Parsed, PollHead};
use crate::listen::Listener;
use crate::lot::{Held, Wants};
use crate::metrics::{COUNTS, Way};
use crate::server::{self, Counted, Server};
use crate::service;
use crate::stream::Stream;
use crate::tls::Greeting;
use crate::transport::feed::Follower;
use crate::transport::long_poll::{self, Turn};
use crate::transport::{Connection, eventsource, padded, websocket};
use crate::visitors::Visit;

/// How long accepting pauses when the process has no file left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long no connection must have come before a daemon that stops no longer listens, and how long it listens at most.
/// Those that the kernel has taken for us would be reset, with the requests that they have sent.
const LAST_CONNECTIONS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a new connection may take to begin its request once the daemon stops.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How long a connection that has been with hyper stays a task without a request.
const SOON: Duration = Duration::from_millis(500);

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
            Ok((stream, peer)) => {
                let Some(stream) = admit(stream, peer, server) else { continue };
                COUNTS.accepted.one();
                if let Ok(socket) = stream.into_socket() {
                    // Now and not by whoever serves it later: a daemon that stops waits for all of them.
                    server.connections.fetch_add(1, Ordering::SeqCst);
                    server.hub.lots().park(socket, Wants::Request { first: true });
                }
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

/// Serves a connection, of which these bytes were read, until it waits in a [lot](crate::lot) or is closed.
pub(crate) async fn serve(stream: Stream, buffer: Vec<u8>, server: Arc<Server>) {
    run(stream, buffer, None, server).await;
}

/// Asks the database for a poll that the window could not serve, and goes on with its connection.
pub(crate) async fn look_up(stream: Stream, server: Arc<Server>, mut held: Box<Held>) {
    let buffer = std::mem::take(&mut held.pipelined);
    run(stream, buffer, Some(held), server).await;
}

/// Writes the rest of a reply that the client does not take at once, and goes on with its connection.
pub(crate) async fn finish(
    stream: Stream,
    server: Arc<Server>,
    bytes: Bytes,
    written: usize,
    connection: Connection,
    buffer: Vec<u8>,
) {
    let counted = Counted::already(&server.connections);
    let busy = Counted::new(&server.busy);
    if stream.send(&bytes[written..], &server.rules().patience).await.is_err()
        || !stays_open(&server, connection)
    {
        return;
    }
    drop((bytes, busy));
    std::mem::forget(counted);
    run(stream, buffer, None, server).await;
}

/// Goes on with a stream that has more to do than to wait: `rest` is still to be sent, `before` was read.
pub(crate) async fn stream(
    stream: Stream,
    server: Arc<Server>,
    follower: Follower,
    place: Option<Place>,
    rest: Bytes,
    mut before: Vec<u8>,
) {
    let _counted = Counted::already(&server.connections);
    let _busy = Counted::new(&server.busy);
    match follower.wire() {
        Wire::Frames => websocket::resume(stream, before, &server, follower, place, rest).await,
        Wire::Blocks | Wire::RecordBlocks => {
            let held = eventsource::resume(&stream, &mut before, &server, follower, place, &rest);
            held.await;
        }
    }
}

/// Tells a client of a stream that this ends, in these last bytes or as a WebSocket does.
pub(crate) async fn end_stream(stream: Stream, server: Arc<Server>, last: Option<Vec<u8>>, why: Ended) {
    let _counted = Counted::already(&server.connections);
    let _busy = Counted::new(&server.busy);
    match last {
        Some(last) => {
            let _ = stream.send(&last, &server.rules().patience).await;
        }
        None => websocket::end(stream, &server, why).await,
    }
}

async fn run(stream: Stream, mut buffer: Vec<u8>, held: Option<Box<Held>>, server: Arc<Server>) {
    let counted = Counted::already(&server.connections);
    let (stream, is_new) = match stream {
        Stream::Fresh(stream, visit) => match Box::pin(greet(stream, visit, &server)).await {
            Some(stream) => (stream, true),
            None => return,
        },
        stream => (stream, false),
    };
    if is_new && read_some(&stream, &mut buffer).is_err() {
        return;
    }
    let waits = match is_new && buffer.is_empty() {
        true => Some((stream, Wants::Request { first: true })),
        false => serve_until_it_waits(stream, buffer, held, &server).await,
    };
    if let Some((stream, wants)) = waits
        && let Ok(socket) = stream.into_socket()
    {
        // It stays open.
        std::mem::forget(counted);
        server.hub.lots().park(socket, wants);
    }
}

/// Lets a new connection begin with TLS; `None` when it is of no use any more.
async fn greet(stream: TcpStream, visit: Visit, server: &Server) -> Option<Stream> {
    let tls = server.tls.as_ref()?;
    match tls.greet(stream, server.rules().patience.head).await {
        Greeting::Secured(secured) => Some(Stream::Tls(secured, visit)),
        Greeting::Plain(stream) => {
            if let Read::Refuse(bytes) = refusal(RequestError::TlsExpected) {
                refuse(&Stream::Tcp(stream, visit), &bytes, server).await;
            }
            None
        }
        Greeting::Broken => None,
    }
}

/// Serves what has come over a connection; `None` when that is of no use any more.
async fn serve_until_it_waits(
    stream: Stream,
    mut buffer: Vec<u8>,
    mut looked_for: Option<Box<Held>>,
    server: &Arc<Server>,
) -> Option<(Stream, Wants)> {
    let mut soon = None;
    loop {
        let mut held = match looked_for.take() {
            Some(held) => held,
            None if buffer.is_empty() => return Some((stream, Wants::Request { first: false })),
            None => match next_poll(&stream, &mut buffer, server).await {
                Next::Poll(request, connection) => {
                    COUNTS.requests[Way::of(&request) as usize].one();
                    Box::new(Held::new(*request, connection, server))
                }
                Next::Again => continue,
                Next::Other(None) => {
                    Box::pin(service::serve(stream, buffer, server)).await;
                    return None;
                }
                Next::Other(Some(length)) => {
                    let read = std::mem::take(&mut buffer);
                    buffer = Box::pin(service::serve_one(&stream, read, length, server)).await?;
                    if buffer.is_empty() && comes_soon(&stream, &mut soon).await {
                        read_some(&stream, &mut buffer).ok()?;
                    }
                    continue;
                }
                Next::Close => return None,
            },
        };
        let _busy = Counted::new(&server.busy);
        let (request, connection) = (&held.request, held.connection);
        let stays = match request.flavor {
            Flavor::EventSource => {
                let request = held.request;
                Box::pin(eventsource::serve(&stream, &mut buffer, server, request, connection)).await;
                return None;
            }
            Flavor::WebSocket => {
                Box::pin(websocket::serve(stream, buffer, server, held.request)).await;
                return None;
            }
            _ if request.pad.is_some() => {
                Box::pin(padded::serve(&stream, &mut buffer, server, request, &mut held.poll, connection))
                    .await
            }
            Flavor::LongPoll | Flavor::ShortPoll => match poll(&stream, &mut buffer, server, &mut held).await
            {
                Polled::Hold => {
                    held.pipelined = buffer;
                    return Some((stream, Wants::News(held)));
                }
                Polled::Answered(stays) => stays,
            },
        };
        if !stays || !stays_open(server, connection) {
            return None;
        }
    }
}

/// What a poll came to.
enum Polled {
    /// It was answered; is the connection still of use?
    Answered(bool),
    /// It is to be held.
    Hold,
}

/// Serves a poll as far as that takes a task.
async fn poll(stream: &Stream, buffer: &mut Vec<u8>, server: &Server, held: &mut Held) -> Polled {
    let Held { request, poll, connection, looked_up, .. } = held;
    let connection = *connection;
    let mut turn = long_poll::turn(server, request, poll, None, false);
    let answered = loop {
        match turn {
            Turn::Answered(answered) => break Some(answered),
            Turn::Hold(_) => return Polled::Hold,
            Turn::Miss(stand) if !*looked_up => {
                // What was read is known to the window, which then lets it be held; unless it forgets at once.
                *looked_up = true;
                turn = long_poll::look_up(server, request, poll, stand).await;
            }
            Turn::Miss(_) => {
                let closed = |context: &mut Context<'_>| stream.poll_closed(buffer, HEAD_MAX, context);
                break long_poll::answer(server, request, poll, Some(connection), closed).await;
            }
        }
    };
    match answered {
        Some(answered) => {
            let bytes = long_poll::to_bytes(server, request, connection, answered);
            Polled::Answered(stream.send(&bytes, &server.rules().patience).await.is_ok())
        }
        None => Polled::Answered(false),
    }
}

/// What a connection goes on with.
enum Next {
    /// A poll.
    Poll(Box<PollRequest>, Connection),
    /// Something that hyper serves, of so many bytes, if that is known.
    Other(Option<u64>),
    /// Another request: this one is answered, or it was none.
    Again,
    /// Nothing.
    Close,
}

/// Reads a request that has begun, and answers it if that takes no poll.
async fn next_poll(stream: &Stream, buffer: &mut Vec<u8>, server: &Server) -> Next {
    match read_request(stream, buffer, server).await {
        Read::Poll(request, connection) => Next::Poll(request, connection),
        Read::Other(length) => Next::Other(length),
        Read::Reply(bytes, connection) => match stream.send(&bytes, &server.rules().patience).await {
            Ok(()) if stays_open(server, connection) => Next::Again,
            _ => Next::Close,
        },
        Read::Refuse(bytes) => {
            Box::pin(refuse(stream, &bytes, server)).await;
            Next::Close
        }
        Read::Close => Next::Close,
    }
}

/// Whether a connection is kept behind a reply.
pub(crate) fn stays_open(server: &Server, connection: Connection) -> bool {
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
    /// Something that hyper serves, of so many bytes, if that is known.
    Other(Option<u64>),
    /// Nothing any more: the client has left.
    Close,
}

/// Reads a head that has begun, waits for the rest of it, and parses it.
async fn read_request(stream: &Stream, buffer: &mut Vec<u8>, server: &Server) -> Read {
    let deadline = Instant::now() + server.rules().patience.head;
    loop {
        match head::parse(buffer, server.rules().limits.head_max) {
            Ok(Parsed::Poll(head)) => {
                let (read, length) = (parse(&head, stream, server), head.length);
                buffer.drain(..length);
                return read;
            }
            Ok(Parsed::Other(length)) => return Read::Other(length),
            Ok(Parsed::Partial) => {}
            Err(error) => return refusal(error),
        }
        if !readable_until(deadline, stream).await {
            return refusal(head::timeout(server.rules().patience.head));
        }
        if read_some(stream, buffer).is_err() {
            return Read::Close;
        }
    }
}

fn parse(head: &PollHead<'_>, stream: &Stream, server: &Server) -> Read {
    let connection = Connection { keep_alive: head.keep_alive, http10: head.http10 };
    let (peer_is_local, peer) = stream.peer();
    let raw = RawRequest {
        method: head.method,
        target: head.target,
        headers: &head.fields,
        body: b"",
        peer_is_local,
        peer,
        may_upgrade: !head.http10,
        web_server: None,
        now: server::now(),
    };
    let sender = server.rules().limits.fronts.sender_of(&raw);
    let reply = match Request::receive(&raw, &server.rules().limits, sender) {
        Ok(Request::Poll(request)) => return Read::Poll(Box::new(request), connection),
        Ok(Request::Options { allow, form }) => Reply::options(allow, &form),
        // The front keeps only polls; the others are hyper's.
        Ok(Request::Publish(_) | Request::Script(_)) => Reply::serve_error(ServeError::Internal, 0, false),
        Err(failure) => {
            COUNTS.failure(&failure);
            let reconnect_in = || server.reconnect_in(Reconnect::ShortPoll);
            Reply::refused(&failure, &raw, &server.rules().limits, reconnect_in)
        }
    };
    Read::Reply(to_bytes(&reply, connection), connection)
}

fn refusal(error: RequestError) -> Read {
    let reply = Reply::request_error(&error, false);
    COUNTS.failure(&error.into());
    Read::Refuse(to_bytes(&reply, Connection { keep_alive: false, http10: false }))
}

/// How long a request is waited for that has not begun. Once the daemon stops, the `first` one of a connection is waited for a
/// moment; the next ones are sent by clients that know that a kept connection may close.
pub(crate) fn patience(server: &Server, first: bool, stopping: bool) -> Duration {
    match (stopping, first) {
        (true, true) => FIRST_REQUEST,
        (true, false) => Duration::ZERO,
        (false, _) if server.is_crowded() => IDLE_CROWDED.min(server.rules().patience.idle),
        (false, _) => server.rules().patience.idle,
    }
}

/// Whether another request comes soon. Publishers send one after the other, and to wait in a lot and to be a task again takes longer than
/// many of these requests. For the same reason the `timer` is kept: to put it off costs less than to set another.
async fn comes_soon(stream: &Stream, timer: &mut Option<Pin<Box<Sleep>>>) -> bool {
    let timer = match timer {
        Some(timer) => {
            timer.as_mut().reset(Instant::now() + SOON);
            timer
        }
        none => none.insert(Box::pin(sleep(SOON))),
    };
    poll_fn(|context| match stream.poll_readable(context) {
        Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
        Poll::Pending => timer.as_mut().poll(context).map(|()| false),
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

fn to_bytes(reply: &Reply, connection: Connection) -> Bytes {
    let Connection { keep_alive, http10 } = connection;
    reply.to_http1(Head { keep_alive, http10, date: &server::http_date() })
}
