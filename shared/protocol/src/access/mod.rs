//! Who may read and who may publish. All of it is decided here, so that no program is the way around another.

mod live;
mod pattern;
mod publisher;

pub use live::Live;
pub use pattern::{Pattern, Patterns};
pub use publisher::{PublishKey, Publisher};

/// What stands behind `Bearer` in an `Authorization` header (RFC 6750 section 2.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}
