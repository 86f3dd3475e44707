//! The listening socket: one of our own, or the one that the web server handed over as descriptor 0.
//!
//! Whether descriptor 0 is a socket does not tell FastCGI from CGI: Apache and Python hand a *connected* socket to a CGI
//! program. Only a listening one means FastCGI.

use std::fs::{Metadata, Permissions};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use everpoll_settings::Listen;
use rustix::stdio::stdin;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::counts::COUNTS;

/// How many connections the kernel keeps until they are accepted. It cuts this to its own limit
/// (`net.core.somaxconn` on Linux). After the daemon's death a web server opens thousands at once.
pub(super) const BACKLOG: i32 = 4096;

/// A listening socket that does not block.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Made here; otherwise other processes may accept on it as well, and it outlives us.
    ours: bool,
    /// Removed when the listener is dropped.
    file: Option<SocketFile>,
    /// The web servers that may connect; `None` means all.
    peers: Option<Vec<IpAddr>>,
}

/// The file of a unix socket that we made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    metadata: Metadata,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Not the one of a process that has taken our place.
        let same = |found: Metadata| (found.dev(), found.ino()) == (self.metadata.dev(), self.metadata.ino());
        if std::fs::symlink_metadata(&self.path).is_ok_and(same) {
            // Nothing is lost if it stays: the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Listens at `address`; a unix socket gets the permissions `mode`.
    ///
    /// # Errors
    ///
    /// Says what is in the way and what to do.
    pub fn bind(address: &Listen, mode: u32) -> Result<Self, String> {
        let bound = match address {
            Listen::Tcp { host, port } => bind_tcp(host, *port).map(|socket| (socket, None)),
            Listen::Unix(path) => bind_unix(path, mode).map(|(socket, file)| (socket, Some(file))),
        };
        let (socket, file) = bound.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("cannot listen at {address}: another process is listening there; stop it or choose another address")
            }
            io::ErrorKind::PermissionDenied => {
                format!("cannot listen at {address}: {error}; choose a directory that this user may write to, or a port above 1023")
            }
            io::ErrorKind::NotFound => {
                format!("cannot listen at {address}: the directory does not exist; make it or choose another")
            }
            _ => format!("cannot listen at {address}: {error}"),
        })?;
        Ok(Self { socket, ours: true, file, peers: None })
    }

    /// The listening socket that is descriptor 0, if it is one.
    ///
    /// # Errors
    ///
    /// When it is one, but cannot be used.
    pub fn inherited() -> io::Result<Option<Self>> {
        if !is_listening() {
            return Ok(None);
        }
        let socket = Socket::from(rustix::io::fcntl_dupfd_cloexec(stdin(), 3)?);
        socket.set_nonblocking(true)?;
        Ok(Some(Self { socket, ours: false, file: None, peers: None }))
    }

    /// Lets only these web servers connect over TCP: a list of addresses, separated by commas, as in
    /// `FCGI_WEB_SERVER_ADDRS`.
    ///
    /// # Errors
    ///
    /// Names what is no address.
    pub fn only_from(mut self, addresses: &str) -> Result<Self, String> {
        let parse = |text: &str| {
            let address = text.trim().parse().map_err(|_| {
                format!("FCGI_WEB_SERVER_ADDRS has {text:?}, which is no address; give addresses separated by commas")
            });
            address.map(|address: IpAddr| address.to_canonical())
        };
        self.peers = Some(addresses.split(',').map(parse).collect::<Result<_, _>>()?);
        Ok(self)
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        self.socket.local_addr().is_ok_and(|address| match address.as_socket() {
            Some(address) => address.ip().to_canonical().is_loopback(),
            None => true,
        })
    }

    /// The address, as a setting has it; with the port that the kernel chose where 0 was asked for.
    pub fn address(&self) -> String {
        let Ok(address) = self.socket.local_addr() else { return "an unknown address".to_owned() };
        match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => address.to_string(),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => "a unix socket without a name".to_owned(),
        }
    }

    /// The next connection, ready to be used without blocking.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there is none.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        loop {
            let (socket, peer) = self.socket.accept()?;
            let peer = peer.as_socket();
            if let (Some(peers), Some(peer)) = (&self.peers, peer)
                && !peers.contains(&peer.ip().to_canonical())
            {
                COUNTS.hit("FCGI_WEB_SERVER_ADDRS");
                continue;
            }
            socket.set_nonblocking(true)?;
            if peer.is_some() {
                // A response is one write; it must not wait for the acknowledgement of the one before.
                socket.set_tcp_nodelay(true)?;
            }
            return Ok(socket);
        }
    }

    /// The same socket for a thread that waits for nothing else.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub(crate) fn blocking(&self) -> io::Result<Socket> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }

    /// Removes the socket's file, if there is one, so that nobody else connects. Returns whether those who have
    /// connected already are ours to serve: nobody else will accept them.
    pub(super) fn close_door(&mut self) -> bool {
        self.file = None;
        self.ours
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Whether descriptor 0 is a listening socket.
#[cfg(not(target_vendor = "apple"))]
fn is_listening() -> bool {
    rustix::net::sockopt::socket_acceptconn(stdin()).unwrap_or(false)
}

/// Whether descriptor 0 is a listening socket. Apple's systems have no `SO_ACCEPTCONN`; a socket that has an address but no
/// peer listens, as the FastCGI specification has it.
#[cfg(target_vendor = "apple")]
fn is_listening() -> bool {
    rustix::net::getsockname(stdin()).is_ok()
        && rustix::net::getpeername(stdin()).is_err_and(|error| error == rustix::io::Errno::NOTCONN)
}

fn bind_tcp(host: &str, port: u16) -> io::Result<Socket> {
    let address = (host, port).to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it, a restart waits until the old connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<(Socket, SocketFile)> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::other(
                "a file is there that is no socket; remove it or choose another path",
            ));
        }
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A full backlog must not make us wait.
        probe.set_nonblocking(true)?;
        match probe.connect(&SockAddr::unix(path)?) {
            // The socket of a process that is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile { path: path.to_owned(), metadata: std::fs::symlink_metadata(path)? };
    // Nobody can connect before `listen`, so nobody slips in under the permissions of the umask.
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}
