//! Records as clients get them, and which of them are the checker's own events.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ledger::{Ledger, Reader};

/// The type of the checker's events.
pub(crate) const KIND: &str = "verify";

/// A record as polls and streams bring it.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) channel_id: String,
    pub(crate) data: Inner,
}

/// Its inner part.
#[derive(Debug, Deserialize)]
pub(crate) struct Inner {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) data: Option<Box<RawValue>>,
}

/// What the checker's events carry.
#[derive(Debug, Deserialize)]
struct Payload<'a> {
    run: &'a str,
    n: usize,
}

#[derive(Debug, Deserialize)]
struct Gap {
    after: u64,
    before: u64,
}

/// What the events of one run carry, so that two runs at once on one server do not meet.
#[derive(Debug)]
pub(crate) struct Label {
    run: String,
}

impl Label {
    /// Of this run.
    pub(crate) fn new(run: String) -> Self {
        Self { run }
    }

    /// The name of a channel.
    pub(crate) fn channel(&self, number: u32) -> String {
        format!("verify-{}-{number}", self.run)
    }

    /// The data of event `n`.
    pub(crate) fn payload(&self, n: usize) -> String {
        format!(r#"{{"run":"{}","n":{n}}}"#, self.run)
    }

    /// Its key: published again, it is the same event.
    pub(crate) fn key(&self, n: usize) -> String {
        format!("{}-{n}", self.run)
    }

    /// Writes into the ledger what a client was given.
    pub(crate) fn deliver(&self, ledger: &Ledger, reader: &mut Reader, record: &Record) {
        let kind = record.data.kind.as_str();
        let data = record.data.data.as_deref().map_or("null", RawValue::get);
        if kind == "everpoll:gap" {
            if let Ok(Gap { after, before }) = serde_json::from_str(data) {
                ledger.gap(reader, after, before);
            }
        } else if !kind.starts_with("everpoll:") {
            let payload: Option<Payload<'_>> = serde_json::from_str(data).ok();
            let own = payload.filter(|payload| kind == KIND && payload.run == self.run);
            ledger.deliver(reader, own.map(|payload| payload.n), record.id, &record.channel_id);
        }
    }
}
