//! The loop that owns all sockets.
//!
//! One thread accepts, reads, and writes, and never waits for anything but the kernel; a few workers, each with its
//! database connection, make the replies. So neither five hundred idle connections nor a slow sender keeps a request
//! waiting, and thousands that come in the same moment wait in a list and not in threads.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use everpoll_protocol::Live;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;
use socket2::Socket;
use tracing::{info, warn};

use super::budget::Budget;
use super::connection::{Connection, Patience, Shared, Turn};
use super::listener::{BACKLOG, Listener};
use super::params::Params;
use super::queue::{Done, Job, LOOK_SLOW, Queue};
use super::receiver::{Fault, Receiver, Request};
use super::record;
use super::service::Service;
use super::worker;
use crate::counts::COUNTS;

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const SIGNAL: Token = Token(2);
/// Connection 0 has this token, connection 1 the next.
const CONNECTIONS: usize = 3;

/// Connections accepted before the others have their turn. Thousands come at once when the daemon dies, and when the
/// kernel's list is full, a web server's next attempt fails; so all of that list is taken.
const ACCEPTS_PER_TURN: usize = BACKLOG as usize;

/// Connections that have their turn before the kernel's list is looked at again: it holds 4,096 at most, and while thousands have
/// their turn, thousands more come.
const TURNS_PER_ACCEPT: usize = 32;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Pause after the system had no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes read at a time, by all connections in turn.
const BUFFER_BYTES: usize = 64 * 1024;

/// What a server may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Threads that answer, each with a database connection.
    pub workers: usize,
    /// Most connections at once; further ones wait in the kernel.
    pub connections: usize,
    /// Most requests that wait for a worker; further ones are told to come back.
    pub waiting: usize,
    /// Most bytes that unfinished and waiting requests take, all together.
    pub memory: usize,
    /// How long a connection without a request is kept.
    pub idle: Duration,
    /// How long a request's variables may take to arrive.
    pub params: Duration,
    /// How long a web server may take nothing of a response.
    pub write: Duration,
    /// How long a stopping server waits for the requests in hand.
    pub drain: Duration,
}

/// Serves until SIGTERM or SIGINT. Requests in hand are finished then; a second signal ends at once.
///
/// # Errors
///
/// When the system refuses what the loop needs.
pub fn serve<S: Service>(listener: Listener, limits: &Live<Limits>, service: Arc<S>) -> io::Result<()> {
    let (receiver, sender) = UnixStream::pair()?;
    receiver.set_nonblocking(true)?;
    let mut registered = Vec::new();
    for signal in [SIGTERM, SIGINT] {
        registered.push(low_level::pipe::register(signal, sender.try_clone()?)?);
    }
    let result = serve_until(listener, limits, service, receiver);
    for signal in registered {
        low_level::unregister(signal);
    }
    result
}

/// Serves until a byte comes from `stop`, which must not block. Requests in hand are finished then; a second byte ends at
/// once.
///
/// # Errors
///
/// When the system refuses what the loop needs.
pub fn serve_until<S: Service>(
    listener: Listener,
    limits: &Live<Limits>,
    service: Arc<S>,
    stop: UnixStream,
) -> io::Result<()> {
    Server::new(listener, limits, service, stop)?.run()
}

struct Server<S: Service> {
    poll: Poll,
    listener: Option<Listener>,
    signals: UnixStream,
    /// What may change while the server runs. The number of workers does not.
    limits: Live<Limits>,
    service: Arc<S>,
    queue: Arc<Queue<S>>,
    /// Requests that have come in this turn.
    came: Vec<Job>,
    /// Whether requests wait behind others that are being looked at.
    attends: bool,
    workers: Vec<JoinHandle<()>>,
    budget: Arc<Budget>,
    connections: Vec<Option<Connection>>,
    /// Free places in `connections`.
    free: Vec<usize>,
    /// Connections that have something to do.
    ready: Vec<usize>,
    may_accept: bool,
    accept_after: Option<Instant>,
    /// It was told already that accepting fails.
    accept_failed: bool,
    stop_at: Option<Instant>,
    signals_seen: usize,
    buffer: Vec<u8>,
}

impl<S: Service> Server<S> {
    fn new(
        listener: Listener,
        live: &Live<Limits>,
        service: Arc<S>,
        signals: UnixStream,
    ) -> io::Result<Self> {
        let limits = live.get();
        COUNTS.connections_max.set(limits.connections);
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let queue = Arc::new(Queue::new(limits.waiting, limits.workers, waker));
        let readable = Interest::READABLE;
        poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, readable)?;
        poll.registry().register(&mut SourceFd(&signals.as_raw_fd()), SIGNAL, readable)?;
        let mut server = Self {
            poll,
            listener: Some(listener),
            signals,
            limits: live.clone(),
            service,
            queue,
            came: Vec::new(),
            attends: false,
            workers: Vec::new(),
            budget: Budget::new(limits.memory),
            connections: Vec::new(),
            free: Vec::new(),
            ready: Vec::new(),
            may_accept: true,
            accept_after: None,
            accept_failed: false,
            stop_at: None,
            signals_seen: 0,
            buffer: vec![0; BUFFER_BYTES],
        };
        for number in 1..=limits.workers {
            let (queue, service) = (server.queue.clone(), server.service.clone());
            let thread = std::thread::Builder::new().name(format!("worker {number}"));
            server.workers.push(thread.spawn(move || worker::work(&queue, &*service))?);
        }
        Ok(server)
    }

    fn run(mut self) -> io::Result<()> {
        let service = self.service.clone();
        let body_max = |params: &Params| service.body_max(params);
        let mut events = Events::with_capacity(1024);
        let mut swept = Instant::now();
        while !self.has_ended() {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.may_accept = true,
                    WAKER => {}
                    SIGNAL => self.take_signals(),
                    Token(number) => self.note(event, number - CONNECTIONS),
                }
            }
            let now = Instant::now();
            let Limits { idle, params, write, waiting, memory, connections, .. } = *self.limits.get();
            let patience = Patience { idle, params, write };
            let shared = Shared { patience, body_max: &body_max, stopping: self.stop_at.is_some(), now };
            self.take_replies(&shared);
            self.accept(&shared);
            self.advance(&shared);
            self.hand_over(&shared);
            self.attends = self.queue.attend(Instant::now());
            if now.duration_since(swept) >= SWEEP {
                swept = now;
                self.queue.limit(waiting);
                self.budget.limit(memory);
                COUNTS.connections_max.set(connections);
                // The limit may have been raised.
                self.may_accept = true;
                self.sweep(&shared);
                self.hand_over(&shared);
            }
        }
        self.end();
        Ok(())
    }

    fn open(&self) -> usize {
        self.connections.len() - self.free.len()
    }

    fn has_ended(&self) -> bool {
        let late = self.stop_at.is_some_and(|at| Instant::now() >= at);
        // As long as there is a listener, somebody may wait in it.
        let done = self.listener.is_none() && self.open() == 0;
        self.stop_at.is_some() && (done || late || self.signals_seen > 1)
    }

    /// How long nothing needs to be done if nothing happens.
    fn patience(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            Some(Duration::ZERO)
        } else if self.attends {
            Some(LOOK_SLOW)
        } else if self.accept_after.is_some() {
            Some(ACCEPT_PAUSE)
        } else if self.may_accept && self.listener.is_some() {
            Some(Duration::ZERO)
        } else if self.stop_at.is_some() {
            Some(SWEEP / 10)
        } else if self.open() > 0 {
            Some(SWEEP)
        } else {
            None
        }
    }

    fn note(&mut self, event: &Event, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let ends = event.is_read_closed() || event.is_error();
        if event.is_readable() || ends {
            connection.hear(ends);
            self.ready.push(index);
        } else if connection.is_sending() {
            // Every new connection can be written to, which is no news.
            self.ready.push(index);
        }
    }

    /// The first signal stops the server once all is answered, the second at once.
    fn take_signals(&mut self) {
        let mut bytes = [0; 16];
        while let Ok(count @ 1..) = (&self.signals).read(&mut bytes) {
            self.signals_seen += count;
        }
        if self.signals_seen == 0 || self.stop_at.is_some() {
            return;
        }
        info!("stopping: {} connections are open", self.open());
        self.stop_at = Some(Instant::now() + self.limits.get().drain);
        if self.listener.as_mut().is_some_and(Listener::close_door) {
            self.may_accept = true;
        } else {
            self.listener = None;
        }
        // Those that are idle end now, unless a request has just come.
        self.connections.iter_mut().flatten().for_each(|connection| connection.hear(false));
        self.ready.extend(0..self.connections.len());
    }

    fn take_replies(&mut self, shared: &Shared<'_>) {
        for Done { connection, keep, response } in self.queue.take_done() {
            // Its place was kept for it.
            if let Some(found) = &mut self.connections[connection] {
                found.send(keep, response, shared);
                self.ready.push(connection);
            }
        }
    }

    fn accept(&mut self, shared: &Shared<'_>) {
        if self.accept_after.is_some_and(|after| shared.now < after) || !self.may_accept {
            return;
        }
        self.accept_after = None;
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.listener else { return };
            if self.open() >= self.limits.get().connections {
                self.may_accept = false;
                COUNTS.hit("connections_max");
                return;
            }
            match listener.accept() {
                Ok(socket) => {
                    self.accept_failed = false;
                    self.add(socket, shared);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.may_accept = false;
                    if self.stop_at.is_some() {
                        self.listener = None;
                    }
                    return;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.accept_failed, true) {
                        warn!("cannot accept connections: {error}; trying again until it works");
                    }
                    self.accept_after = Some(shared.now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn add(&mut self, socket: Socket, shared: &Shared<'_>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let fd = socket.as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(index + CONNECTIONS);
        if let Err(error) = self.poll.registry().register(&mut SourceFd(&fd), token, interest) {
            warn!("cannot watch a connection: {error}");
            self.free.push(index);
            return;
        }
        // What it has sent already comes as the first event.
        let receiver = Receiver::new(self.budget.clone(), self.limits.get().connections);
        self.connections[index] = Some(Connection::new(socket, receiver, shared));
        COUNTS.connections.set(self.open());
    }

    fn advance(&mut self, shared: &Shared<'_>) {
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_unstable();
        ready.dedup();
        for (done, index) in ready.into_iter().enumerate() {
            if done % TURNS_PER_ACCEPT == TURNS_PER_ACCEPT - 1 {
                self.may_accept = true;
                self.accept(shared);
            }
            if let Some(connection) = &mut self.connections[index] {
                let turn = connection.advance(&mut self.buffer, shared);
                self.take_turn(index, turn, shared);
            }
        }
    }

    fn sweep(&mut self, shared: &Shared<'_>) {
        for index in 0..self.connections.len() {
            if let Some(connection) = &mut self.connections[index] {
                let turn = connection.expire(shared);
                self.take_turn(index, turn, shared);
            }
        }
    }

    fn take_turn(&mut self, index: usize, turn: Turn, shared: &Shared<'_>) {
        match turn {
            Turn::Wait => {}
            Turn::Again => self.ready.push(index),
            Turn::Serve(request) => self.serve(index, request, shared),
            Turn::Close => {
                // Closing the descriptor ends its registration as well, since there is no copy of it.
                self.may_accept |= self.open() >= self.limits.get().connections;
                self.connections[index] = None;
                self.free.push(index);
                COUNTS.connections.set(self.open());
            }
        }
    }

    /// Takes a request that is complete, or answers it here when it is not to be served.
    fn serve(&mut self, index: usize, request: Request, shared: &Shared<'_>) {
        match request.fault {
            Some(fault) => self.refuse(index, &request, fault, shared),
            None => self.came.push(Job { connection: index, request, since: shared.now }),
        }
    }

    /// Hands what has come to the workers, all together: a worker that is called for the first of them finds the others as well.
    fn hand_over(&mut self, shared: &Shared<'_>) {
        if self.came.is_empty() {
            return;
        }
        self.queue.push(&mut self.came, shared.now);
        // There was no room for these.
        while let Some(Job { connection, request, .. }) = self.came.pop() {
            self.refuse(connection, &request, Fault::Overloaded, shared);
        }
    }

    fn refuse(&mut self, index: usize, request: &Request, fault: Fault, shared: &Shared<'_>) {
        let stdout = self.service.refuse(fault, self.queue.load(shared.now));
        if let Some(connection) = &mut self.connections[index] {
            connection.send(request.keep, record::response(request.id, &stdout), shared);
            self.ready.push(index);
        }
    }

    fn end(self) {
        self.queue.stop();
        if self.open() > 0 {
            warn!("{} connections were not done in time; they are closed", self.open());
        }
        // A worker that still waits for the database must not keep the program.
        if self.queue.is_empty() {
            for worker in self.workers {
                let _ = worker.join();
            }
        }
        info!("stopped");
    }
}
