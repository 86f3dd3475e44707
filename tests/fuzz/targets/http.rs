//! The heads that the daemon reads itself, and the requests that they describe.

use everpoll_protocol::{Headers, RawRequest, Request, RequestError};

#[path = "../../../daemon/src/head.rs"]
mod head;

use head::Parsed;

/// What bytes are, with all that depends on them.
#[derive(Debug, PartialEq)]
enum Meaning {
    Partial,
    Other(Option<u64>),
    Poll { length: usize, keep_alive: bool, http10: bool, parsed: Result<Request, RequestError> },
    Refused(RequestError),
}

fn read(bytes: &[u8]) -> Meaning {
    match head::parse(bytes, head::HEAD_MAX) {
        Ok(Parsed::Partial) => Meaning::Partial,
        Ok(Parsed::Other(length)) => Meaning::Other(length),
        Ok(Parsed::Poll(head)) => {
            let raw =
                RawRequest { may_upgrade: true, ..super::raw(head.method, head.target, &head.fields, b"") };
            assert_eq!(head.fields.header("no-such-field"), None);
            let parsed = super::replies::check(&raw);
            let head::PollHead { length, keep_alive, http10, .. } = head;
            Meaning::Poll { length, keep_alive, http10, parsed }
        }
        Err(error) => Meaning::Refused(error),
    }
}

/// Heads mean the same however they arrive, and are bounded.
pub(crate) fn check(bytes: &[u8]) {
    let whole = read(bytes);
    match &whole {
        Meaning::Poll { length, parsed, .. } => {
            assert!(*length <= bytes.len() && *length <= head::HEAD_MAX);
            if let Ok(Request::Poll(request)) = parsed {
                super::replies::check_channels_again(&request.channels);
            }
            // What follows a head does not change it.
            assert_eq!(read(&bytes[..*length]), whole);
        }
        Meaning::Refused(error) => super::replies::check_error(error),
        // Or a client could make the daemon keep what it sends without end.
        Meaning::Partial => assert!(bytes.len() < head::HEAD_MAX),
        Meaning::Other(length) => assert!(length.is_none_or(|length| length > 0)),
    }
    // The daemon parses what is there whenever more has come, and does what the first answer says.
    let pieces = [1, 2, 3, 7, 64].map(|parts| bytes.len() / parts);
    let near_the_end = (1..4).map(|back| bytes.len().saturating_sub(back));
    for end in pieces.into_iter().chain(near_the_end) {
        match read(&bytes[..end]) {
            Meaning::Partial => {}
            // A target that is too long is refused early or late, but it is refused; hyper's are refused by the protocol.
            Meaning::Refused(early) => {
                let refused = match &whole {
                    Meaning::Refused(_) | Meaning::Other(_) => true,
                    Meaning::Poll { parsed, .. } => parsed.is_err(),
                    Meaning::Partial => false,
                };
                assert!(refused, "{early:?} after {end} bytes, and then {whole:?}");
            }
            complete => assert_eq!(complete, whole, "after {end} bytes"),
        }
    }
}
