//! Free ports for programs that have to be told theirs.
//!
//! Asking the kernel (port 0) hands out ports from the range that it also takes for outgoing connections. A daemon
//! that is killed and started again would then find its port taken by one of the test's own thousand clients, now
//! and then. So ports come from below that range (Linux: 32768 and up, macOS: 49152 and up), and are tried first.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

const RANGE: std::ops::Range<u16> = 16_000..32_000;

/// The ports this process has handed out: none is given to two tests.
static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 that nobody listens on, and that no other test of this process gets.
///
/// Another process may still come in between; whoever starts a program tries again with another port then.
///
/// # Panics
/// When no port of the range is free.
pub fn free() -> u16 {
    let span = u64::from(RANGE.end - RANGE.start);
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for attempt in 0..span * 4 {
        let port = RANGE.start + u16::try_from(random(attempt) % span).expect("less than the range is long");
        // Binding is the test: std sets SO_REUSEADDR, so connections in TIME_WAIT are no obstacle.
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 in {RANGE:?}");
}

/// A number that differs between processes that start at the same moment: each `RandomState` has keys of its own.
fn random(salt: u64) -> u64 {
    RandomState::new().hash_one(salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_is_given_once() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free()).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn port_in_use_is_not_given() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free())).expect("it was free");
        let used = listener.local_addr().expect("it is bound").port();
        assert!((0..200).all(|_| free() != used));
    }
}
