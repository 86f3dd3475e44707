//! Access as a web server in front decides: it asks the application, and hands the answer over with the request.
//!
//! What a newcomer gets wrong: a header can be written by anybody. So what a header says counts only where it comes from a listed
//! peer or over a unix socket, and a web server there must put its own in place of what clients send. Under CGI and FastCGI it is
//! no header but a variable of the web server's own, whose name no client can set.
//!
//! A web server keeps an answer in whole seconds, and the right that it grants is over to the millisecond. So it may say for a moment
//! what is over: that is no refusal but a question that comes too early, and nothing is read for it.

use std::time::Duration;

use percent_encoding::percent_decode;

use super::{Grant, Patterns, Subnet};
use crate::error::brief;
use crate::{RawRequest, RequestError, Timestamp};

/// What the settings say about access as a web server in front decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    /// The header with the channels, in lower case.
    pub channels_header: Box<str>,
    /// The header with the end, in lower case.
    pub until_header: Box<str>,
    /// Whose headers count, besides those that come over a unix socket.
    pub peers: Vec<Subnet>,
    /// After how long it must be asked again.
    pub recheck: Duration,
}

impl Proxies {
    /// What the web server in front grants.
    pub(super) fn grant(&self, raw: &RawRequest<'_>) -> Result<Grant, RequestError> {
        let says = match raw.web_server {
            Some(own) => own,
            None if self.trusts(raw) => raw.headers,
            None => return Err(RequestError::AccessUntrusted),
        };
        let malformed = |reason: String| RequestError::AccessMalformed { reason: brief(&reason) };
        let channels = says
            .header(&self.channels_header)
            .ok_or_else(|| RequestError::AccessMissing { header: self.channels_header.clone() })?;
        let texts = channels.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|text| !text.is_empty());
        let texts = texts.map(|text| percent_decode(text).decode_utf8()).collect::<Result<Vec<_>, _>>();
        let texts = texts.map_err(|_| malformed("a channel is not UTF-8 in percent-encoding".into()))?;
        let channels = Patterns::parse(texts.iter().map(AsRef::as_ref));
        let channels = channels.map_err(|wrong| malformed(format!("the channel {wrong}")))?;
        let again = raw.now.plus(self.recheck);
        let until = match says.header(&self.until_header) {
            None => again,
            Some(text) => {
                let seconds =
                    std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse::<f64>().ok());
                let seconds = seconds.filter(|seconds| (0.0..=253_402_300_799.0).contains(seconds));
                let seconds =
                    seconds.ok_or_else(|| malformed("its end is no number of seconds since 1970".into()))?;
                again.min(Timestamp::from_micros((seconds * 1e6) as u64))
            }
        };
        if until.plus(self.recheck) <= raw.now {
            return Err(RequestError::AccessExpired { at: until });
        }
        Ok(Grant { channels, until: Some(until) })
    }

    /// Whether the other end of the connection may say who may read what.
    fn trusts(&self, raw: &RawRequest<'_>) -> bool {
        match raw.peer {
            // A unix socket: its file says who may connect.
            None => raw.peer_is_local,
            Some(peer) => self.peers.iter().any(|peers| peers.contains(peer)),
        }
    }
}
