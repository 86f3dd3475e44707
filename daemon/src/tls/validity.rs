//! Until when the certificate is valid, and what is said about that.
//!
//! A certificate that nobody has renewed stops all clients in one moment, so it is told before: those that are renewed by themselves are
//! new long before they end.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// A certificate that ends so soon is told.
const SOON: Duration = Duration::from_secs(14 * DAY);

/// Or so late a part of its life: some live for days only, and are renewed when half or a third of that is left.
const LAST_PART: u32 = 5;

const DAY: u64 = 24 * 3600;

/// From when until when all certificates of a chain are valid, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    from: u64,
    until: u64,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worry {
    /// It is not valid before this second.
    TooEarly(u64),
    /// It ends in so many seconds, and is still the one in use.
    EndsSoon(u64),
    /// It has ended at this second.
    Ended(u64),
}

impl Validity {
    /// That of a chain; `None` when that cannot be read.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let one = |certificate: &CertificateDer<'_>| {
            let validity = Certificate::from_der(certificate).ok()?.tbs_certificate.validity;
            let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
            Some(Self { from: seconds(validity.not_before), until: seconds(validity.not_after) })
        };
        let all: Option<Vec<_>> = chain.iter().map(one).collect();
        let both = |one: Self, other: Self| Self {
            from: one.from.max(other.from),
            until: one.until.min(other.until),
        };
        all?.into_iter().reduce(both)
    }

    /// When it ends, seconds since 1970.
    pub(super) fn until(self) -> u64 {
        self.until
    }

    /// What is wrong with it at this time.
    pub(super) fn worry(self, now: SystemTime) -> Option<Worry> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let life = Duration::from_secs(self.until.saturating_sub(self.from));
        let left = Duration::from_secs(self.until.saturating_sub(now));
        if left.is_zero() {
            Some(Worry::Ended(self.until))
        } else if now < self.from {
            Some(Worry::TooEarly(self.from))
        } else if left < SOON.min(life / LAST_PART) {
            Some(Worry::EndsSoon(left.as_secs()))
        } else {
            None
        }
    }
}

impl fmt::Display for Worry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = |second: &u64| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(*second));
        match self {
            Self::TooEarly(from) => {
                write!(
                    f,
                    "is not valid before {}: clients refuse it; look at this machine's clock",
                    date(from)
                )
            }
            Self::EndsSoon(left) if *left < 2 * DAY => {
                write!(f, "ends in {} hours; put a new one in its place", left / 3600)
            }
            Self::EndsSoon(left) => write!(f, "ends in {} days; put a new one in its place", left / DAY),
            Self::Ended(until) => {
                write!(f, "has ended, {}: clients refuse it; put a new one in its place", date(until))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worry_begins_two_weeks_before_the_end_or_in_the_last_fifth() {
        let worry = |life: u64, left: u64| {
            let validity = Validity { from: 1_000_000, until: 1_000_000 + life };
            validity.worry(UNIX_EPOCH + Duration::from_secs(validity.until - left))
        };
        assert_eq!(worry(90 * DAY, 14 * DAY), None);
        assert_eq!(worry(90 * DAY, 14 * DAY - 1), Some(Worry::EndsSoon(14 * DAY - 1)));
        assert_eq!(worry(5 * DAY, DAY), None);
        assert_eq!(worry(5 * DAY, DAY - 1), Some(Worry::EndsSoon(DAY - 1)));
        assert_eq!(worry(5 * DAY, 0), Some(Worry::Ended(1_000_000 + 5 * DAY)));
        assert_eq!(worry(5 * DAY, 5 * DAY + 1), Some(Worry::TooEarly(1_000_000)));
    }

    #[test]
    fn worry_says_what_to_do() {
        let texts =
            [Worry::EndsSoon(9 * DAY + 5), Worry::EndsSoon(DAY), Worry::Ended(0), Worry::TooEarly(DAY)];
        let [days, hours, ended, early] = texts.map(|worry| worry.to_string());
        assert_eq!(days, "ends in 9 days; put a new one in its place");
        assert_eq!(hours, "ends in 24 hours; put a new one in its place");
        assert!(ended.starts_with("has ended, Thu, 01 Jan 1970"), "{ended}");
        assert!(early.starts_with("is not valid before Fri, 02 Jan 1970"), "{early}");
    }
}
