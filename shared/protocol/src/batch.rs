//! The events that are returned together.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Channel, Event, Gap, Timestamp, WaitId, json};

/// Most events of one batch.
pub const BATCH_EVENTS: usize = 1000;

/// Most bytes of one batch's events, as JSON; a single larger event still goes out alone.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// An event as subscribers get it: written once, shared by all replies.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// The event's id; where Everpoll itself has something to say, up to where the client is then.
    pub id: u64,
    /// The event's channel.
    pub channel: Channel,
    /// When the event was given its place.
    pub ts: Timestamp,
    /// The `wait_id` that does not get it.
    pub exclude: Option<WaitId>,
    /// How long the event's data is as it was published, in bytes.
    pub data_bytes: usize,
    /// `{"id":…,"channel_id":…,"ts":…,"data":{"type":…,"data":…}}` in ASCII.
    pub json: Bytes,
    parts: Parts,
}

/// Where in a record's JSON its parts begin, for transports that arrange them otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    /// `"ts":"…"`
    ts: u32,
    /// The type, as a JSON string.
    kind: u32,
    /// The data.
    data: u32,
}

/// Writes a record's JSON but for its data, which follows, and then [`END`].
fn begin(
    id: Option<u64>,
    channel: &Channel,
    ts: Timestamp,
    kind: &str,
    data_bytes: usize,
) -> (Vec<u8>, Parts) {
    let mut out = Vec::with_capacity(data_bytes + channel.as_str().len() + 128);
    out.push(b'{');
    if let Some(id) = id {
        out.extend_from_slice(format!("\"id\":{id},").as_bytes());
    }
    out.extend_from_slice(b"\"channel_id\":");
    json::write_string(channel.as_str(), &mut out);
    out.push(b',');
    let ts_at = place(&out);
    out.extend_from_slice(format!("\"ts\":\"{ts}\"{BEFORE_KIND}").as_bytes());
    let kind_at = place(&out);
    json::write_string(kind, &mut out);
    out.extend_from_slice(BEFORE_DATA);
    let parts = Parts { ts: ts_at, kind: kind_at, data: place(&out) };
    (out, parts)
}

const BEFORE_KIND: &str = ",\"data\":{\"type\":";
const BEFORE_DATA: &[u8] = b",\"data\":";
const END: &[u8] = b"}}";

fn place(out: &[u8]) -> u32 {
    u32::try_from(out.len()).expect("channel and type are short")
}

impl From<&Event> for Record {
    fn from(event: &Event) -> Self {
        let data_bytes = event.data.as_str().len();
        let (mut out, parts) =
            begin(Some(event.id), &event.channel, event.ts, event.kind.as_str(), data_bytes);
        json::write_ascii(event.data.as_str(), &mut out);
        out.extend_from_slice(END);
        out.shrink_to_fit();
        Self {
            id: event.id,
            channel: event.channel.clone(),
            ts: event.ts,
            exclude: event.exclude.clone(),
            data_bytes,
            json: out.into(),
            parts,
        }
    }
}

impl Record {
    /// What Everpoll itself has to say: `kind` is one of its own types, `data` is JSON in ASCII.
    pub(crate) fn notice(id: Option<u64>, channel: &Channel, ts: Timestamp, kind: &str, data: &str) -> Self {
        let (mut out, parts) = begin(id, channel, ts, kind, data.len());
        out.extend_from_slice(data.as_bytes());
        out.extend_from_slice(END);
        Self {
            id: id.unwrap_or(0),
            channel: channel.clone(),
            ts,
            exclude: None,
            data_bytes: data.len(),
            json: out.into(),
            parts,
        }
    }

    /// Whether the id means something: only what is said before anything is known has none. In an empty log it is 0.
    pub(crate) fn has_id(&self) -> bool {
        self.json.starts_with(b"{\"id\":")
    }

    /// `{"id":…,"channel_id":…,` with the brace and the comma.
    pub(crate) fn head_json(&self) -> &[u8] {
        &self.json[..self.parts.ts as usize]
    }

    /// `"ts":"…"`
    pub(crate) fn ts_json(&self) -> &[u8] {
        &self.json[self.parts.ts as usize..self.parts.kind as usize - BEFORE_KIND.len()]
    }

    /// The type, as a JSON string.
    pub(crate) fn kind_json(&self) -> &[u8] {
        &self.json[self.parts.kind as usize..self.parts.data as usize - BEFORE_DATA.len()]
    }

    /// The data, without line ends.
    pub(crate) fn data_json(&self) -> &[u8] {
        &self.json[self.parts.data as usize..self.json.len() - END.len()]
    }
}

/// What one read of the log found for a poll.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What must be said first.
    pub gap: Option<Gap>,
    /// The events of the poll's channels, ascending.
    pub records: Vec<Arc<Record>>,
    /// Where to go on behind them: the last one's id when there are more, else the log's newest id.
    pub next: u64,
    /// Whether the log has more behind them.
    pub more: bool,
}

/// What goes out in one reply: at most [`BATCH_EVENTS`] and [`BATCH_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What is said first.
    pub gap: Option<Gap>,
    /// The events, ascending.
    pub records: Vec<Arc<Record>>,
    /// Where the client goes on.
    pub cursor: u64,
    /// Whether there is more, so that the client comes back at once.
    pub more: bool,
}

impl Page {
    /// Cuts a batch from the page, for the browser `wait_id`: events that exclude it are passed over.
    #[must_use]
    pub fn batch(&self, wait_id: Option<&WaitId>) -> Batch {
        let mut batch = Batch { gap: self.gap, records: Vec::new(), cursor: self.next, more: self.more };
        let (mut bytes, mut data_bytes) = (0, 0);
        let mut passed = None;
        for record in &self.records {
            // A page that the log has cut ends here by itself; one from memory must end in the same place.
            data_bytes += record.data_bytes;
            if let (true, Some(passed)) = (data_bytes > BATCH_BYTES, passed) {
                (batch.cursor, batch.more) = (passed, true);
                break;
            }
            let excluded = record.exclude.is_some() && record.exclude.as_ref() == wait_id;
            if !excluded {
                bytes += record.json.len();
                let full = batch.records.len() == BATCH_EVENTS || bytes > BATCH_BYTES;
                if let (true, false, Some(passed)) = (full, batch.records.is_empty(), passed) {
                    (batch.cursor, batch.more) = (passed, true);
                    break;
                }
                batch.records.push(record.clone());
            }
            passed = Some(record.id);
        }
        batch
    }
}

impl Batch {
    /// A batch without events, which only moves the client's cursor.
    #[must_use]
    pub fn empty(cursor: u64) -> Self {
        Self { gap: None, records: Vec::new(), cursor, more: false }
    }

    /// As much of the batch as has room in `bytes` bytes of records, for a client that stood at `from`; what is left
    /// out follows with the next one.
    #[must_use]
    pub(crate) fn cut_to(mut self, bytes: usize, from: u64) -> Self {
        let mut used = 0;
        let fitting = self.records.iter().take_while(|record| {
            // One for the comma.
            used += record.json.len() + 1;
            used <= bytes
        });
        let fitting = fitting.count();
        if fitting < self.records.len() {
            self.records.truncate(fitting);
            self.more = true;
            let before = self.gap.map_or(from, |gap| gap.before - 1);
            self.cursor = self.records.last().map_or(before, |last| last.id);
        }
        self
    }

    /// Whether there is nothing that a client waits for.
    pub fn is_empty(&self) -> bool {
        self.gap.is_none() && self.records.is_empty() && !self.more
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Data, Kind};

    /// A record whose data is a string of `bytes` bytes.
    pub(crate) fn record(id: u64, bytes: usize, exclude: Option<&str>) -> Arc<Record> {
        Arc::new(Record::from(&Event {
            id,
            channel: Channel::parse("cheese").unwrap(),
            kind: Kind::parse("cheese_created").unwrap(),
            data: Data::parse(&format!("\"{}\"", "x".repeat(bytes))).unwrap(),
            ts: Timestamp::from_micros(1_406_125_522_123_000),
            exclude: exclude.map(|id| WaitId::parse(id.as_bytes()).unwrap()),
        }))
    }

    fn page(records: Vec<Arc<Record>>, next: u64) -> Page {
        Page { gap: None, records, next, more: false }
    }

    #[test]
    fn record_is_written_as_old_clients_read_it() {
        assert_eq!(
            record(434, 1, None).json,
            r#"{"id":434,"channel_id":"cheese","ts":"2014-07-23T14:25:22.123Z","data":{"type":"cheese_created","data":"x"}}"#
        );
    }

    #[test]
    fn batch_ends_at_a_thousand_events() {
        let batch = page((1..=1001).map(|id| record(id, 1, None)).collect(), 2000).batch(None);
        assert_eq!((batch.records.len(), batch.cursor, batch.more), (1000, 1000, true));
        let batch = page((1..=1000).map(|id| record(id, 1, None)).collect(), 2000).batch(None);
        assert_eq!((batch.records.len(), batch.cursor, batch.more), (1000, 2000, false));
    }

    #[test]
    fn batch_ends_at_a_mebibyte_but_a_larger_event_goes_out_alone() {
        let large = BATCH_BYTES - 2;
        let batch = page(vec![record(1, large, None), record(2, 1, None)], 9).batch(None);
        assert_eq!((batch.records.len(), batch.cursor, batch.more), (1, 1, true));
        let batch = page(vec![record(1, 600_000, None), record(2, 600_000, None)], 9).batch(None);
        assert_eq!((batch.records.len(), batch.cursor, batch.more), (1, 1, true));
    }

    #[test]
    fn batch_ends_where_the_log_cuts_it_by_the_bytes_that_were_published() {
        let spacious = |id, exclude: Option<&str>| {
            let mut record = Arc::into_inner(record(id, 1, exclude)).unwrap();
            record.data_bytes = 600_000;
            Arc::new(record)
        };
        let batch = page(vec![spacious(1, None), spacious(2, None)], 9).batch(None);
        assert_eq!((batch.records.len(), batch.cursor, batch.more), (1, 1, true));
        let batch = page(vec![spacious(1, Some("me")), spacious(2, None)], 9);
        let batch = batch.batch(Some(&WaitId::parse(b"me").unwrap()));
        assert_eq!((batch.records.len(), batch.cursor, batch.more), (0, 1, true));
    }

    #[test]
    fn excluded_events_are_passed_over_and_the_cursor_moves_behind_them() {
        let me = WaitId::parse(b"me").unwrap();
        let records = vec![
            record(1, 1, Some("me")),
            record(2, 1, Some("you")),
            record(3, 1, None),
            record(4, 1, Some("me")),
        ];
        let batch = page(records.clone(), 4).batch(Some(&me));
        assert_eq!(batch.records.iter().map(|r| r.id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(batch.cursor, 4);
        assert_eq!(page(records.clone(), 4).batch(None).records.len(), 4);
        assert!(page(records[..1].to_vec(), 1).batch(Some(&me)).is_empty());
    }
}
