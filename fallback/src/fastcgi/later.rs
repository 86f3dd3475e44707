//! Requests that need a read of their own, in the order in which they came; those that ask the same stand together.

use std::collections::{HashMap, VecDeque};

use super::queue::Own;
use super::service::Service;

/// Most requests that one read answers: each may be given a megabyte.
const SHARED_MAX: usize = 64;

/// The list.
pub(super) struct Later<S: Service> {
    turns: VecDeque<Turn<S>>,
    same: HashMap<S::Same, Vec<Own<S>>>,
    count: usize,
}

enum Turn<S: Service> {
    /// The requests of this kind.
    Same(S::Same),
    /// One that nobody shares.
    Alone(Own<S>),
}

impl<S: Service> Default for Later<S> {
    fn default() -> Self {
        Self { turns: VecDeque::new(), same: HashMap::new(), count: 0 }
    }
}

impl<S: Service> Later<S> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends a request. One that asks the same as others has their turn.
    pub(super) fn push(&mut self, own: Own<S>) {
        self.count += 1;
        let Some(same) = own.same.clone() else { return self.turns.push_back(Turn::Alone(own)) };
        let turns = &mut self.turns;
        let standing = self.same.entry(same).or_insert_with_key(|same| {
            turns.push_back(Turn::Same(same.clone()));
            Vec::new()
        });
        standing.push(own);
    }

    /// Takes those whose turn it is; empty if there are none.
    pub(super) fn take(&mut self) -> Vec<Own<S>> {
        let taken = match self.turns.pop_front() {
            None => Vec::new(),
            Some(Turn::Alone(own)) => vec![own],
            Some(Turn::Same(same)) => {
                let mut standing = self.same.remove(&same).unwrap_or_default();
                let rest = standing.split_off(standing.len().min(SHARED_MAX));
                if !rest.is_empty() {
                    self.turns.push_back(Turn::Same(same.clone()));
                    self.same.insert(same, rest);
                }
                standing
            }
        };
        self.count -= taken.len();
        taken
    }
}
