//! A stream in WebSocket frames (RFC 6455).
//!
//! Frames are read and written by `tungstenite`. What a client sends is of no interest but as a sign of life; so it may be
//! small only.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use everpoll_protocol::{AFTER_STALE_ACCESS, Ended, Place, PollRequest, Reconnect, ServeError};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::feed::{Feed, Follower, Next};
use super::frame;
use crate::metrics::{COUNTS, Limit};
use crate::server::{self, Server};
use crate::stream::{Rewound, Stream};

/// Largest message of a client, in bytes.
const MESSAGE_MAX: usize = 4096;

/// What is written before it is looked whether the client takes it, in bytes.
const WRITE_AHEAD: usize = 64 * 1024;

/// How long a client may take to answer that the WebSocket is closed.
const CLOSING: Duration = Duration::from_secs(2);

type Socket = WebSocketStream<Rewound<Stream>>;

/// Serves a WebSocket until one of the two ends it.
pub(crate) async fn serve(stream: Stream, before: Vec<u8>, server: &Server, request: PollRequest) {
    let Some(head) = head(&request) else { return };
    if request.came_too_early() {
        if stream.send(head.as_bytes(), &server.rules().patience).await.is_ok() {
            let mut socket = socket(stream, before, server).await;
            finish(&mut socket, stale()).await;
        }
        return;
    }
    // In this order: who has seen the head misses nothing that is published from now on.
    let mut feed = Feed::begin(server, request);
    if stream.send(head.as_bytes(), &server.rules().patience).await.is_ok() {
        run(stream, before, server, &mut feed).await;
    }
}

/// What a WebSocket begins with; `None` when none is wanted.
pub(crate) fn head(request: &PollRequest) -> Option<String> {
    let key = request.websocket_key.as_ref()?;
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nDate: {}\r\n\r\n",
        derive_accept_key(&key[..]),
        server::http_date()
    ))
}

/// Goes on with a stream that has waited in a lot, and had this place. Of what it was to send, `rest` is not sent.
pub(crate) async fn resume(
    stream: Stream,
    before: Vec<u8>,
    server: &Server,
    follower: Follower,
    place: Option<Place>,
    rest: Bytes,
) {
    let mut feed = Feed::resume(server, follower, place);
    let mut sent = 0;
    match stream.send_rest(&rest, &mut sent, &server.rules().patience).await {
        Ok(()) => run(stream, before, server, &mut feed).await,
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            // Behind the frame that is half sent.
            let mut frame = rest[sent..].to_vec();
            let reason = b"\x03\xf5resume from your cursor";
            frame::write(8, reason, &mut frame);
            let _ = timeout(CLOSING, stream.send(&frame, &server.rules().patience)).await;
        }
        Err(_) => {}
    }
}

/// Ends a stream that has waited in a lot.
pub(crate) async fn end(stream: Stream, server: &Server, why: Ended) {
    let mut socket = socket(stream, Vec::new(), server).await;
    finish(&mut socket, farewell(server, why)).await;
}

async fn run(stream: Stream, before: Vec<u8>, server: &Server, feed: &mut Feed<'_>) {
    let mut socket = socket(stream, before, server).await;
    if let Some(close) = follow(&mut socket, server, feed).await {
        finish(&mut socket, close).await;
    }
}

async fn socket(stream: Stream, before: Vec<u8>, server: &Server) -> Box<Socket> {
    // Of a connection that has just come to its task the reactor does not know yet that it takes something, and an answer that
    // is not written at once is lost where the client has closed.
    let _ = timeout(server.rules().patience.write, stream.writable()).await;
    let config = WebSocketConfig::default()
        // Kept while the socket is idle. Clients send next to nothing.
        .read_buffer_size(256)
        .write_buffer_size(WRITE_AHEAD)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let stream = Rewound::new(before, stream, None);
    Box::new(WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await)
}

/// How long a client may leave a ping unanswered: two heartbeats, less a little, since the timer that looks is not exact.
pub(crate) fn silence_max(server: &Server) -> Duration {
    2 * server.rules().limits.heartbeat - server.rules().limits.heartbeat / 4
}

/// Writes events until something ends it; `None` when nobody is there any more who could be told why.
async fn follow(socket: &mut Socket, server: &Server, feed: &mut Feed<'_>) -> Option<CloseFrame> {
    let silence_max = silence_max(server);
    // Since when a ping is unanswered. Not since when nothing was heard: while there are events, no ping is sent.
    let mut asked: Option<Instant> = None;
    loop {
        let mut broken = None;
        let closed = |context: &mut Context<'_>| {
            loop {
                match socket.poll_next_unpin(context) {
                    Poll::Ready(Some(Ok(_))) => asked = None,
                    Poll::Ready(Some(Err(error))) => {
                        broken = complaint(&error);
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        };
        let next = feed.next(closed).await;
        let parts = match next {
            Next::Write(written) => written.parts.clone(),
            Next::Heartbeat(record) => {
                if asked.is_some_and(|asked| asked.elapsed() >= silence_max) {
                    return None;
                }
                asked.get_or_insert_with(Instant::now);
                if send(socket, server, [Message::Ping(Bytes::new())]).await.is_err() {
                    return None;
                }
                record.into_iter().map(|record| feed.follower().written(&record).into()).collect()
            }
            Next::End(why) => return Some(farewell(server, why)),
            Next::Closed => return broken,
        };
        match send(socket, server, parts.into_iter().filter_map(text)).await {
            Ok(()) => {}
            Err(Unsent::Slow) => return Some(close(CloseCode::Again, "resume from your cursor")),
            Err(Unsent::Gone) => return None,
        }
    }
}

/// Why something was not sent.
enum Unsent {
    /// The client takes nothing.
    Slow,
    /// There is no client any more.
    Gone,
}

/// Sends messages, as fast as the client takes them.
async fn send(
    socket: &mut Socket,
    server: &Server,
    messages: impl IntoIterator<Item = Message>,
) -> Result<(), Unsent> {
    let mut ahead = 0;
    for message in messages {
        ahead += message.len();
        // Into the buffer, which is larger than what is fed at a time, unless that is a single large event.
        in_time(server, socket.feed(message)).await?;
        if ahead >= WRITE_AHEAD {
            in_time(server, socket.flush()).await?;
            ahead = 0;
        }
    }
    in_time(server, socket.flush()).await
}

async fn in_time(server: &Server, sent: impl Future<Output = Result<(), Error>>) -> Result<(), Unsent> {
    match timeout(server.rules().patience.write, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Unsent::Gone),
        Err(_) => {
            COUNTS.hit(Limit::WriteTime);
            Err(Unsent::Slow)
        }
    }
}

fn text(part: Bytes) -> Option<Message> {
    // The protocol's JSON is ASCII.
    Utf8Bytes::try_from(part).ok().map(Message::Text)
}

/// What is said to a client that broke the rules; `None` when it is merely gone.
fn complaint(error: &Error) -> Option<CloseFrame> {
    match error {
        Error::Capacity(_) => {
            let reason = format!("a client's message may have {MESSAGE_MAX} bytes; none is read");
            Some(close(CloseCode::Size, &reason))
        }
        Error::Utf8(_) => Some(close(CloseCode::Invalid, "text is not UTF-8")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(close(CloseCode::Protocol, "frame is not as RFC 6455 has it")),
        _ => None,
    }
}

fn farewell(server: &Server, why: Ended) -> CloseFrame {
    let (code, reconnect) = match why {
        Ended::Draining => (CloseCode::Away, Reconnect::Drain),
        Ended::Expired => (CloseCode::Again, Reconnect::Now),
        _ => (CloseCode::Again, Reconnect::ShortPoll),
    };
    let reconnect_in = server.reconnect_in(reconnect);
    match why {
        Ended::Draining => close(code, &format!("reconnect_in={reconnect_in}")),
        _ => close(code, &format!("reconnect_in={reconnect_in} {}", why.reason())),
    }
}

/// The web server in front is soon to ask again.
fn stale() -> CloseFrame {
    let error = ServeError::AccessStale;
    COUNTS.failure(&error.into());
    close(CloseCode::Again, &format!("reconnect_in={AFTER_STALE_ACCESS} {}", error.code()))
}

fn close(code: CloseCode, reason: &str) -> CloseFrame {
    CloseFrame { code, reason: reason.to_owned().into() }
}

/// Says why, and waits a moment for the client to have read it.
async fn finish(socket: &mut Socket, close: CloseFrame) {
    let handshake = async {
        if socket.close(Some(close)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    let _ = timeout(CLOSING, handshake).await;
}
