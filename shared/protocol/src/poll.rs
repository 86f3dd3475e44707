//! One poll, from its first read of the log to its reply, without IO.
//!
//! The caller owns sockets, log and clock. It tells [`Poll::handle`] what happened and does what comes back, until
//! that is [`Step::Reply`]. The fallback never waits: it makes its polls with [`Poll::short`].

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    Batch, Cursor, Ended, Flavor, Head, Page, PollRequest, Reply, ServeError, Stream, Timestamp, WaitId,
};

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
    /// The server holds as many as it may.
    Crowded,
    /// Who may read what was decided anew, and the client has to ask again.
    Judged,
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
        /// Where the poll stood before.
        from: Cursor,
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
    /// A poll that may be held for as long as [`Limits::longest_hold`](crate::Limits::longest_hold) says.
    pub fn new(request: &PollRequest, hold: Duration, now: Instant) -> Self {
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

    /// How long it may be held; `None` when it is not.
    pub fn hold_until(&self) -> Option<Instant> {
        self.hold_until
    }

    /// Takes in what happened at `now` to the poll of `wait_id` and says what to do about it.
    pub fn handle(&mut self, input: Input<'_>, wait_id: Option<&WaitId>, now: Instant) -> Step {
        match input {
            Input::Read(page) => self.read(&page.batch(wait_id), now),
            // A timeout reads the log as well: the wake-up may have been lost.
            Input::WokenUp | Input::TimedOut => Step::ReadLog,
            Input::PlaceTaken => self.nothing(Reconnect::HolderElsewhere),
            Input::Replaced => self.nothing(Reconnect::HolderElsewhere),
            Input::Crowded => self.nothing(Reconnect::ShortPoll),
            Input::Judged => self.nothing(Reconnect::Now),
            Input::Draining => self.nothing(Reconnect::Drain),
            Input::Failed(error) => Step::Reply(Answer::Error(error)),
        }
    }

    fn read(&mut self, batch: &Batch, now: Instant) -> Step {
        // From here on the poll has a place in the log, even if it began with a time or with `now`: what comes
        // after this read is news, whatever the clock said.
        let from = std::mem::replace(&mut self.cursor, Cursor::After(batch.cursor));
        match self.hold_until {
            Some(until) if batch.is_empty() && now < until => {
                self.was_held = true;
                Step::Hold(until)
            }
            // An empty batch is a reply, too: its cursor is where the client goes on.
            Some(_) => self.answer(batch.clone(), Reconnect::Now, from),
            None if batch.more => self.answer(batch.clone(), Reconnect::Now, from),
            None => self.answer(batch.clone(), Reconnect::ShortPoll, from),
        }
    }

    /// Nothing new, and another delay than usual.
    fn nothing(&mut self, reconnect: Reconnect) -> Step {
        match self.cursor {
            Cursor::After(cursor) => {
                // The caller asked for the place and did not get it: the poll was not held after all.
                self.was_held &= matches!(reconnect, Reconnect::Drain | Reconnect::Now);
                self.answer(Batch::empty(cursor), reconnect, self.cursor)
            }
            // The log was not read yet, so there is no cursor to go on from.
            Cursor::Since(_) | Cursor::Now => Step::Reply(Answer::Error(ServeError::Draining)),
        }
    }

    fn answer(&self, batch: Batch, reconnect: Reconnect, from: Cursor) -> Step {
        Step::Reply(Answer::Batch { batch, reconnect, at_once: !self.was_held, from })
    }
}

impl Answer {
    /// Writes the answer of a poll. `reconnect_in` turns a delay into seconds; `hold` is how long the client may be held
    /// next time, in seconds; `now` stamps a gap.
    #[must_use]
    pub fn reply(
        &self,
        request: &PollRequest,
        hold: u32,
        now: Timestamp,
        reconnect_in: impl FnOnce(Reconnect) -> u32,
    ) -> Reply {
        let form = request.form();
        if request.flavor == Flavor::EventSource {
            return self.short_stream(request, now, reconnect_in);
        }
        match self {
            Self::Batch { batch, reconnect, at_once, .. } => {
                let reconnect_in = reconnect_in(*reconnect);
                Reply::batch(batch, &request.channels, &form, reconnect_in, *at_once, hold, now)
            }
            Self::Error(error) => {
                let reconnect_in = reconnect_in(Reconnect::ShortPoll);
                Reply::serve_error(*error, reconnect_in, form.head_only).dressed(&form)
            }
        }
    }

    /// A stream that ends behind what there is: `EventSource` comes back by itself, and so short-polls.
    fn short_stream(
        &self,
        request: &PollRequest,
        now: Timestamp,
        reconnect_in: impl FnOnce(Reconnect) -> u32,
    ) -> Reply {
        let mut stream = Stream::new(request, Duration::ZERO);
        let (why, reconnect) = match self {
            Self::Batch { reconnect, .. } => (Ended::ShortPoll, *reconnect),
            // A browser gives up for good on any status but 200 (WHATWG HTML section 9.2.3), so this is no error to it.
            Self::Error(error) => (Ended::Failed(*error), Reconnect::ShortPoll),
        };
        let reconnect_in = reconnect_in(reconnect);
        let mut body = Stream::opening(request, reconnect_in * 1000);
        if let Self::Batch { batch, .. } = self {
            for record in stream.read(batch, request.cursor, now) {
                stream.wire().write(&record, &mut body);
            }
        }
        stream.wire().write(&stream.end(why, reconnect_in, now), &mut body);
        Reply::event_stream(body, &request.form())
    }

    /// The head of a padded reply, which goes out when the poll is held. What the body has room for is
    /// [`padded`](Self::padded)'s affair.
    #[must_use]
    pub fn padded_head(request: &PollRequest, head: Head<'_>) -> Option<Bytes> {
        Some(Reply::padded(request.pad?, &request.form()).open_http1(head, true))
    }

    /// The rest of a padded reply's body: exactly `room` bytes. What does not fit waits for the next poll.
    #[must_use]
    pub fn padded(
        &self,
        request: &PollRequest,
        room: usize,
        hold: u32,
        now: Timestamp,
        reconnect_in: impl Fn(Reconnect) -> u32,
    ) -> Bytes {
        let mut body = self.reply(request, hold, now, &reconnect_in).body();
        if let (true, Self::Batch { batch, from, .. }) = (body.len() > room, self) {
            // A poll that was held has read the log before, and so stands at an id.
            let after = if let Cursor::After(id) = from { *id } else { batch.cursor };
            let records: usize = batch.records.iter().map(|record| record.json.len() + 1).sum();
            let around = body.len().saturating_sub(records);
            // The other is for a gap that does not fit, because its channel's name is that long.
            let some = batch.clone().cut_to(room.saturating_sub(around), after);
            for batch in [some, Batch::empty(after)] {
                let (reconnect, from) = (Reconnect::Now, *from);
                let answer = Self::Batch { batch, reconnect, at_once: false, from };
                body = answer.reply(request, hold, now, &reconnect_in).body();
                if body.len() <= room {
                    break;
                }
            }
        }
        let mut padded = body.to_vec();
        padded.resize(room, b' ');
        padded.into()
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
            Step::Reply(Answer::Batch { batch, reconnect, at_once, .. }) => {
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
        let hold = Duration::from_secs(10);
        let mut poll = Poll::new(&poll_request("/e/cheese?last_event_id=7"), hold, now);
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
    fn hold_is_capped_by_the_servers_own_and_by_what_the_network_lets_live() {
        let limits = crate::request::tests::limits();
        let longest = |target, learned: Option<u64>| {
            limits.longest_hold(&poll_request(target), learned.map(Duration::from_secs)).as_secs()
        };
        assert_eq!(longest("/e/cheese?hold=9999", None), 25);
        assert_eq!(longest("/e/cheese?hold=9999", Some(16)), 16);
        assert_eq!(longest("/e/cheese?hold=7", Some(16)), 7);
        assert_eq!(longest("/e/cheese", None), 25);
        assert_eq!(longest("/e/cheese?pad=4096&hold=9999", Some(16)), 120);
        assert_eq!(longest("/e/cheese?pad=4096", Some(16)), 25);
    }

    #[test]
    fn padded_body_fills_its_room_and_leaves_the_rest_for_the_next_poll() {
        let request = poll_request("/e/cheese?pad=4096&envelope=1");
        let records: Vec<_> = (8..20).map(|id| record(id, 500, None)).collect();
        let batch = Batch { gap: None, records, cursor: 19, more: false };
        let (reconnect, from) = (Reconnect::Now, Cursor::After(7));
        let answer = |batch| Answer::Batch { batch, reconnect, at_once: false, from };
        let padded = |answer: Answer, room: usize| {
            let body = answer.padded(&request, room, 25, Timestamp::default(), |_| 0);
            assert_eq!(body.len(), room);
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            (json["events"].as_array().unwrap().len(), json["cursor"].as_str().unwrap().to_owned())
        };
        assert_eq!(padded(answer(batch.clone()), 10_000), (12, "19".into()));
        let (some, cursor) = padded(answer(batch.clone()), 4000);
        assert!((5..8).contains(&some), "{some}");
        assert_eq!(cursor, (7 + some).to_string());
        assert_eq!(padded(answer(batch), 200), (0, "7".into()));
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
    fn hold_ends_at_once_and_without_a_loss_when_rights_are_judged_anew() {
        let now = start();
        let mut poll = Poll::new(&poll_request("/e/cheese?last_event_id=7"), HOLD_MAX, now);
        let _ = poll.handle(Input::Read(&nothing_after(7)), None, now);
        assert_eq!(reply(poll.handle(Input::Judged, None, now)), (vec![], 7, Reconnect::Now, false));
    }

    #[test]
    fn short_poll_is_never_held_and_comes_back_at_once_only_for_more() {
        let now = start();
        for (target, hold) in [("/e/cheese?flavor=short-poll", HOLD_MAX), ("/e/cheese", Duration::ZERO)] {
            let mut poll = Poll::new(&poll_request(target), hold, now);
            assert!(matches!(poll.handle(Input::Read(&nothing_after(7)), None, now), Step::Reply(_)));
        }
        let mut poll = Poll::short(&poll_request("/e/cheese"));
        assert_eq!(reply(poll.handle(Input::Read(&news(8)), None, now)).2, Reconnect::ShortPoll);
        let more = Page { more: true, ..news(8) };
        assert_eq!(reply(poll.handle(Input::Read(&more), None, now)).2, Reconnect::Now);
    }
}
