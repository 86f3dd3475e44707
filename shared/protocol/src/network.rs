//! What the networks of clients let live: holds that their proxies cut are made shorter for all clients behind them.
//!
//! A client whose hold was cut says so with its next poll (`cut=`). The second employee of an office starts right then.
//! What is remembered is a hint, given by anyone: it has a floor, so that nobody can turn an office's polls into a flood, it
//! is forgotten after an hour, and the number of networks has an end.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::{RawRequest, Sender};

/// How much of the time after which a hold was cut the next ones take.
const SHARE: f64 = 0.8;

/// Nobody's holds are made shorter than this for what others report.
const FLOOR: Duration = Duration::from_secs(5);

/// How long a cut is remembered.
const MEMORY: Duration = Duration::from_secs(3600);

/// Most networks that are remembered.
const NETWORKS_MAX: usize = 10_000;

/// A client's hold was cut on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// How long the hold had lived.
    pub after: Duration,
}

/// Clients that have their way to the server in common: of one /24 (IPv6: /48), through the same proxies as far as these
/// name themselves (`Via`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(u64);

impl Network {
    /// Whence a request of this sender comes.
    pub(crate) fn of(raw: &RawRequest<'_>, sender: Sender) -> Self {
        let address = sender.address.or(raw.peer);
        let mut hasher = DefaultHasher::new();
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => address.octets()[..3].hash(&mut hasher),
            Some(IpAddr::V6(address)) => address.segments()[..3].hash(&mut hasher),
            None => {}
        }
        raw.headers.header("via").hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// What is remembered of networks.
#[derive(Debug, Default)]
pub struct Networks(HashMap<Network, Learned>);

#[derive(Debug)]
struct Learned {
    hold: Duration,
    until: Instant,
}

impl Networks {
    /// Takes in that a hold was cut. Holds that ended within a second are not what this is about: there was no way at all.
    pub fn report(&mut self, network: Network, cut: Cut, now: Instant) {
        if cut.after < Duration::from_secs(1) {
            return;
        }
        let hold = cut.after.mul_f64(SHARE).max(FLOOR);
        if self.0.len() >= NETWORKS_MAX && !self.0.contains_key(&network) {
            self.0.retain(|_, learned| learned.until > now);
            if self.0.len() >= NETWORKS_MAX {
                self.0.clear();
            }
        }
        let learned = self.0.entry(network).or_insert(Learned { hold, until: now });
        learned.hold = if learned.until > now { learned.hold.min(hold) } else { hold };
        learned.until = now + MEMORY;
    }

    /// How long a silent request lives on its way from there, if that is known.
    pub fn hold(&self, network: Network, now: Instant) -> Option<Duration> {
        self.0.get(&network).filter(|learned| learned.until > now).map(|learned| learned.hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;
    use crate::sender::tests::fronts;

    fn network(peer: &str, local: bool, headers: &'static [(&'static str, &'static str)]) -> Network {
        let raw = RawRequest {
            method: "GET",
            target: b"/e/c",
            headers: &TestHeaders(headers),
            body: b"",
            peer_is_local: local,
            peer: peer.parse().ok(),
            may_upgrade: true,
            web_server: None,
            now: crate::Timestamp::default(),
        };
        Network::of(&raw, fronts(&["127.0.0.0/8"]).sender_of(&raw))
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        Instant::now()
    }

    #[test]
    fn neighbours_share_a_network() {
        let here = network("192.0.2.7", false, &[]);
        assert_eq!(here, network("192.0.2.200", false, &[]));
        assert_ne!(here, network("192.0.3.7", false, &[]));
        assert_ne!(here, network("192.0.2.7", false, &[("via", "1.1 squid")]));
        assert_eq!(here, network("127.0.0.1", true, &[("x-forwarded-for", "203.0.113.1, 192.0.2.9")]));
        assert_ne!(here, network("198.51.100.1", false, &[("x-forwarded-for", "192.0.2.7")]));
        assert_eq!(network("2001:db8:1:2::3", false, &[]), network("2001:db8:1:ffff::", false, &[]));
    }

    #[test]
    fn shortest_cut_counts_for_an_hour_and_never_below_the_floor() {
        let (now, here) = (start(), network("192.0.2.7", false, &[]));
        let mut networks = Networks::default();
        let cut = |seconds| Cut { after: Duration::from_secs_f64(seconds) };
        networks.report(here, cut(0.2), now);
        assert_eq!(networks.hold(here, now), None);
        networks.report(here, cut(20.0), now);
        networks.report(here, cut(60.0), now);
        assert_eq!(networks.hold(here, now), Some(Duration::from_secs(16)));
        networks.report(here, cut(2.0), now);
        assert_eq!(networks.hold(here, now), Some(FLOOR));
        assert_eq!(networks.hold(here, now + MEMORY), None);
        networks.report(here, cut(30.0), now + MEMORY);
        assert_eq!(networks.hold(here, now + MEMORY), Some(Duration::from_secs(24)));
    }

    #[test]
    fn flood_of_networks_does_not_grow_the_memory() {
        let (now, mut networks) = (start(), Networks::default());
        for number in 0..3 * NETWORKS_MAX as u64 {
            networks.report(Network(number), Cut { after: Duration::from_secs(9) }, now);
        }
        assert!(networks.0.len() <= NETWORKS_MAX);
    }
}
