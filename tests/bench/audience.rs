//! The clients of a benchmark: they subscribe to a [`Site`], and write down which events they got and when.
//!
//! An event carries a number between tildes, `~7~`, and that is all that is looked for: it reads the same in JSON, in a
//! frame of a WebSocket, in a chunk, and as a string inside another string. All clients are one thread of tokio's, so that
//! they take at most one processor, whatever server they ask.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{io, thread};

use everpoll_tests::Address;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::load::Connection;
use crate::site::{Asking, Site, Subscription, Transport};

/// Clients of one site.
pub(crate) struct Audience {
    clients: Vec<Arc<Client>>,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Client {
    /// The numbers in the order in which they came, each with the time of its last byte.
    seen: Mutex<Vec<(u32, Instant)>>,
}

#[derive(Default)]
struct Shared {
    /// Events seen by all clients together.
    delivered: AtomicUsize,
    /// Clients whose stream has begun.
    greeted: AtomicUsize,
    broken: Mutex<Vec<String>>,
}

/// Finds numbers between tildes, in however many pieces the bytes come.
#[derive(Default)]
struct Marks {
    number: Option<(u32, bool)>,
}

/// An event's data, with its number.
pub(crate) fn data(number: u32) -> String {
    format!(r#"{{"mark":"~{number}~","name":"Sbrinz","weight":4.25,"from":["Obwalden","Nidwalden"]}}"#)
}

impl Audience {
    /// Lets `count` clients subscribe, each to the channel of its number, and waits until all are: a stream has said
    /// something, and what the server was asked it has read. `None` when it does not have this transport.
    ///
    /// # Panics
    ///
    /// When they are refused, or nothing is heard for a minute.
    pub(crate) fn gather(
        runtime: &Runtime,
        site: &dyn Site,
        transport: Transport,
        count: usize,
        channel: impl Fn(usize) -> String,
    ) -> Option<Self> {
        let (shared, address) = (Arc::new(Shared::default()), site.address());
        eprintln!("{count} clients by {} at {address}", transport.name());
        let mut audience =
            Self { clients: Vec::with_capacity(count), shared, tasks: Vec::with_capacity(count) };
        let mut streams = 0;
        for number in 0..count {
            let subscription = site.subscribe(transport, &channel(number), number)?;
            let (client, shared) = (Arc::new(Client::default()), Arc::clone(&audience.shared));
            audience.clients.push(Arc::clone(&client));
            audience.tasks.push(match subscription {
                Subscription::Polls(asking) => runtime.spawn(async move {
                    let Err(error) = poll(address, asking, &client, &shared).await;
                    lock(&shared.broken).push(format!("client {number}: {error}"));
                }),
                Subscription::Stream(request, greeting) => {
                    streams += 1;
                    runtime.spawn(async move {
                        let Err(error) = listen(address, &request, greeting, &client, &shared).await;
                        lock(&shared.broken).push(format!("client {number}: {error}"));
                    })
                }
            });
            // Not all at once: a queue of connections that overflows makes them wait for seconds.
            if number % 100 == 99 {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let end = Instant::now() + Duration::from_secs(60);
        while audience.shared.greeted.load(Ordering::Relaxed) < streams {
            audience.assert_unbroken();
            assert!(Instant::now() < end, "after a minute not all of {count} clients are subscribed");
            thread::sleep(Duration::from_millis(5));
        }
        crate::site::wait_until_quiet(site);
        thread::sleep(site.settles_in());
        audience.assert_unbroken();
        Some(audience)
    }

    /// Waits until so many events have been seen by all together, or none comes any more. Returns how many were.
    pub(crate) fn wait_for(&self, count: usize) -> usize {
        let (mut before, mut since) = (self.delivered(), Instant::now());
        loop {
            self.assert_unbroken();
            let now = self.delivered();
            if now >= count || (now == before && since.elapsed() > Duration::from_secs(3)) {
                return now;
            }
            if now != before {
                (before, since) = (now, Instant::now());
            }
            // As long as an event takes: what looks too often takes the processor from those that are measured.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Events seen so far by all clients together.
    pub(crate) fn delivered(&self) -> usize {
        self.shared.delivered.load(Ordering::Relaxed)
    }

    /// What each client has got since this was asked for the last time.
    pub(crate) fn take_seen(&self) -> Vec<Vec<(u32, Instant)>> {
        self.clients.iter().map(|client| std::mem::take(&mut *lock(&client.seen))).collect()
    }

    fn assert_unbroken(&self) {
        let broken = lock(&self.shared.broken);
        assert!(broken.is_empty(), "{} connections broke: {}", broken.len(), broken[0]);
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Polls for ever.
async fn poll(
    address: SocketAddr,
    mut asking: Asking,
    client: &Client,
    shared: &Shared,
) -> io::Result<std::convert::Infallible> {
    let address = Address::Tcp(address);
    let mut connection = Connection::open(&address).await?;
    let (mut request, mut failures) = (asking(None), 0);
    loop {
        let reply = match connection.exchange(&request).await {
            Ok(reply) if !(500..600).contains(&reply.status()) => {
                failures = 0;
                reply
            }
            // Overloaded, or cut off: a client comes back.
            failed => {
                failures += 1;
                if failures > 10 {
                    return Err(failed.err().unwrap_or_else(|| io::Error::other("ten times 5xx")));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                connection = Connection::open(&address).await?;
                continue;
            }
        };
        if !matches!(reply.status(), 200 | 304) {
            let text = String::from_utf8_lossy(reply.body()).into_owned();
            return Err(io::Error::other(format!("status {}: {text}", reply.status())));
        }
        Marks::default().take(reply.body(), reply.at, client, shared);
        request = asking(Some(&reply));
    }
}

/// Reads a stream for ever.
async fn listen(
    address: SocketAddr,
    mut request: &[u8],
    greeting: &[u8],
    client: &Client,
    shared: &Shared,
) -> io::Result<std::convert::Infallible> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    while !request.is_empty() {
        stream.writable().await?;
        match stream.try_write(request) {
            Ok(written) => request = &request[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let (mut marks, mut head) = (Marks::default(), Some(Vec::new()));
    loop {
        // Waited for first: a client that waits then has no buffer.
        stream.readable().await?;
        let mut bytes = [0; 8192];
        let read = match stream.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        if let Some(begin) = &mut head {
            begin.extend_from_slice(&bytes[..read]);
            if begin.windows(greeting.len()).any(|part| part == greeting) {
                if !begin.starts_with(b"HTTP/1.1 200") && !begin.starts_with(b"HTTP/1.1 101") {
                    return Err(io::Error::other(String::from_utf8_lossy(begin).into_owned()));
                }
                head = None;
                shared.greeted.fetch_add(1, Ordering::Relaxed);
            }
        }
        marks.take(&bytes[..read], Instant::now(), client, shared);
    }
}

impl Marks {
    fn take(&mut self, bytes: &[u8], at: Instant, client: &Client, shared: &Shared) {
        let mut count = 0;
        for byte in bytes {
            self.number = match (*byte, self.number) {
                (b'~', Some((number, true))) => {
                    lock(&client.seen).push((number, at));
                    count += 1;
                    None
                }
                (b'~', _) => Some((0, false)),
                (digit @ b'0'..=b'9', Some((number, _))) => {
                    Some((number.saturating_mul(10).saturating_add(u32::from(digit - b'0')), true))
                }
                _ => None,
            };
        }
        if count > 0 {
            shared.delivered.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_pieces() {
        let (client, shared, mut marks) = (Client::default(), Shared::default(), Marks::default());
        for piece in ["a ~1", "2~ ~ ~x3~4~", "~~5~"] {
            marks.take(piece.as_bytes(), Instant::now(), &client, &shared);
        }
        let seen: Vec<_> = lock(&client.seen).iter().map(|(number, _)| *number).collect();
        assert_eq!(seen, [12, 4, 5]);
    }
}
