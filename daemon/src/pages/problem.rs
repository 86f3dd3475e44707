//! What can go wrong with a page's own requests.

use std::fmt;

/// Why a page's request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// A parameter of the self-test is no number of its range: its name, what it says, and what it may be.
    ProbeMalformed(&'static str, String, &'static str),
    /// As many holds of the self-test as may be.
    ProbeBusy(usize),
    /// As many jobs of the demo as may be.
    DemoBusy(usize),
}

impl Problem {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::ProbeMalformed(..) => 400,
            // Not 503, which nginx takes for a daemon in trouble, and asks the fallback.
            Self::ProbeBusy(_) | Self::DemoBusy(_) => 429,
        }
    }

    pub(super) fn title(&self) -> &'static str {
        if self.status() == 400 { "Bad Request" } else { "Too Many Requests" }
    }

    /// The name of this error for programs: it never changes.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::ProbeMalformed(..) => "probe_malformed",
            Self::ProbeBusy(_) => "probe_busy",
            Self::DemoBusy(_) => "demo_busy",
        }
    }

    /// When it may be worth another try, seconds.
    pub(super) fn reconnect_in(&self) -> u32 {
        match self {
            Self::ProbeMalformed(..) | Self::ProbeBusy(_) => 60,
            Self::DemoBusy(_) => 10,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProbeMalformed(name, value, range) => {
                write!(f, "{name}={value:?} is not a number from {range}; send one, or leave it out")
            }
            Self::ProbeBusy(limit) => {
                write!(f, "{limit} holds of the self-test run already, the limit here; try again in a minute")
            }
            Self::DemoBusy(limit) => {
                write!(f, "{limit} jobs run already, the limit of the demo; wait until one is done")
            }
        }
    }
}
