//! The bodies of `POST /publish`, and the events that they become.

use std::borrow::Cow;

use everpoll_protocol::{
    Event, Headers, MAX_DATA_BYTES, MAX_PUBLISH_EVENTS, NewEvent, Record, Reply, Request, Timestamp,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A request that says it is JSON.
pub(super) struct IsJson;

impl Headers for IsJson {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        (name == "content-type").then(|| b"application/json".as_slice().into())
    }
}

/// A body is refused, or becomes events that subscribers get as they were meant.
pub(crate) fn check(body: &[u8]) {
    let raw = super::raw("POST", b"/publish", &IsJson, body);
    let parsed = super::replies::check(&raw);
    assert!(!matches!(parsed, Ok(Request::Poll(_))));
}

pub(super) fn check_events(events: &[NewEvent]) {
    assert!((1..=MAX_PUBLISH_EVENTS).contains(&events.len()));
    let ids: Vec<_> = (1..).take(events.len()).collect();
    super::replies::check_reply(&Reply::published(&ids));
    for (id, event) in ids.into_iter().zip(events) {
        let data = event.data.as_str();
        assert!(data.len() <= MAX_DATA_BYTES);
        assert!(event.key.as_ref().is_none_or(|key| !key.is_empty() && !key.contains('\0')));
        assert!(!event.kind.as_str().starts_with("everpoll:"));
        let record = Record::from(&Event {
            id,
            channel: event.channel.clone(),
            kind: event.kind.clone(),
            data: event.data.clone(),
            ts: Timestamp::from_micros(0),
            exclude: event.exclude.clone(),
        });
        assert!(record.json.is_ascii() && !record.json.contains(&b'<') && !record.json.contains(&b'\n'));
        serde_json::from_slice::<&RawValue>(&record.json).expect("JSON");
        // The deepest data and the largest numbers are JSON that this parser does not hold.
        if let (Ok(data), Ok(got)) =
            (serde_json::from_str::<Value>(data), serde_json::from_slice::<Value>(&record.json))
        {
            let (channel, kind) = (event.channel.as_str(), event.kind.as_str());
            let ts = "1970-01-01T00:00:00.000Z";
            let data = json!({"type": kind, "data": data});
            assert_eq!(got, json!({"id": id, "channel_id": channel, "ts": ts, "data": data}));
        }
    }
}
