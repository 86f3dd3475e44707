//! JSON as it travels: validated once, written in ASCII.

use std::fmt;

use serde_json::value::RawValue;

use crate::RequestError;
use crate::event::MAX_DATA_BYTES;

/// Deepest nesting of an event's data. Browsers' parsers recurse, and so does PostgreSQL's.
const MAX_DEPTH: usize = 128;

/// The data of an event: JSON text of at most 1 MiB, nested at most 128 deep.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(Box<str>);

impl Data {
    /// Checks that `text` is JSON within the limits.
    ///
    /// # Errors
    ///
    /// [`RequestError::DataTooLarge`], [`RequestError::DataNotJson`] or [`RequestError::DataTooDeep`].
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        if text.len() > MAX_DATA_BYTES {
            return Err(RequestError::DataTooLarge { bytes: text.len(), limit: MAX_DATA_BYTES });
        }
        serde_json::from_str::<&RawValue>(text)
            .map_err(|error| RequestError::DataNotJson { reason: error.to_string() })?;
        if depth(text) > MAX_DEPTH {
            return Err(RequestError::DataTooDeep);
        }
        Ok(Self(text.into()))
    }

    /// Takes text that a log has already checked.
    pub fn from_log(text: String) -> Self {
        Self(text.into())
    }

    /// The text, as it was published.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Data {
    // Event data does not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut quoted = Quoted::default();
    for byte in json.bytes() {
        if quoted.step(byte) {
            continue;
        }
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Follows valid JSON byte by byte and knows what stands inside a string.
#[derive(Default)]
struct Quoted {
    inside: bool,
    escaped: bool,
}

impl Quoted {
    /// Whether `byte` belongs to a string, its quotes included.
    fn step(&mut self, byte: u8) -> bool {
        if !self.inside {
            self.inside = byte == b'"';
            return self.inside;
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.inside = false,
            _ => {}
        }
        true
    }
}

/// Appends valid JSON in ASCII: white space between tokens is dropped, what is not ASCII becomes `\uXXXX`, and so
/// does `<`, for pages that write a reply into a script element.
pub(crate) fn write_ascii(json: &str, out: &mut Vec<u8>) {
    out.reserve(json.len());
    let mut quoted = Quoted::default();
    for character in json.chars() {
        if character.is_ascii() {
            let byte = character as u8;
            match (quoted.step(byte), byte) {
                (true, b'<') => write_escape(u16::from(b'<'), out),
                (false, b' ' | b'\t' | b'\n' | b'\r') => {}
                _ => out.push(byte),
            }
        } else {
            // Valid JSON has these only inside strings, never right behind a backslash.
            write_character(character, out);
        }
    }
}

/// Appends `text` as a JSON string in ASCII, quotes included.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '<' | '\0'..='\x1f' | '\x7f' => write_escape(character as u16, out),
            ' '..='~' => out.push(character as u8),
            _ => write_character(character, out),
        }
    }
    out.push(b'"');
}

/// One character as `\uXXXX`, or as a surrogate pair of them.
fn write_character(character: char, out: &mut Vec<u8>) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        write_escape(*unit, out);
    }
}

fn write_escape(unit: u16, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[usize::from(unit >> shift & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ascii(json: &str) -> String {
        let mut out = Vec::new();
        write_ascii(json, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_becomes_ascii_without_spaces_between_tokens() {
        assert_eq!(
            ascii("{ \"a b\" :\n[1, \"\u{e4}\u{2028}<\u{1f9c0}\"] }"),
            "{\"a b\":[1,\"\\u00e4\\u2028\\u003c\\ud83e\\uddc0\"]}"
        );
        assert_eq!(ascii(r#""\" \\ <""#), r#""\" \\ \u003c""#);
    }

    #[test]
    fn data_limits_are_exact() {
        let largest = format!("\"{}\"", "x".repeat(MAX_DATA_BYTES - 2));
        assert!(Data::parse(&largest).is_ok());
        let error = Data::parse(&format!("{largest} ")).unwrap_err();
        assert_eq!(error.code(), "data_too_large");
        assert!(error.to_string().contains("1048576"));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(Data::parse(&nested(128)).is_ok());
        assert_eq!(Data::parse(&nested(129)).unwrap_err().code(), "data_too_deep");
        for bad in ["", "{", "nul", "1 2", "{'a':1}", "[1,]", "\u{feff}1", "NaN"] {
            assert_eq!(Data::parse(bad).unwrap_err().code(), "data_not_json", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn ascii_json_means_the_same(text in any::<String>(), other in any::<String>()) {
            let value = serde_json::json!({ text.clone(): [other, text] });
            for json in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
                let written = ascii(&json);
                prop_assert!(written.is_ascii());
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&written).unwrap(), &value);
            }
        }

        #[test]
        fn string_means_the_same(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&text, &mut out);
            prop_assert!(out.is_ascii());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
