//! The browser client, served by both programs: a page that lost the daemon loads it from the fallback.

/// `everpoll.js`, as browsers get it.
pub(crate) const SCRIPT: &[u8] = include_bytes!("../../client/dist/everpoll.min.js");

/// Names this very script: 16 hexadecimal digits.
pub const SCRIPT_HASH: &str = match std::str::from_utf8(&HEX) {
    Ok(text) => text,
    Err(_) => unreachable!(),
};

const HEX: [u8; 16] = content_hash(SCRIPT);

/// Names a version of a file: 16 hexadecimal digits, for an `ETag` or a URL.
#[must_use]
pub const fn content_hash(content: &[u8]) -> [u8; 16] {
    hex(fnv1a(content))
}

/// FNV-1a, 64 bits. It tells versions of a file apart and guards nothing.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

const fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    let mut at = 0;
    while at < 16 {
        digits[at] = b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15];
        at += 1;
    }
    digits
}

/// A wish for the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptRequest {
    /// The URL names this very version, so that it can be kept for ever.
    pub immutable: bool,
    /// The browser has this very version already.
    pub known: bool,
    /// Only the head is wanted.
    pub head_only: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_the_script() {
        // The test vectors of the algorithm's authors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(SCRIPT_HASH, format!("{:016x}", fnv1a(SCRIPT)));
    }
}
