//! Polls: held, padded, or answered at once.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde::Deserialize;

use super::{Asked, BEAT, Client, Connection, Failure, GRACE, Reply, lock};
use crate::Transport;
use crate::record::Record;

/// The body of a reply.
#[derive(Debug, Deserialize)]
struct Envelope {
    events: Vec<Record>,
    cursor: String,
    reconnect_in: u64,
    end: u8,
}

/// One poll.
pub(super) async fn ask(client: &mut Client, transport: Transport) -> Asked {
    let hold = if transport == Transport::ShortPoll { Duration::ZERO } else { client.world.hold };
    let path = client.path(&match transport {
        Transport::ShortPoll => "flavor=short-poll".to_owned(),
        Transport::Padded => format!("hold={}&pad=4096&beat={BEAT}", hold.as_secs()),
        _ => format!("hold={}", hold.as_secs()),
    });
    let target = client.target().clone();
    let request = || get(&path, target.authority());
    let response = Connection::send(&mut client.connection, &target, request, hold + GRACE).await?;
    let reply = Reply::read(response, hold + GRACE).await?;
    if reply.status != 200 {
        return Err(Failure::status(reply.status, reply.reconnect_in));
    }
    let envelope: Envelope = match serde_json::from_slice(&reply.body) {
        Ok(envelope) => envelope,
        // What says that it is whole and is no answer of ours comes from somebody in between.
        Err(error) if error.is_eof() => return Err(Failure::new("answer cut short")),
        Err(_) => return Err(Failure::new("answer is not Everpoll's")),
    };
    if envelope.end != 1 {
        return Err(Failure::new("answer is not Everpoll's"));
    }
    if stale(&lock(&client.reader).cursor, &envelope) {
        client.world.ledger.failed("answer to an older request");
    }
    envelope.events.iter().for_each(|record| client.deliver(record));
    client.place(&envelope.cursor);
    Ok(Duration::from_secs(envelope.reconnect_in))
}

/// Whether it answers another question than was asked: somebody in between kept it.
fn stale(asked: &str, answer: &Envelope) -> bool {
    let (Ok(asked), Ok(answered)) = (asked.parse::<u64>(), answer.cursor.parse::<u64>()) else {
        return false;
    };
    let first = answer.events.first();
    // A log that was restored goes back, and says so.
    let gap = first.is_some_and(|record| record.data.kind == "everpoll:gap");
    !gap && (answered < asked || first.is_some_and(|record| record.id <= asked))
}

pub(super) fn get(path: &str, authority: &str) -> Request<Full<Bytes>> {
    let request = Request::get(path).header("host", authority).header("accept", "*/*");
    request.body(Full::default()).expect("the path was made of checked parts")
}
