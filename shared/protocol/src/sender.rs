//! Who sends a request, as far as limits are concerned: an address.
//!
//! What a newcomer gets wrong: behind a web server everybody comes from one address, that of the web server, and over a unix
//! socket from none. Who it is then stands in `X-Forwarded-For`, where each web server on the way appends whom it saw. Clients can
//! write that header themselves; so it is read from its end, and only as far as those who wrote it are known to be ours.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;

use crate::access::Subnet;
use crate::{Headers, RawRequest};

/// One client of a limit: an address of IPv4, or a /64 of IPv6, of which a single machine has as many addresses as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(NonZeroU64);

impl Client {
    /// The client at this address.
    #[must_use]
    pub fn at(address: IpAddr) -> Self {
        let number = match address.to_canonical() {
            // These begin like multicast addresses of IPv6, from which nobody comes.
            IpAddr::V4(address) => 0xff << 56 | u64::from(u32::from(address)),
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        };
        // `::1`, where it is counted at all.
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    pub(crate) fn number(self) -> u64 {
        self.0.get()
    }
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Where it comes from; `None` when that is not known: it is of this machine, or of a web server in front itself.
    pub address: Option<IpAddr>,
    /// Whether a web server in front says so, over a connection that others use as well.
    pub is_forwarded: bool,
}

impl Sender {
    /// Who is counted, if anybody is.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        self.address.map(Client::at)
    }

    /// Whose held requests are counted. Over a connection of its own, that is counted.
    #[must_use]
    pub fn forwarded_client(&self) -> Option<Client> {
        if self.is_forwarded { self.client() } else { None }
    }
}

/// The web servers in front: those whose `X-Forwarded-For` is believed, besides whoever connects to a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fronts(Vec<Subnet>);

impl Fronts {
    /// With web servers at these addresses.
    #[must_use]
    pub fn new(peers: Vec<Subnet>) -> Self {
        Self(peers)
    }

    /// Whether a web server in front is there.
    #[must_use]
    pub fn includes(&self, address: IpAddr) -> bool {
        self.0.iter().any(|peers| peers.contains(address))
    }

    /// Who sends a request that came over a connection from `peer`, or over a unix socket.
    #[must_use]
    pub fn sender(&self, headers: &dyn Headers, peer: Option<IpAddr>, peer_is_local: bool) -> Sender {
        match peer {
            Some(peer) if !self.includes(peer) => Sender { address: Some(peer), is_forwarded: false },
            // A host that does not say who asks says nothing about whose word its headers are.
            None if !peer_is_local => Sender { address: None, is_forwarded: false },
            _ => {
                let address = headers.header("x-forwarded-for").and_then(|noted| self.client_of(&noted));
                Sender { address, is_forwarded: address.is_some() }
            }
        }
    }

    /// Who sends this request.
    #[must_use]
    pub fn sender_of(&self, raw: &RawRequest<'_>) -> Sender {
        self.sender(raw.headers, raw.peer, raw.peer_is_local)
    }

    /// The last one of these that is none of ours.
    fn client_of(&self, noted: &[u8]) -> Option<IpAddr> {
        for text in noted.rsplit(|b| *b == b',') {
            let address = address(text.trim_ascii())?;
            if !self.includes(address) {
                return Some(address);
            }
        }
        None
    }
}

/// An address as web servers note it, some of them with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;

    pub(crate) fn fronts(peers: &[&str]) -> Fronts {
        Fronts::new(peers.iter().map(|peer| Subnet::parse(peer).unwrap()).collect())
    }

    fn sender(peer: &str, noted: &'static str) -> (Option<String>, bool) {
        let fronts = fronts(&["127.0.0.0/8", "::1", "10.0.0.0/8"]);
        let header: &'static [_] = Box::leak(Box::new([("x-forwarded-for", noted)]));
        let headers = TestHeaders(if noted.is_empty() { &[] } else { header });
        let peer = peer.parse().ok();
        let Sender { address, is_forwarded } =
            fronts.sender(&headers, peer, peer.is_none_or(|peer| peer.is_loopback()));
        (address.map(|address| address.to_string()), is_forwarded)
    }

    fn forwarded(address: &str) -> (Option<String>, bool) {
        (Some(address.into()), true)
    }

    #[test]
    fn header_is_believed_from_its_end_as_far_as_it_is_ours() {
        assert_eq!(sender("192.0.2.7", "203.0.113.1"), (Some("192.0.2.7".into()), false));
        for peer in ["", "127.0.0.1", "::1", "10.1.2.3"] {
            assert_eq!(sender(peer, ""), (None, false), "{peer}");
            assert_eq!(sender(peer, "203.0.113.1"), forwarded("203.0.113.1"));
            // What stands before it is the client's own word.
            assert_eq!(sender(peer, "198.51.100.1, 203.0.113.1"), forwarded("203.0.113.1"));
            assert_eq!(
                sender(peer, "198.51.100.1, 203.0.113.1, 10.0.0.9,127.0.0.1"),
                forwarded("203.0.113.1")
            );
            assert_eq!(sender(peer, "127.0.0.1, 10.0.0.9"), (None, false));
            assert_eq!(sender(peer, "203.0.113.1, unknown"), (None, false));
        }
        assert_eq!(sender("", "203.0.113.1:4711"), forwarded("203.0.113.1"));
        assert_eq!(sender("", "[2001:db8::1]:4711"), forwarded("2001:db8::1"));
        assert_eq!(sender("", "[2001:db8::1]"), forwarded("2001:db8::1"));
    }

    #[test]
    fn host_that_does_not_say_who_asks_is_not_believed() {
        let headers = TestHeaders(&[("x-forwarded-for", "203.0.113.1")]);
        assert_eq!(fronts(&["::/0"]).sender(&headers, None, false).client(), None);
    }

    #[test]
    fn client_is_an_address_or_a_network_of_ipv6() {
        let at = |address: &str| Client::at(address.parse().unwrap());
        assert_ne!(at("192.0.2.7"), at("192.0.2.8"));
        assert_eq!(at("192.0.2.7"), at("::ffff:192.0.2.7"));
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::2"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_ne!(at("::1"), at("0.0.0.0"));
    }
}
