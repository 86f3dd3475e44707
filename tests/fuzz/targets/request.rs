//! Requests from any edge: method, target, header fields and body as they come.
//!
//! The input is lines: the method, the target, header fields, an empty line, then the body. Unlike in HTTP, every byte
//! but the line feed is allowed everywhere, since CGI hosts hand over what no HTTP parser would.

use std::borrow::Cow;

use everpoll_protocol::{Headers, Request, Route};

/// Header fields, one in each line.
pub(super) struct Fields<'a>(Vec<(Vec<u8>, &'a [u8])>);

impl<'a> Fields<'a> {
    pub(super) fn of(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let fields = lines.filter_map(|line| {
            let colon = line.iter().position(|b| *b == b':')?;
            Some((line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii()))
        });
        Self(fields.collect())
    }
}

impl Headers for Fields<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.0.iter().filter(|(known, _)| known == name.as_bytes()).map(|(_, value)| *value);
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |all, value| [&all, b", ".as_slice(), value].concat().into()))
    }
}

/// A request is understood or refused, twice the same, and answered well.
pub(crate) fn check(input: &[u8]) {
    let (head, body) = match input.windows(2).position(|two| two == b"\n\n") {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &b""[..]),
    };
    let mut lines = head.split(|b| *b == b'\n');
    let method = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let target = lines.next().unwrap_or_default();
    let headers = Fields::of(lines);
    let raw = |body| super::raw(&method, target, &headers, body);
    let limits = super::limits();
    let parsed = super::replies::check(&raw(body));
    assert_eq!(parsed, Request::parse(&raw(body), &limits));
    if let Ok(Request::Poll(_)) = &parsed {
        assert!(matches!(Route::of(target), Route::Poll(_)));
        assert!(body.len() <= limits.body(target));
        // Only a POST's body says anything.
        if method != "POST" {
            assert_eq!(parsed, Request::parse(&raw(b""), &limits));
        }
    }
}
