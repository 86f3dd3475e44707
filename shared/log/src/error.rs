//! What can go wrong with the log, sorted by whose fault it is and what helps.
//!
//! Most kinds pass: a program goes on and tries again. The texts say what happened, then what to do, and never contain
//! the password of the database URL.

use everpoll_protocol::{Failure, RequestError, ServeError};
use thiserror::Error;

/// The log could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LogError {
    /// The database cannot be reached or cannot serve now: down, starting up, read-only, out of connections, or too
    /// slow. Nothing was published. It may pass: try again later.
    #[error("{detail}")]
    Unavailable {
        /// What happened, then what to do.
        detail: String,
    },
    /// The log has not the layout that this version needs.
    #[error("{}", not_migrated(*found, *needed))]
    NotMigrated {
        /// The newest migration that the log has; 0 when it has none.
        found: u32,
        /// The newest migration that this version knows.
        needed: u32,
    },
    /// The database refused an event: the publisher's fault. Nothing was published.
    #[error(transparent)]
    Rejected(#[from] RequestError),
    /// The connection was lost during COMMIT: the events may or may not be in the log.
    #[error(
        "the connection to the database was lost during COMMIT ({detail}): the events may or may not be in the log; publish them again with the same key"
    )]
    OutcomeUnknown {
        /// How it was lost.
        detail: String,
    },
    /// The database has no room left. Nothing was published.
    #[error("{detail}")]
    Full {
        /// What happened, then what to do.
        detail: String,
    },
    /// The database URL is wrong, or the file it names cannot be used: the operator's fault.
    #[error("{detail}")]
    Settings {
        /// What happened, then what to do.
        detail: String,
    },
    /// Anything else, such as a missing right or a damaged file: someone must look.
    #[error("{detail}")]
    Other {
        /// What happened, then what to do.
        detail: String,
    },
}

impl From<&LogError> for Failure {
    /// What a client is told.
    fn from(error: &LogError) -> Self {
        Self::Serve(match error {
            LogError::Rejected(error) => return Self::Request(error.clone()),
            LogError::Unavailable { .. } => ServeError::LogUnavailable,
            LogError::NotMigrated { .. } => ServeError::NotMigrated,
            LogError::OutcomeUnknown { .. } => ServeError::OutcomeUnknown,
            LogError::Full { .. } => ServeError::LogFull,
            LogError::Settings { .. } | LogError::Other { .. } => ServeError::Internal,
        })
    }
}

fn not_migrated(found: u32, needed: u32) -> String {
    if found > needed {
        format!(
            "the log has layout {found}, this version knows layouts up to {needed}; run the newer version"
        )
    } else if found == 0 {
        "the database has no event log yet; run: everpoll migrate".to_owned()
    } else {
        format!("the log has layout {found}, this version needs layout {needed}; run: everpoll migrate")
    }
}
