//! A hostile proxy of our own: cuts, buffers, strips and doubles on command, where a real one would have to be waited for.
//!
//! It stands in front of a server as a reverse proxy, on a port of its own. What it does is a [`Mode`], and can be changed
//! while connections are open: a network that cuts after 8 s today need not do so tomorrow.
//!
//! What a newcomer gets wrong:
//! - The first four modes pass bytes and know nothing of HTTP, so WebSockets and streams go through them, and their
//!   limit is about *silence*. The others take one request from each connection and answer it. A connection keeps the
//!   kind in which it began.
//! - Two evils at once are two cutters, one in front of the other: [`Mode::Strip`] before [`Mode::Cache`].
//! - [`Mode::Blackhole`] closes nothing, ever: neither side learns that the other is gone.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::http::Address;
use crate::ports;

mod exchange;
mod message;
mod tunnel;

use exchange::Cache;

/// What a cutter does with what passes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Closes both connections properly when nothing has passed for so long.
    Fin(Duration),
    /// Resets both connections when nothing has passed for so long.
    Rst(Duration),
    /// Swallows everything, with both connections open, once nothing has passed for so long.
    Blackhole(Duration),
    /// Answers 504 with a page of HTML when the *whole* answer has not come after so long.
    GatewayTimeout(Duration),
    /// Answers 200 with a page of HTML when the whole answer has not come after so long.
    Html200(Duration),
    /// Speaks HTTP/1.0 to both sides.
    Http10,
    /// Passes an answer on when it has come to its end.
    Buffer,
    /// Drops the second half of the body of every so-many-th answer: of each with 1, of the third, sixth … with 3.
    Truncate(u32),
    /// Sends each GET twice, at once, and passes the answer to the second on.
    Duplicate,
    /// Drops all headers, both ways, that a proxy of the nineties does not know, and those about caching.
    Strip,
    /// Answers a GET of a URL that it knows from its memory for a minute, whatever the headers said, and lets a GET of a
    /// URL that is being fetched wait for that answer.
    Cache,
}

/// What a cutter has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that it took.
    pub connections: usize,
    /// Connections that are open now, or swallowed.
    pub open: usize,
    /// Requests that came, those on kept connections included.
    pub requests: usize,
    /// Requests that got no answer, or an answer of the cutter's own, for their time was over.
    pub cut: usize,
    /// Connections ended for their silence when the last word was the server's: kept without a request, or in the
    /// middle of a stream.
    pub ended: usize,
    /// Answers that passed a mode which counts them.
    pub answers: u32,
    /// Answers whose second half was dropped.
    pub truncated: usize,
    /// Requests that were sent twice.
    pub duplicated: usize,
    /// Requests answered from memory, or with what another was fetching.
    pub shared: usize,
}

/// A running hostile proxy. On drop it closes whatever is open.
#[derive(Debug)]
pub struct Cutter {
    address: Address,
    shared: Arc<Shared>,
    // Dropping the runtime ends all connections.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Shared {
    origin: Address,
    mode: watch::Sender<Mode>,
    counters: Mutex<Counters>,
    requests: Mutex<Vec<String>>,
    cache: Cache,
}

impl Cutter {
    /// Starts one in front of `origin`.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn before(origin: &Address, mode: Mode) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread can be started");
        let listener = (0..3).find_map(|_| {
            // Perhaps the port is taken in between.
            runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, ports::free()))).ok()
        });
        let listener = listener.expect("one of three free ports is still free");
        let address = Address::Tcp(listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            origin: origin.clone(),
            mode: watch::Sender::new(mode),
            counters: Mutex::default(),
            requests: Mutex::default(),
            cache: Cache::default(),
        });
        let for_task = shared.clone();
        runtime.spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(client, for_task.clone()));
            }
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// From now on does something else. A limit of silence holds for open connections, too, counted from their last byte.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        *lock(&self.shared.counters)
    }

    /// The first lines of all requests so far, such as `GET /e/cheese HTTP/1.1`.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nothing in there blocks; waiting would only be slower.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut lock(&self.counters));
    }

    /// Counts a request, by the bytes that it begins with.
    fn note_request(&self, bytes: &[u8]) {
        let end = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(bytes.len());
        lock(&self.requests).push(String::from_utf8_lossy(&bytes[..end]).into_owned());
        self.count(|counters| counters.requests += 1);
    }

    async fn connect(&self) -> io::Result<Box<dyn Io>> {
        Ok(match &self.origin {
            Address::Tcp(address) | Address::Tls(address, _) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

impl Mode {
    /// Whether it passes bytes without looking at them.
    fn is_tunnel(self) -> bool {
        matches!(self, Self::Pass | Self::Fin(_) | Self::Rst(_) | Self::Blackhole(_))
    }

    /// The longest silence.
    fn limit(self) -> Option<Duration> {
        match self {
            Self::Fin(limit) | Self::Rst(limit) | Self::Blackhole(limit) => Some(limit),
            _ => None,
        }
    }
}

/// A connection to the server, of either kind.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    // Takes the connection off the list however it ends.
    struct Open(Arc<Shared>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.count(|counters| counters.open -= 1);
        }
    }
    shared.count(|counters| {
        counters.connections += 1;
        counters.open += 1;
    });
    let _open = Open(shared.clone());
    // Small writes, one space for example, must not wait for others.
    let _ = client.set_nodelay(true);
    // An error is one of the two sides hanging up.
    let _ = match shared.mode() {
        mode if mode.is_tunnel() => tunnel::run(client, &shared).await,
        mode => exchange::run(client, &shared, mode).await,
    };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Instant;

    use super::*;
    use crate::http::{self, Connection};
    use crate::stub::{Act, Stub};
    use crate::wait;

    const SHORT: Duration = Duration::from_millis(300);

    fn answering() -> Stub {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: no-store\r\nx-ps-cursor: 7";
        Stub::daemon(Act::Answer(format!("{head}\r\n\r\n[1,2,3,45]")))
    }

    fn holding() -> Stub {
        Stub::daemon(Act::Hold)
    }

    #[test]
    fn answers_pass_and_kept_connections_are_one() {
        let stub = answering();
        let cutter = Cutter::before(stub.address(), Mode::Pass);
        let mut connection = Connection::open(cutter.address()).expect("it listens");
        let request = http::get("/e/a").header("Connection", "keep-alive");
        for _ in 0..2 {
            assert_eq!(connection.exchange(&request).expect("an answer").body, b"[1,2,3,45]");
        }
        let counters = cutter.counters();
        assert_eq!((counters.connections, counters.requests, counters.cut, counters.open), (1, 2, 0, 1));
        assert_eq!(cutter.requests(), ["GET /e/a HTTP/1.1", "GET /e/a HTTP/1.1"]);
    }

    #[test]
    fn silence_ends_in_a_close_a_reset_or_nothing_at_all() {
        let stub = holding();
        let cutter = Cutter::before(stub.address(), Mode::Fin(SHORT));
        let ask = || {
            let mut stream = cutter.address().connect().expect("it listens");
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
            stream
        };
        let began = Instant::now();
        assert_eq!(ask().read(&mut [0; 9]).expect("a proper end"), 0);
        assert!(began.elapsed() >= SHORT);
        cutter.set(Mode::Rst(SHORT));
        let error = ask().read(&mut [0; 9]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        cutter.set(Mode::Blackhole(SHORT));
        let mut swallowed = ask();
        wait::until("the third is cut", wait::PATIENCE, || cutter.counters().cut == 3);
        stub.cut();
        swallowed.set_deadline(SHORT).expect("it is not zero");
        let error = swallowed.read(&mut [0; 9]).expect_err("neither bytes nor an end");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(swallowed.write_all(b"still there?").is_ok());
    }

    #[test]
    fn another_limit_holds_for_open_connections() {
        let stub = holding();
        let cutter = Cutter::before(stub.address(), Mode::Pass);
        let mut held = http::get("/e/a").begin(cutter.address());
        stub.wait_for_requests(1);
        assert!(held.is_waiting());
        cutter.set(Mode::Rst(SHORT));
        wait::until("it is cut", wait::PATIENCE, || !held.is_waiting());
        assert_eq!(cutter.counters().cut, 1);
    }

    #[test]
    fn time_that_is_over_is_answered_with_a_page() {
        let stub = holding();
        let cutter = Cutter::before(stub.address(), Mode::GatewayTimeout(SHORT));
        let reply = http::get("/e/a").send(cutter.address());
        assert_eq!((reply.status, reply.header("content-type")), (504, Some("text/html")));
        cutter.set(Mode::Html200(SHORT));
        let reply = http::get("/e/a").send(cutter.address());
        assert_eq!((reply.status, reply.body.starts_with(b"<html>")), (200, true));
        assert_eq!(cutter.counters().cut, 2);
    }

    #[test]
    fn old_version_is_spoken_to_both_sides() {
        let stub = answering();
        let cutter = Cutter::before(stub.address(), Mode::Http10);
        let answer = http::raw(
            cutter.address(),
            b"GET /e/a HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        );
        assert!(answer.is_ok_and(|answer| answer.starts_with(b"HTTP/1.0 200 OK\r\n")));
        let received = &stub.received()[0];
        assert_eq!(received.line, "GET /e/a HTTP/1.0");
        assert!(!received.fields.contains_key("upgrade") && !received.fields.contains_key("connection"));
    }

    #[test]
    fn unknown_headers_are_stripped_both_ways() {
        let stub = answering();
        let cutter = Cutter::before(stub.address(), Mode::Strip);
        let request = http::get("/e/a?n=1").header("Last-Event-Id", "7").header("Accept", "*/*");
        let reply = request.send(cutter.address());
        assert_eq!((reply.header("x-ps-cursor"), reply.header("cache-control")), (None, None));
        assert_eq!(reply.body, b"[1,2,3,45]");
        let received = &stub.received()[0];
        assert!(!received.fields.contains_key("last-event-id") && received.fields.contains_key("accept"));
    }

    #[test]
    fn every_second_body_is_cut_in_half() {
        let stub = answering();
        let cutter = Cutter::before(stub.address(), Mode::Truncate(2));
        let bytes = || http::raw(cutter.address(), b"GET /e/a HTTP/1.1\r\n\r\n").expect("an answer");
        assert!(bytes().ends_with(b"[1,2,3,45]"));
        assert!(bytes().ends_with(b"\r\n\r\n[1,2,"));
        assert_eq!(cutter.counters().truncated, 1);
    }

    #[test]
    fn gets_are_doubled_and_posts_are_not() {
        let stub = answering();
        let cutter = Cutter::before(stub.address(), Mode::Duplicate);
        assert_eq!(http::get("/e/a").send(cutter.address()).status, 200);
        assert_eq!(stub.wait_for_requests(2).len(), 2);
        http::post_json("/publish", "{}").send(cutter.address());
        assert_eq!(stub.received().len(), 3);
    }

    #[test]
    fn one_url_has_one_answer_and_another_its_own() {
        let stub = answering();
        let cutter = Cutter::before(stub.address(), Mode::Cache);
        for cursor in ["7", "8"] {
            let reply = http::get("/e/a").header("Last-Event-Id", cursor).send(cutter.address());
            assert_eq!(reply.body, b"[1,2,3,45]");
        }
        assert_eq!((stub.received().len(), cutter.counters().shared), (1, 1));
        http::get("/e/a?_=2").send(cutter.address());
        assert_eq!(stub.received().len(), 2);
    }

    #[test]
    fn two_cutters_are_two_evils() {
        let stub = answering();
        let inner = Cutter::before(stub.address(), Mode::Cache);
        let outer = Cutter::before(inner.address(), Mode::Strip);
        for _ in 0..2 {
            assert_eq!(http::get("/e/a").send(outer.address()).header("x-ps-cursor"), None);
        }
        assert_eq!((inner.counters().shared, outer.counters().shared), (1, 0));
    }

    #[test]
    fn server_that_is_down_is_a_bad_gateway() {
        let nobody = Address::local(ports::free());
        let cutter = Cutter::before(&nobody, Mode::Buffer);
        assert_eq!(http::get("/e/a").send(cutter.address()).status, 502);
    }
}
