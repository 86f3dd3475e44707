//! Whose word is taken: single addresses and networks.

use std::net::IpAddr;

/// Addresses that begin alike: `192.0.2.0/24`, `2001:db8::/32`, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: IpAddr,
    bits: u8,
}

impl Subnet {
    /// Parses an address, or a network in CIDR notation (RFC 4632 section 3.1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok()?
            }
            Some(_) => return None,
        };
        (bits <= all).then_some(Self { address, bits })
    }

    /// Whether it has this address. One of IPv4 that came to a socket for IPv6 is still one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |own: u128, other: u128, length: u8| {
            let shift = u32::from(length - self.bits);
            own.checked_shr(shift) == other.checked_shr(shift)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(u32::from(own).into(), u32::from(other).into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.into(), other.into(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_has_the_addresses_that_begin_like_it() {
        let has =
            |network: &str, address: &str| Subnet::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.8"));
        assert!(has("192.0.2.7/24", "192.0.2.200") && !has("192.0.2.0/24", "192.0.3.0"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("0.0.0.0/0", "203.0.113.9") && !has("0.0.0.0/0", "::1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("::/0", "2001:db9::") && has("::1", "::1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in
            ["", "x", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+8", "::1/129", "192.0.2", "localhost"]
        {
            assert_eq!(Subnet::parse(wrong), None, "{wrong}");
        }
    }
}
