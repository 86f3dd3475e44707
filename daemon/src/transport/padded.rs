//! Padded holds: a long-poll that sends a space every few seconds, so that no proxy on its way takes it for dead.
//!
//! The head goes out when the hold begins and says how long the body will be. What was sent cannot be taken back: from then
//! on the reply is a 200, and what does not fit into the body waits for the next poll.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll as Ready};
use std::time::Duration;

use everpoll_protocol::{Answer, Head, Poll, PollRequest, Reconnect};
use tokio::time::{Instant, Sleep, sleep};

use super::Connection;
use super::long_poll::{self, Answered};
use crate::head::HEAD_MAX;
use crate::server::{self, Server};
use crate::stream::Stream;

/// Serves a poll whose hold is padded; `false` when the connection is of no use any more.
pub(crate) async fn serve(
    stream: &Stream,
    pipelined: &mut Vec<u8>,
    server: &Server,
    request: &PollRequest,
    poll: &mut Poll,
    connection: Connection,
) -> bool {
    let Some(pad) = request.pad else { return false };
    let room = usize::try_from(pad.bytes).unwrap_or(usize::MAX);
    let mut padding = Padding { room, beat: pad.beat, timer: None };
    // Polled from the beginning of the hold on.
    let closed = |context: &mut Context<'_>| {
        if padding.poll_broken(stream, server, request, connection, context).is_ready() {
            return Ready::Ready(());
        }
        stream.poll_closed(pipelined, HEAD_MAX, context)
    };
    let answered = long_poll::answer(server, request, poll, None, closed).await;
    let answer = match answered {
        Some(Answered::Own(answer, _)) => answer,
        // Nothing is shared without a connection.
        Some(Answered::Shared(..)) | None => return false,
    };
    let bytes = if padding.timer.is_none() {
        // Answered at once, like any other poll.
        long_poll::to_bytes(server, request, connection, Answered::Own(answer, None))
    } else {
        long_poll::count(request, &answer);
        let reconnect_in = |reconnect: Reconnect| server.reconnect_in(reconnect);
        let hold = server.hold_seconds(request);
        answer.padded(request, padding.room, hold, server::now(), reconnect_in)
    };
    stream.send(&bytes, &server.rules().patience).await.is_ok()
}

/// What of a padded reply was sent while it is held.
struct Padding {
    /// The bytes of the body that are still to come.
    room: usize,
    beat: Duration,
    /// Runs from when the head was sent.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What the answer itself is left at least: an empty one with a long cursor, and an error.
const ANSWER_ROOM: usize = 512;

impl Padding {
    /// Sends what is due; ready when the client does not take it.
    fn poll_broken(
        &mut self,
        stream: &Stream,
        server: &Server,
        request: &PollRequest,
        connection: Connection,
        context: &mut Context<'_>,
    ) -> Ready<()> {
        let timer = match &mut self.timer {
            Some(timer) => timer,
            None => {
                let Connection { keep_alive, http10 } = connection.while_serving(server);
                let head = Head { keep_alive, http10, date: &server::http_date() };
                let sent = Answer::padded_head(request, head).is_some_and(|head| takes(stream, &head));
                if !sent {
                    return Ready::Ready(());
                }
                self.timer.insert(Box::pin(sleep(self.beat)))
            }
        };
        while timer.as_mut().poll(context).is_ready() {
            timer.as_mut().reset(Instant::now() + self.beat);
            if self.room > ANSWER_ROOM {
                if !takes(stream, b" ") {
                    return Ready::Ready(());
                }
                self.room -= 1;
            }
        }
        Ready::Pending
    }
}

/// Whether the socket takes a few bytes at once. One that does not is full of what its client has left unread.
fn takes(stream: &Stream, bytes: &[u8]) -> bool {
    matches!(stream.write_now(bytes), Ok(written) if written == bytes.len())
}
