//! Where a request goes: its target, as it came over HTTP or by CGI.

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// Where a target leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// To `/e/…` or `/e.php/…`; what follows, without the query.
    Poll(&'a [u8]),
    /// To `/publish`.
    Publish,
    /// To the browser client, `/everpoll.js`, or to `/everpoll.<hash>.js` with this hash.
    Script(Option<&'a [u8]>),
    /// To the daemon's self-test, `/e/_probe`, with what follows behind that.
    Probe(&'a [u8]),
    /// To nothing that is served by both programs.
    Elsewhere,
}

impl<'a> Route<'a> {
    /// Where `target` leads.
    pub fn of(target: &'a [u8]) -> Self {
        let (path, _) = split_target(target);
        match path.strip_prefix(b"/e/").or_else(|| path.strip_prefix(b"/e.php/")) {
            Some(rest) => match rest.strip_prefix(b"_probe") {
                Some(rest) if rest.is_empty() || rest[0] == b'/' => Self::Probe(rest),
                _ => Self::Poll(rest),
            },
            None if matches!(path, b"/publish" | b"/publish.php") => Self::Publish,
            None if path == b"/everpoll.js" => Self::Script(None),
            None => match path.strip_prefix(b"/everpoll.").and_then(|rest| rest.strip_suffix(b".js")) {
                Some(hash) if hash.len() == 16 && hash.iter().all(u8::is_ascii_hexdigit) => {
                    Self::Script(Some(hash))
                }
                _ => Self::Elsewhere,
            },
        }
    }
}

/// The request target of a request that came by CGI.
///
/// `REQUEST_URI` has it raw, but not all hosts set it, and the program may be mounted anywhere: as `/e.php`, as
/// `/cgi-bin/everpoll-fallback` with `/e/…` behind it, or below a folder. Where only `PATH_INFO` is there, which is
/// decoded, it is encoded again; an encoded `/` or `,` in a name is lost then.
#[must_use]
pub fn cgi_target(request_uri: &[u8], script_name: &[u8], path_info: &[u8], query_string: &[u8]) -> Vec<u8> {
    const PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');
    // Mounted as `/shop/e.php`, the folder is no business of ours, but the last segment is.
    let last_slash = script_name.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let (folder, last) = script_name.split_at(last_slash);
    let mount =
        if matches!(last, b"/e" | b"/e.php" | b"/publish" | b"/publish.php") { folder } else { script_name };

    let uri = without_origin(request_uri);
    let unmounted = uri.strip_prefix(mount).filter(|rest| rest.starts_with(b"/"));
    for target in [unmounted, Some(uri)].into_iter().flatten() {
        if Route::of(target) != Route::Elsewhere {
            return target.to_vec();
        }
    }
    let mut target = script_name[mount.len()..].to_vec();
    target.extend_from_slice(percent_encode(path_info, PATH).to_string().as_bytes());
    if target.is_empty() {
        target = uri.to_vec();
    } else if !query_string.is_empty() {
        target.push(b'?');
        target.extend_from_slice(query_string);
    }
    target
}

/// Path and query of a target; one in absolute form (RFC 9112 section 3.2.2) is as good as its path.
///
/// A `#` should never come, and what stands behind it is for browsers alone (RFC 3986 section 3.5). nginx and hyper leave it out
/// where they look at a target, and nginx passes it on as it came: so it is no part of one here either.
pub(crate) fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let target = target.split(|b| *b == b'#').next().unwrap_or_default();
    let target = without_origin(target);
    match target.iter().position(|b| *b == b'?') {
        Some(mark) => (&target[..mark], &target[mark + 1..]),
        None => (target, b""),
    }
}

fn without_origin(target: &[u8]) -> &[u8] {
    let rest = target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://"));
    match rest {
        Some(rest) => rest.iter().position(|b| *b == b'/').map_or(b"/", |slash| &rest[slash..]),
        None => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn self_test_and_script_are_no_polls() {
        assert_eq!(Route::of(b"/e/_probe"), Route::Probe(b""));
        assert_eq!(Route::of(b"/e.php/_probe/echo?x"), Route::Probe(b"/echo"));
        assert_eq!(Route::of(b"/e/_probes"), Route::Poll(b"_probes"));
        assert_eq!(Route::of(b"/e/a,_probe"), Route::Poll(b"a,_probe"));
        assert_eq!(Route::of(b"/everpoll.js?1"), Route::Script(None));
        assert_eq!(Route::of(b"/everpoll.0123456789abcdef.js"), Route::Script(Some(b"0123456789abcdef")));
        assert_eq!(Route::of(b"/everpoll.min.js"), Route::Elsewhere);
    }

    #[test]
    fn what_stands_behind_a_hash_is_no_part_of_a_target() {
        assert_eq!(split_target(b"/e/cheese?x=1#y?z"), (&b"/e/cheese"[..], &b"x=1"[..]));
        assert_eq!(split_target(b"/e/cheese#?x=1"), (&b"/e/cheese"[..], &b""[..]));
        assert_eq!(split_target(b"http://shop.example#/e/cheese"), (&b"/"[..], &b""[..]));
        assert_eq!(Route::of(b"/publish#x"), Route::Publish);
        assert_eq!(Route::of(b"/e/cheese#/../../publish"), Route::Poll(b"cheese"));
        assert_eq!(Route::of(b"/e/_probe#x"), Route::Probe(b""));
    }

    #[test]
    fn cgi_hosts_are_understood_wherever_the_program_is_mounted() {
        let target = |uri: &str, script: &str, info: &str, query: &str| {
            let target = cgi_target(uri.as_bytes(), script.as_bytes(), info.as_bytes(), query.as_bytes());
            String::from_utf8(target).unwrap()
        };
        assert_eq!(target("/e/a%2Cb/w?x=1", "", "", "x=1"), "/e/a%2Cb/w?x=1");
        assert_eq!(target("/e.php/a/w?x", "/e.php", "/a/w", "x"), "/e.php/a/w?x");
        assert_eq!(target("/shop/e.php/a%20b", "/shop/e.php", "/a b", ""), "/e.php/a%20b");
        assert_eq!(target("/cgi-bin/ep/e/a?x", "/cgi-bin/ep", "/e/a", "x"), "/e/a?x");
        assert_eq!(target("/cgi-bin/ep/publish", "/cgi-bin/ep", "/publish", ""), "/publish");
        assert_eq!(target("", "/cgi-bin/ep", "/e/a b%", "x=1"), "/e/a%20b%25?x=1");
        assert_eq!(target("", "/cgi-bin/e.php", "/a/w", ""), "/e.php/a/w");
        assert_eq!(target("/rewritten", "/cgi-bin/ep", "/e/a", ""), "/e/a");
        assert_eq!(target("/other", "", "", ""), "/other");
    }
}
