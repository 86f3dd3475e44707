//! A stream as `EventSource` reads it (WHATWG HTML section 9.2).

use std::task::Context;

use bytes::Bytes;
use everpoll_protocol::{Ended, Head, Place, PollRequest, Reconnect, Stream as Events};

use super::Connection;
use super::feed::{Feed, Follower, Next};
use crate::head::HEAD_MAX;
use crate::server::{self, Server};
use crate::stream::Stream;

/// A line that is neither an event nor the end of one: some readers take an empty line for an event without data.
pub(crate) const HEARTBEAT: &[u8] = b":\n";

/// Milliseconds after which a browser comes back when the stream breaks: from 1 to 3 s, or all that one restart threw out
/// would come at once.
const RETRY: std::ops::Range<u32> = 1000..3000;

/// Serves a stream until one of the two ends it. The connection is of no use after that.
pub(crate) async fn serve(
    stream: &Stream,
    pipelined: &mut Vec<u8>,
    server: &Server,
    request: PollRequest,
    connection: Connection,
) {
    let head = head(server, &request, connection);
    // In this order: who has seen the head misses nothing that is published from now on.
    let feed = Feed::begin(server, request);
    if send(stream, server, &head).await.is_ok() {
        follow(stream, pipelined, server, feed).await;
    }
}

/// What a stream begins with.
pub(crate) fn head(server: &Server, request: &PollRequest, connection: Connection) -> Bytes {
    let head = Head { keep_alive: false, http10: connection.http10, date: &server::http_date() };
    let retry = RETRY.start + server.random() % (RETRY.end - RETRY.start);
    Events::head(request, head, retry)
}

/// Goes on with a stream that has waited in a lot, and had this place. `rest` is still to be sent.
pub(crate) async fn resume(
    stream: &Stream,
    pipelined: &mut Vec<u8>,
    server: &Server,
    follower: Follower,
    place: Option<Place>,
    rest: &Bytes,
) {
    let feed = Feed::resume(server, follower, place);
    if stream.send_rest(rest, &mut 0, &server.rules().patience).await.is_ok() {
        follow(stream, pipelined, server, feed).await;
    }
}

async fn follow(stream: &Stream, pipelined: &mut Vec<u8>, server: &Server, mut feed: Feed<'_>) {
    loop {
        let closed = |context: &mut Context<'_>| stream.poll_closed(pipelined, HEAD_MAX, context);
        let written = match feed.next(closed).await {
            Next::Write(written) => send(stream, server, &written.bytes).await,
            Next::Heartbeat(None) => send(stream, server, HEARTBEAT).await,
            Next::Heartbeat(Some(record)) => send(stream, server, &feed.follower().written(&record)).await,
            Next::End(why) => {
                let _ = send(stream, server, &last(server, feed.follower(), why)).await;
                return;
            }
            Next::Closed => return,
        };
        // Also when the client takes nothing: it comes back with its cursor when it can.
        if written.is_err() {
            return;
        }
    }
}

/// What a stream ends with.
pub(crate) fn last(server: &Server, follower: &Follower, why: Ended) -> Vec<u8> {
    let reconnect_in = server.reconnect_in(match why {
        Ended::Draining => Reconnect::Drain,
        Ended::PlaceTaken | Ended::Replaced => Reconnect::HolderElsewhere,
        Ended::ShortPoll | Ended::Failed(_) => Reconnect::ShortPoll,
        Ended::Expired => Reconnect::Now,
    });
    let mut last = Vec::new();
    // A browser keeps it for all later breaks of the connection, so it is never 0.
    follower.wire().write_retry(reconnect_in.max(1) * 1000, &mut last);
    last.extend(follower.written(&follower.end(why, reconnect_in)));
    last
}

async fn send(stream: &Stream, server: &Server, bytes: &[u8]) -> std::io::Result<()> {
    stream.send(bytes, &server.rules().patience).await
}
