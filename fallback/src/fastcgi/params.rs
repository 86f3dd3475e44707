//! FastCGI's name-value pairs: the CGI variables of a request.
//!
//! Each pair is two lengths, of one byte or (with the top bit set) of four, then the name, then the value. They stay the
//! bytes that came: a request is asked for a dozen of them, and a hostile one that sends ten thousand costs no more
//! than its bytes.

use std::borrow::Cow;

use thiserror::Error;

use crate::variables::{Variables, count_fields};

/// Most variables of one request. Web servers send some twenty, and one for each header.
pub const PARAMS_MAX: usize = 1000;

/// Variables of a request, checked once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    bytes: Vec<u8>,
}

/// Why bytes are no list of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParamsError {
    /// A length leads beyond the end.
    #[error("a parameter is longer than what came")]
    Truncated,
    /// More than [`PARAMS_MAX`].
    #[error("there are more than {PARAMS_MAX} parameters")]
    TooMany,
}

impl Params {
    /// Checks that `bytes` are pairs to the end.
    ///
    /// # Errors
    ///
    /// [`ParamsError`].
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ParamsError> {
        let (mut rest, mut count) = (bytes.as_slice(), 0);
        while !rest.is_empty() {
            (_, rest) = split_pair(rest).ok_or(ParamsError::Truncated)?;
            count += 1;
            if count > PARAMS_MAX {
                return Err(ParamsError::TooMany);
            }
        }
        Ok(Self { bytes })
    }

    /// Names and values, in the order in which they came.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (pair, behind) = split_pair(rest)?;
            rest = behind;
            Some(pair)
        })
    }
}

impl Variables for Params {
    fn variable(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.pairs().filter(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value);
        let first = values.next()?;
        if !name.starts_with("HTTP_") {
            // Configurations include a list and then overwrite some of it.
            let last = values.last().unwrap_or(first);
            // A header that CGI calls otherwise.
            return Some(Cow::Borrowed(if name == "CONTENT_TYPE" { trimmed(last) } else { last }));
        }
        // A header that came twice is one value (RFC 9110 section 5.3), so that nothing hides behind the other.
        let mut joined = Cow::Borrowed(trimmed(first));
        for value in values {
            let joined = joined.to_mut();
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(trimmed(value));
        }
        Some(joined)
    }

    fn fields(&self) -> (usize, usize) {
        count_fields(self.pairs())
    }
}

/// Without the white space around it, which is no part of a header's value (RFC 9110 section 5.5). nginx leaves tabs in.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A name and a value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// Appends a pair.
///
/// # Panics
///
/// When one of them is 2 GiB or longer.
pub fn write_pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in [name, value] {
        let length = u32::try_from(part.len()).ok().filter(|length| *length < 1 << 31);
        let length = length.expect("variables are short");
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => out.push(short),
            _ => out.extend_from_slice(&(length | 1 << 31).to_be_bytes()),
        }
    }
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

/// The first pair, and what follows it. `None` at the end, or where it is cut off.
fn split_pair(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let (name, rest) = split_length(bytes)?;
    let (value, rest) = split_length(rest)?;
    let (name, rest) = rest.split_at_checked(name)?;
    let (value, rest) = rest.split_at_checked(value)?;
    Some(((name, value), rest))
}

fn split_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_be_bytes(*four) & !(1 << 31)).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        let mut bytes = Vec::new();
        for (name, value) in pairs {
            write_pair(name.as_bytes(), value.as_bytes(), &mut bytes);
        }
        Params::parse(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn pairs_survive_their_bytes(pairs in vec((vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..300)), 0..20)) {
            let mut bytes = Vec::new();
            for (name, value) in &pairs {
                write_pair(name, value, &mut bytes);
            }
            let params = Params::parse(bytes).unwrap();
            let read: Vec<_> = params.pairs().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn any_bytes_are_pairs_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            if let Ok(params) = Params::parse(bytes) {
                params.pairs().for_each(drop);
                let _ = params.variable("HTTP_X");
            }
        }
    }

    #[test]
    fn pair_that_is_cut_off_is_refused() {
        let mut bytes = Vec::new();
        write_pair(b"NAME", &[b'v'; 300], &mut bytes);
        for end in 1..bytes.len() {
            assert_eq!(Params::parse(bytes[..end].to_vec()), Err(ParamsError::Truncated), "{end}");
        }
        assert_eq!(Params::parse(vec![0xff; 8]), Err(ParamsError::Truncated));
    }

    #[test]
    fn more_parameters_than_any_web_server_sends_are_refused() {
        assert!(Params::parse(vec![0; 2 * PARAMS_MAX]).is_ok());
        assert_eq!(Params::parse(vec![0; 2 * PARAMS_MAX + 2]), Err(ParamsError::TooMany));
    }

    #[test]
    fn last_of_equal_variables_counts_but_headers_are_joined() {
        let params = params(&[("A", "1"), ("HTTP_X", "a"), ("A", "2"), ("HTTP_X", "b")]);
        assert_eq!(params.variable("A").as_deref(), Some(&b"2"[..]));
        assert_eq!(params.variable("HTTP_X").as_deref(), Some(&b"a, b"[..]));
        assert_eq!(params.variable("B"), None);
    }

    #[test]
    fn white_space_around_a_header_is_no_part_of_it() {
        let mut pairs = vec![("A", "1\t"), ("HTTP_X", "\ta b \t"), ("HTTP_Y", "\t"), ("HTTP_Y", "b")];
        pairs.push(("CONTENT_TYPE", "\ttext/plain"));
        let params = params(&pairs);
        assert_eq!(params.variable("A").as_deref(), Some(&b"1\t"[..]));
        assert_eq!(params.variable("CONTENT_TYPE").as_deref(), Some(&b"text/plain"[..]));
        assert_eq!(params.variable("HTTP_X").as_deref(), Some(&b"a b"[..]));
        assert_eq!(params.variable("HTTP_Y").as_deref(), Some(&b", b"[..]));
    }
}
