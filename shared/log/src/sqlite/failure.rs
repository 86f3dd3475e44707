//! What SQLite reports, sorted into what it means for the caller. An error always means that nothing was changed.

use std::path::Path;

use everpoll_protocol::RequestError;
use rusqlite::ErrorCode;

use crate::LogError;

/// Why something did not work.
#[derive(Debug)]
pub(super) enum Failure {
    Sqlite(rusqlite::Error),
    Refused(LogError),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Refused(_) => None,
        }
    }

    pub(super) fn needs_new_connection(&self) -> bool {
        matches!(
            self.code(),
            Some(
                ErrorCode::SystemIoFailure
                    | ErrorCode::CannotOpen
                    | ErrorCode::ReadOnly
                    | ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
            )
        )
    }

    /// An event was refused by a trigger or a constraint: the publisher's fault.
    pub(super) fn into_rejection(self) -> Self {
        match (self.code(), self) {
            (Some(ErrorCode::ConstraintViolation), Self::Sqlite(error)) => {
                Self::Refused(LogError::Rejected(RequestError::Refused { reason: message(&error) }))
            }
            (Some(ErrorCode::TooBig), Self::Sqlite(error)) => {
                Self::Refused(LogError::Rejected(RequestError::Refused { reason: message(&error) }))
            }
            (_, other) => other,
        }
    }

    pub(super) fn into_error(self, path: &Path) -> LogError {
        let code = self.code();
        let error = match self {
            Self::Refused(error) => return error,
            Self::Sqlite(error) => error,
        };
        let (at, path, why) = (path, path.display(), message(&error));
        match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => LogError::Unavailable {
                detail: format!(
                    "{path} is locked by another program for too long; try again, and look who keeps a transaction open"
                ),
            },
            Some(ErrorCode::DiskFull) => LogError::Full {
                detail: format!("the disk of {path} is full; make room, or keep events for a shorter time"),
            },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => read_only(at, &why),
            Some(ErrorCode::CannotOpen) => LogError::Unavailable {
                detail: format!(
                    "{path} cannot be opened ({why}); does the directory exist, may this program write to it, or is the disk read-only?"
                ),
            },
            Some(ErrorCode::NotADatabase) => LogError::Settings {
                detail: format!("{path} is not an SQLite database; name another file in database_url"),
            },
            Some(ErrorCode::SystemIoFailure) => LogError::Unavailable {
                detail: format!("{path} cannot be read or written ({why}); look at its disk"),
            },
            Some(ErrorCode::DatabaseCorrupt) => {
                LogError::Other { detail: format!("{path} is damaged ({why}); restore it from a backup") }
            }
            _ => LogError::Other { detail: format!("{path} gave an unexpected answer: {why}") },
        }
    }
}

/// The file cannot be written.
pub(super) fn read_only(path: &Path, why: &str) -> LogError {
    LogError::Unavailable {
        detail: format!(
            "{} is read-only ({why}); this program needs the right to write to the file and to its directory, where SQLite puts two more files",
            path.display()
        ),
    }
}

/// The message alone, as a trigger raised it.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn read_only_file_is_said_with_the_rights_that_are_missing() {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY_DIRECTORY), None);
        let error = Failure::from(error).into_error(Path::new("/data/everpoll.db"));
        assert!(matches!(error, LogError::Unavailable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("/data/everpoll.db is read-only") && text.contains("to its directory"),
            "{text}"
        );
    }
}
