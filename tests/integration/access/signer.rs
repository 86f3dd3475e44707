//! Whoever makes tokens: keys and signatures by openssl, so that no line of Everpoll's own is trusted here.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use everpoll_tests::TestDir;
use serde_json::{Value, json};

/// Two secrets, as during an exchange, and two public keys.
pub(crate) const OLD: &str = "old-secret-0123456789abcdef-0123456789";
pub(crate) const NEW: &str = "new-secret-0123456789abcdef-0123456789";

/// The keys of a site, in files.
pub(crate) struct Signer {
    directory: TestDir,
}

/// What a token is signed with.
#[derive(Clone, Copy)]
pub(crate) enum With<'a> {
    /// HMAC with this text.
    Secret(&'a str),
    /// The private key in this file.
    Private(&'a str),
    /// Nothing.
    Nothing,
}

impl Signer {
    /// Makes the keys.
    pub(crate) fn new() -> Self {
        let signer = Self { directory: TestDir::new() };
        for name in ["rsa", "other-rsa"] {
            signer
                .openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"], name);
        }
        for name in ["ed", "other-ed"] {
            signer.openssl(&["genpkey", "-algorithm", "ED25519", "-out"], name);
        }
        for name in ["rsa", "ed"] {
            let public = signer.run(&["pkey", "-pubout", "-in", &signer.path(name)], b"");
            signer.directory.file(&format!("{name}.pub"), public);
        }
        signer
    }

    fn openssl(&self, arguments: &[&str], name: &str) {
        let path = self.path(name);
        self.run(&[arguments, &[&path]].concat(), b"");
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        // Ed25519 signs files only.
        let file = self.directory.file("input", input);
        let arguments = arguments
            .iter()
            .map(|word| if *word == "INPUT" { file.to_str().expect("its path is text") } else { word });
        let output = Command::new("openssl").args(arguments).output().expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The text of a public key.
    pub(crate) fn public(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pub"))).expect("it was made")
    }

    /// `token_keys` for all of them.
    pub(crate) fn settings(&self) -> String {
        let public = |name: &str| self.path(&format!("{name}.pub"));
        format!(
            "old = {{ algorithm = 'HS256', secret = '{OLD}' }}\nnew = {{ algorithm = 'HS256', secret = '{NEW}' }}\n\
             rsa = {{ algorithm = 'RS256', public_key_file = '{}' }}\n\
             ed = {{ algorithm = 'EdDSA', public_key_file = '{}' }}\n",
            public("rsa"),
            public("ed")
        )
    }

    /// A token.
    pub(crate) fn token(&self, header: &Value, claims: &Value, with: With<'_>) -> String {
        self.token_of(&header.to_string(), claims.to_string(), with)
    }

    /// A token of these texts, which may be no JSON at all.
    pub(crate) fn token_of(&self, header: &str, claims: impl AsRef<[u8]>, with: With<'_>) -> String {
        let message = format!("{}.{}", base64url(header), base64url(claims));
        let signature = match with {
            With::Nothing => Vec::new(),
            With::Secret(secret) => {
                let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
                let key = format!("hexkey:{hex}");
                self.run(
                    &["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary", "INPUT"],
                    message.as_bytes(),
                )
            }
            With::Private(name) if name.ends_with("rsa") => {
                self.run(&["dgst", "-sha256", "-sign", &self.path(name), "INPUT"], message.as_bytes())
            }
            With::Private(name) => {
                let path = self.path(name);
                self.run(&["pkeyutl", "-sign", "-rawin", "-inkey", &path, "-in", "INPUT"], message.as_bytes())
            }
        };
        format!("{message}.{}", base64url(signature))
    }

    /// A good token with these claims.
    pub(crate) fn good(&self, claims: &Value) -> String {
        self.token(&json!({"alg": "HS256", "kid": "new"}), claims, With::Secret(NEW))
    }
}

/// Base64 for URLs, without padding (RFC 4648 section 5).
pub(crate) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |bits: u32, shift: u32| char::from(LETTERS[(bits >> shift & 63) as usize]);
    let mut text = String::new();
    for three in bytes.as_ref().chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        text.extend((0..=three.len() as u32).map(|n| letter(bits, 18 - 6 * n)));
    }
    text
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs_f64()
}
