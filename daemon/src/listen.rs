//! Where the daemon listens: a TCP port, a unix socket, or what a service manager handed over.
//!
//! What matters is the end. Whoever has connected and is not accepted yet waits in the kernel's list of *one* socket, and is
//! thrown out when that is closed. So a daemon that stops first closes its *door*, so that nobody new gets into the list,
//! and then serves those who are in it:
//!
//! - a unix socket's door is its file. It goes, or is already another's: a new daemon puts its own over it (`rename`), and
//!   between the two nobody finds the door closed.
//! - a TCP port that is shared (`reuse_port`) has no door: the kernel goes on giving its share to the old socket. There a
//!   filter drops whatever asks for a new connection; a second later the client's kernel asks again, and finds the new daemon.
//! - a socket that was handed over has the list of the service manager: it is left as it is, for whoever comes next.

use std::fs::{File, Metadata, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use everpoll_settings::{Listen, Settings};
use listenfd::ListenFd;
use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use crate::stream::Stream;
use crate::visitors::Visit;

/// How many connections the kernel keeps until they are accepted. It cuts this to its own limit
/// (`net.core.somaxconn` on Linux).
const BACKLOG: i32 = 4096;

/// How long somebody who listens may take to accept a connection: it is this machine's kernel that does.
const KNOCK: Duration = Duration::from_millis(500);

/// Between two probes of a client that does not answer the first.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A listening socket.
pub(crate) struct Listener {
    socket: Accepting,
    door: Door,
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What lets clients in.
enum Door {
    /// A TCP port of our own. It closes with the socket.
    Port,
    /// A TCP port that other daemons may share.
    SharedPort,
    /// A unix socket's file.
    File(SocketFile),
    /// The service manager's.
    Inherited,
}

/// A unix socket's file that we made. It is removed when this is dropped, unless it is another's by now.
struct SocketFile {
    path: PathBuf,
    metadata: Metadata,
}

impl SocketFile {
    fn is_ours(&self) -> bool {
        let (ours, found) = (&self.metadata, std::fs::symlink_metadata(&self.path));
        // As long as our socket is open, nobody else's file gets its inode.
        found.is_ok_and(|found| (found.dev(), found.ino()) == (ours.dev(), ours.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _turn = Turn::at(&self.path);
        if self.is_ours() {
            // Nothing is lost if it stays: the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A daemon's turn at a socket's file: between a look at it and what is done to it, no other daemon does anything. Where
/// the folder cannot be locked, there is no such protection.
struct Turn {
    /// Closed, it is unlocked.
    _folder: Option<File>,
}

impl Turn {
    fn at(path: &Path) -> Self {
        let folder = path.parent().and_then(|folder| File::open(folder).ok());
        Self { _folder: folder.filter(|folder| flock(folder, FlockOperation::LockExclusive).is_ok()) }
    }
}

impl Listener {
    /// Listens at the address that the settings have.
    ///
    /// # Errors
    ///
    /// Says who is in the way.
    pub(crate) fn bind(settings: &Settings) -> Result<Self> {
        let address = &settings.listen;
        match address {
            Listen::Tcp { host, port } => {
                let socket = bind_tcp(host, *port, settings.reuse_port).with_context(|| {
                    let shared = if settings.reuse_port { " without reuse_port" } else { "" };
                    format!(
                        "cannot listen at {address}; if another daemon runs there{shared}, stop it or set `listen`"
                    )
                })?;
                notice_ghosts(&socket, settings.ghost_timeout);
                let door = if settings.reuse_port { Door::SharedPort } else { Door::Port };
                Ok(Self { socket: Accepting::Tcp(TcpListener::from_std(socket.into())?), door })
            }
            Listen::Unix(path) => {
                let bound = bind_unix(path, settings.socket_mode, settings.reuse_port);
                let (socket, file) = bound.with_context(|| format!("cannot listen at {address}"))?;
                let socket = Accepting::Unix(UnixListener::from_std(socket.into())?);
                Ok(Self { socket, door: Door::File(file) })
            }
        }
    }

    /// The sockets that a service manager handed over (`LISTEN_FDS`), if there are any.
    ///
    /// # Errors
    ///
    /// When one of them is not a listening stream socket.
    pub(crate) fn inherited(mut handed: ListenFd, settings: &Settings) -> Result<Vec<Self>> {
        (0..handed.len()).map(|index| inherited(&mut handed, index, settings)).collect()
    }

    /// Whether it is a TCP port.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.socket, Accepting::Tcp(_))
    }

    /// Whether only this machine can reach it.
    pub(crate) fn is_local(&self) -> bool {
        match &self.socket {
            Accepting::Unix(_) => true,
            Accepting::Tcp(listener) => {
                listener.local_addr().is_ok_and(|at| at.ip().to_canonical().is_loopback())
            }
        }
    }

    /// The next connection, and where it comes from; over a unix socket from nowhere. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match &self.socket {
            Accepting::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // A reply is one write; it must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream, Visit::go_on(None)), Some(peer.ip())))
            }
            Accepting::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub(crate) fn address(&self) -> String {
        match (&self.socket, &self.door) {
            (_, Door::File(file)) => format!("unix:{}", file.path.display()),
            (Accepting::Tcp(listener), _) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |at| at.to_string())
            }
            (Accepting::Unix(listener), _) => match listener.local_addr() {
                Ok(at) => format!("unix:{}", at.as_pathname().unwrap_or(Path::new("?")).display()),
                Err(error) => error.to_string(),
            },
        }
    }

    /// Whether it may be that another daemon listens here while this one stops.
    pub(crate) fn may_have_successor(&self) -> bool {
        matches!(self.door, Door::SharedPort | Door::File(_))
    }

    /// Lets nobody new in, as far as that can be done; returns whether those who are in are ours to serve.
    pub(crate) fn close_door(&mut self) -> bool {
        match &self.door {
            Door::Inherited => return false,
            Door::Port => {}
            Door::SharedPort => {
                if let Accepting::Tcp(listener) = &self.socket {
                    refuse_new(listener);
                }
            }
            Door::File(file) => {
                let _turn = Turn::at(&file.path);
                if file.is_ours() {
                    let _ = std::fs::remove_file(&file.path);
                }
            }
        }
        true
    }

    /// Stops listening, and says whether another daemon listens here now.
    pub(crate) async fn close(self) -> bool {
        let address = match (&self.door, &self.socket) {
            (Door::Port | Door::Inherited, _) => return false,
            (Door::File(file), _) => Listen::Unix(file.path.clone()),
            (Door::SharedPort, Accepting::Tcp(listener)) => match listener.local_addr() {
                Ok(at) => Listen::Tcp { host: at.ip().to_string(), port: at.port() },
                Err(_) => return false,
            },
            (Door::SharedPort, Accepting::Unix(_)) => return false,
        };
        drop(self);
        somebody_listens(&address).await
    }
}

/// Whether somebody listens there.
pub(crate) async fn somebody_listens(address: &Listen) -> bool {
    let connected = match address {
        Listen::Unix(path) => timeout(KNOCK, UnixStream::connect(path)).await.map(|result| result.is_ok()),
        Listen::Tcp { host, port } => {
            timeout(KNOCK, TcpStream::connect((host.as_str(), *port))).await.map(|result| result.is_ok())
        }
    };
    connected.unwrap_or(false)
}

fn inherited(handed: &mut ListenFd, index: usize, settings: &Settings) -> Result<Listener> {
    let number = 3 + index;
    let context =
        || format!("descriptor {number} was handed over (LISTEN_FDS), but it is no listening stream socket");
    let socket = match handed.take_unix_listener(index) {
        Ok(Some(listener)) => {
            check(&listener).with_context(context)?;
            listener.set_nonblocking(true)?;
            Accepting::Unix(UnixListener::from_std(listener)?)
        }
        _ => {
            let listener = handed.take_tcp_listener(index).with_context(context)?.with_context(context)?;
            check(&listener).with_context(context)?;
            listener.set_nonblocking(true)?;
            notice_ghosts(SockRef::from(&listener), settings.ghost_timeout);
            Accepting::Tcp(TcpListener::from_std(listener)?)
        }
    };
    Ok(Listener { socket, door: Door::Inherited })
}

/// A socket that does not listen would fail at each accept, for ever.
fn check(socket: &impl AsFd) -> Result<()> {
    if !SockRef::from(socket).is_listener()? {
        bail!("it does not listen; set Accept=no, which is the default, in the socket unit");
    }
    Ok(())
}

fn bind_tcp(host: &str, port: u16, shared: bool) -> Result<Socket> {
    let address = (host, port).to_socket_addrs()?.next().context("the host has no address")?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it, a restart waits until the old connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Lets the kernel find out that a client has vanished without a word, as a phone without network does: connections have this
/// from the socket that accepted them. A silent one is probed after `patience`; what is written and not acknowledged for as
/// long ends the connection.
fn notice_ghosts<'a>(socket: impl Into<SockRef<'a>>, patience: Duration) {
    let socket = socket.into();
    let probes = TcpKeepalive::new().with_time(patience).with_interval(PROBE_EVERY);
    // Where the system has not these, its own limits hold: hours for the one, a quarter of an hour for the other.
    let _ = socket.set_tcp_keepalive(&probes);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(patience));
}

/// Drops what asks for a new connection, and nothing else: handshakes that are under way are finished.
#[cfg(target_os = "linux")]
fn refuse_new(listener: &TcpListener) {
    use socket2::SockFilter;
    // The classic packet filter of Linux (Documentation/networking/filter.rst). The socket sees packets from the TCP header
    // on; SYN and ACK are bits of its byte 13, and only the first packet of a connection has the one without the other.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    // Without it, those who come in the last moment are reset, as they always were.
    let _ = SockRef::from(listener).attach_filter(&program);
}

#[cfg(not(target_os = "linux"))]
fn refuse_new(_: &TcpListener) {}

fn bind_unix(path: &Path, mode: u32, shared: bool) -> Result<(Socket, SocketFile)> {
    let found = std::fs::symlink_metadata(path).ok();
    if found.as_ref().is_some_and(|found| !found.file_type().is_socket()) {
        bail!("the file is there and is no socket; remove it or choose another path");
    }
    if found.is_some() && !shared && std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!(
            "another process listens there; stop it, choose another path, or set reuse_port to take its place"
        );
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // Under a name of its own, until it listens: whoever connects finds the old socket or the new one, and never none.
    // Short, since the length is limited, and random, since two containers may have the same process ids.
    let random = RandomState::new().hash_one(std::process::id()) as u32;
    let own = path.with_file_name(format!(".{random:08x}"));
    socket.bind(&SockAddr::unix(&own)?)?;
    let mut file = SocketFile { metadata: std::fs::symlink_metadata(&own)?, path: own.clone() };
    std::fs::set_permissions(&own, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let _turn = Turn::at(path);
    std::fs::rename(&own, path).context("cannot put the socket's file into its place")?;
    path.clone_into(&mut file.path);
    Ok((socket, file))
}
