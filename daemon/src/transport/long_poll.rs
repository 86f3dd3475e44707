//! Serves one poll: reads the window or the log, holds, answers.
//!
//! What is to be done is decided by [`everpoll_protocol::Poll`]; this does it. The order of a hold matters: first the
//! browser's place, then the subscription, then one more read, then the wait. Whatever comes after the subscription
//! wakes, whatever came before it is read.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll as Ready};
use std::time::Instant;

use bytes::Bytes;
use everpoll_protocol::{Answer, Cursor, Head, Input, Poll, PollRequest, Reconnect, Reply, ServeError, Step};
use tokio::time::sleep_until;

use super::Connection;
use super::hold::{Hold, Refused, look};
use crate::hub::{Waiter, Wake, lock};
use crate::metrics::{COUNTS, Way};
use crate::replies::Key;
use crate::server::{self, Server};

/// Serves a poll for hyper, which notices itself that a client left, and then drops this.
pub(crate) async fn reply(server: &Server, request: &PollRequest) -> Reply {
    let mut poll = Poll::new(request, server.longest_hold(request), Instant::now());
    match answer(server, request, &mut poll, None, |_| Ready::Pending).await {
        Some(Answered::Own(answer, _)) => make_reply(server, request, &answer),
        Some(Answered::Shared(..)) | None => Reply::serve_error(ServeError::Internal, 0, false),
    }
}

/// How a poll was answered.
pub(crate) enum Answered {
    /// The poll's own answer, and where it stood when nothing was found that another poll had made.
    Own(Answer, Option<Stand>),
    /// Bytes that another poll had made, and how many events are in them.
    Shared(Bytes, u32),
}

/// The state of the window in which a held poll was woken, and where in it the poll stood.
#[derive(Clone, Copy)]
pub(crate) struct Stand {
    generation: u64,
    cursor: u64,
}

/// What a look at the window says to a poll.
pub(crate) enum Turn {
    /// It is answered.
    Answered(Answered),
    /// It is to be held until then.
    Hold(Instant),
    /// Only the database knows.
    Miss(Option<Stand>),
}

/// The bytes that the last held poll was answered with, for the next one: thousands stand at the same place, and each that
/// finds itself there needs neither a lock nor a hash.
pub(crate) type LastReply = Option<(Key, (Bytes, u32))>;

/// The bytes that another poll has made for all who are held where this one is, and how many events are in them. Those of
/// the `last` one are good enough, even where there are newer ones by now.
pub(crate) fn shared(
    server: &Server,
    request: &PollRequest,
    poll: &Poll,
    connection: Connection,
    last: &mut LastReply,
) -> Option<(Bytes, u32)> {
    let Cursor::After(cursor) = poll.cursor() else { return None };
    if let Some((key, found)) = last
        && key.cursor == cursor
        && key.channels == request.channels
        && key.is_for(connection.while_serving(server), &request.form())
    {
        return Some(found.clone());
    }
    let generation = lock(&server.window).generation();
    let key = key(server, request, connection, cursor);
    let found = server.replies.find(&(generation, server::http_date()), &key)?;
    *last = Some((key, found.clone()));
    Some(found)
}

/// Looks whether the window has something for a poll. An answer is shared with others where a poll of a `connection` is
/// `held`.
pub(crate) fn turn(
    server: &Server,
    request: &PollRequest,
    poll: &mut Poll,
    connection: Option<Connection>,
    held: bool,
) -> Turn {
    let mut stand = None;
    if let (Some(connection), true, Cursor::After(cursor)) = (connection, held, poll.cursor()) {
        let generation = lock(&server.window).generation();
        stand = Some(Stand { generation, cursor });
        let key = key(server, request, connection, cursor);
        if let Some((bytes, events)) = server.replies.find(&(generation, server::http_date()), &key) {
            return Turn::Answered(Answered::Shared(bytes, events));
        }
    }
    loop {
        let Some(page) = look(server, request, poll.cursor(), held) else { return Turn::Miss(stand) };
        match handle(poll, Input::Read(&page), request) {
            Step::ReadLog => {}
            Step::Reply(answer) => return Turn::Answered(Answered::Own(answer, stand)),
            Step::Hold(until) => return Turn::Hold(until),
        }
    }
}

/// Serves a poll; `None` when the client left. `closed` is ready when it has. Without a `connection`, no answer is
/// shared.
///
/// Thousands of these wait at a time, so what lives across an `.await` here is kept small.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
pub(crate) fn answer(
    server: &Server,
    request: &PollRequest,
    poll: &mut Poll,
    connection: Option<Connection>,
    mut closed: impl FnMut(&mut Context<'_>) -> Ready<()>,
) -> impl Future<Output = Option<Answered>> {
    async move {
        let mut hold = None;
        loop {
            let mut turn = turn(server, request, poll, connection, hold.is_some());
            if let Turn::Miss(stand) = turn {
                // Boxed, so that a poll that is merely held has no room for it.
                turn = Box::pin(look_up(server, request, poll, stand)).await;
            }
            let until = match turn {
                Turn::Answered(answered) => return Some(answered),
                Turn::Hold(until) => until,
                Turn::Miss(_) => continue,
            };
            let input = match &hold {
                _ if server.draining() => Input::Draining,
                None => match Hold::begin(server, request) {
                    // What came before the subscription is read now.
                    Ok(begun) => {
                        // Boxed: with it, the task's memory would be of the next size.
                        hold = Some(Box::new(begun));
                        continue;
                    }
                    Err(Refused::PlaceTaken) => Input::PlaceTaken,
                    Err(Refused::Crowded) => Input::Crowded,
                },
                Some(hold) => wait(hold.waiter(), until, &mut closed).await?,
            };
            if let Step::Reply(answer) = handle(poll, input, request) {
                return Some(Answered::Own(answer, None));
            }
        }
    }
}

/// Asks the database what there is for a poll that the window could not serve; [`Turn::Miss`] when that is to be asked again.
pub(crate) async fn look_up(
    server: &Server,
    request: &PollRequest,
    poll: &mut Poll,
    stand: Option<Stand>,
) -> Turn {
    let read = server.catch_up.read(&request.channels, poll.cursor()).await;
    let input = read.as_ref().map_or_else(|error| Input::Failed(*error), |page| Input::Read(page));
    match handle(poll, input, request) {
        Step::ReadLog => Turn::Miss(stand),
        Step::Reply(answer) => Turn::Answered(Answered::Own(answer, stand)),
        Step::Hold(until) => Turn::Hold(until),
    }
}

pub(crate) fn handle(poll: &mut Poll, input: Input<'_>, request: &PollRequest) -> Step {
    poll.handle(input, request.wait_id.as_ref(), Instant::now())
}

/// Waits for whatever ends a hold; `None` when the client left.
fn wait<'a>(
    waiter: &'a Waiter,
    until: Instant,
    closed: &'a mut impl FnMut(&mut Context<'_>) -> Ready<()>,
) -> impl Future<Output = Option<Input<'static>>> + 'a {
    let mut timer = Box::pin(sleep_until(until.into()));
    // Not an `async fn`, which would keep its arguments twice.
    poll_fn(move |context| {
        if let Ready::Ready(why) = waiter.poll_woken(context) {
            return Ready::Ready(Some(match why {
                Wake::News => Input::WokenUp,
                Wake::Judged => Input::Judged,
                Wake::Replaced => Input::Replaced,
                Wake::Drain => Input::Draining,
            }));
        }
        if closed(context).is_ready() {
            return Ready::Ready(None);
        }
        timer.as_mut().poll(context).map(|()| Some(Input::TimedOut))
    })
}

pub(crate) fn make_reply(server: &Server, request: &PollRequest, answer: &Answer) -> Reply {
    count(request, answer);
    let reconnect_in = |reconnect: Reconnect| server.reconnect_in(reconnect);
    answer.reply(request, server.hold_seconds(request), server::now(), reconnect_in)
}

/// Counts what is answered.
pub(super) fn count(request: &PollRequest, answer: &Answer) {
    COUNTS.deliveries[Way::of(request) as usize].add(events(answer) as usize);
    if let Answer::Error(error) = answer {
        COUNTS.error(error.code());
    }
}

/// How many events it has.
fn events(answer: &Answer) -> u32 {
    match answer {
        Answer::Batch { batch, .. } => u32::try_from(batch.records.len()).unwrap_or(u32::MAX),
        Answer::Error(_) => 0,
    }
}

fn key(server: &Server, request: &PollRequest, connection: Connection, cursor: u64) -> Key {
    let Connection { keep_alive, http10 } = connection.while_serving(server);
    Key { channels: request.channels.clone(), cursor, form: request.form(), keep_alive, http10 }
}

/// The bytes of an answer of [`answer`], head and body.
pub(crate) fn to_bytes(
    server: &Server,
    request: &PollRequest,
    connection: Connection,
    answered: Answered,
) -> Bytes {
    match answered {
        Answered::Shared(bytes, events) => {
            COUNTS.deliveries[Way::of(request) as usize].add(events as usize);
            bytes
        }
        Answered::Own(answer, stood) => write(server, request, connection, &answer, stood),
    }
}

/// Writes a poll's own answer, and keeps it for others that stand where it `stood`.
fn write(
    server: &Server,
    request: &PollRequest,
    connection: Connection,
    answer: &Answer,
    stood: Option<Stand>,
) -> Bytes {
    let date = server::http_date();
    let Connection { keep_alive, http10 } = connection.while_serving(server);
    let bytes = make_reply(server, request, answer).to_http1(Head { keep_alive, http10, date: &date });
    if let Some(Stand { generation, cursor }) = stood
        && may_share(answer)
        && lock(&server.window).generation() == generation
    {
        let key = key(server, request, connection, cursor);
        server.replies.keep(&(generation, date), key, (bytes.clone(), events(answer)));
    }
    bytes
}

/// Only news of a hold, and only what is the same for every browser.
fn may_share(answer: &Answer) -> bool {
    match answer {
        Answer::Batch { batch, reconnect: Reconnect::Now, at_once: false, .. } => {
            batch.gap.is_none()
                && !batch.records.is_empty()
                && batch.records.iter().all(|record| record.exclude.is_none())
        }
        _ => false,
    }
}
