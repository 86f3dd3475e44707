//! Serves one poll: reads the window or the log, holds, answers.
//!
//! What is to be done is decided by [`everpoll_protocol::Poll`]; this does it. The order of a hold matters: first the
//! browser's place, then the subscription, then one more read, then the wait. Whatever comes after the subscription
//! wakes, whatever came before it is read.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll as Ready};
use std::time::Instant;

use bytes::Bytes;
use everpoll_protocol::{
    Answer, Cursor, Head, Input, Page, Poll, PollRequest, Reconnect, Reply, ServeError, Step,
};
use tokio::time::sleep_until;

use crate::hub::{Subscription, Waiter, Wake, lock};
use crate::replies::Key;
use crate::seats::Seats;
use crate::server::{self, Server};
use crate::window::Look;

/// What an HTTP/1 edge needs to know to write the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) keep_alive: bool,
    pub(crate) http10: bool,
}

/// How a poll ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// With these bytes, head and body.
    Bytes(Bytes),
    /// The client left.
    Gone,
}

/// Serves a poll of a connection of our own HTTP/1 front. `closed` is ready when the client has left.
pub(crate) async fn serve(
    server: &Server,
    request: PollRequest,
    connection: Connection,
    closed: impl FnMut(&mut Context<'_>) -> Ready<()>,
) -> Outcome {
    let mut sharing = Sharing { connection, key: None };
    match answer(server, &request, closed, Some(&mut sharing)).await {
        None => Outcome::Gone,
        Some(Answered::Shared(bytes)) => Outcome::Bytes(bytes),
        Some(Answered::Own(answer)) => Outcome::Bytes(sharing.write(server, &request, &answer)),
    }
}

/// Serves a poll for hyper, which notices itself that a client left, and then drops this.
pub(crate) async fn reply(server: &Server, request: &PollRequest) -> Reply {
    match answer(server, request, |_| Ready::Pending, None).await {
        Some(Answered::Own(answer)) => make_reply(server, request, &answer),
        Some(Answered::Shared(_)) | None => Reply::serve_error(ServeError::Internal, 0, false),
    }
}

enum Answered {
    Own(Answer),
    Shared(Bytes),
}

async fn answer(
    server: &Server,
    request: &PollRequest,
    mut closed: impl FnMut(&mut Context<'_>) -> Ready<()>,
    mut sharing: Option<&mut Sharing>,
) -> Option<Answered> {
    let mut poll = Poll::new(request, server.limits.hold_max, Instant::now());
    let mut hold = None;
    let mut step = Step::ReadLog;
    loop {
        step = match step {
            Step::ReadLog => {
                if let (Some(sharing), Some(_), Cursor::After(cursor)) = (&mut sharing, &hold, poll.cursor())
                    && let Some(bytes) = sharing.find(server, request, cursor)
                {
                    return Some(Answered::Shared(bytes));
                }
                let now = Instant::now();
                let wait_id = request.wait_id.as_ref();
                match read(server, request, poll.cursor()).await {
                    Ok(page) => poll.handle(Input::Read(&page), wait_id, now),
                    Err(error) => poll.handle(Input::Failed(error), wait_id, now),
                }
            }
            Step::Hold(_) if server.draining() => handle(&mut poll, Input::Draining, request),
            Step::Hold(until) => match &hold {
                None => match Hold::begin(server, request) {
                    // What came before the subscription is read now.
                    Some(begun) => {
                        hold = Some(begun);
                        Step::ReadLog
                    }
                    None => handle(&mut poll, Input::PlaceTaken, request),
                },
                Some(Hold { subscription, .. }) => {
                    let input = wait(subscription.waiter(), until, &mut closed).await?;
                    handle(&mut poll, input, request)
                }
            },
            Step::Reply(answer) => return Some(Answered::Own(answer)),
        };
    }
}

fn handle(poll: &mut Poll, input: Input<'_>, request: &PollRequest) -> Step {
    poll.handle(input, request.wait_id.as_ref(), Instant::now())
}

/// What a poll has while it is held; dropping it gives all of it back.
struct Hold<'a> {
    subscription: Subscription,
    _seat: Option<crate::seats::Seat<'a>>,
}

impl<'a> Hold<'a> {
    /// `None` when another request of this browser is held.
    fn begin(server: &'a Server, request: &PollRequest) -> Option<Self> {
        let waiter: Arc<Waiter> = Arc::default();
        let seat = match &request.wait_id {
            Some(wait_id) => Some(Seats::claim(&server.seats, wait_id, request.tab.as_ref(), &waiter)?),
            None => None,
        };
        Some(Self { subscription: server.hub.subscribe(&request.channels, waiter), _seat: seat })
    }
}

/// Waits for whatever ends a hold; `None` when the client left.
async fn wait(
    waiter: &Waiter,
    until: Instant,
    closed: &mut impl FnMut(&mut Context<'_>) -> Ready<()>,
) -> Option<Input<'static>> {
    let mut timer = std::pin::pin!(sleep_until(until.into()));
    poll_fn(|context| {
        if let Ready::Ready(why) = waiter.poll_woken(context) {
            return Ready::Ready(Some(match why {
                Wake::News => Input::WokenUp,
                Wake::Replaced => Input::Replaced,
                Wake::Drain => Input::Draining,
            }));
        }
        if closed(context).is_ready() {
            return Ready::Ready(None);
        }
        timer.as_mut().poll(context).map(|()| Some(Input::TimedOut))
    })
    .await
}

/// What there is after `cursor`: from memory, or, where that does not reach, from the database.
async fn read(server: &Server, request: &PollRequest, cursor: Cursor) -> Result<Arc<Page>, ServeError> {
    // The lock must be gone before anything is waited for.
    let look = lock(&server.window).look(&request.channels, cursor);
    match look {
        Look::Found(page) => Ok(Arc::new(page)),
        // Boxed, so that a poll that is merely held has no room for it.
        Look::Miss => Box::pin(server.catch_up.read(&request.channels, cursor)).await,
    }
}

fn make_reply(server: &Server, request: &PollRequest, answer: &Answer) -> Reply {
    let reconnect_in = |reconnect: Reconnect| server.reconnect_in(reconnect);
    answer.reply(&request.channels, request.form(), server.hold_seconds(), server::now(), reconnect_in)
}

/// Lets a held poll use the bytes that another one has made.
struct Sharing {
    connection: Connection,
    /// For which state of the window nothing was found, so that what is made then is kept.
    key: Option<(u64, Key)>,
}

impl Sharing {
    fn find(&mut self, server: &Server, request: &PollRequest, cursor: u64) -> Option<Bytes> {
        let generation = lock(&server.window).generation();
        let Connection { keep_alive, http10 } = self.connection(server);
        let channels = request.channels.clone();
        let key = Key { channels, cursor, form: request.form(), keep_alive, http10 };
        let found = server.replies.find(generation, &server::http_date(), &key);
        self.key = Some((generation, key));
        found
    }

    fn write(self, server: &Server, request: &PollRequest, answer: &Answer) -> Bytes {
        let date = server::http_date();
        let Connection { keep_alive, http10 } = self.connection(server);
        let head = Head { keep_alive, http10, date: &date };
        let bytes = make_reply(server, request, answer).to_http1(head);
        if let (Some((generation, key)), true) = (self.key, may_share(answer))
            && lock(&server.window).generation() == generation
        {
            server.replies.keep(generation, &date, key, bytes.clone());
        }
        bytes
    }

    /// While the daemon drains, connections are closed behind their reply.
    fn connection(&self, server: &Server) -> Connection {
        Connection { keep_alive: self.connection.keep_alive && !server.draining(), ..self.connection }
    }
}

/// Only news of a hold, and only what is the same for every browser.
fn may_share(answer: &Answer) -> bool {
    match answer {
        Answer::Batch { batch, reconnect: Reconnect::Now, at_once: false } => {
            batch.gap.is_none()
                && !batch.records.is_empty()
                && batch.records.iter().all(|record| record.exclude.is_none())
        }
        _ => false,
    }
}
