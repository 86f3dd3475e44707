//! One poll, from its first read of the log to its reply, without IO.
//!
//! The caller owns sockets, log and clock. It tells [`Poll::handle`] what happened and does what comes back, until
//! that is [`Step::Reply`]. The fallback never waits: it makes its polls with [`Poll::short`].

use std::time::{Duration, Instant};

use crate::{Batch, Channels, Cursor, Flavor, Form, Page, PollRequest, Reply, ServeError, Timestamp, WaitId};

/// A poll that is being served.
#[derive(Debug)]
pub struct Poll {
    /// Where the next read of the log begins.
    cursor: Cursor,
    hold_until: Option<Instant>,
    was_held: bool,
}

/// What happened to a poll.
#[derive(Debug)]
pub enum Input<'a> {
    /// The log was read from [`Poll::cursor`] on.
    Read(&'a Page),
    /// A wake-up came, which may be for nothing.
    WokenUp,
    /// The time of [`Step::Hold`] is over.
    TimedOut,
    /// Another request of this browser is held.
    PlaceTaken,
    /// A later request of the same tab took the place.
    Replaced,
    /// The server stops.
    Draining,
    /// The log cannot be read.
    Failed(ServeError),
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Read the log from [`Poll::cursor`] on.
    ReadLog,
    /// Ask for the browser's place, and hold until then.
    Hold(Instant),
    /// Answer.
    Reply(Answer),
}

/// What a poll is answered with, before it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Events, or none, and when to come back.
    Batch {
        /// What goes out.
        batch: Batch,
        /// When to come back.
        reconnect: Reconnect,
        /// Whether the request was answered without being held.
        at_once: bool,
    },
    /// An error.
    Error(ServeError),
}

/// When a client is to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// At once.
    Now,
    /// After [`HOLDER_ELSEWHERE`](crate::HOLDER_ELSEWHERE) seconds.
    HolderElsewhere,
    /// As [`Steering::short_poll`](crate::Steering::short_poll) says.
    ShortPoll,
    /// As [`Steering::drain`](crate::Steering::drain) says.
    Drain,
}

impl Poll {
    /// A poll that may be held for as long as the client asks and `hold_max` allows.
    pub fn new(request: &PollRequest, hold_max: Duration, now: Instant) -> Self {
        let hold = request.hold.map_or(hold_max, |hold| hold.min(hold_max));
        // Without the third, hold=0 would be a long-poll that comes back at once for ever.
        let may_hold = request.flavor == Flavor::LongPoll && !request.head_only && !hold.is_zero();
        Self { cursor: request.cursor, hold_until: may_hold.then(|| now + hold), was_held: false }
    }

    /// A poll that is never held.
    pub fn short(request: &PollRequest) -> Self {
        Self { cursor: request.cursor, hold_until: None, was_held: false }
    }

    /// Where the next read of the log begins.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Takes in what happened at `now` to the poll of `wait_id` and says what to do about it.
    pub fn handle(&mut self, input: Input<'_>, wait_id: Option<&WaitId>, now: Instant) -> Step {
        match input {
            Input::Read(page) => self.read(&page.batch(wait_id), now),
            // A timeout reads the log as well: the wake-up may have been lost.
            Input::WokenUp | Input::TimedOut => Step::ReadLog,
            Input::PlaceTaken => self.nothing(Reconnect::HolderElsewhere),
            Input::Replaced => self.nothing(Reconnect::HolderElsewhere),
            Input::Draining => self.nothing(Reconnect::Drain),
            Input::Failed(error) => Step::Reply(Answer::Error(error)),
        }
    }

    fn read(&mut self, batch: &Batch, now: Instant) -> Step {
        // From here on the poll has a place in the log, even if it began with a time or with `now`: what comes
        // after this read is news, whatever the clock said.
        self.cursor = Cursor::After(batch.cursor);
        match self.hold_until {
            Some(until) if batch.is_empty() && now < until => {
                self.was_held = true;
                Step::Hold(until)
            }
            // An empty batch is a reply, too: its cursor is where the client goes on.
            Some(_) => self.answer(batch.clone(), Reconnect::Now),
            None if batch.more => self.answer(batch.clone(), Reconnect::Now),
            None => self.answer(batch.clone(), Reconnect::ShortPoll),
        }
    }

    /// Nothing new, and another delay than usual.
    fn nothing(&mut self, reconnect: Reconnect) -> Step {
        match self.cursor {
            Cursor::After(cursor) => {
                // The caller asked for the place and did not get it: the poll was not held after all.
                self.was_held &= reconnect != Reconnect::HolderElsewhere;
                self.answer(Batch::empty(cursor), reconnect)
            }
            // The log was not read yet, so there is no cursor to go on from.
            Cursor::Since(_) | Cursor::Now => Step::Reply(Answer::Error(ServeError::Draining)),
        }
    }

    fn answer(&self, batch: Batch, reconnect: Reconnect) -> Step {
        Step::Reply(Answer::Batch { batch, reconnect, at_once: !self.was_held })
    }
}

impl Answer {
    /// Writes the answer of a poll on `channels`. `reconnect_in` turns a delay into seconds; `hold` is how long the
    /// client may be held next time, in seconds; `now` stamps a gap.
    #[must_use]
    pub fn reply(
        &self,
        channels: &Channels,
        form: Form,
        hold: u32,
        now: Timestamp,
        reconnect_in: impl FnOnce(Reconnect) -> u32,
    ) -> Reply {
        match self {
            Self::Batch { batch, reconnect, at_once } => {
                Reply::batch(batch, channels, form, reconnect_in(*reconnect), *at_once, hold, now)
            }
            Self::Error(error) => {
                Reply::serve_error(*error, reconnect_in(Reconnect::ShortPoll), form.head_only)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::record;
    use crate::request::tests::poll_request;

    const HOLD_MAX: Duration = Duration::from_secs(25);

    fn start() -> Instant {
        // The only way to a first instant; the tests add to it.
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        Instant::now()
    }

    fn nothing_after(id: u64) -> Page {
        Page { next: id, ..Page::default() }
    }

    fn news(id: u64) -> Page {
        Page { records: vec![record(id, 1, None)], next: id, ..Page::default() }
    }

    fn reply(step: Step) -> (Vec<u64>, u64, Reconnect, bool) {
        match step {
            Step::Reply(Answer::Batch { batch, reconnect, at_once }) => {
                (batch.records.iter().map(|r| r.id).collect(), batch.cursor, reconnect, at_once)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn news_is_answered_at_once() {
        let now = start();
        let mut poll = Poll::new(&poll_request("/e/cheese?last_event_id=7"), HOLD_MAX, now);
        let step = poll.handle(Input::Read(&news(8)), None, now);
        assert_eq!(reply(step), (vec![8], 8, Reconnect::Now, true));
    }

    #[test]
    fn wake_up_for_nothing_keeps_the_poll_on_hold() {
        let now = start();
        let mut poll = Poll::new(&poll_request("/e/cheese?last_event_id=7&hold=10"), HOLD_MAX, now);
        let until = now + Duration::from_secs(10);
        assert_eq!(poll.handle(Input::Read(&nothing_after(7)), None, now), Step::Hold(until));
        assert_eq!(poll.handle(Input::WokenUp, None, now), Step::ReadLog);
        assert_eq!(poll.handle(Input::Read(&nothing_after(9)), None, now), Step::Hold(until));
        assert_eq!(poll.cursor(), Cursor::After(9));
        assert_eq!(poll.handle(Input::TimedOut, None, until), Step::ReadLog);
        let step = poll.handle(Input::Read(&nothing_after(12)), None, until);
        assert_eq!(reply(step), (vec![], 12, Reconnect::Now, false));
    }

    #[test]
    fn hold_is_capped_by_the_servers_own() {
        let now = start();
        let mut poll = Poll::new(&poll_request("/e/cheese?last_event_id=7&hold=9999"), HOLD_MAX, now);
        assert_eq!(poll.handle(Input::Read(&nothing_after(7)), None, now), Step::Hold(now + HOLD_MAX));
    }

    #[test]
    fn request_without_the_place_comes_back_in_five_seconds() {
        let now = start();
        let mut poll = Poll::new(&poll_request("/e/cheese/w?last_event_id=7"), HOLD_MAX, now);
        let _ = poll.handle(Input::Read(&nothing_after(7)), None, now);
        let step = poll.handle(Input::PlaceTaken, None, now);
        assert_eq!(reply(step), (vec![], 7, Reconnect::HolderElsewhere, true));
    }

    #[test]
    fn short_poll_is_never_held_and_comes_back_at_once_only_for_more() {
        let now = start();
        for target in ["/e/cheese?flavor=short-poll", "/e/cheese?hold=0"] {
            let mut poll = Poll::new(&poll_request(target), HOLD_MAX, now);
            assert!(matches!(poll.handle(Input::Read(&nothing_after(7)), None, now), Step::Reply(_)));
        }
        let mut poll = Poll::short(&poll_request("/e/cheese"));
        assert_eq!(reply(poll.handle(Input::Read(&news(8)), None, now)).2, Reconnect::ShortPoll);
        let more = Page { more: true, ..news(8) };
        assert_eq!(reply(poll.handle(Input::Read(&more), None, now)).2, Reconnect::Now);
    }
}
