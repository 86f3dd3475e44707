//! Bytes in both directions, until there was silence for too long.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::{Io, Mode, Shared};

/// What happened first.
enum Next {
    Client(usize),
    Server(usize),
    TimeOver,
    /// Another mode: the deadline is another one.
    Changed,
}

/// Passes on until one side closes or the mode's limit is over.
pub(super) async fn run(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut server = shared.connect().await?;
    let mut mode = shared.mode.subscribe();
    let (mut from_client, mut from_server) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut last = Instant::now();
    // Nothing yet is like a kept connection: nobody waits for an answer.
    let mut waiting = false;
    loop {
        let limit = mode.borrow_and_update().limit();
        let next = tokio::select! {
            read = client.read(&mut from_client) => Next::Client(read?),
            read = server.read(&mut from_server) => Next::Server(read?),
            () = silence(last, limit) => Next::TimeOver,
            _ = mode.changed() => Next::Changed,
        };
        match next {
            Next::Client(0) | Next::Server(0) => return Ok(()),
            Next::Client(length) => {
                let bytes = &from_client[..length];
                if begins_request(bytes) {
                    shared.note_request(bytes);
                }
                server.write_all(bytes).await?;
                (waiting, last) = (true, Instant::now());
            }
            Next::Server(length) => {
                client.write_all(&from_server[..length]).await?;
                (waiting, last) = (false, Instant::now());
            }
            Next::TimeOver => {
                shared.count(|counters| match waiting {
                    true => counters.cut += 1,
                    false => counters.ended += 1,
                });
                return end(client, server, shared.mode()).await;
            }
            Next::Changed => {}
        }
    }
}

async fn silence(last: Instant, limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep_until(last + limit).await,
        None => pending().await,
    }
}

async fn end(mut client: TcpStream, mut server: Box<dyn Io>, mode: Mode) -> io::Result<()> {
    match mode {
        Mode::Rst(_) => {
            // Closing with nothing to linger for is a reset.
            client.set_zero_linger()?;
            Ok(())
        }
        Mode::Blackhole(_) => {
            let (mut one, mut other) = (vec![0; 4096], vec![0; 4096]);
            // What a side says is taken and forgotten, and that it has closed is not passed on.
            while matches!(client.read(&mut one).await, Ok(1..)) {}
            while matches!(server.read(&mut other).await, Ok(1..)) {}
            Ok(())
        }
        _ => client.shutdown().await,
    }
}

/// Whether these bytes are the beginning of a request: all tests write a head at once.
fn begins_request(bytes: &[u8]) -> bool {
    ["GET ", "POST ", "HEAD ", "OPTIONS "].iter().any(|method| bytes.starts_with(method.as_bytes()))
}
