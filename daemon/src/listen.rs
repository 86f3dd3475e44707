//! Where the daemon listens: a TCP port or a unix socket.

use std::fs::Permissions;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use everpoll_settings::Listen;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::stream::Stream;

/// How many connections the kernel keeps until they are accepted. It cuts this to its own limit
/// (`net.core.somaxconn` on Linux).
const BACKLOG: i32 = 4096;

/// A listening socket. A unix socket's file is removed when this is dropped.
pub(crate) enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener, SocketFile),
}

/// A socket's file.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next start replaces it.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens at `address`; a unix socket gets the permissions `mode`.
    ///
    /// # Errors
    ///
    /// Says who is in the way.
    pub(crate) fn bind(address: &Listen, mode: u32) -> Result<Self> {
        match address {
            Listen::Tcp { host, port } => {
                let context = || {
                    format!(
                        "cannot listen at {address}; if another daemon runs there, stop it or set `listen`"
                    )
                };
                Ok(Self::Tcp(bind_tcp(host, *port).with_context(context)?))
            }
            Listen::Unix(path) => {
                let context = || format!("cannot listen at unix:{}", path.display());
                let (listener, file) = bind_unix(path, mode).with_context(context)?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    /// The next connection. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A reply is one write; it must not wait for the acknowledgement of the one before.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }

    /// The address, with the port that the kernel chose where 0 was asked for.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |at| at.to_string())
            }
            Self::Unix(_, SocketFile(path)) => format!("unix:{}", path.display()),
        }
    }
}

fn bind_tcp(host: &str, port: u16) -> Result<TcpListener> {
    let address = (host, port).to_socket_addrs()?.next().context("the host has no address")?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Without it, a restart waits until the old connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into())?)
}

fn bind_unix(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile)> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            bail!("the file is there and is no socket; remove it or choose another path");
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("another process listens there; stop it or choose another path");
        }
        std::fs::remove_file(path).context("cannot remove the socket of a process that is gone")?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}
