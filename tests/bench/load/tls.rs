//! A client's connection with TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};

use everpoll_tests::tls::Trust;
use rustls::ClientConnection;
use tokio::net::TcpStream;

/// A socket and its session.
pub(super) struct Secured {
    pub(super) socket: TcpStream,
    client: Box<Mutex<ClientConnection>>,
}

impl Secured {
    /// Connects and shakes hands.
    pub(super) async fn open(address: SocketAddr, trust: &Trust) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let this = Self { socket, client: Box::new(Mutex::new(trust.client())) };
        while this.client().is_handshaking() {
            match this.step() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => this.socket.readable().await?,
                Err(error) => return Err(error),
            }
        }
        this.flush()?;
        Ok(this)
    }

    /// Reads what has come, all of it: the socket does not tell of it again.
    pub(super) fn try_read(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let before = bytes.len();
        loop {
            let mut some = [0; 4096];
            let read = self.client().reader().read(&mut some);
            match read {
                Ok(0) => return Ok(0),
                Ok(read) => bytes.extend_from_slice(&some[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.step() {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock && bytes.len() > before => {
                        return Ok(bytes.len() - before);
                    }
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all of it: a request is small.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.client().writer().write_all(bytes)?;
        self.flush().map(|()| bytes.len())
    }

    fn step(&self) -> io::Result<()> {
        self.flush()?;
        let mut client = self.client();
        if client.read_tls(&mut Told(&self.socket))? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        client.process_new_packets().map_err(io::Error::other)?;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut client = self.client();
        while client.wants_write() {
            client.write_tls(&mut Told(&self.socket))?;
        }
        Ok(())
    }

    fn client(&self) -> MutexGuard<'_, ClientConnection> {
        self.client.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A socket whose reactor is told when it has nothing.
struct Told<'a>(&'a TcpStream);

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
