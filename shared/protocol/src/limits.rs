//! What the settings say about requests: who may, how much, for how long.

use std::net::IpAddr;
use std::time::Duration;

use crate::{
    Access, Fronts, Origins, PollRequest, PublishSizes, Publisher, Rates, RequestError, Route, Sender,
    ServeError, Spaces, Subnet, Timestamp,
};

/// Most fields of a request's head.
pub const MAX_HEAD_FIELDS: usize = 100;

/// What the settings say about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest hold.
    pub hold_max: Duration,
    /// The longest padded hold; none at all when this is zero.
    pub padded_hold_max: Duration,
    /// How often a quiet stream gets a sign of life.
    pub heartbeat: Duration,
    /// Whose pages may read from another host.
    pub origins: Origins,
    /// Whether a poll may be answered as a script.
    pub jsonp: bool,
    /// The largest head of a request, in bytes.
    pub head_max: usize,
    /// Most channels that one request may name, at most [`MAX_CHANNELS`](crate::MAX_CHANNELS).
    pub channels_max: usize,
    /// The largest body of a poll, in bytes: it holds the same parameters as a query.
    pub poll_body_max: usize,
    /// The largest body of a publishing request, in bytes.
    pub publish_body_max: usize,
    /// How much of events it may bring.
    pub publish_sizes: PublishSizes,
    /// Who may read.
    pub access: Access,
    /// Namespaces with readers and sizes of their own.
    pub spaces: Spaces,
    /// Who may publish.
    pub publisher: Publisher,
    /// Whose word it is whom a request comes from.
    pub fronts: Fronts,
    /// How many requests may come from each address.
    pub rates: Rates,
    /// Who may see the daemon's metrics and whether it is ready, besides whoever connects to a unix socket.
    pub status_peers: Vec<Subnet>,
    /// Grows each time that rights are taken away from those who read.
    pub judged: u32,
}

impl Limits {
    /// The largest body that a request to `target` may have, in bytes.
    pub fn body(&self, target: &[u8]) -> usize {
        match Route::of(target) {
            Route::Poll(_) => self.poll_body_max,
            Route::Publish => self.publish_body_max,
            Route::Script(_) | Route::Probe(_) | Route::Elsewhere => 0,
        }
    }

    /// The same, in place of others that were in force until now.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let same_pages = before.origins == self.origins && (self.jsonp || !before.jsonp);
        let goes_on = same_pages && before.readers_go_on_under(&self);
        Self {
            judged: before.judged.wrapping_add(u32::from(!goes_on)),
            publisher: self.publisher.after(&before.publisher),
            // What each has left stays, where the rate does.
            rates: if self.rates == before.rates { before.rates.clone() } else { self.rates },
            ..self
        }
    }

    /// How long `request` may be held. `learned` is how long its network lets a silent request live, if known.
    #[must_use]
    pub fn longest_hold(&self, request: &PollRequest, learned: Option<Duration>) -> Duration {
        let valid_for = request.valid_for.unwrap_or(Duration::MAX);
        if request.pad.is_some() {
            return request.hold.unwrap_or(self.hold_max).min(self.padded_hold_max).min(valid_for);
        }
        let longest = learned.map_or(self.hold_max, |learned| learned.min(self.hold_max)).min(valid_for);
        request.hold.map_or(longest, |hold| hold.min(longest))
    }

    /// Counts a request, if one more may come from there.
    ///
    /// # Errors
    ///
    /// [`ServeError::TooManyRequests`].
    pub fn count(&self, sender: Sender, now: Timestamp) -> Result<(), ServeError> {
        self.rates.take(sender.client(), now).map_err(|_| ServeError::TooManyRequests)
    }

    /// Checks a head of so many bytes, with so many fields.
    ///
    /// # Errors
    ///
    /// [`RequestError::HeadTooLarge`].
    pub fn check_head(&self, bytes: usize, fields: usize) -> Result<(), RequestError> {
        match bytes <= self.head_max && fields <= MAX_HEAD_FIELDS {
            true => Ok(()),
            false => Err(self.head_too_large()),
        }
    }

    /// What is wrong with a head that is larger.
    #[must_use]
    pub fn head_too_large(&self) -> RequestError {
        RequestError::HeadTooLarge { limit: self.head_max, fields: MAX_HEAD_FIELDS }
    }

    /// Whether this sender, over a connection from `peer`, may see how the daemon does. What a web server passes on is its client's
    /// question.
    ///
    /// # Errors
    ///
    /// [`RequestError::StatusPrivate`].
    pub fn may_see_status(&self, sender: Sender, peer: Option<IpAddr>) -> Result<(), RequestError> {
        match sender.address.or(peer) {
            Some(asks) if !self.status_peers.iter().any(|peers| peers.contains(asks)) => {
                Err(RequestError::StatusPrivate)
            }
            _ => Ok(()),
        }
    }
}
