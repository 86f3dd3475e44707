//! Who waits for which channel, and how they are woken.
//!
//! A wake-up carries no data: who is woken reads the [window](crate::window). What a newcomer gets wrong is the order:
//! a poll first subscribes, then reads, then waits. An event that comes in between sets the waiter's state before the
//! poll looks at it, so none slips through.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use everpoll_protocol::{Channel, Channels};

use crate::lot::{Lot, Lots, Ticket};

/// Why a held poll was woken; the higher wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// One of its channels may have news.
    News = 1,
    /// Who may read what was decided anew.
    Judged = 2,
    /// A later request of the same tab took its place.
    Replaced = 3,
    /// The daemon stops.
    Drain = 4,
}

/// One held poll, as the hub sees it.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// 0 or the number of a [`Wake`].
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Waiter {
    /// Wakes the poll.
    pub(crate) fn wake(&self, why: Wake) {
        self.state.fetch_max(why as u8, Ordering::AcqRel);
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ready once the poll was woken since the last time. Cancel safe.
    pub(crate) fn poll_woken(&self, context: &mut Context<'_>) -> Poll<Wake> {
        if let Some(why) = self.take() {
            return Poll::Ready(why);
        }
        *lock(&self.waker) = Some(context.waker().clone());
        // A wake-up between the look above and the line above found no waker.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&self) -> Option<Wake> {
        match self.state.swap(0, Ordering::AcqRel) {
            0 => None,
            1 => Some(Wake::News),
            2 => Some(Wake::Judged),
            3 => Some(Wake::Replaced),
            _ => Some(Wake::Drain),
        }
    }

    /// Waits until the poll is woken. Cancel safe.
    #[cfg(test)]
    pub(crate) async fn woken(&self) -> Wake {
        std::future::poll_fn(|context| self.poll_woken(context)).await
    }
}

/// Somebody who is held.
#[derive(Clone, Debug)]
pub(crate) enum Sleeper {
    /// By a task.
    Task(Arc<Waiter>),
    /// In a lot.
    Parked(Arc<Lot>, Ticket),
}

impl Sleeper {
    /// Wakes it; of no effect where the hold is over.
    pub(crate) fn wake(&self, why: Wake) {
        match self {
            Self::Task(waiter) => waiter.wake(why),
            Self::Parked(lot, ticket) => lot.wake(*ticket, why),
        }
    }
}

/// The map from channel to waiters: of those that are tasks, and, each for itself, of the lots.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    channels: Mutex<HashMap<Channel, Waiters>>,
    lots: Lots,
}

/// The waiters of one channel: a list with holes, so that leaving costs nothing however many wait.
#[derive(Debug, Default)]
struct Waiters {
    places: Vec<Option<Arc<Waiter>>>,
    free: Vec<u32>,
}

/// A poll's entry in the hub; it is taken out when this is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    waiter: Arc<Waiter>,
    /// Channel by channel, its place in [`Waiters`].
    places: Box<[(Channel, u32)]>,
}

impl Hub {
    /// A hub in which nobody waits.
    pub(crate) fn new(lots: Lots) -> Self {
        Self { channels: Mutex::default(), lots }
    }

    /// Where connections wait that need no task.
    pub(crate) fn lots(&self) -> &Lots {
        &self.lots
    }

    /// Enters a poll for all its channels.
    pub(crate) fn subscribe(self: &Arc<Self>, channels: &Channels, waiter: Arc<Waiter>) -> Subscription {
        let mut map = lock(&self.channels);
        let enter = |channel: &Channel| {
            // The map's own copy of the name is kept, so that all who wait share one.
            let channel = map.get_key_value(channel).map_or(channel, |known| known.0).clone();
            let waiters = map.entry(channel.clone()).or_default();
            (channel, waiters.enter(waiter.clone()))
        };
        let places = channels.as_slice().iter().map(enter).collect();
        drop(map);
        Subscription { hub: self.clone(), waiter, places }
    }

    /// Wakes all who wait for one of these channels.
    pub(crate) fn wake(&self, channels: &[Channel]) {
        self.lots.wake(channels);
        for channel in channels {
            // The lock is not held while waking: who wakes wants it, too.
            let waiters = match lock(&self.channels).get(channel) {
                Some(waiters) => waiters.present(),
                None => continue,
            };
            for waiter in waiters {
                waiter.wake(Wake::News);
            }
        }
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self, why: Wake) {
        for sleeper in self.everybody() {
            sleeper.wake(why);
        }
    }

    /// For how many channels somebody waits.
    pub(crate) fn channels(&self) -> usize {
        let mut channels: HashSet<_> = self.lots.channels().into_iter().collect();
        channels.extend(lock(&self.channels).keys().cloned());
        channels.len()
    }

    /// All who wait now; whoever waits for several channels is among them as often.
    pub(crate) fn everybody(&self) -> Vec<Sleeper> {
        let tasks: Vec<_> = lock(&self.channels).values().flat_map(Waiters::present).collect();
        let parked = self.lots.everybody().into_iter().map(|(lot, ticket)| Sleeper::Parked(lot, ticket));
        tasks.into_iter().map(Sleeper::Task).chain(parked).collect()
    }
}

impl Subscription {
    /// The waiter that is woken.
    pub(crate) fn waiter(&self) -> &Waiter {
        &self.waiter
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut map = lock(&self.hub.channels);
        for (channel, place) in &self.places {
            if let Some(waiters) = map.get_mut(channel) {
                waiters.leave(*place);
                if waiters.is_empty() {
                    map.remove(channel);
                }
            }
        }
    }
}

impl Waiters {
    fn enter(&mut self, waiter: Arc<Waiter>) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(waiter);
            return place;
        }
        if self.places.is_empty() {
            // A vector makes room for four at first; most channels of a site have one waiter or thousands.
            self.places.reserve_exact(1);
        }
        self.places.push(Some(waiter));
        u32::try_from(self.places.len() - 1).expect("the number of open files ends long before")
    }

    fn leave(&mut self, place: u32) {
        self.places[place as usize] = None;
        self.free.push(place);
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    fn present(&self) -> Vec<Arc<Waiter>> {
        self.places.iter().flatten().cloned().collect()
    }
}

/// A panic of another thread does not make the data wrong: all changes here are whole when they can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels(names: &str) -> Channels {
        Channels::parse_segment(names.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn waiter_is_woken_for_its_channels_only() {
        let hub = Arc::new(Hub::default());
        let subscription = hub.subscribe(&channels("a,b"), Arc::default());
        hub.wake(channels("c").as_slice());
        assert_eq!(subscription.waiter().state.load(Ordering::Relaxed), 0);
        hub.wake(channels("b").as_slice());
        assert_eq!(subscription.waiter().woken().await, Wake::News);
    }

    #[tokio::test]
    async fn wake_up_before_the_wait_is_not_lost_and_the_stronger_one_wins() {
        let waiter = Waiter::default();
        waiter.wake(Wake::Drain);
        waiter.wake(Wake::News);
        assert_eq!(waiter.woken().await, Wake::Drain);
    }

    #[test]
    fn hub_keeps_nothing_of_those_who_left() {
        let hub = Arc::new(Hub::default());
        let first = hub.subscribe(&channels("a"), Arc::default());
        let second = hub.subscribe(&channels("a,b"), Arc::default());
        drop(first);
        let third = hub.subscribe(&channels("a"), Arc::default());
        assert_eq!(third.places[0].1, 0);
        drop((second, third));
        assert!(lock(&hub.channels).is_empty());
    }
}
