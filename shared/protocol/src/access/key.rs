//! Keys that tokens are signed with. A key knows its algorithm, and a token cannot choose another.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{hmac, signature};

/// Shortest secret of HS256, in bytes: as long as its hash (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// What RSA keys may have, in bits: less can be broken, more is too slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// How a token is signed (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256: who can check can also sign.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Parses the name that tokens have for it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }

    /// The name that tokens have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// A key that tokens are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Its `kid`.
    pub id: Box<str>,
    algorithm: Algorithm,
    /// The secret, the `RSAPublicKey` in DER, or the 32 bytes of Ed25519.
    bytes: Box<[u8]>,
}

impl TokenKey {
    /// A shared secret for HS256.
    ///
    /// # Errors
    ///
    /// The rest of a sentence that begins with what was given; without the secret.
    pub fn hs256(id: &str, secret: &str) -> Result<Self, String> {
        if secret.len() < MIN_SECRET_BYTES {
            let length = secret.len();
            return Err(format!(
                "is {length} bytes long; give at least {MIN_SECRET_BYTES}, for example the output of: openssl rand -hex 32"
            ));
        }
        Ok(Self { id: id.into(), algorithm: Algorithm::Hs256, bytes: secret.as_bytes().into() })
    }

    /// A public key for RS256 or EdDSA, as PEM.
    ///
    /// # Errors
    ///
    /// The rest of a sentence that begins with what was given.
    pub fn public(id: &str, algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        const HOW: &str = "give what this prints: openssl pkey -in private.pem -pubout";
        if pem.contains("PRIVATE KEY-----") {
            return Err(format!("is a private key, which belongs to whoever signs; {HOW}"));
        }
        let not_pem = || format!("is no public key in PEM; {HOW}");
        let (label, body) = pem_block(pem).ok_or_else(not_pem)?;
        let der = STANDARD.decode(body).map_err(|_| not_pem())?;
        let found = match label {
            "PUBLIC KEY" => subject_public_key(&der),
            "RSA PUBLIC KEY" => Some((Algorithm::Rs256, &*der)),
            _ => None,
        };
        let (of, bytes) = found.ok_or_else(|| format!("is neither an RSA nor an Ed25519 key; {HOW}"))?;
        if of != algorithm {
            return Err(format!("is a key for {}, and the algorithm is {}", of.name(), algorithm.name()));
        }
        if algorithm == Algorithm::Rs256 {
            let bits = rsa_bits(bytes).ok_or_else(not_pem)?;
            if !RSA_BITS.contains(&bits) {
                return Err(format!("has {bits} bits; give an RSA key with 2048 to 8192"));
            }
        }
        Ok(Self { id: id.into(), algorithm, bytes: bytes.into() })
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether the signature is this key's.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = |algorithm: &'static dyn signature::VerificationAlgorithm| {
            signature::UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
        };
        match self.algorithm {
            Algorithm::Hs256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
                hmac::verify(&key, message, signature).is_ok()
            }
            Algorithm::Rs256 => public(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::EdDsa => public(&signature::ED25519),
        }
    }

    /// The signature of a secret; a public key has none.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        (self.algorithm == Algorithm::Hs256).then(|| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &self.bytes);
            hmac::sign(&key, message).as_ref().to_vec()
        })
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}: {})", self.id, self.algorithm.name())
    }
}

/// The label and the base64 of the first block of a PEM file (RFC 7468).
fn pem_block(pem: &str) -> Option<(&str, String)> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    Some((label, body.split_whitespace().collect()))
}

/// The key inside a `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
fn subject_public_key(der: &[u8]) -> Option<(Algorithm, &[u8])> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let (info, _) = element(0x30, der)?;
    let (identifier, rest) = element(0x30, info)?;
    let (oid, _) = element(0x06, identifier)?;
    let (bits, _) = element(0x03, rest)?;
    // The first byte says how many bits of the last are unused.
    let key = bits.strip_prefix(&[0])?;
    match oid {
        RSA => Some((Algorithm::Rs256, key)),
        ED25519 if key.len() == 32 => Some((Algorithm::EdDsa, key)),
        _ => None,
    }
}

/// How long the modulus of an `RSAPublicKey` is (RFC 8017 appendix A.1.1).
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let (key, _) = element(0x30, der)?;
    let (modulus, _) = element(0x02, key)?;
    let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
    Some(modulus.len() * 8 - modulus.first()?.leading_zeros() as usize)
}

/// The content of a DER element with this tag, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn key_is_taken_for_its_own_algorithm_only() {
        let key = TokenKey::public("k", Algorithm::EdDsa, ED25519).unwrap();
        assert_eq!((key.algorithm(), key.bytes.len()), (Algorithm::EdDsa, 32));
        let text = TokenKey::public("k", Algorithm::Rs256, ED25519).unwrap_err();
        assert_eq!(text, "is a key for EdDSA, and the algorithm is RS256");
        assert!(key.sign(b"m").is_none());
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_what_to_do() {
        let private = ED25519.replace("PUBLIC", "PRIVATE");
        for wrong in
            [&private, "", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", &ED25519[..60]]
        {
            let text = TokenKey::public("k", Algorithm::EdDsa, wrong).unwrap_err();
            assert!(text.contains("openssl pkey -in private.pem -pubout"), "{wrong}: {text}");
        }
        assert!(TokenKey::hs256("k", "too short").unwrap_err().starts_with("is 9 bytes long"));
    }

    #[test]
    fn broken_der_is_no_key() {
        for der in [&[][..], &[0x30], &[0x30, 0x84, 1, 1, 1, 1], &[0x30, 0x05, 1], &[0x30, 0x82, 0xff]] {
            assert_eq!(element(0x30, der), None, "{der:?}");
            assert_eq!(subject_public_key(der), None, "{der:?}");
        }
        assert_eq!(rsa_bits(&[0x30, 0x02, 0x02, 0x00]), None);
    }
}
