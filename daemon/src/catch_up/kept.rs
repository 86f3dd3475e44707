//! What was read for one who was behind, kept for those who come within the next seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use everpoll_protocol::{BATCH_EVENTS, Bounds, Channels, Cursor, Page};

use crate::hub::lock;
use crate::window::{Base, Look, Window};

/// How long what was read is kept.
const AGE_MAX: Duration = Duration::from_secs(5);

/// How much of it is kept, in bytes.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What was read last, by channels.
#[derive(Debug, Default)]
pub(super) struct Kept {
    reads: Mutex<HashMap<Channels, Read>>,
}

/// What was read from an id on to the end of the log.
#[derive(Debug)]
struct Read {
    at: Instant,
    /// What the window was like before.
    base: Base,
    bounds: Bounds,
    from: u64,
    page: Arc<Page>,
}

impl Kept {
    /// Keeps what was read.
    pub(super) fn keep(
        &self,
        channels: &Channels,
        cursor: Cursor,
        base: Option<Base>,
        bounds: Bounds,
        page: &Arc<Page>,
    ) {
        let (Cursor::After(from), Some(base)) = (cursor, base) else { return };
        if page.more || page.gap.is_some() {
            return;
        }
        let mut reads = lock(&self.reads);
        reads.retain(|_, read| read.at.elapsed() < AGE_MAX);
        if reads.values().map(|read| size(&read.page)).sum::<usize>() + size(page) > BYTES_MAX {
            reads.clear();
        }
        // The one that reaches back further is of use to more.
        if reads.get(channels).is_none_or(|known| from <= known.from) {
            let (at, page) = (Instant::now(), page.clone());
            reads.insert(channels.clone(), Read { at, base, bounds, from, page });
        }
    }

    /// What was kept, with what has come since, and answers this question as a read would: all later events are in the window,
    /// and nothing that it has is gone since.
    pub(super) fn find(
        &self,
        channels: &Channels,
        cursor: Cursor,
        window: &Mutex<Window>,
    ) -> Option<Arc<Page>> {
        let Cursor::After(after) = cursor else { return None };
        let (base, low) = {
            let window = lock(window);
            (window.base()?, window.low_marks().highest_of(channels.as_slice()))
        };
        let reads = lock(&self.reads);
        let Read { at, base: before, bounds, from, page } = reads.get(channels)?;
        let holds = at.elapsed() < AGE_MAX && base.is_of_the_log_of(before) && page.next >= base.floor;
        if !holds || after < *from || after < low {
            return None;
        }
        let (page, before) = (Arc::new(share(page, bounds, cursor)?), *before);
        // Whoever waits for the one lock must not have the other.
        drop(reads);
        Some(complete(page, channels, Some(before), window))
    }
}

/// The page with what the window has beyond it: it may have been read before the question came, and whoever asks is to have all
/// that was published before. `base` is what the window was like before the read.
pub(super) fn complete(
    page: Arc<Page>,
    channels: &Channels,
    base: Option<Base>,
    window: &Mutex<Window>,
) -> Arc<Page> {
    let window = lock(window);
    let is_same_log = window.base().zip(base).is_some_and(|(now, before)| now.is_of_the_log_of(&before));
    if page.more || !is_same_log || window.newest() <= page.next {
        return page;
    }
    let Look::Found(rest) = window.look(channels, Cursor::After(page.next), false) else { return page };
    let records = [&page.records[..], &rest.records].concat();
    let mut whole = Page { gap: page.gap, records, next: rest.next, more: rest.more };
    if whole.records.len() > BATCH_EVENTS {
        whole.records.truncate(BATCH_EVENTS);
        (whole.next, whole.more) = (whole.records[BATCH_EVENTS - 1].id, true);
    }
    Arc::new(whole)
}

/// What of a page that was read from a lower cursor is the answer to a higher one; `None` where that may have to be told more,
/// or stands behind the page.
pub(super) fn share(page: &Page, bounds: &Bounds, cursor: Cursor) -> Option<Page> {
    let Cursor::After(after) = cursor else { return None };
    // Behind the origin nothing was ever lost but by trimming, and of that the lower cursor would have been told.
    if page.gap.is_some() || after < bounds.origin || after > page.next || (page.more && after == page.next) {
        return None;
    }
    let records = page.records.iter().filter(|record| record.id > after).cloned().collect();
    Some(Page { gap: None, records, next: page.next, more: page.more })
}

/// The memory that a page takes, more or less.
fn size(page: &Page) -> usize {
    page.records.iter().map(|record| record.json.len() + 256).sum::<usize>() + 256
}

#[cfg(test)]
mod tests {
    use everpoll_protocol::{Channel, Data, Event, Gap, GapReason, Kind, LowMarks, Record, Timestamp};

    use super::*;

    fn record(id: u64) -> Arc<Record> {
        Arc::new(Record::from(&Event {
            id,
            channel: Channel::parse("a").unwrap(),
            kind: Kind::parse("made").unwrap(),
            data: Data::parse("1").unwrap(),
            ts: Timestamp::from_micros(id),
            exclude: None,
        }))
    }

    fn shared(page: &Page, bounds: &Bounds, after: u64) -> Option<(Vec<u64>, u64, bool)> {
        let page = share(page, bounds, Cursor::After(after))?;
        Some((page.records.iter().map(|record| record.id).collect(), page.next, page.more))
    }

    #[test]
    fn page_is_shared_with_those_who_are_told_the_same_alone() {
        let bounds = Bounds { low: 1, newest: 9, origin: 4 };
        let mut page = Page { gap: None, records: vec![record(5), record(7)], next: 9, more: false };
        assert_eq!(shared(&page, &bounds, 4), Some((vec![5, 7], 9, false)));
        assert_eq!(shared(&page, &bounds, 5), Some((vec![7], 9, false)));
        assert_eq!(shared(&page, &bounds, 9), Some((vec![], 9, false)));
        // It may be of a lost history, or of another log.
        assert_eq!(shared(&page, &bounds, 3), None);
        assert_eq!(shared(&page, &bounds, 10), None);
        assert!(share(&page, &bounds, Cursor::Since(Timestamp::from_micros(1))).is_none());
        (page.more, page.next) = (true, 7);
        assert_eq!(shared(&page, &bounds, 6), Some((vec![7], 7, true)));
        // There is more, but not on this page.
        assert_eq!(shared(&page, &bounds, 7), None);
        page.gap = Some(Gap { after: 2, before: 5, reason: GapReason::Trimmed });
        assert_eq!(shared(&page, &bounds, 5), None);
    }

    #[test]
    fn what_was_read_is_kept_as_long_as_a_read_would_say_the_same() {
        let channels = Channels::parse_segment(b"a").unwrap();
        let window = |floor| {
            let mut window = Window::new(1 << 20, floor);
            window.filled();
            Mutex::new(window)
        };
        let kept = Kept::default();
        let bounds = Bounds { low: 2, newest: 9, origin: 0 };
        let page = Arc::new(Page { gap: None, records: vec![record(5), record(7)], next: 9, more: false });
        let base = lock(&window(9)).base();
        kept.keep(&channels, Cursor::After(4), base, bounds, &page);
        // Of less use: it does not replace the other.
        let less = Arc::new(Page { records: vec![record(7)], ..(*page).clone() });
        kept.keep(&channels, Cursor::After(6), base, bounds, &less);
        let found = |after, window: &Mutex<Window>| {
            let page = kept.find(&channels, Cursor::After(after), window)?;
            Some(page.records.iter().map(|record| record.id).collect::<Vec<_>>())
        };
        assert_eq!(found(4, &window(9)), Some(vec![5, 7]));
        assert_eq!(found(6, &window(9)), Some(vec![7]));
        assert_eq!(found(9, &window(8)), Some(vec![]));
        assert_eq!(found(3, &window(9)), None);
        // Between the page and the window there may be others.
        assert_eq!(found(6, &window(10)), None);
        let trimmed = window(9);
        lock(&trimmed).bound(&Bounds { low: 7, newest: 9, origin: 0 }, &LowMarks::of_all(7));
        assert_eq!((found(6, &trimmed), found(7, &trimmed)), (None, Some(vec![])));
        let other_log = window(9);
        lock(&other_log).reset(9);
        assert_eq!(found(6, &other_log), None);
    }

    #[test]
    fn page_is_completed_with_what_came_after_it_was_read() {
        let channels = Channels::parse_segment(b"a").unwrap();
        let mut window = Window::new(1 << 20, 8);
        window.filled();
        let base = window.base();
        let page = || Arc::new(Page { gap: None, records: vec![record(5), record(7)], next: 9, more: false });
        let completed = |page: Arc<Page>, window: &Mutex<Window>| {
            let page = complete(page, &channels, base, window);
            (page.records.iter().map(|record| record.id).collect::<Vec<_>>(), page.next, page.more)
        };
        window.append(vec![record(9), record(11)], 12);
        let window = Mutex::new(window);
        assert_eq!(completed(page(), &window), (vec![5, 7, 11], 12, false));
        // There are others between the page and the window, which the client asks for next.
        let full = Arc::new(Page { more: true, next: 7, ..(*page()).clone() });
        assert_eq!(completed(full, &window), (vec![5, 7], 7, true));
        // As many as one reply may have.
        lock(&window).append((13..1013).map(record).collect(), 1012);
        let (ids, next, more) = completed(page(), &window);
        assert_eq!((ids.len(), ids.last().copied(), next, more), (1000, Some(1009), 1009, true));
        // It is another log now.
        lock(&window).reset(20);
        assert_eq!(completed(page(), &window), (vec![5, 7], 9, false));
    }
}
