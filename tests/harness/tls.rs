//! Certificates of the tests' own, and clients that trust them.
//!
//! An [`Authority`] signs certificates for `localhost` and 127.0.0.1, with OpenSSL's program; a server is started with one of
//! them, and its [`Trust`] is what a client needs to speak to it.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::{TestDir, process};

/// Who signs certificates. Its files go with it.
#[derive(Debug)]
pub struct Authority {
    directory: TestDir,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, PEM.
    pub chain: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// What clients need to trust it.
    pub trust: Trust,
}

/// A client's side of TLS.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// When OpenSSL cannot make it.
    pub fn new() -> Self {
        let directory = TestDir::new();
        let authority = Self { directory };
        let [key, root] = ["root.key", "root.pem"].map(|name| authority.directory.join(name));
        let mut command = new_key("req", &key);
        openssl(command.args(["-x509", "-days", "2", "-subj", "/CN=Everpoll's tests", "-out"]).arg(&root));
        authority
    }

    /// The file that `curl --cacert` wants.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root.pem")
    }

    /// A certificate for this machine, in files with this name.
    ///
    /// # Panics
    /// When OpenSSL cannot make it.
    pub fn sign(&self, name: &str) -> Certificate {
        let file = |extension| self.directory.join(&format!("{name}.{extension}"));
        let (request, chain, key, names) = (file("csr"), file("pem"), file("key"), file("names"));
        std::fs::write(&names, "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            .expect("a file in our directory");
        openssl(new_key("req", &key).args(["-subj", "/CN=localhost", "-out"]).arg(&request));
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "2", "-CAcreateserial"]);
        for (option, path) in [
            ("-in", &request),
            ("-CA", &self.root()),
            ("-CAkey", &self.directory.join("root.key")),
            ("-extfile", &names),
            ("-out", &chain),
        ] {
            command.arg(option).arg(path);
        }
        openssl(&mut command);
        Certificate { chain, key, trust: self.trust(rustls::ALL_VERSIONS) }
    }

    /// The same, valid from one time until another, seconds since 1970.
    ///
    /// # Panics
    /// When OpenSSL cannot make it.
    pub fn sign_for(&self, name: &str, from: u64, until: u64) -> Certificate {
        let file = |extension| self.directory.join(&format!("{name}.{extension}"));
        let (request, chain, key) = (file("csr"), file("pem"), file("key"));
        openssl(new_key("req", &key).args(["-subj", "/CN=localhost", "-out"]).arg(&request));
        let folder = self.directory.path().display();
        // Only this command of OpenSSL takes times.
        let config = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {folder}/{name}.index\nnew_certs_dir = {folder}\nrand_serial = yes\n\
             certificate = {folder}/root.pem\nprivate_key = {folder}/root.key\ndefault_md = sha256\npolicy = any\n\
             x509_extensions = names\n[any]\ncommonName = supplied\n[names]\nsubjectAltName = DNS:localhost, IP:127.0.0.1\n"
        );
        let index = file("index");
        std::fs::write(&index, "").expect("a file in our directory");
        let config = self.directory.file(&format!("{name}.conf"), config);
        let mut command = Command::new("openssl");
        command.args(["ca", "-batch", "-notext", "-startdate", &date(from), "-enddate", &date(until)]);
        for (option, path) in [("-config", &config), ("-in", &request), ("-out", &chain)] {
            command.arg(option).arg(path);
        }
        openssl(&mut command);
        Certificate { chain, key, trust: self.trust(rustls::ALL_VERSIONS) }
    }

    /// For a client that trusts what this one has signed, and knows these versions of TLS.
    ///
    /// # Panics
    /// When the file of the root is gone.
    pub fn trust(&self, versions: &[&'static SupportedProtocolVersion]) -> Trust {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.root()).expect("OpenSSL wrote it");
        roots.add(root).expect("OpenSSL wrote it");
        let config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(versions)
            .expect("versions that exist")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Trust(config.into())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Certificate {
    /// The certificate as it is on the wire.
    ///
    /// # Panics
    /// When the file is gone.
    pub fn der(&self) -> Vec<u8> {
        CertificateDer::from_pem_file(&self.chain).expect("OpenSSL wrote it").to_vec()
    }
}

impl Trust {
    /// What rustls needs.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }

    /// The same for a client that forgets the servers it has spoken to: each of its handshakes is a full one.
    #[must_use]
    pub fn without_resumption(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.resumption = Resumption::disabled();
        Self(config.into())
    }

    /// The client's half of a connection that begins.
    ///
    /// # Panics
    /// When rustls has no random numbers.
    pub fn client(&self) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        ClientConnection::new(self.config(), name).expect("a new client")
    }

    /// Shakes hands over a connection of the test's own.
    ///
    /// # Errors
    /// When the server is not trusted, or breaks it off.
    pub fn greet(&self, mut socket: TcpStream) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut client = self.client();
        while client.is_handshaking() {
            client.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(client, socket))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trust {}

fn new_key(task: &str, file: &Path) -> Command {
    let mut command = Command::new("openssl");
    command
        .args([task, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"])
        .arg(file);
    command
}

/// A time, in seconds since 1970, as OpenSSL wants it.
fn date(second: u64) -> String {
    let mut command = Command::new("date");
    command.args(["-u", "-d", &format!("@{second}"), "+%Y%m%d%H%M%SZ"]);
    process::run(command, b"").1.trim().to_owned()
}

fn openssl(command: &mut Command) {
    let what = format!("{command:?}");
    let command = std::mem::replace(command, Command::new("openssl"));
    let (status, _, errors) = process::run(command, b"");
    assert!(status.success(), "{what}: {errors}");
}
