//! What a request has while it waits, and what it looks at first.

use std::sync::Arc;

use everpoll_protocol::{Cursor, Flavor, Page, PollRequest};

use crate::hub::{Subscription, Waiter, lock};
use crate::seats::{Seat, Seats};
use crate::server::Server;
use crate::window::Look;

/// What a request has while it is held; dropping it gives all of it back.
pub(super) struct Hold<'a> {
    subscription: Subscription,
    _seat: Option<Seat<'a>>,
}

impl<'a> Hold<'a> {
    /// `None` when another request of this browser is held.
    pub(super) fn begin(server: &'a Server, request: &PollRequest) -> Option<Self> {
        let waiter: Arc<Waiter> = Arc::default();
        let seat = match &request.wait_id {
            // Browsers do not count WebSockets among the connections to a host, so these take nobody's place.
            Some(wait_id) if request.flavor != Flavor::WebSocket => {
                Some(Seats::claim(&server.seats, wait_id, request.tab.as_ref(), &waiter)?)
            }
            _ => None,
        };
        Some(Self { subscription: server.hub.subscribe(&request.channels, waiter), _seat: seat })
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
