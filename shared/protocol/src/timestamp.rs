//! A point in time, as the log and the wire say it.

use std::fmt;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// Microseconds since 1970-01-01T00:00:00Z; never before it.
///
/// Shown as RFC 3339 in UTC with milliseconds, as JavaScript's `Date` prints it: `2014-07-23T14:25:22.123Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl From<SystemTime> for Timestamp {
    /// What lies before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        Self::default().plus(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
    }
}

impl Timestamp {
    /// From microseconds since 1970.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Later by `duration`.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How much later it is than `earlier`; nothing, when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Earlier by `duration`, but not before 1970.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `time` ends at the year 9999; what is later is shown as its last second.
        let seconds = i64::try_from(self.0 / 1_000_000).unwrap_or(i64::MAX).min(253_402_300_799);
        let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.to_hms();
        let milli = self.0 / 1000 % 1000;
        let month = u8::from(month);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_shown_as_javascript_prints_a_date() {
        let shown = |micros| Timestamp::from_micros(micros).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(1_406_125_522_123_999), "2014-07-23T14:25:22.123Z");
        assert_eq!(shown(1_709_210_096_001_000), "2024-02-29T12:34:56.001Z");
    }
}
