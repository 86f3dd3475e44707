//! Answers that wait until the daemon's own polls have what was published.
//!
//! Whoever is told that an event is published finds it with the next poll. So an answer does not go out with the commit, but
//! when the tailer has read so far; and it wakes the one who waits for it only then, and only once.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use everpoll_protocol::Failure;
use tokio::sync::oneshot;

use crate::hub::lock;

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Vec<u64>, Failure>>;

/// Answers that wait for the tailer.
#[derive(Debug, Default)]
pub(crate) struct Unseen(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Up to which id the tailer has read.
    seen: u64,
    commits: Vec<Commit>,
}

/// The answers of one transaction.
#[derive(Debug)]
struct Commit {
    newest: u64,
    at: Instant,
    answers: Vec<(Reply, Vec<u64>)>,
}

impl Unseen {
    /// The tailer has read up to `newest`.
    pub(crate) fn seen(&self, newest: u64) {
        lock(&self.0).seen = newest;
        self.answer(|commit| commit.newest <= newest);
    }

    /// These were committed `at` this time.
    pub(super) fn committed(&self, answers: Vec<(Reply, Vec<u64>)>, at: Instant) {
        let newest = answers.iter().flat_map(|(_, ids)| ids).max().copied().unwrap_or(0);
        let seen = {
            let mut waiting = lock(&self.0);
            waiting.commits.push(Commit { newest, at, answers });
            waiting.seen
        };
        // The tailer may have been faster.
        self.answer(|commit| commit.newest <= seen);
    }

    /// Answers what was committed longer ago than `patience`: it is in the log, whatever has become of the tailer.
    pub(super) fn give_up(&self, patience: Duration, now: Instant) {
        self.answer(|commit| now.saturating_duration_since(commit.at) >= patience);
    }

    fn answer(&self, is_due: impl Fn(&Commit) -> bool) {
        let due: Vec<_> = lock(&self.0).commits.extract_if(.., |commit| is_due(commit)).collect();
        for (reply, ids) in due.into_iter().flat_map(|commit| commit.answers) {
            // Whoever asked may have left.
            let _ = reply.send(Ok(ids));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_waits_for_the_tailer_but_not_for_ever() {
        let (unseen, start, second) = (Unseen::default(), Instant::now(), Duration::from_secs(1));
        let commit = |ids: &[u64], at| {
            let (reply, answer) = oneshot::channel();
            unseen.committed(vec![(reply, ids.to_vec())], at);
            answer
        };
        let (mut first, mut later) = (commit(&[3, 4], start), commit(&[5], start + second));
        unseen.seen(3);
        assert!(first.try_recv().is_err());
        unseen.seen(4);
        assert_eq!(first.try_recv().unwrap().unwrap(), [3, 4]);
        unseen.give_up(second, start + second);
        assert!(later.try_recv().is_err());
        unseen.give_up(second, start + second * 2);
        assert_eq!(later.try_recv().unwrap().unwrap(), [5]);
        // What the tailer has already is answered at once.
        assert_eq!(commit(&[2], start).try_recv().unwrap().unwrap(), [2]);
    }
}
