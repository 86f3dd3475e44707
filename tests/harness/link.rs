//! A cable between a program and a server, which a test cuts, freezes, or lets swallow what goes through.
//!
//! It knows nothing of what is spoken through it, so it fits PostgreSQL and Redis (for HTTP there is the
//! [cutter](crate::cutter)). Where only one of a program's connections is to suffer, it is told by what its client has
//! said at its beginning: PostgreSQL's clients send their `application_name`, and Redis' their name.
//!
//! What a newcomer gets wrong:
//! - [`freeze`](Link::freeze) is a network that stands still: nothing is lost, and [`mend`](Link::mend) lets it all through.
//! - [`black_hole`](Link::black_hole) is a firewall that forgot its connections: what was open and said something stays
//!   dead when all is mended, and nobody is told. Only new connections work then.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::http::Address;
use crate::ports;

/// How much of what a client said first is remembered.
const REMEMBERED: usize = 4096;

/// A running cable. On drop all its connections are closed.
#[derive(Debug)]
pub struct Link {
    port: u16,
    state: watch::Sender<State>,
    open: Arc<AtomicUsize>,
    // Dropping the runtime ends all connections.
    runtime: Option<Runtime>,
}

/// What happens to which connections.
#[derive(Clone, Debug, Default)]
struct State {
    fault: Option<Fault>,
    /// Only connections whose client said this.
    only: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Cut,
    BlackHole,
    Freeze,
}

/// What both directions of a connection know.
#[derive(Debug, Default)]
struct Shared {
    said: Mutex<Vec<u8>>,
    /// Something was swallowed: whatever comes later would make no sense.
    dead: AtomicBool,
}

impl Link {
    /// Starts one to `server`, on a port of 127.0.0.1 of its own.
    ///
    /// # Panics
    /// When there is no port for it.
    pub fn to(server: &Address) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a thread can be started");
        let listener = (0..3).find_map(|_| {
            // Perhaps the port is taken in between.
            runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, ports::free()))).ok()
        });
        let listener = listener.expect("one of three free ports is still free");
        let port = listener.local_addr().expect("it is bound").port();
        let (state, open) = (watch::Sender::new(State::default()), Arc::<AtomicUsize>::default());
        let (server, states, count) = (server.clone(), state.clone(), open.clone());
        runtime.spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(client, server.clone(), states.subscribe(), Open::one_more(&count)));
            }
        });
        Self { port, state, open, runtime: Some(runtime) }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::local(self.port)
    }

    /// How many connections are open, those that are black-holed included.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Resets all connections, and each new one at once.
    pub fn cut(&self) {
        self.set(Some(Fault::Cut), None);
    }

    /// Like [`cut`](Self::cut), but only for connections whose client says `text` at its beginning.
    pub fn cut_only(&self, text: &str) {
        self.set(Some(Fault::Cut), Some(text));
    }

    /// Swallows everything and closes nothing. New connections are taken, and nobody answers there.
    pub fn black_hole(&self) {
        self.set(Some(Fault::BlackHole), None);
    }

    /// Like [`black_hole`](Self::black_hole), but only for connections whose client says `text` at its beginning.
    pub fn black_hole_only(&self, text: &str) {
        self.set(Some(Fault::BlackHole), Some(text));
    }

    /// Lets nothing through, and loses nothing.
    pub fn freeze(&self) {
        self.set(Some(Fault::Freeze), None);
    }

    /// Passes everything on again. What swallowed something stays dead.
    pub fn mend(&self) {
        self.set(None, None);
    }

    fn set(&self, fault: Option<Fault>, only: Option<&str>) {
        self.state.send_replace(State { fault, only: only.map(str::to_owned) });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nothing in there blocks; waiting would only be slower.
            runtime.shutdown_background();
        }
    }
}

impl State {
    /// What happens to this connection now.
    fn fault(&self, shared: &Shared) -> Option<Fault> {
        let meant = self.only.as_ref().is_none_or(|text| contains(&lock(&shared.said), text.as_bytes()));
        match self.fault {
            Some(Fault::Cut) if meant => Some(Fault::Cut),
            _ if shared.dead.load(Ordering::SeqCst) => Some(Fault::BlackHole),
            fault => fault.filter(|_| meant),
        }
    }
}

/// A connection that is counted as long as it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn one_more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(client: TcpStream, server: Address, mut state: watch::Receiver<State>, _open: Open) {
    let shared = Shared::default();
    // Whatever ends the connection, it ends with a reset: closing with nothing to linger for.
    let _ = (client.set_nodelay(true), client.set_zero_linger());
    if state.borrow_and_update().fault(&shared) == Some(Fault::Cut) {
        return;
    }
    match server {
        Address::Tcp(address) | Address::Tls(address, _) => {
            let Ok(server) = TcpStream::connect(address).await else { return };
            let _ = (server.set_nodelay(true), server.set_zero_linger());
            run(client, server, &state, &shared).await;
        }
        Address::Unix(path) => {
            let Ok(server) = UnixStream::connect(path).await else { return };
            run(client, server, &state, &shared).await;
        }
    }
}

async fn run<S: AsyncRead + AsyncWrite>(
    mut client: TcpStream,
    server: S,
    state: &watch::Receiver<State>,
    shared: &Shared,
) {
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = tokio::io::split(server);
    let mut cut = state.clone();
    tokio::select! {
        // An error is one of the two hanging up; the other learns it when both are dropped.
        _ = pass(client_read, server_write, state.clone(), shared, true) => {}
        _ = pass(server_read, client_write, state.clone(), shared, false) => {}
        _ = cut.wait_for(|state| state.fault(shared) == Some(Fault::Cut)) => {}
    }
}

/// One direction, until its end.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    shared: &Shared,
    is_client: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if is_client {
            let mut said = lock(&shared.said);
            let room = REMEMBERED.saturating_sub(said.len()).min(length);
            said.extend_from_slice(&buffer[..room]);
        }
        // A frozen network keeps what came until it is mended.
        let fault = loop {
            let fault = state.borrow_and_update().fault(shared);
            if fault != Some(Fault::Freeze) {
                break fault;
            }
            state.changed().await.map_err(io::Error::other)?;
        };
        match fault {
            Some(Fault::BlackHole) => {
                shared.dead.store(true, Ordering::SeqCst);
                // The goodbye is swallowed as well.
                if length == 0 {
                    std::future::pending::<()>().await;
                }
            }
            Some(_) => return Ok(()),
            None if length == 0 => return Ok(()),
            None => to.write_all(&buffer[..length]).await?,
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::wait;

    const SHORT: Duration = Duration::from_millis(200);

    /// A server that says everything back.
    fn echo() -> Address {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = Address::Tcp(listener.local_addr().expect("it is bound"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        address
    }

    /// A cable, and a connection over it that works.
    fn connected() -> (Link, TcpStream) {
        let link = Link::to(&echo());
        let mut stream = connect(&link);
        assert_eq!(said_back(&mut stream, "one").expect("an echo"), "one");
        (link, stream)
    }

    fn connect(link: &Link) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, link.port())).expect("it listens");
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("not zero");
        stream
    }

    /// What comes back for `text`.
    fn said_back(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn is_silent(stream: &mut TcpStream) -> bool {
        stream.set_read_timeout(Some(SHORT)).expect("not zero");
        let read = stream.read(&mut [0; 1]);
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("not zero");
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn cut_connections_end_and_new_ones_only_work_when_it_is_mended() {
        let (link, mut stream) = connected();
        link.cut();
        assert_eq!(stream.read(&mut [0; 1]).expect_err("a reset").kind(), ErrorKind::ConnectionReset);
        assert!(said_back(&mut connect(&link), "two").is_err());
        link.mend();
        assert_eq!(said_back(&mut connect(&link), "three").expect("an echo"), "three");
        wait::until("all are counted as closed", wait::PATIENCE, || link.open() == 0);
    }

    #[test]
    fn frozen_connections_lose_nothing() {
        let (link, mut stream) = connected();
        link.freeze();
        stream.write_all(b"two").expect("it is taken");
        assert!(is_silent(&mut stream));
        link.mend();
        let mut answer = [0; 3];
        stream.read_exact(&mut answer).expect("it comes late");
        assert_eq!(&answer, b"two");
    }

    #[test]
    fn black_holed_connections_stay_dead_and_open() {
        let (link, mut stream) = connected();
        link.black_hole();
        stream.write_all(b"two").expect("it is taken");
        let mut new = connect(&link);
        new.write_all(b"hello").expect("it is taken");
        assert!(is_silent(&mut stream) && is_silent(&mut new));
        link.mend();
        stream.write_all(b"three").expect("it is taken");
        assert!(is_silent(&mut stream));
        assert_eq!(said_back(&mut connect(&link), "four").expect("an echo"), "four");
    }

    #[test]
    fn only_the_meant_connections_suffer() {
        let link = Link::to(&echo());
        let (mut meant, mut other) = (connect(&link), connect(&link));
        assert_eq!(said_back(&mut meant, "I am A").expect("an echo"), "I am A");
        assert_eq!(said_back(&mut other, "I am B").expect("an echo"), "I am B");
        link.black_hole_only("am A");
        meant.write_all(b"still").expect("it is taken");
        assert!(is_silent(&mut meant));
        assert_eq!(said_back(&mut other, "well").expect("an echo"), "well");
        let mut new = connect(&link);
        new.write_all(b"I am A, too").expect("it is taken");
        assert!(is_silent(&mut new));
        link.cut_only("am B");
        assert!(other.read(&mut [0; 1]).is_err());
        assert!(is_silent(&mut meant), "what was black-holed stays open");
    }
}
