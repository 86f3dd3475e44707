//! The floor for a fan-out: a server that only writes a prepared reply to so many sockets.
//!
//! It is this program, started again, so that it is a process beside its clients as the daemon is. What a newcomer
//! might miss: it knows no channels, no HTTP and no clients that are slow or leave. Nothing real is as fast.
//!
//! The first connection commands: for each byte that comes there, all others are sent the reply. Before, they have all
//! asked: anew for each reply, or once for all of them where the replies are a stream.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use everpoll_tests::Address;

/// The running server; ended on drop.
pub(crate) struct Bare {
    child: Child,
    control: TcpStream,
    address: Address,
}

impl Bare {
    /// Starts it, for so many clients and with this reply; `asked` says how often they ask.
    ///
    /// # Errors
    ///
    /// When this program cannot be started again.
    pub(crate) fn start(clients: usize, reply: &[u8], asked: Asked) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([asked.argument(), &clients.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        // Closed by the drop at the end of the statement, which tells that the reply is complete.
        child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?.write_all(reply)?;
        let mut port = String::new();
        BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).read_line(&mut port)?;
        let address = Address::local(port.trim().parse().map_err(io::Error::other)?);
        let Address::Tcp(control) = address else { unreachable!("it was just made of a port") };
        let control = TcpStream::connect(control)?;
        control.set_nodelay(true)?;
        Ok(Self { child, control, address })
    }

    /// Where its clients connect.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it write.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        self.control.write_all(b"!")
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How often its clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// For each reply.
    EachTime,
    /// For all of them.
    Once,
}

impl Asked {
    /// The first argument that makes this program the server.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::EachTime => "bare-polls",
            Self::Once => "bare-streams",
        }
    }
}

/// Serves so many clients until the one that commands has left. The reply comes on stdin, the port goes to stdout.
///
/// # Errors
///
/// When a client leaves.
pub(crate) fn serve(clients: usize, asked: Asked) -> io::Result<()> {
    let mut reply = Vec::new();
    io::stdin().read_to_end(&mut reply)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    let (mut control, _) = listener.accept()?;
    let mut sockets = Vec::with_capacity(clients);
    for _ in 0..clients {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    for round in 0.. {
        if round == 0 || asked == Asked::EachTime {
            for socket in &mut sockets {
                read_head(socket)?;
            }
        }
        if control.read(&mut [0])? == 0 {
            return Ok(());
        }
        for socket in &mut sockets {
            socket.write_all(&reply)?;
        }
    }
    Ok(())
}

fn read_head(socket: &mut TcpStream) -> io::Result<()> {
    let (mut head, mut some) = (Vec::new(), [0; 4096]);
    while !head.ends_with(b"\r\n\r\n") {
        let read = socket.read(&mut some)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&some[..read]);
    }
    Ok(())
}
