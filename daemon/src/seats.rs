//! Of one browser one request is held: the daemon's side of [`Places`].
//!
//! The rule itself is the protocol's. Here stands what it cannot know: how to wake the request that lost its place.

use std::collections::HashMap;
use std::sync::Mutex;

use everpoll_protocol::{Claim, Place, Places, Tab, WaitId};

use crate::hub::{Sleeper, Wake, lock};
use crate::metrics::{COUNTS, Limit};

/// The places, and the waiters of those that can lose theirs.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    places: Places,
    /// By [`Place::number`]. Only requests that name a tab can be replaced; the others are not kept here.
    replaceable: HashMap<u64, Vec<Sleeper>>,
}

/// A held request's place, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Seat<'a> {
    seats: &'a Mutex<Seats>,
    place: Place,
}

impl Seats {
    /// Asks for the place of `wait_id` for the request of `sleeper`; `None` when another one holds it.
    pub(crate) fn claim<'a>(
        seats: &'a Mutex<Self>,
        wait_id: &WaitId,
        tab: Option<&Tab>,
        sleeper: Sleeper,
    ) -> Option<Seat<'a>> {
        Self::take(seats, wait_id, tab, sleeper).map(|place| Seat { seats, place })
    }

    /// As [`take_beside`](Self::take_beside), given back when it is dropped, and counted where there is none.
    pub(crate) fn claim_beside<'a>(seats: &'a Mutex<Self>, wait_id: &WaitId, max: usize) -> Option<Seat<'a>> {
        let place = Self::take_beside(seats, wait_id, max);
        if place.is_none() {
            COUNTS.hit(Limit::WebSocketsPerWaitId);
        }
        place.map(|place| Seat { seats, place })
    }

    /// As [`claim`](Self::claim), for one who [gives it back](Self::give_back) himself.
    pub(crate) fn take(
        seats: &Mutex<Self>,
        wait_id: &WaitId,
        tab: Option<&Tab>,
        sleeper: Sleeper,
    ) -> Option<Place> {
        let mut guard = lock(seats);
        let place = match guard.places.claim(wait_id, tab) {
            Claim::Taken => return None,
            Claim::Granted(place) => place,
            Claim::Replaced { place, ghost } => {
                for sleeper in guard.replaceable.remove(&ghost).unwrap_or_default() {
                    sleeper.wake(Wake::Replaced);
                }
                place
            }
        };
        if tab.is_some() {
            guard.replaceable.entry(place.number()).or_default().push(sleeper);
        }
        Some(place)
    }

    /// Asks for a place beside that one, of which `wait_id` has at most `max`.
    pub(crate) fn take_beside(seats: &Mutex<Self>, wait_id: &WaitId, max: usize) -> Option<Place> {
        lock(seats).places.join(wait_id, max)
    }

    /// Goes on with a place that was [taken](Self::take) before; `sleeper` has it now.
    pub(crate) fn adopt(seats: &Mutex<Self>, place: Place, sleeper: Sleeper) -> Seat<'_> {
        if let Some(sleepers) = lock(seats).replaceable.get_mut(&place.number()) {
            sleepers.push(sleeper);
        }
        Seat { seats, place }
    }

    /// Gives a place back.
    pub(crate) fn give_back(seats: &Mutex<Self>, place: &Place) {
        let mut seats = lock(seats);
        // Of several copies the last one ends it: until then the others can be replaced.
        if seats.places.free(place) && !seats.replaceable.is_empty() {
            seats.replaceable.remove(&place.number());
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        Seats::give_back(self.seats, &self.place);
    }
}
