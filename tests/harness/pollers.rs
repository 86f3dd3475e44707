//! Thousands of browsers: clients that long-poll as the browser client does, and write down what they got.
//!
//! Each [`Poller`] asks, takes what comes, goes on from the cursor it was given, and comes back when it was told to.
//! It keeps its connection as a browser does. What it got is in its [`Reading`], for the checker's ledger
//! to judge. A status other than 200 and a broken connection are counted and the poller goes on: whether they are
//! allowed is the test's business.
//!
//! The clients are tasks on a runtime of their own, so that the test itself stays plain, blocking code.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::http::{Address, Reply};
use crate::{process, wait};

mod client;

/// What one client asks for.
#[derive(Clone, Debug)]
pub struct Poller {
    /// Where it asks.
    pub address: Address,
    /// One name, or several joined by commas; percent-encoded.
    pub channels: String,
    /// Its key; without one it takes nobody's place.
    pub wait_id: Option<String>,
    /// Where it begins: an event id, `rt-…` or `now`.
    pub cursor: String,
    /// Further parameters, such as `flavor=short-poll&hold=5`.
    pub query: String,
    /// The longest time that it obeys `x-ps-reconnect-in`. A test that has ten seconds cannot wait for 30.
    pub reconnect_cap: Duration,
    /// Whether it stays away as long as the browser client does when it fails; otherwise it comes back very soon.
    pub backs_off: bool,
    /// The address that it connects from; TCP has some 28,000 ports for each.
    pub from: Option<IpAddr>,
}

/// What one client got.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Its channels.
    pub channels: Vec<String>,
    /// Where it began; `None` until a first reply told, if it began with `now` or a time.
    pub began_after: Option<u64>,
    /// Where it would go on.
    pub cursor: u64,
    /// Id and channel of all events, in the order in which they came. Gaps are not among them.
    pub events: Vec<(u64, String)>,
    /// How many gap records came.
    pub gaps: u32,
    /// When the first event with this id came, for the last reply that had any.
    pub last_news: Option<Instant>,
}

/// A crowd of running clients.
#[derive(Debug)]
pub struct Pollers {
    // Dropping the runtime ends the tasks.
    runtime: Option<Runtime>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    clients: Vec<Arc<Client>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Client {
    reading: Mutex<Reading>,
    /// Since when a request is out without an answer.
    waiting_since: Mutex<Option<Instant>>,
    /// When the last reply came that said it had been held.
    held_last: Mutex<Option<Instant>>,
    /// When the last reply came.
    answered_last: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    stopped: Notify,
    tally: Mutex<Tally>,
    /// Milliseconds, of each event whose data say when it was `sent`.
    lateness: Mutex<Vec<u32>>,
    /// When somebody tried to connect, in milliseconds since 1970.
    attempts: Mutex<Vec<u64>>,
    /// When answers came, in milliseconds since 1970.
    answers: Mutex<Vec<u64>>,
}

/// What all clients together saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Replies by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Broken connections and unreadable replies by their text.
    pub errors: BTreeMap<String, u64>,
    /// The first reply that was not 200.
    pub first_bad_reply: Option<Reply>,
    /// Replies by the seconds after which the client was told to come back.
    pub delays: BTreeMap<u64, u64>,
}

/// How late events were.
#[derive(Clone, Copy, Debug)]
pub struct Lateness {
    /// How many events were looked at.
    pub events: usize,
    /// Half of them were not later.
    pub p50: Duration,
    /// 99 of 100 were not later.
    pub p99: Duration,
    /// The latest.
    pub max: Duration,
}

impl Poller {
    /// A client that long-polls from `cursor` on.
    pub fn new(address: &Address, channels: &str, cursor: impl ToString) -> Self {
        Self {
            address: address.clone(),
            channels: channels.to_owned(),
            wait_id: None,
            cursor: cursor.to_string(),
            query: String::new(),
            reconnect_cap: Duration::from_secs(60),
            backs_off: false,
            from: None,
        }
    }

    /// Gives it a key of its own.
    #[must_use]
    pub fn wait_id(mut self, wait_id: impl ToString) -> Self {
        self.wait_id = Some(wait_id.to_string());
        self
    }

    /// Adds parameters.
    #[must_use]
    pub fn query(mut self, query: &str) -> Self {
        query.clone_into(&mut self.query);
        self
    }

    /// Lets it come back sooner than it is told to.
    #[must_use]
    pub fn reconnect_cap(mut self, cap: Duration) -> Self {
        self.reconnect_cap = cap;
        self
    }

    /// Lets it stay away as long as the browser client does when it fails.
    #[must_use]
    pub fn backing_off(mut self) -> Self {
        self.backs_off = true;
        self
    }

    /// Connects from this address.
    #[must_use]
    pub fn from(mut self, address: impl Into<IpAddr>) -> Self {
        self.from = Some(address.into());
        self
    }

    fn request(&self, cursor: &str, number: u64) -> Vec<u8> {
        let Self { channels, wait_id, query, .. } = self;
        let wait_id = wait_id.as_ref().map(|wait_id| format!("/{wait_id}")).unwrap_or_default();
        let query = if query.is_empty() { String::new() } else { format!("&{query}") };
        format!(
            "GET /e/{channels}{wait_id}?_={number}{query} HTTP/1.1\r\nHost: localhost\r\n\
             Connection: keep-alive\r\nLast-Event-Id: {cursor}\r\n\r\n"
        )
        .into_bytes()
    }
}

impl Pollers {
    /// Starts them all.
    ///
    /// # Panics
    /// When no threads can be made.
    pub fn start(pollers: impl IntoIterator<Item = Poller>) -> Self {
        // Each client is a descriptor, and the usual limit is 1024.
        process::raise_file_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("two threads");
        let shared = Arc::new(Shared::default());
        let (mut clients, mut tasks) = (Vec::new(), Vec::new());
        for poller in pollers {
            let reading = Reading {
                channels: poller.channels.split(',').map(str::to_owned).collect(),
                began_after: poller.cursor.parse().ok(),
                cursor: poller.cursor.parse().unwrap_or(0),
                ..Reading::default()
            };
            let state = Arc::new(Client {
                reading: Mutex::new(reading),
                waiting_since: Mutex::new(None),
                held_last: Mutex::new(None),
                answered_last: Mutex::new(None),
            });
            clients.push(state.clone());
            tasks.push(runtime.spawn(client::run(poller, state, shared.clone())));
        }
        Self { runtime: Some(runtime), tasks, clients, shared }
    }

    /// How many clients there are.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// How many have had a request out without an answer for at least `time`. With a time well above what an answer
    /// takes, that is how many are held.
    pub fn held_for(&self, time: Duration) -> usize {
        let held =
            |client: &&Arc<Client>| lock(&client.waiting_since).is_some_and(|since| since.elapsed() >= time);
        self.clients.iter().filter(held).count()
    }

    /// Waits until all clients have had a request out for at least `time`.
    ///
    /// # Panics
    /// With the tally when that does not happen within `deadline`.
    #[track_caller]
    pub fn wait_until_held(&self, time: Duration, deadline: Duration) {
        if wait::try_until_some(deadline, || (self.held_for(time) == self.count()).then_some(())).is_none() {
            panic!(
                "after {deadline:?} only {} of {} clients are held; {:?}",
                self.held_for(time),
                self.count(),
                self.tally()
            );
        }
    }

    /// How many have been held since then: a reply has come that says so, or they have now been waiting for `time`. Unlike
    /// [`held_for`](Self::held_for), this counts while events keep coming, too.
    pub fn held_since(&self, then: Instant, time: Duration) -> usize {
        let held = |client: &&Arc<Client>| {
            lock(&client.held_last).is_some_and(|at| at > then)
                || lock(&client.waiting_since).is_some_and(|since| since.elapsed() >= time)
        };
        self.clients.iter().filter(held).count()
    }

    /// How many have had an answer since then.
    pub fn answered_since(&self, then: Instant) -> usize {
        let answered = |client: &&Arc<Client>| lock(&client.answered_last).is_some_and(|at| at > then);
        self.clients.iter().filter(answered).count()
    }

    /// How many have got everything up to this id.
    pub fn reached(&self, id: u64) -> usize {
        self.clients.iter().filter(|client| lock(&client.reading).cursor >= id).count()
    }

    /// Waits until all clients have got everything up to this id.
    ///
    /// # Panics
    /// With the tally when that does not happen within `deadline`.
    #[track_caller]
    pub fn wait_until_reached(&self, id: u64, deadline: Duration) {
        if wait::try_until_some(deadline, || (self.reached(id) == self.count()).then_some(())).is_none() {
            let (reached, count, tally) = (self.reached(id), self.count(), self.tally());
            panic!("after {deadline:?} only {reached} of {count} clients have got to {id}; {tally:?}");
        }
    }

    /// What all clients together saw so far.
    pub fn tally(&self) -> Tally {
        lock(&self.shared.tally).clone()
    }

    /// How late the events were whose data have `sent`, in microseconds since 1970 by the clock of this machine; `None` when
    /// there was none.
    pub fn lateness(&self) -> Option<Lateness> {
        let mut all = lock(&self.shared.lateness).clone();
        all.sort_unstable();
        let at = |thousandths: usize| {
            let index = (all.len() * thousandths / 1000).min(all.len().saturating_sub(1));
            Duration::from_millis(all[index].into())
        };
        (!all.is_empty()).then(|| Lateness { events: all.len(), p50: at(500), p99: at(990), max: at(1000) })
    }

    /// How late each event was whose data have `sent`, in milliseconds, since this was asked for the last time.
    pub fn take_lateness(&self) -> Vec<u32> {
        std::mem::take(&mut *lock(&self.shared.lateness))
    }

    /// When somebody tried to connect, in milliseconds since 1970, in no order. Forgotten once they are told.
    pub fn take_attempts(&self) -> Vec<u64> {
        std::mem::take(&mut *lock(&self.shared.attempts))
    }

    /// When answers came, in milliseconds since 1970. Forgotten once they are told.
    pub fn take_answers(&self) -> Vec<u64> {
        std::mem::take(&mut *lock(&self.shared.answers))
    }

    /// What each client got so far.
    pub fn readings(&self) -> Vec<Reading> {
        self.clients.iter().map(|client| lock(&client.reading).clone()).collect()
    }

    /// Ends them, held requests included, and returns what each got.
    ///
    /// # Panics
    /// When a client panicked.
    pub fn stop(mut self) -> (Vec<Reading>, Tally) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.stopped.notify_waiters();
        let tasks = std::mem::take(&mut self.tasks);
        let runtime = self.runtime.take().expect("only this takes it");
        runtime.block_on(async {
            for task in tasks {
                task.await.expect("a client does not panic");
            }
        });
        (self.readings(), self.tally())
    }
}

/// The wall clock, in microseconds since 1970: what a publisher writes into `sent`.
pub fn clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    /// Answers one client's requests on one connection; `None` closes it instead. Returns the request lines' cursors.
    fn serve(answers: Vec<Option<String>>) -> (Address, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut cursors = Vec::new();
            let mut stream = listener.accept().unwrap().0;
            for answer in answers {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0; 1];
                    stream.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let cursor = head.lines().find_map(|line| line.strip_prefix("Last-Event-Id: ")).unwrap();
                cursors.push(cursor.to_owned());
                match answer {
                    Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                    None => {
                        stream.shutdown(std::net::Shutdown::Both).unwrap();
                        stream = listener.accept().unwrap().0;
                    }
                }
            }
            // Held until the client goes.
            let _ = stream.read_to_end(&mut Vec::new());
            cursors
        });
        (address, thread)
    }

    fn batch(ids: &[u64], cursor: u64) -> Option<String> {
        let records: Vec<_> = ids
            .iter()
            .map(|id| format!(r#"{{"id":{id},"channel_id":"c","ts":"","data":{{"type":"t","data":{{}}}}}}"#))
            .collect();
        let body = format!("[{}]", records.join(","));
        Some(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nx-ps-cursor: {cursor}\r\nx-ps-reconnect-in: 0\r\n\r\n{body}",
            body.len()
        ))
    }

    #[test]
    fn poller_goes_on_from_the_cursor_it_was_given_and_survives_a_closed_connection() {
        let refusal = "HTTP/1.1 503 No\r\nContent-Length: 0\r\nx-ps-reconnect-in: 0\r\n\r\n".to_owned();
        let answers =
            vec![batch(&[], 7), batch(&[8, 9], 9), None, batch(&[11], 12), Some(refusal), batch(&[], 12)];
        let (address, server) = serve(answers);
        let pollers = Pollers::start([Poller::new(&address, "c", "now")]);
        pollers.wait_until_reached(12, wait::PATIENCE);
        wait::until("the refusal was counted", wait::PATIENCE, || {
            pollers.tally().statuses.contains_key(&503)
        });
        pollers.wait_until_held(Duration::from_millis(50), wait::PATIENCE);
        let (readings, tally) = pollers.stop();
        // The closed connection was asked again with the same cursor.
        assert_eq!(server.join().unwrap(), ["now", "7", "9", "9", "12", "12"]);
        let ids: Vec<_> = readings[0].events.iter().map(|(id, _)| *id).collect();
        assert_eq!((readings[0].began_after, ids), (Some(7), vec![8, 9, 11]));
        assert_eq!(tally.statuses, BTreeMap::from([(200, 4), (503, 1)]));
        assert!(tally.errors.is_empty(), "{tally:?}");
        assert_eq!(tally.first_bad_reply.unwrap().status, 503);
    }
}
