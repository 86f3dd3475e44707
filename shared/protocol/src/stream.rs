//! Streams of events: what an EventSource and a WebSocket are told, and how it is written.
//!
//! A stream is a row of [`Record`]s. Between those of events stand some of Everpoll's own: `everpoll:hello` first, so that a
//! client has a cursor before there is any event; `everpoll:gap`; `everpoll:beat`, which scripts can see, unlike comments and
//! pings, and which moves the cursor of a quiet channel; `everpoll:end`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Batch, Channel, Cursor, Flavor, Head, PollRequest, Record, Reply, ServeError, Timestamp};

/// Old polyfills on XDomainRequest see nothing before 2 KiB have come.
const PADDING: usize = 2048;

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// For EventSource: a block with the event's type and its data.
    Blocks,
    /// For EventSource: a block with the whole record, without a type, since types such as `error` would collide with
    /// EventSource's own.
    RecordBlocks,
    /// For WebSocket: the text of a frame.
    Frames,
}

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server stops.
    Draining,
    /// Another request of this browser is held.
    PlaceTaken,
    /// A later request of the same tab took the place.
    Replaced,
    /// The server never holds anything.
    ShortPoll,
    /// The client's right to read is over; it may ask again.
    Expired,
    /// The log cannot be read.
    Failed(ServeError),
}

/// One stream, without IO.
#[derive(Debug)]
pub struct Stream {
    wire: Wire,
    channel: Channel,
    beat: Option<Duration>,
    heartbeat: Duration,
    /// Up to where everything was written; none before the first read.
    cursor: Option<u64>,
    /// The last id that the client has seen.
    told: u64,
    beats: u64,
}

impl Stream {
    /// The stream that `request` asks for; `heartbeat` is how often a quiet one gives a sign of life.
    #[must_use]
    pub fn new(request: &PollRequest, heartbeat: Duration) -> Self {
        let wire = match (request.flavor, request.envelope) {
            (Flavor::WebSocket, _) => Wire::Frames,
            (_, false) => Wire::Blocks,
            (_, true) => Wire::RecordBlocks,
        };
        let channel = request.channels.as_slice()[0].clone();
        Self { wire, channel, beat: request.beat, heartbeat, cursor: None, told: 0, beats: 0 }
    }

    /// How its records are written.
    pub fn wire(&self) -> Wire {
        self.wire
    }

    /// How often there is to be a [heartbeat](Self::heartbeat).
    pub fn interval(&self) -> Duration {
        self.beat.unwrap_or(self.heartbeat)
    }

    /// The head of an EventSource that stays open, and what is written at once: until then, nobody knows whether it lives.
    #[must_use]
    pub fn head(request: &PollRequest, head: Head<'_>, retry_ms: u32) -> Bytes {
        let reply = Reply::event_stream(Vec::new(), &request.form());
        [&reply.open_http1(head, false)[..], &Self::opening(request, retry_ms)].concat().into()
    }

    /// The first lines of an EventSource.
    pub(crate) fn opening(request: &PollRequest, retry_ms: u32) -> Vec<u8> {
        let mut out = b": everpoll".to_vec();
        if request.padding {
            out.resize(PADDING, b' ');
        }
        out.extend_from_slice(format!("\nretry: {retry_ms}\n").as_bytes());
        out
    }

    /// What is written when a read of the log, made at `from`, has found `batch`.
    #[must_use]
    pub fn read(&mut self, batch: &Batch, from: Cursor, now: Timestamp) -> Vec<Arc<Record>> {
        let mut records = Vec::with_capacity(batch.records.len() + 2);
        if self.cursor.is_none() {
            let begins = match from {
                Cursor::After(id) => Some(id),
                Cursor::Now => Some(batch.cursor),
                // Whoever came back with a cursor behind the gap would never hear of it.
                Cursor::Since(_) if batch.gap.is_some() => None,
                Cursor::Since(_) => Some(batch.records.first().map_or(batch.cursor, |first| first.id - 1)),
            };
            let cursor = begins.map_or_else(String::new, |id| format!("\"cursor\":\"{id}\","));
            let beat = self.interval().as_secs_f64();
            let data = format!("{{{cursor}\"beat\":{beat}}}");
            self.told = begins.unwrap_or(0);
            records.push(Record::notice(begins, &self.channel, now, "everpoll:hello", &data).into());
        }
        records.extend(batch.gap.map(|gap| gap.record(&self.channel, now).into()));
        records.extend_from_slice(&batch.records);
        self.wrote(batch);
        records
    }

    /// Takes in that `batch` was written, from bytes that another stream had made.
    pub fn wrote(&mut self, batch: &Batch) {
        self.cursor = Some(batch.cursor);
        let gap = batch.gap.map(|gap| gap.before - 1);
        if let Some(id) = batch.records.last().map(|last| last.id).or(gap) {
            self.told = id;
        }
    }

    /// The sign of life that is due: `None` when one that scripts cannot see will do, a comment or a ping.
    #[must_use]
    pub fn heartbeat(&mut self, now: Timestamp) -> Option<Record> {
        let cursor = self.cursor.unwrap_or(0);
        if self.beat.is_none() && cursor <= self.told {
            return None;
        }
        self.beats += 1;
        let data = format!("{{\"n\":{},\"cursor\":\"{cursor}\"}}", self.beats);
        self.told = cursor;
        Some(Record::notice(self.cursor, &self.channel, now, "everpoll:beat", &data))
    }

    /// The last record of a stream; the client is to come back in `reconnect_in` seconds.
    #[must_use]
    pub fn end(&self, why: Ended, reconnect_in: u32, now: Timestamp) -> Record {
        let reason = why.reason();
        let data = format!("{{\"reconnect_in\":{reconnect_in},\"reason\":\"{reason}\"}}");
        Record::notice(self.cursor, &self.channel, now, "everpoll:end", &data)
    }
}

impl Ended {
    /// The word for it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::PlaceTaken => "place_taken",
            Self::Replaced => "replaced",
            Self::ShortPoll => "short_poll",
            Self::Expired => "expired",
            Self::Failed(error) => error.code(),
        }
    }
}

impl Wire {
    /// Appends a record.
    pub fn write(self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Self::Blocks => {
                out.extend_from_slice(b"event: ");
                out.extend_from_slice(&line(record.kind_json()));
                out.extend_from_slice(b"\ndata: ");
                out.extend_from_slice(record.data_json());
                write_id(record, out);
            }
            Self::RecordBlocks => {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(&record.json);
                write_id(record, out);
            }
            Self::Frames => {
                out.extend_from_slice(record.head_json());
                out.extend_from_slice(b"\"type\":");
                out.extend_from_slice(record.kind_json());
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(record.data_json());
                out.push(b',');
                out.extend_from_slice(record.ts_json());
                out.push(b'}');
            }
        }
    }

    /// Appends the line that tells an EventSource when to come back. Part of the next block.
    pub fn write_retry(self, milliseconds: u32, out: &mut Vec<u8>) {
        if self != Self::Frames {
            out.extend_from_slice(format!("retry: {milliseconds}\n").as_bytes());
        }
    }
}

fn write_id(record: &Record, out: &mut Vec<u8>) {
    if record.has_id() {
        out.extend_from_slice(format!("\nid: {}", record.id).as_bytes());
    }
    out.extend_from_slice(b"\n\n");
}

/// A type as EventSource reads it: not as JSON. A line end, which none should have, would end the field.
fn line(json: &[u8]) -> Vec<u8> {
    let text: String = serde_json::from_slice(json).unwrap_or_default();
    text.replace(['\r', '\n'], " ").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::record;
    use crate::request::tests::poll_request;
    use crate::{Gap, GapReason};

    fn written(stream: &Stream, records: &[Arc<Record>]) -> String {
        let mut out = Vec::new();
        for record in records {
            stream.wire().write(record, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    fn batch(ids: &[u64], cursor: u64) -> Batch {
        let records = ids.iter().map(|id| record(*id, 1, None)).collect();
        Batch { gap: None, records, cursor, more: false }
    }

    #[test]
    fn stream_begins_with_its_cursor() {
        let request = poll_request("/e/cheese?flavor=eventsource&last_event_id=7");
        let mut stream = Stream::new(&request, Duration::from_secs(15));
        let records = stream.read(&batch(&[8], 9), request.cursor, Timestamp::default());
        assert_eq!(
            written(&stream, &records),
            "event: everpoll:hello\ndata: {\"cursor\":\"7\",\"beat\":15}\nid: 7\n\n\
             event: cheese_created\ndata: \"x\"\nid: 8\n\n"
        );
        // The cursor has moved without an event, and the client must learn of it.
        let beat = stream.heartbeat(Timestamp::default()).unwrap();
        assert_eq!((beat.id, beat.data_json()), (9, &br#"{"n":1,"cursor":"9"}"#[..]));
        assert_eq!(stream.heartbeat(Timestamp::default()), None);
    }

    #[test]
    fn beats_are_seen_by_those_who_ask_for_them() {
        let request = poll_request("/e/cheese?flavor=eventsource&last_event_id=7&beat=2");
        let mut stream = Stream::new(&request, Duration::from_secs(15));
        assert_eq!(stream.interval(), Duration::from_secs(2));
        let _ = stream.read(&batch(&[], 7), request.cursor, Timestamp::default());
        for n in 1..3 {
            let beat = stream.heartbeat(Timestamp::default()).unwrap();
            assert_eq!(beat.data_json(), format!("{{\"n\":{n},\"cursor\":\"7\"}}").as_bytes());
        }
    }

    #[test]
    fn record_is_written_as_each_transport_wants_it() {
        let record = record(8, 1, None);
        let text = |wire: Wire| {
            let mut out = Vec::new();
            wire.write(&record, &mut out);
            String::from_utf8(out).unwrap()
        };
        let json = String::from_utf8(record.json.to_vec()).unwrap();
        assert_eq!(text(Wire::RecordBlocks), format!("data: {json}\nid: 8\n\n"));
        assert_eq!(
            text(Wire::Frames),
            r#"{"id":8,"channel_id":"cheese","type":"cheese_created","data":"x","ts":"2014-07-23T14:25:22.123Z"}"#
        );
    }

    #[test]
    fn gap_since_a_time_leaves_the_hello_without_a_cursor() {
        let request = poll_request("/e/cheese?flavor=eventsource&last_event_id=rt-1");
        let mut stream = Stream::new(&request, Duration::from_secs(15));
        let gap = Gap { after: 0, before: 901, reason: GapReason::Trimmed };
        let found = Batch { gap: Some(gap), ..batch(&[905], 905) };
        let records = stream.read(&found, request.cursor, Timestamp::default());
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        assert_eq!(ids, [0, 900, 905]);
    }
}
