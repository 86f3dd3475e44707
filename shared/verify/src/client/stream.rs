//! An event stream.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::time::timeout;

use super::poll::get;
use super::{Asked, BEAT, Client, Connection, Failure, GRACE, Reply};
use crate::record::Record;

/// Most bytes of a block; a longer one is not Everpoll's.
const BLOCK_MAX: usize = 16 * 1024 * 1024;

/// Reads the stream until it ends, dies, or the client has had enough of it.
pub(super) async fn follow(client: &mut Client) -> Asked {
    let path = client.path(&format!("flavor=eventsource&beat={BEAT}"));
    let end = Instant::now().checked_add(client.stay());
    let target = client.target().clone();
    // A connection of its own: a stream ends with its connection.
    let request = || get(&path, target.authority());
    let mut connection = None;
    let response = Connection::send(&mut connection, &target, request, GRACE).await?;
    if response.status() != 200 {
        let reply = Reply::read(response, GRACE).await?;
        return Err(Failure::status(reply.status, reply.reconnect_in));
    }
    let mut body = response.into_body();
    let mut blocks = Blocks::default();
    loop {
        let silence = Duration::from_millis(BEAT * 2500);
        let left = end.map_or(silence, |end| end.saturating_duration_since(Instant::now()));
        let frame = match timeout(left.min(silence), body.frame()).await {
            Err(_) if left <= silence => return Ok(Duration::ZERO),
            Err(_) => return Err(Failure::new("stream silent")),
            // Told when to come back, it ends as it should; else a connection broke.
            Ok(None | Some(Err(_))) => {
                return match blocks.retry {
                    Some(told) if blocks.ended => Ok(told),
                    _ => Err(Failure::new("stream cut")),
                };
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Some(bytes) = frame.data_ref() else { continue };
        for (id, data) in blocks.push(bytes) {
            let record: Record =
                serde_json::from_slice(&data).map_err(|_| Failure::new("block is not Everpoll's"))?;
            blocks.ended |= record.data.kind == "everpoll:end";
            client.deliver(&record);
            client.place(&id);
        }
        if blocks.bytes.len() > BLOCK_MAX {
            return Err(Failure::new("block is not Everpoll's"));
        }
    }
}

/// Cuts a stream into blocks. Less than the whole standard: Everpoll ends lines with a line feed only, and each block with
/// data has an id; whether the standard is kept is shown by others.
#[derive(Debug, Default)]
struct Blocks {
    bytes: Vec<u8>,
    retry: Option<Duration>,
    ended: bool,
}

impl Blocks {
    /// Takes bytes in, and gives id and data of the blocks that they complete.
    fn push(&mut self, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        // What was there has no end of a block, but for its last byte.
        let mut from = self.bytes.len().saturating_sub(1);
        self.bytes.extend_from_slice(bytes);
        let (mut blocks, mut begin) = (Vec::new(), 0);
        while let Some(at) = self.bytes[from..].windows(2).position(|two| two == b"\n\n") {
            let end = from + at;
            let (mut id, mut data) = (String::new(), Vec::new());
            for line in self.bytes[begin..end].split(|byte| *byte == b'\n') {
                if let Some(value) = line.strip_prefix(b"id: ") {
                    id = String::from_utf8_lossy(value).into_owned();
                } else if let Some(value) = line.strip_prefix(b"data: ") {
                    data.extend_from_slice(value);
                } else if let Some(value) = line.strip_prefix(b"retry: ") {
                    let told = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    self.retry = told.map(Duration::from_millis);
                }
            }
            if !data.is_empty() {
                blocks.push((id, data));
            }
            (begin, from) = (end + 2, end + 2);
        }
        self.bytes.drain(..begin);
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_whole_however_the_bytes_are_cut() {
        let stream =
            b": everpoll\nretry: 5000\n\ndata: {\"a\":1}\nid: 7\n\n: beat\ndata: {}\nid: 8\n\ndata: half";
        for size in 1..stream.len() {
            let mut blocks = Blocks::default();
            let all: Vec<_> = stream.chunks(size).flat_map(|piece| blocks.push(piece)).collect();
            assert_eq!(
                all,
                [("7".to_owned(), b"{\"a\":1}".to_vec()), ("8".to_owned(), b"{}".to_vec())],
                "{size}"
            );
            assert_eq!(blocks.retry, Some(Duration::from_secs(5)));
        }
    }
}
