//! Where a server listens, and connections to it, of each kind.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::REPLY_DEADLINE;
use crate::tls::Trust;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// TCP with TLS.
    Tls(SocketAddr, Trust),
}

impl Address {
    /// A port of 127.0.0.1.
    pub fn local(port: u16) -> Self {
        Self::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(&self) -> io::Result<Stream> {
        self.connect_by(|address| TcpStream::connect_timeout(address, Duration::from_secs(10)))
    }

    /// Connects from this address of the machine, such as 127.0.0.2: the server sees another client.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect_from(&self, source: Ipv4Addr) -> io::Result<Stream> {
        self.connect_by(|address| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            socket.connect_timeout(&(*address).into(), Duration::from_secs(10))?;
            Ok(socket.into())
        })
    }

    fn connect_by(&self, connect: impl Fn(&SocketAddr) -> io::Result<TcpStream>) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(address) => {
                let stream = connect(address)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Self::Tls(address, trust) => {
                let stream = connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(REPLY_DEADLINE))?;
                Stream::Tls(Box::new(trust.greet(stream)?))
            }
        };
        stream.set_deadline(REPLY_DEADLINE)?;
        Ok(stream)
    }
}

impl fmt::Display for Address {
    /// As `EVERPOLL_LISTEN` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection, of each kind.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TCP with TLS.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// The certificate that the server has shown, as it was on the wire.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => Some(stream.conn.peer_certificates()?.first()?.to_vec()),
            _ => None,
        }
    }

    /// How long a read or write may take before it is an error.
    ///
    /// # Errors
    /// When `deadline` is zero.
    pub fn set_deadline(&self, deadline: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(deadline))?;
                stream.set_write_timeout(Some(deadline))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(deadline))?;
                stream.set_write_timeout(Some(deadline))
            }
            Self::Tls(stream) => {
                stream.sock.set_read_timeout(Some(deadline))?;
                stream.sock.set_write_timeout(Some(deadline))
            }
        }
    }

    /// Says that nothing more will be sent; the other side can still answer.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn finish_sending(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tls(stream) => stream.sock.shutdown(Shutdown::Write),
        }
    }

    pub(super) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(on),
            Self::Unix(stream) => stream.set_nonblocking(on),
            Self::Tls(stream) => stream.sock.set_nonblocking(on),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            // All of it goes out: what rustls keeps would go with the next read only.
            Self::Tls(stream) => {
                let written = stream.write(bytes)?;
                stream.flush().map(|()| written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
