//! What is still in the log, and what is told to a client that missed some of it.

use crate::{Channel, Record, Timestamp};

/// What of the log is there, read in one snapshot with the events that it is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Events up to this id are gone: trimmed. 0 when none ever was. That of the channels it was read for, or, for all, the highest
    /// of the [`LowMarks`](crate::LowMarks).
    pub low: u64,
    /// The id of the newest event, or, when that is gone, where it was. Never below `low` and `origin`.
    pub newest: u64,
    /// The last id that belongs to a lost history: where the log was restored from an older copy, new ids begin above
    /// all that the lost part can have used. 0 when the log was never restored.
    pub origin: u64,
}

/// A place where the log was restored from an older copy: ids inside were given to events that no longer exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rift {
    /// The newest event of the copy.
    pub after: u64,
    /// The first id that the restored log may give.
    pub before: u64,
}

/// Why events between a cursor and now are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Retention removed them.
    Trimmed,
    /// The cursor lies ahead of the log: it comes from another log, or from a part that a restored copy does not have.
    Ahead,
}

impl GapReason {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Ahead => "ahead",
        }
    }
}

/// Events with `after < id < before` are gone, or, with [`GapReason::Ahead`], the cursor `after` means nothing here and
/// what the log has begins at `before`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The client's cursor; 0 where it was a time.
    pub after: u64,
    /// The lowest id that can follow.
    pub before: u64,
    /// Why.
    pub reason: GapReason,
}

/// Where a cursor goes on, given what is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Events with higher ids are to be read.
    pub after: u64,
    /// What must be said first.
    pub gap: Option<Gap>,
}

impl Bounds {
    /// Where a client goes on that has seen everything up to `cursor`. `rift` is the one that `cursor` lies in, if
    /// any: `rift.after < cursor` and `cursor + 1 < rift.before`.
    #[must_use]
    pub fn resume(&self, cursor: u64, rift: Option<Rift>) -> Resume {
        // The rift is looked at first: a cursor in it may lie below the low-water mark by now.
        let (resume_after, reason) = match rift {
            Some(rift) => (rift.before - 1, GapReason::Ahead),
            // Nothing in this log was seen by such a client, so all of it follows.
            None if cursor > self.newest => (self.low, GapReason::Ahead),
            None if cursor < self.low => (self.low, GapReason::Trimmed),
            None => return Resume { after: cursor, gap: None },
        };
        let after = resume_after.max(self.low);
        Resume { after, gap: Some(Gap { after: cursor, before: after + 1, reason }) }
    }

    /// Whether a client that has seen everything up to `cursor` lacks nothing of channels whose newest event has the id
    /// `newest`, and needs to be told nothing either.
    #[must_use]
    pub fn is_all_seen(&self, cursor: u64, newest: u64) -> bool {
        // No rift reaches above the origin.
        self.low.max(self.origin) <= cursor && newest <= cursor && cursor <= self.newest
    }

    /// Where a client goes on that wants everything since a time of which `after` is the last id before it. With
    /// `trimmed`, events placed after that time are gone already.
    #[must_use]
    pub fn resume_since(&self, after: u64, trimmed: bool) -> Resume {
        let after = after.max(self.low);
        let gap = Gap { after: 0, before: self.low + 1, reason: GapReason::Trimmed };
        Resume { after, gap: (trimmed && self.low > 0).then_some(gap) }
    }
}

impl Rift {
    /// Whether a client that has seen everything up to `cursor` saw events that this log does not have.
    #[must_use]
    pub const fn contains(&self, cursor: u64) -> bool {
        self.after < cursor && cursor + 1 < self.before
    }
}

impl Gap {
    /// What stands first in a batch. Its id is where the client goes on.
    pub(crate) fn record(&self, channel: &Channel, now: Timestamp) -> Record {
        let Self { after, before, reason } = self;
        let reason = reason.as_str();
        let data = format!("{{\"after\":{after},\"before\":{before},\"reason\":\"{reason}\"}}");
        Record::notice(Some(before - 1), channel, now, "everpoll:gap", &data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { low: 900, newest: 2000, origin: 0 };

    #[test]
    fn cursor_inside_the_log_goes_on_without_a_gap() {
        for cursor in [900, 1500, 2000] {
            assert_eq!(BOUNDS.resume(cursor, None), Resume { after: cursor, gap: None });
        }
    }

    #[test]
    fn cursor_has_seen_all_only_where_nothing_is_to_be_said() {
        assert!(BOUNDS.is_all_seen(2000, 2000));
        assert!(BOUNDS.is_all_seen(1500, 1500) && !BOUNDS.is_all_seen(1499, 1500));
        assert!(BOUNDS.is_all_seen(900, 0) && !BOUNDS.is_all_seen(899, 0), "trimmed");
        assert!(!BOUNDS.is_all_seen(2001, 2000), "ahead");
        let restored = Bounds { origin: 1000, ..BOUNDS };
        assert!(restored.is_all_seen(1000, 0) && !restored.is_all_seen(999, 0), "it may lie in a rift");
    }

    #[test]
    fn cursor_before_the_low_water_mark_is_told_what_was_trimmed() {
        let gap = Gap { after: 434, before: 901, reason: GapReason::Trimmed };
        assert_eq!(BOUNDS.resume(434, None), Resume { after: 900, gap: Some(gap) });
    }

    #[test]
    fn cursor_of_another_log_gets_all_that_this_one_has() {
        let gap = Gap { after: 2001, before: 901, reason: GapReason::Ahead };
        assert_eq!(BOUNDS.resume(2001, None), Resume { after: 900, gap: Some(gap) });
    }

    #[test]
    fn cursor_in_a_rift_goes_on_behind_it() {
        let rift = Rift { after: 1000, before: 1800 };
        assert!(!rift.contains(1000) && rift.contains(1001) && rift.contains(1798) && !rift.contains(1799));
        let gap = Gap { after: 1200, before: 1800, reason: GapReason::Ahead };
        assert_eq!(BOUNDS.resume(1200, Some(rift)), Resume { after: 1799, gap: Some(gap) });
    }

    #[test]
    fn time_before_the_low_water_mark_is_told_so() {
        assert_eq!(BOUNDS.resume_since(1000, false), Resume { after: 1000, gap: None });
        let gap = Gap { after: 0, before: 901, reason: GapReason::Trimmed };
        assert_eq!(BOUNDS.resume_since(0, true), Resume { after: 900, gap: Some(gap) });
    }
}
