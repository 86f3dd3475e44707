//! TLS, where the daemon faces clients itself: certificate, key, handshake.
//!
//! A connection begins as [fresh](crate::stream::Stream::Fresh): it waits in a lot like any other until its client says something.
//! The handshake is a task's affair, since its arithmetic takes as long as a hundred replies. After it the connection is
//! like any other again, with a [session] beside its socket.
//!
//! What a newcomer gets wrong: the files change while the daemon runs, since certificates live for weeks. Two files cannot be
//! replaced at once, so they are read only when both have rested for a moment, and a pair that does not fit changes nothing. That a
//! certificate ends soon is told when it is read, and each day.

mod secured;
mod session;
mod validity;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

pub(crate) use secured::Secured;
use secured::Told;
use session::Session;
use validity::{Validity, Worry};

use crate::hub::lock;
use crate::metrics::{COUNTS, Limit};

/// How often it is looked whether the files have changed.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);

/// How often a certificate that ends soon is told.
const TELL_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What every handshake of the daemon needs.
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: Mutex<Arc<ServerConfig>>,
    /// That of the certificate in use, if it can be read.
    validity: Mutex<Option<Validity>>,
}

/// What tells one state of the files from the next.
type State = [Option<(SystemTime, u64, u64)>; 2];

/// What a new connection came to.
pub(crate) enum Greeting {
    /// It speaks TLS.
    Secured(Secured<TcpStream>),
    /// It speaks HTTP without TLS.
    Plain(TcpStream),
    /// It is of no use.
    Broken,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    ///
    /// What is wrong with them, and what would be right.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let (config, validity) = read(certificate, key)?;
        if std::fs::metadata(key).is_ok_and(|key| key.mode() & 0o004 != 0) {
            warn!(
                "tls_key {} can be read by every user of this machine; set its mode to 0640",
                key.display()
            );
        }
        let tls = Self {
            certificate: certificate.into(),
            key: key.into(),
            config: Mutex::new(config.into()),
            validity: Mutex::new(validity),
        };
        tls.tell_worries();
        Ok(tls)
    }

    /// When the certificate in use ends, seconds since 1970, if that can be told.
    pub(crate) fn ends_at(&self) -> Option<u64> {
        lock(&self.validity).map(Validity::until)
    }

    fn tell_worries(&self) {
        let file = self.certificate.display();
        match *lock(&self.validity) {
            None => warn!("tls_certificate {file} does not say until when it is valid"),
            Some(validity) => match validity.worry(SystemTime::now()) {
                None => {}
                Some(worry @ Worry::EndsSoon(_)) => warn!("tls_certificate {file} {worry}"),
                Some(worry) => error!("tls_certificate {file} {worry}"),
            },
        }
    }

    /// Reads the files again when they have changed, or the `hangup` signal comes. Runs for ever.
    pub(crate) async fn follow_files(self: Arc<Self>, mut hangup: Signal) {
        let (mut read, mut last) = (self.state(), self.state());
        let mut told_worries = Instant::now();
        loop {
            let told = tokio::select! {
                _ = hangup.recv() => true,
                () = tokio::time::sleep(LOOK_AT_FILES) => false,
            };
            let now = self.state();
            let rests = std::mem::replace(&mut last, now) == now;
            if told || (rests && now != read) {
                read = now;
                self.read_again();
                told_worries = Instant::now();
            } else if told_worries.elapsed() >= TELL_AGAIN {
                self.tell_worries();
                told_worries = Instant::now();
            }
        }
    }

    fn state(&self) -> State {
        let state = |file: Metadata| Some((file.modified().ok()?, file.len(), file.ino()));
        [&self.certificate, &self.key].map(|file| std::fs::metadata(file).ok().and_then(state))
    }

    fn read_again(&self) {
        match read(&self.certificate, &self.key) {
            Ok((config, validity)) => {
                *lock(&self.config) = config.into();
                *lock(&self.validity) = validity;
                info!("read tls_certificate and tls_key again; new connections get them");
            }
            Err(problem) => {
                error!("cannot use the new tls_certificate and tls_key, the old ones go on: {problem:#}");
            }
        }
        self.tell_worries();
    }

    /// Agrees with a client on keys. It may take so long.
    pub(crate) async fn greet(&self, socket: TcpStream, patience: Duration) -> Greeting {
        let greeted = timeout(patience, self.shake_hands(&socket)).await;
        let problem = match greeted {
            Ok(Ok(Some(session))) => {
                COUNTS.handshakes.one();
                return Greeting::Secured(Secured::new(socket, session));
            }
            Ok(Ok(None)) => return Greeting::Plain(socket),
            Ok(Err(problem)) => problem,
            Err(late) => {
                COUNTS.hit(Limit::HeadTime);
                late.into()
            }
        };
        // Whoever looks whether the port is open, and scanners, are no failures of anybody.
        if problem.kind() != io::ErrorKind::UnexpectedEof {
            COUNTS.handshakes_failed.one();
            debug!("no TLS with a client: {problem}");
        }
        Greeting::Broken
    }

    /// `None` when the client speaks without TLS.
    async fn shake_hands(&self, socket: &TcpStream) -> io::Result<Option<Box<Mutex<Session>>>> {
        let mut first = [0];
        if socket.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // A method of HTTP; a handshake begins with 22.
        if first[0].is_ascii_uppercase() {
            return Ok(None);
        }
        let config = lock(&self.config).clone();
        let mut session = Box::new(Session::new(config).map_err(io::Error::other)?);
        loop {
            match session.take_in(&mut Told(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => taken?,
            }
            while !session.flush(&mut Told(socket))? {
                socket.writable().await?;
            }
            if session.is_open() {
                return Ok(Some(Box::new(Mutex::new(*session))));
            }
            if session.has_ended() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            socket.readable().await?;
        }
    }
}

/// What rustls needs, from the files, and until when it is of use.
fn read(certificate: &Path, key: &Path) -> Result<(ServerConfig, Option<Validity>)> {
    let chain = read_chain(certificate);
    let private = PrivateKeyDer::from_pem_file(key).map_err(|problem| match problem {
        pem::Error::Io(problem) => format!("tls_key {} cannot be read: {problem}", key.display()),
        pem::Error::NoItemsFound => format!(
            "tls_key {} has no private key; give a PEM file with -----BEGIN PRIVATE KEY-----, without a passphrase",
            key.display()
        ),
        problem => format!("tls_key {} is not PEM: {problem}", key.display()),
    });
    let (chain, private) = match (chain, private) {
        (Ok(chain), Ok(private)) => (chain, private),
        (Err(one), Err(other)) => bail!("{one}; and {other}"),
        (Err(problem), _) | (_, Err(problem)) => bail!(problem),
    };
    let validity = Validity::of(&chain);
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private);
    let mut config = match config {
        Ok(config) => config,
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => bail!(
            "tls_key {} does not belong to the certificate in {}; the first certificate there must be the server's own",
            key.display(),
            certificate.display()
        ),
        Err(problem) => {
            bail!("{} with {} cannot be used: {problem}", certificate.display(), key.display())
        }
    };
    // All that the front speaks; whoever offers only something else is told so in the handshake.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Clients that come back need no new signature, and nothing is kept for them here.
    config.ticketer = ring::Ticketer::new()?;
    Ok((config, validity))
}

/// The server's certificate and those between it and the root.
fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |problem: pem::Error| match problem {
        pem::Error::Io(problem) => format!("tls_certificate {} cannot be read: {problem}", file.display()),
        problem => format!("tls_certificate {} is not PEM: {problem}", file.display()),
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(wrong)?.collect();
    match chain.map_err(wrong)? {
        chain if chain.is_empty() => Err(format!(
            "tls_certificate {} has no certificate; give a PEM file with -----BEGIN CERTIFICATE-----",
            file.display()
        )),
        chain => Ok(chain),
    }
}
