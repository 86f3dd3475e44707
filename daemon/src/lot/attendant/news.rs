//! The news of a channel, brought to all of a lot who wait for it.
//!
//! With thousands of them, whatever is done between two writes makes the last one wait: a microsecond each is 15 ms. So before
//! its write, one gets only what it cannot do without: the bytes, which are mostly those of the one before, and the end of its
//! browser's place, since its next poll may come at once, and through another lot. What else a hold had is cleared up behind
//! the last write.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use everpoll_protocol::Channel;

use super::{Attendant, Held, Holding, Parked, State, What};
use crate::hub::{Wake, lock};
use crate::metrics::{COUNTS, Way};
use crate::seats::Seats;
use crate::server::Server;
use crate::transport::feed::LastWritten;
use crate::transport::long_poll::{self, LastReply};

/// To how many the same bytes are brought before it is seen whether there are newer ones.
const FRESH: usize = 64;

/// What the one before was brought.
#[derive(Default)]
struct Last {
    reply: LastReply,
    written: LastWritten,
}

/// What became of one to whom news was brought.
enum Brought {
    /// It was answered, and what its hold had is still to be cleared up.
    Answered,
    /// That is all.
    Done,
}

impl Attendant {
    /// Brings the news of a channel to all who wait for it here.
    pub(super) fn news(&mut self, server: &Arc<Server>, channel: &Channel) {
        let members = lock(&self.lot.topics).members(channel);
        let mut answered = Vec::new();
        for some in members.chunks(FRESH) {
            let mut last = Last::default();
            for member in some {
                // Each answer may be the end of others: of the same browser, for example.
                if self.is_held(member.ticket)
                    && let Brought::Answered = self.bring(server, member.ticket.entry, &mut last)
                {
                    answered.push(member.ticket.entry);
                }
            }
        }
        // Who stands last leaves without anybody else having to move.
        for entry in answered.into_iter().rev() {
            if let Some(What::Poll(Held { connection, pipelined, .. })) = self.leave(server, entry) {
                self.go_on(server, entry, connection, pipelined);
            }
        }
    }

    fn bring(&mut self, server: &Arc<Server>, entry: u32, last: &mut Last) -> Brought {
        let Some(Parked { socket, state: State::Held(holding), .. }) = self.parked(entry) else {
            return Brought::Done;
        };
        let Holding { what, seat, .. } = &mut **holding;
        let What::Poll(held) = what else {
            self.write_news(server, entry, Bytes::new(), &mut last.written);
            return Brought::Done;
        };
        let Some((bytes, events)) =
            long_poll::shared(server, &held.request, &held.poll, held.connection, &mut last.reply)
        else {
            self.woken(server, entry, Wake::News);
            return Brought::Done;
        };
        COUNTS.deliveries[Way::of(&held.request) as usize].add(events as usize);
        if let Some(place) = seat.take() {
            Seats::give_back(&server.seats, &place);
        }
        let written = match socket.write(&bytes) {
            Ok(written) if written == bytes.len() => return Brought::Answered,
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.close(server, entry);
                return Brought::Done;
            }
        };
        if let Some(What::Poll(Held { connection, pipelined, .. })) = self.leave(server, entry) {
            self.write_rest(server, entry, bytes, written, connection, pipelined);
        }
        Brought::Done
    }
}
