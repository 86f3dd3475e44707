//! A stream as `EventSource` reads it (WHATWG HTML section 9.2).

use std::task::Context;

use bytes::Bytes;
use everpoll_protocol::{Ended, Head, PollRequest, Reconnect, Stream as Events};

use super::Connection;
use super::feed::{Feed, Next};
use crate::head::HEAD_MAX;
use crate::server::{self, Server};
use crate::stream::Stream;

/// A line that is neither an event nor the end of one: some readers take an empty line for an event without data.
const HEARTBEAT: &[u8] = b":\n";

/// Milliseconds after which a browser comes back when the stream breaks: from 1 to 3 s, or all that one restart threw out
/// would come at once.
const RETRY: std::ops::Range<u32> = 1000..3000;

/// Serves a stream until one of the two ends it. The connection is of no use after that.
pub(crate) async fn serve(
    stream: &Stream,
    pipelined: &mut Vec<u8>,
    server: &Server,
    request: &PollRequest,
    connection: Connection,
) {
    // In this order: who has seen the head misses nothing that is published from now on.
    let mut feed = Feed::begin(server, request);
    let head = Head { keep_alive: false, http10: connection.http10, date: &server::http_date() };
    let retry = RETRY.start + server.random() % (RETRY.end - RETRY.start);
    if send(stream, server, &Events::head(request, head, retry)).await.is_err() {
        return;
    }
    loop {
        let closed = |context: &mut Context<'_>| stream.poll_closed(pipelined, HEAD_MAX, context);
        let written = match feed.next(closed).await {
            Next::Write(written) => send_all(stream, server, &written.parts).await,
            Next::Heartbeat(None) => send(stream, server, HEARTBEAT).await,
            Next::Heartbeat(Some(record)) => send(stream, server, &feed.written(&record)).await,
            Next::End(why) => return end(stream, server, &feed, why).await,
            Next::Closed => return,
        };
        // Also when the client takes nothing: it comes back with its cursor when it can.
        if written.is_err() {
            return;
        }
    }
}

async fn end(stream: &Stream, server: &Server, feed: &Feed<'_>, why: Ended) {
    let reconnect_in = server.reconnect_in(match why {
        Ended::Draining => Reconnect::Drain,
        Ended::PlaceTaken | Ended::Replaced => Reconnect::HolderElsewhere,
        Ended::ShortPoll | Ended::Failed(_) => Reconnect::ShortPoll,
    });
    let mut last = Vec::new();
    // A browser keeps it for all later breaks of the connection, so it is never 0.
    feed.wire().write_retry(reconnect_in.max(1) * 1000, &mut last);
    last.extend(feed.written(&feed.end(why, reconnect_in)));
    let _ = send(stream, server, &last).await;
}

async fn send_all(stream: &Stream, server: &Server, parts: &[Bytes]) -> std::io::Result<()> {
    for part in parts {
        send(stream, server, part).await?;
    }
    Ok(())
}

async fn send(stream: &Stream, server: &Server, bytes: &[u8]) -> std::io::Result<()> {
    stream.send(bytes, &server.patience).await
}
