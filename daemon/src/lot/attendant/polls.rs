//! Long-polls in a lot: how one is held, and how it is answered.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use everpoll_protocol::{Ended, Input, Step};

use super::{Attendant, Parked, State, What};
use crate::front;
use crate::hub::{Sleeper, Wake, lock};
use crate::lot::{Held, Ticket};
use crate::metrics::{COUNTS, Way};
use crate::seats::Seats;
use crate::server::Server;
use crate::transport::Connection;
use crate::transport::long_poll::{self, Answered, Turn};

impl Attendant {
    /// Serves a poll that has just been read.
    pub(super) fn begin(&mut self, server: &Arc<Server>, entry: u32, mut held: Held) {
        COUNTS.requests[Way::of(&held.request) as usize].one();
        match long_poll::turn(server, &held.request, &mut held.poll, None, false) {
            Turn::Answered(answered) => self.answer(server, entry, held, answered),
            Turn::Hold(until) => self.hold(server, entry, held, until),
            Turn::Miss(_) => self.look_up(server, entry, held),
        }
    }

    /// Lets the poll wait for news.
    pub(super) fn hold(&mut self, server: &Arc<Server>, entry: u32, mut held: Held, until: Instant) {
        lock(&self.lot.topics).share(&mut held.request.channels);
        let ticket = Ticket { entry, hold: self.entries[entry as usize].holds };
        let visit = match server.draining() {
            true => Err(Input::Draining),
            false => server.may_hold(&held.request).ok_or(Input::Crowded),
        };
        let admitted = visit.and_then(|visit| {
            let Some(wait_id) = &held.request.wait_id else { return Ok((None, visit)) };
            let sleeper = Sleeper::Parked(self.lot.clone(), ticket);
            let place = Seats::take(&server.seats, wait_id, held.request.tab.as_ref(), sleeper);
            Ok((Some(place.ok_or(Input::PlaceTaken)?), visit))
        });
        let (seat, visit) = match admitted {
            Ok(admitted) => admitted,
            Err(input) => {
                if let Step::Reply(answer) = long_poll::handle(&mut held.poll, input, &held.request) {
                    self.answer(server, entry, held, Answered::Own(answer, None));
                }
                return;
            }
        };
        let judged = held.request.judged;
        self.enter(server, entry, What::Poll(held), seat, visit);
        self.wake_at(entry, until);
        // What came before the entry is read now.
        self.woken(server, entry, server.first_wake(judged));
    }

    /// Something may have happened for one who is held.
    pub(super) fn woken(&mut self, server: &Arc<Server>, entry: u32, why: Wake) {
        let Some(Parked { state: State::Held(holding), .. }) = self.parked(entry) else { return };
        let Held { request, poll, connection, .. } = match &mut holding.what {
            What::Poll(held) => held,
            What::Stream(_) => {
                return match why {
                    Wake::News => self.write_news(server, entry, Bytes::new(), &mut None),
                    Wake::Judged => self.end_stream(server, entry, Ended::Expired),
                    Wake::Replaced => self.end_stream(server, entry, Ended::Replaced),
                    Wake::Drain => self.end_stream(server, entry, Ended::Draining),
                };
            }
        };
        let input = match why {
            Wake::News => match long_poll::turn(server, request, poll, Some(*connection), true) {
                Turn::Answered(answered) => return self.end(server, entry, answered),
                Turn::Hold(_) => return,
                Turn::Miss(_) => {
                    let Some(What::Poll(held)) = self.leave(server, entry) else { return };
                    return self.look_up(server, entry, held);
                }
            },
            Wake::Judged => Input::Judged,
            Wake::Replaced => Input::Replaced,
            Wake::Drain => Input::Draining,
        };
        if let Step::Reply(answer) = long_poll::handle(poll, input, request) {
            self.end(server, entry, Answered::Own(answer, None));
        }
    }

    /// Ends a hold with an answer.
    fn end(&mut self, server: &Arc<Server>, entry: u32, answered: Answered) {
        if let Some(What::Poll(held)) = self.leave(server, entry) {
            self.answer(server, entry, held, answered);
        }
    }

    /// Writes an answer; what the socket does not take at once is a task's affair.
    fn answer(&mut self, server: &Arc<Server>, entry: u32, held: Held, answered: Answered) {
        let Held { request, connection, pipelined, .. } = held;
        let bytes = long_poll::to_bytes(server, &request, connection, answered);
        self.write(server, entry, bytes, connection, pipelined);
    }

    /// Writes a reply, and goes on with the connection.
    pub(super) fn write(
        &mut self,
        server: &Arc<Server>,
        entry: u32,
        bytes: Bytes,
        connection: Connection,
        pipelined: Vec<u8>,
    ) {
        let Some(parked) = self.parked(entry) else { return };
        match parked.socket.write(&bytes) {
            Ok(written) if written == bytes.len() => {}
            Ok(written) => return self.write_rest(server, entry, bytes, written, connection, pipelined),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return self.write_rest(server, entry, bytes, 0, connection, pipelined);
            }
            Err(_) => return self.close(server, entry),
        }
        self.go_on(server, entry, connection, pipelined);
    }

    /// Goes on with a connection whose poll was answered.
    pub(super) fn go_on(
        &mut self,
        server: &Arc<Server>,
        entry: u32,
        connection: Connection,
        pipelined: Vec<u8>,
    ) {
        if !front::stays_open(server, connection) {
            self.close(server, entry);
        } else if pipelined.is_empty() {
            if let Some(parked) = self.parked(entry) {
                parked.state = State::Idle { first: false };
            }
            self.wait_for_request(server, entry);
        } else {
            self.hand_over(server, entry, pipelined);
        }
    }

    pub(super) fn write_rest(
        &mut self,
        server: &Arc<Server>,
        entry: u32,
        bytes: Bytes,
        written: usize,
        connection: Connection,
        pipelined: Vec<u8>,
    ) {
        let Some(stream) = self.take(server, entry) else { return };
        tokio::spawn(front::finish(stream, server.clone(), bytes, written, connection, pipelined));
    }

    /// Lets a task ask the database for a poll.
    pub(super) fn look_up(&mut self, server: &Arc<Server>, entry: u32, held: Held) {
        let Some(stream) = self.take(server, entry) else { return };
        tokio::spawn(front::look_up(stream, server.clone(), Box::new(held)));
    }
}
