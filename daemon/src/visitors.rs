//! How many connections each client has, or how many requests it holds over the connections of a web server in front.
//!
//! The counts are the process's own, like those of [`metrics`](crate::metrics): a [`Visit`] is one number beside a socket, and gives
//! itself back wherever that ends. Only those who are there are remembered, so this is as large as the number of connections.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use everpoll_protocol::Client;

use crate::hub::lock;

/// By client: how many there are.
static PRESENT: LazyLock<Mutex<HashMap<Client, usize>>> = LazyLock::new(Mutex::default);

/// What is counted for a client, as long as it lives.
#[derive(Debug)]
pub(crate) struct Visit(Option<Client>);

impl Visit {
    /// Counts for `client`, if there is one, unless it has `max` already.
    pub(crate) fn begin(client: Option<Client>, max: usize) -> Option<Self> {
        if let Some(client) = client {
            let mut present = lock(&PRESENT);
            let count = present.entry(client).or_default();
            if *count >= max {
                // Made just now where nobody may come at all.
                if *count == 0 {
                    present.remove(&client);
                }
                return None;
            }
            *count += 1;
        }
        Some(Self(client))
    }

    /// Goes on with what was counted before: it is never refused.
    pub(crate) fn go_on(client: Option<Client>) -> Self {
        Self::begin(client, usize::MAX).unwrap_or(Self(None))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(client) = self.0 else { return };
        let mut present = lock(&PRESENT);
        let Some(count) = present.get_mut(&client) else { return };
        *count -= 1;
        if *count == 0 {
            present.remove(&client);
            // A flood must not leave its table behind.
            if present.len() * 4 < present.capacity() && present.capacity() > 1024 {
                let room = present.len() * 2;
                present.shrink_to(room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visit_counts_until_it_ends_and_each_client_for_itself() {
        let [one, other] = ["192.0.2.7", "192.0.2.8"].map(|at| Some(Client::at(at.parse().unwrap())));
        let first = Visit::begin(one, 2);
        let second = Visit::begin(one, 2);
        assert!(first.is_some() && second.is_some() && Visit::begin(one, 2).is_none());
        assert!(Visit::begin(other, 1).is_some() && Visit::begin(None, 0).is_some());
        drop(first);
        let third = Visit::begin(one, 2);
        assert!(third.is_some() && Visit::begin(one, 2).is_none());
        drop((second, third, Visit::go_on(one)));
        assert!(lock(&PRESENT).is_empty());
        assert_eq!(size_of::<Visit>(), 8);
    }
}
