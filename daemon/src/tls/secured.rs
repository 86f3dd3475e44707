//! A socket with its [session](super::session::Session).

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard};

use socket2::SockRef;
use tokio::net::TcpStream;

use super::session::Session;
use crate::hub::lock;

/// A socket whose bytes are encrypted. Dropped, it says farewell, without which its client could not tell the end of an
/// endless reply from a cut.
pub(crate) struct Secured<S: AsFd>(Option<(S, Box<Mutex<Session>>)>);

impl<S: AsFd> Secured<S> {
    pub(super) fn new(socket: S, session: Box<Mutex<Session>>) -> Self {
        Self(Some((socket, session)))
    }

    fn parts(&self) -> (&S, MutexGuard<'_, Session>) {
        let (socket, session) = self.0.as_ref().expect("only its end takes them out");
        (socket, lock(session))
    }

    /// The socket itself, to wait for it.
    pub(crate) fn socket(&self) -> &S {
        &self.0.as_ref().expect("only its end takes them out").0
    }

    /// The same session over the same socket in another form.
    pub(crate) fn map<T: AsFd>(mut self, other: impl FnOnce(S) -> io::Result<T>) -> io::Result<Secured<T>> {
        let (socket, session) = self.0.take().expect("only its end takes them out");
        Ok(Secured(Some((other(socket)?, session))))
    }

    /// Whether there is something to read that was taken from the socket already.
    pub(crate) fn has_plaintext(&self) -> bool {
        self.parts().1.has_plaintext()
    }

    /// Reads what is there, asking the socket itself; see [`Session::read`].
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (socket, mut session) = self.parts();
        session.read(&mut &*SockRef::from(socket), buffer)
    }

    /// Writes what the socket takes, asking the socket itself; see [`Session::write`].
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let (socket, mut session) = self.parts();
        session.write(&mut &*SockRef::from(socket), bytes)
    }

    /// Says farewell.
    pub(crate) fn close(&self) {
        let (socket, mut session) = self.parts();
        session.close(&mut &*SockRef::from(socket));
    }
}

impl Secured<TcpStream> {
    /// Reads what is there, and lets the reactor know when there is nothing.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (socket, mut session) = self.parts();
        session.read(&mut Told(socket), buffer)
    }

    /// Writes what the socket takes, and lets the reactor know when it takes no more.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let (socket, mut session) = self.parts();
        session.write(&mut Told(socket), bytes)
    }
}

impl<S: AsFd> Drop for Secured<S> {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.close();
        }
    }
}

/// A socket whose reactor is told when it has nothing, or takes nothing.
pub(super) struct Told<'a>(pub(super) &'a TcpStream);

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
