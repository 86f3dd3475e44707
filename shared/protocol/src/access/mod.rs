//! Who may read and who may publish. All of it is decided here, so that no program is the way around another.
//!
//! [`Access`] is how readers are told apart, [`Grant`] what one of them may read and until when, [`Publisher`] who may
//! publish. What a newcomer gets wrong: a request that names several channels, one of which is not granted, is refused as a
//! whole, with that channel's name. Left out silently, it would look like a channel on which nothing happens.

mod here;
mod key;
mod live;
mod pattern;
mod proxy;
mod publisher;
mod space;
mod subnet;
mod token;

use std::time::Duration;

pub use key::{Algorithm, TokenKey};
pub use live::Live;
pub use pattern::{Pattern, Patterns};
pub use proxy::Proxies;
pub use publisher::{PublishKey, Publisher};
pub use space::{SPACE_END, Space, Spaces, prefixes_of};
pub use subnet::Subnet;
pub use token::{Tokens, Verified, sign, unchecked};

pub(crate) use token::MAX_TOKEN_BYTES;

#[cfg(doc)]
use crate::ServeError;
use crate::parameters::Parameters;
use crate::{Channel, RawRequest, RequestError, Timestamp};

/// How readers are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Not at all: whoever reaches the program reads any channel.
    Open,
    /// As [`Open`](Self::Open), for whoever asks for this machine by address or as `localhost`: no page of another site.
    Here,
    /// By the token that each brings.
    Token(Tokens),
    /// By what the web server in front says of each.
    Proxy(Proxies),
}

/// What somebody may read, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The channels.
    pub channels: Patterns,
    /// When it is over; `None` when that is left open.
    pub until: Option<Timestamp>,
}

impl Grant {
    /// Whether all of these channels may be read.
    ///
    /// # Errors
    ///
    /// [`RequestError::ChannelForbidden`] with the first that may not.
    pub fn check(&self, channels: &[Channel]) -> Result<(), RequestError> {
        match channels.iter().find(|channel| !self.channels.matches(channel)) {
            None => Ok(()),
            Some(channel) => Err(RequestError::ChannelForbidden { channel: channel.clone() }),
        }
    }
}

impl Access {
    /// Whether a poll may read these channels, and how long from now on; `None` is without end. Nothing is left where the word of a
    /// web server in front is [stale](ServeError::AccessStale).
    ///
    /// # Errors
    ///
    /// Why it may not, always with status 403.
    pub(crate) fn admit(
        &self,
        raw: &RawRequest<'_>,
        parameters: &Parameters,
        channels: &[Channel],
    ) -> Result<Option<Duration>, RequestError> {
        let grant = match self {
            Self::Open => return Ok(None),
            Self::Here => return here::check(raw.headers).map(|()| None),
            Self::Token(tokens) => {
                // A script of any page is loaded with the visitor's cookies, and whatever it says is that page's to read. A
                // token that the page itself knows is another matter.
                let may_use_cookie = !parameters.is_script();
                let token = tokens.find(raw.headers, parameters.token(), may_use_cookie);
                tokens.verify(&token.ok_or(RequestError::TokenMissing)?, raw.now)?.grant
            }
            Self::Proxy(proxies) => proxies.grant(raw)?,
        };
        grant.check(channels)?;
        Ok(grant.until.map(|until| until.since(raw.now)))
    }
}

impl Access {
    /// Whether all that these rules have let in may go on under `new` ones.
    pub(crate) fn goes_on_under(&self, new: &Self) -> bool {
        match (self, new) {
            (Self::Token(old), Self::Token(new)) => {
                // A key more takes nothing away from anybody.
                let keeps_keys = old.keys.iter().all(|key| new.keys.contains(key));
                keeps_keys && *old == Tokens { keys: old.keys.clone(), ..new.clone() }
            }
            _ => self == new,
        }
    }
}

/// What stands behind `Bearer` in an `Authorization` header (RFC 6750 section 2.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}
