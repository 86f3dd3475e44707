//! What a request has while it waits, and what it looks at first.

use std::sync::Arc;

use everpoll_protocol::{Cursor, Flavor, Page, Place, PollRequest};

use crate::hub::{Sleeper, Subscription, Waiter, Wake, lock};
use crate::metrics::Way;
use crate::seats::{Seat, Seats};
use crate::server::{Counted, Server};
use crate::visitors::Visit;
use crate::window::Look;

/// What a request has while it is held; dropping it gives all of it back.
pub(super) struct Hold<'a> {
    subscription: Subscription,
    _seat: Option<Seat<'a>>,
    _counted: Counted<'a>,
    _visit: Visit,
}

/// Why a request is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another request of this browser is held.
    PlaceTaken,
    /// As many are held as may be.
    Crowded,
}

impl<'a> Hold<'a> {
    /// Takes a place among those who are held.
    pub(super) fn begin(server: &'a Server, request: &PollRequest) -> Result<Self, Refused> {
        let visit = server.may_hold(request).ok_or(Refused::Crowded)?;
        let waiter: Arc<Waiter> = Arc::default();
        let seat = match &request.wait_id {
            // Browsers do not count WebSockets among the connections to a host, so these take nobody's place.
            Some(wait_id) if request.flavor == Flavor::WebSocket => {
                let max = server.rules().patience.websockets_per_wait_id;
                Some(Seats::claim_beside(&server.seats, wait_id, max).ok_or(Refused::PlaceTaken)?)
            }
            Some(wait_id) => {
                let seat =
                    Seats::claim(&server.seats, wait_id, request.tab.as_ref(), Sleeper::Task(waiter.clone()));
                Some(seat.ok_or(Refused::PlaceTaken)?)
            }
            None => None,
        };
        Ok(Self::subscribe(server, request, waiter, seat, visit))
    }

    /// Goes on with a hold that was another's, and had this place.
    pub(super) fn resume(server: &'a Server, request: &PollRequest, place: Option<Place>) -> Self {
        let waiter: Arc<Waiter> = Arc::default();
        let seat = place.map(|place| Seats::adopt(&server.seats, place, Sleeper::Task(waiter.clone())));
        Self::subscribe(server, request, waiter, seat, Visit::go_on(request.client))
    }

    fn subscribe(
        server: &'a Server,
        request: &PollRequest,
        waiter: Arc<Waiter>,
        seat: Option<Seat<'a>>,
        visit: Visit,
    ) -> Self {
        let _counted = Counted::new(&server.held[Way::of(request) as usize]);
        let subscription = server.hub.subscribe(&request.channels, waiter);
        if let why @ Wake::Judged = server.first_wake(request.judged) {
            subscription.waiter().wake(why);
        }
        Self { subscription, _seat: seat, _counted, _visit: visit }
    }

    /// What is woken by news.
    pub(super) fn waiter(&self) -> &Waiter {
        self.subscription.waiter()
    }
}

/// What there is after `cursor`, from memory; `None` when that does not reach, and the database is to be asked.
pub(super) fn look(server: &Server, request: &PollRequest, cursor: Cursor, held: bool) -> Option<Arc<Page>> {
    // A function of its own: the lock must be gone before anything is waited for.
    match lock(&server.window).look(&request.channels, cursor, held) {
        Look::Found(page) => Some(Arc::new(page)),
        Look::Miss => None,
    }
}
