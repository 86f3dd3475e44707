//! Who of a lot waits for which channel.

use std::collections::HashMap;

use everpoll_protocol::{Channel, Channels};

use super::Ticket;

/// Who waits for which channel. Leaving costs the same however many wait.
#[derive(Debug, Default)]
pub(super) struct Topics(HashMap<Channel, Topic>);

/// One channel.
#[derive(Debug, Default)]
struct Topic {
    members: Vec<Member>,
    /// What a request names that names this channel only, as nearly all do. Those who wait share it: two requests for the same
    /// are told to be so by where it lies, and each keeps a hundred bytes less.
    alone: Option<Channels>,
}

/// One who waits for a channel, and which of its own that is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) ticket: Ticket,
    number: u32,
}

/// Where one stands: channel by channel, its place among the members.
#[derive(Debug)]
pub(super) struct Places {
    first: u32,
    /// Nearly all wait for one channel only.
    others: Box<[u32]>,
}

impl Places {
    /// Puts right where one stands whose place has changed.
    pub(super) fn set(&mut self, moved: Moved) {
        match moved.number.checked_sub(1) {
            None => self.first = moved.place,
            Some(other) => self.others[other as usize] = moved.place,
        }
    }

    fn each(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

/// A member has another place now.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Moved {
    pub(super) ticket: Ticket,
    number: u32,
    place: u32,
}

impl Topics {
    /// Puts in their place those that another one who waits has named, if they are the same.
    pub(super) fn share(&self, channels: &mut Channels) {
        if let [channel] = channels.as_slice()
            && let Some(Topic { alone: Some(alone), .. }) = self.0.get(channel)
        {
            *channels = alone.clone();
        }
    }

    /// Enters one for all its channels.
    pub(super) fn enter(&mut self, channels: &Channels, ticket: Ticket) -> Places {
        let is_alone = channels.as_slice().len() == 1;
        let mut places = channels.as_slice().iter().zip(0..).map(|(channel, number)| {
            let Topic { members, alone } = self.0.entry(channel.clone()).or_default();
            if is_alone {
                alone.get_or_insert_with(|| channels.clone());
            }
            if members.is_empty() {
                // A vector makes room for four at first; most channels of a site have one member or thousands.
                members.reserve_exact(1);
            }
            members.push(Member { ticket, number });
            u32::try_from(members.len() - 1).expect("the number of open files ends long before")
        });
        let first = places.next().expect("a request names one channel at least");
        Places { first, others: places.collect() }
    }

    /// Takes one out who stands there. `moved` is told who stands elsewhere for that.
    pub(super) fn leave(&mut self, channels: &Channels, places: &Places, mut moved: impl FnMut(Moved)) {
        for (channel, place) in channels.as_slice().iter().zip(places.each()) {
            let Some(Topic { members, .. }) = self.0.get_mut(channel) else { continue };
            members.swap_remove(place as usize);
            if let Some(&Member { ticket, number }) = members.get(place as usize) {
                moved(Moved { ticket, number, place });
            }
            if members.is_empty() {
                self.0.remove(channel);
            }
        }
        // A flood must not leave its table behind.
        if self.0.len() * 4 < self.0.capacity() && self.0.capacity() > 1024 {
            self.0.shrink_to(self.0.len() * 2);
        }
    }

    /// Those who wait for a channel.
    pub(super) fn members(&self, channel: &Channel) -> Vec<Member> {
        self.0.get(channel).map(|topic| topic.members.clone()).unwrap_or_default()
    }

    /// Whether somebody waits for it.
    pub(super) fn has(&self, channel: &Channel) -> bool {
        self.0.contains_key(channel)
    }

    /// The channels that somebody waits for.
    pub(super) fn names(&self) -> Vec<Channel> {
        self.0.keys().cloned().collect()
    }

    /// All who wait; whoever waits for several channels is among them as often.
    pub(super) fn everybody(&self) -> Vec<Ticket> {
        self.0.values().flat_map(|topic| &topic.members).map(|member| member.ticket).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_is_followed_by_another_who_is_told() {
        let channels = |names: &str| Channels::parse_segment(names.as_bytes()).unwrap();
        let ticket = |entry| Ticket { entry, hold: 1 };
        let mut topics = Topics::default();
        let (a, ab) = (channels("a"), channels("a,b"));
        let first = topics.enter(&a, ticket(0));
        let mut second = topics.enter(&a, ticket(1));
        let mut third = topics.enter(&ab, ticket(2));
        let leave = |topics: &mut Topics, channels, places: &Places| {
            let mut moves = Vec::new();
            topics.leave(channels, places, |moved| moves.push(moved));
            moves.pop()
        };
        let moved = leave(&mut topics, &a, &first).unwrap();
        assert_eq!(moved.ticket, ticket(2));
        third.set(moved);
        let moved = leave(&mut topics, &ab, &third).unwrap();
        assert_eq!(moved.ticket, ticket(1));
        second.set(moved);
        assert!(!topics.has(&ab.as_slice()[1]) && topics.everybody() == [ticket(1)]);
        assert!(leave(&mut topics, &a, &second).is_none());
        assert!(topics.names().is_empty());
    }
}
