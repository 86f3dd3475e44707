//! One look at the log, for all polls that wait at the same time.
//!
//! While the daemon is away, nearly all polls find nothing new, and all of them find it in the same place: the newest id of the
//! log. So it is read once for as many as there are. Where the log has gone on, but perhaps on other channels, one more statement
//! tells the newest id of each channel that is asked for. Whoever has news reads them by itself.
//!
//! What a newcomer gets wrong: an answer must not be older than its question. A page that has just published asks for its own event,
//! so a look answers those alone that had asked before it began.

use std::collections::HashMap;

use everpoll_log::{Latest, Log, LogError};
use everpoll_protocol::{Bounds, Channel, Cursor, LowMarks, Page, PollRequest};

/// Most channels that are asked for in one statement; each costs a walk down an index.
const CHANNELS_MAX: usize = 1024;

/// What a look has seen.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    bounds: Bounds,
    channels: Option<Channels<'a>>,
}

/// What the second statement tells.
#[derive(Debug)]
struct Channels<'a> {
    /// What of the log was there then.
    bounds: Bounds,
    low_marks: LowMarks,
    /// The newest ids of channels up to the newest of the first statement.
    newest: HashMap<&'a Channel, u64>,
}

impl<'a> Look<'a> {
    /// Looks at the log for these polls.
    ///
    /// # Errors
    ///
    /// Those of [`Log::bounds`].
    pub(crate) fn take(log: &mut Log, polls: &[&'a PollRequest]) -> Result<Self, LogError> {
        let mut look = Self { bounds: log.bounds()?, channels: None };
        let mut behind: Vec<&Channel> = Vec::new();
        let mut polls_behind = 0;
        for poll in polls.iter().filter(|poll| look.may_have_missed(poll)) {
            polls_behind += 1;
            behind.extend(poll.channels.as_slice());
        }
        behind.sort_unstable();
        behind.dedup();
        // A single one reads as fast as it is looked at.
        if polls_behind > 1 && behind.len() <= CHANNELS_MAX {
            let names: Vec<_> = behind.iter().map(|&channel| channel.clone()).collect();
            let Latest { bounds, low_marks, ids } = log.latest(&names, look.bounds.newest)?;
            let newest = behind.into_iter().zip(ids).collect();
            look.channels = Some(Channels { bounds, low_marks, newest });
        }
        Ok(look)
    }

    /// The poll's page, if there is nothing new for it.
    pub(crate) fn page(&self, poll: &PollRequest) -> Option<Page> {
        let newest = self.bounds.newest;
        let nothing_new = match poll.cursor {
            Cursor::Now => true,
            // Times are looked up in the log.
            Cursor::Since(_) => false,
            Cursor::After(cursor) if self.bounds.is_all_seen(cursor, newest) => true,
            Cursor::After(cursor) => self.channels.as_ref().is_some_and(|look| {
                let of_channel = |channel| look.newest.get(channel).copied().unwrap_or(u64::MAX);
                let of_all = poll.channels.as_slice().iter().map(of_channel).max().unwrap_or(newest);
                // Events may have been trimmed between the two statements: what the second says of that is the later.
                let low = look.low_marks.highest_of(poll.channels.as_slice());
                [self.bounds, look.bounds]
                    .iter()
                    .all(|bounds| Bounds { low, ..*bounds }.is_all_seen(cursor, of_all))
            }),
        };
        nothing_new.then(|| Page { next: newest, ..Page::default() })
    }

    /// Whether the log has gone on behind the poll's cursor, on whatever channel.
    fn may_have_missed(&self, poll: &PollRequest) -> bool {
        let Cursor::After(cursor) = poll.cursor else { return false };
        self.bounds.origin <= cursor && cursor < self.bounds.newest
    }
}
