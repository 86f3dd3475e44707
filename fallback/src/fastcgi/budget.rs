//! A bound for the memory that unfinished and waiting requests take, all together.
//!
//! A limit for each request is not enough: twenty thousand connections that each send the largest body would need
//! more memory than any machine has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much all requests together may take.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
}

/// What one request has taken of it; given back on drop.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) })
    }

    /// From now on lets so much be taken. What is taken already stays.
    pub(super) fn limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes nothing yet.
    pub(super) fn charge(self: &Arc<Self>) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }
}

impl Charge {
    /// Takes as much more as is needed to have `bytes`; without effect, and false, if there is not so much.
    pub(super) fn raise(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = self.budget.used.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if more > 0 && taken > self.budget.limit.load(Ordering::Relaxed) {
            self.budget.used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }

    /// Gives everything back.
    pub(super) fn clear(&mut self) {
        self.budget.used.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_ends_at_its_limit_and_is_given_back() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.charge(), budget.charge());
        assert!(one.raise(4) && one.raise(6) && other.raise(4));
        assert!(!other.raise(5) && other.raise(4));
        assert_eq!(budget.used(), 10);
        drop(one);
        assert!(other.raise(10) && !other.raise(11));
        other.clear();
        assert_eq!(budget.used(), 0);
    }
}
