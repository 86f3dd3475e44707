//! Whose place it is: of one browser, one request is held.
//!
//! The oldest keeps the place. If the newest won, two tabs would kick each other out for ever. Only the end of the
//! request that holds the place frees it, not the end of one that was answered because the place was taken. Most
//! proxies hide for a long time that a client left, so its held request may be a ghost: a later request of the same
//! tab (`tab` and a higher `n`) replaces it.
//!
//! Browsers count WebSockets apart from other connections, so these take nobody's place. They stand beside it, and have a limit
//! of their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use crate::{RequestError, Tab};

/// Longest `wait_id`, in bytes.
pub const MAX_WAIT_ID_BYTES: usize = 128;

/// Most requests that hold one place together. They are copies of one request: some proxies send a GET up to four
/// times, and nobody can tell which answer reaches the client.
const MAX_COPIES: u32 = 4;

/// The key of one browser, chosen by the page: 1–128 bytes of UTF-8 without control characters.
///
/// Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WaitId(Arc<str>);

impl WaitId {
    /// Parses a key that is not percent-encoded.
    ///
    /// # Errors
    ///
    /// [`RequestError::WaitIdLength`] or [`RequestError::WaitIdCharacter`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.is_empty() || bytes.len() > MAX_WAIT_ID_BYTES {
            return Err(RequestError::WaitIdLength { bytes: bytes.len() });
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(Self(text.into())),
            _ => Err(RequestError::WaitIdCharacter),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WaitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The places of all browsers that hold a request.
#[derive(Debug, Default)]
pub struct Places {
    held: HashMap<WaitId, Holder>,
    /// How many stand beside.
    beside: HashMap<WaitId, usize>,
    /// How many places were ever given: each gets a number of its own.
    given: u64,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    tab: Option<Tab>,
    copies: u32,
}

/// A held request's right to be held. It is given back with [`Places::free`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    wait_id: WaitId,
    number: u64,
}

impl Place {
    /// Which giving of the place it is; copies of one request share it. 0 stands beside.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// What came of asking for the place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Claim {
    /// The request may be held.
    Granted(Place),
    /// The request may be held; the one with the number `ghost` is to be answered and dropped.
    Replaced {
        /// The new place.
        place: Place,
        /// The [`Place::number`] that lost it.
        ghost: u64,
    },
    /// Another request of this browser is held.
    Taken,
}

impl Places {
    /// Asks for the place of `wait_id`. `tab` tells a request from its own ghost.
    pub fn claim(&mut self, wait_id: &WaitId, tab: Option<&Tab>) -> Claim {
        self.given += 1;
        let number = self.given;
        let place = |number| Place { wait_id: wait_id.clone(), number };
        match self.held.entry(wait_id.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Holder { number, tab: tab.cloned(), copies: 1 });
                Claim::Granted(place(number))
            }
            Entry::Occupied(mut entry) => {
                let holder = entry.get_mut();
                let (Some(ours), Some(theirs)) = (tab, &holder.tab) else { return Claim::Taken };
                if ours.key != theirs.key || ours.n < theirs.n {
                    return Claim::Taken;
                }
                if ours.n == theirs.n {
                    if holder.copies == MAX_COPIES {
                        return Claim::Taken;
                    }
                    holder.copies += 1;
                    return Claim::Granted(place(holder.number));
                }
                let ghost = holder.number;
                *holder = Holder { number, tab: tab.cloned(), copies: 1 };
                Claim::Replaced { place: place(number), ghost }
            }
        }
    }

    /// A place beside that of `wait_id`, unless there are `max` already.
    pub fn join(&mut self, wait_id: &WaitId, max: usize) -> Option<Place> {
        let count = self.beside.get(wait_id).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        self.beside.insert(wait_id.clone(), count + 1);
        Some(Place { wait_id: wait_id.clone(), number: 0 })
    }

    /// Gives a place back, and says whether it is free now: one that was replaced frees nothing, and one of several
    /// copies leaves the place to the others.
    pub fn free(&mut self, place: &Place) -> bool {
        if place.number == 0 {
            self.leave(&place.wait_id);
            return false;
        }
        // Looked up once: when an event goes out to thousands, each of them comes here first.
        let Entry::Occupied(mut entry) = self.held.entry(place.wait_id.clone()) else { return false };
        let holder = entry.get_mut();
        if holder.number != place.number {
            return false;
        }
        holder.copies -= 1;
        if holder.copies > 0 {
            return false;
        }
        entry.remove();
        // A flood must not leave its table behind.
        if self.held.len() * 4 < self.held.capacity() && self.held.capacity() > 1024 {
            self.held.shrink_to(self.held.len() * 2);
        }
        true
    }

    fn leave(&mut self, wait_id: &WaitId) {
        let Some(count) = self.beside.get_mut(wait_id) else { return };
        *count -= 1;
        if *count == 0 {
            self.beside.remove(wait_id);
            if self.beside.len() * 4 < self.beside.capacity() && self.beside.capacity() > 1024 {
                self.beside.shrink_to(self.beside.len() * 2);
            }
        }
    }

    /// How many browsers hold a request.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nobody holds a request.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> WaitId {
        WaitId::parse(b"browser").unwrap()
    }

    fn tab(key: &str, n: u64) -> Tab {
        Tab { key: key.into(), n }
    }

    fn granted(claim: Claim) -> Place {
        match claim {
            Claim::Granted(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn oldest_keeps_the_place_until_it_ends() {
        let mut places = Places::default();
        let first = granted(places.claim(&id(), None));
        assert_eq!(places.claim(&id(), None), Claim::Taken);
        assert_eq!(places.claim(&id(), Some(&tab("a", 1))), Claim::Taken);
        places.free(&first);
        assert!(places.is_empty());
        granted(places.claim(&id(), None));
    }

    #[test]
    fn later_request_of_the_same_tab_replaces_its_ghost() {
        let mut places = Places::default();
        let ghost = granted(places.claim(&id(), Some(&tab("a", 1))));
        assert_eq!(places.claim(&id(), Some(&tab("b", 9))), Claim::Taken);
        let Claim::Replaced { place, ghost: number } = places.claim(&id(), Some(&tab("a", 2))) else {
            panic!()
        };
        assert_eq!(number, ghost.number());
        // The ghost's end is noticed late and must not free what is not its own any more.
        places.free(&ghost);
        assert_eq!(places.claim(&id(), Some(&tab("a", 1))), Claim::Taken);
        places.free(&place);
        assert!(places.is_empty());
    }

    #[test]
    fn those_beside_take_nobodys_place_and_are_counted() {
        let mut places = Places::default();
        let other = WaitId::parse(b"other").unwrap();
        let joined = [places.join(&id(), 2), places.join(&id(), 2)].map(Option::unwrap);
        assert_eq!((places.join(&id(), 2), places.len()), (None, 0));
        assert!(places.join(&other, 2).is_some());
        let held = granted(places.claim(&id(), None));
        assert!(!places.free(&joined[0]) && places.join(&id(), 2).is_some());
        assert_eq!(places.claim(&id(), None), Claim::Taken);
        assert!(places.free(&held));
    }

    #[test]
    fn copies_of_one_request_hold_together() {
        let mut places = Places::default();
        let copies: Vec<_> = (0..4).map(|_| granted(places.claim(&id(), Some(&tab("a", 1))))).collect();
        assert_eq!(places.claim(&id(), Some(&tab("a", 1))), Claim::Taken);
        for (ended, copy) in copies.iter().enumerate() {
            assert_eq!(places.len(), 1);
            assert_eq!(places.free(copy), ended == 3);
        }
        assert!(places.is_empty());
    }
}
