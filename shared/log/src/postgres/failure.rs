//! What PostgreSQL and the driver report, sorted into what it means for the caller.
//!
//! What a newcomer gets wrong: an *answer* that is an error means that the transaction did not happen. Silence means
//! nothing: the server may have committed and then vanished. Nor does the last word of a server that panics, as it does for
//! want of room for its write-ahead log.

use everpoll_protocol::RequestError;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity};

use super::Server;
use crate::LogError;

/// Why a statement gave no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no log in this database.
    NoLog,
    /// The connection is gone, and whether the statement ran is unknown.
    Lost { detail: String, timed_out: bool },
    /// The server answered with an error; the transaction did not happen.
    Answered { code: String, message: String },
    /// It never came to a statement.
    Refused(LogError),
}

impl Failure {
    /// A statement's error; `ended` is why the connection is gone, if it is.
    pub(super) fn answered(error: &Error, ended: Option<String>) -> Self {
        match error.as_db_error() {
            Some(answer) => Self::of(answer),
            None => Self::Lost { detail: ended.unwrap_or_else(|| describe(error)), timed_out: false },
        }
    }

    fn of(answer: &DbError) -> Self {
        // A server that panics may have written the commit before: only its recovery decides.
        if answer.parsed_severity() == Some(Severity::Panic) {
            return Self::Lost { detail: answer.message().to_owned(), timed_out: false };
        }
        match answer.code().code() {
            // Schema, table, function or column is missing.
            "3F000" | "42P01" | "42883" | "42703" => Self::NoLog,
            code => Self::Answered { code: code.to_owned(), message: answer.message().to_owned() },
        }
    }

    /// No connection could be made.
    pub(super) fn connecting(error: &Error, server: &Server) -> Self {
        Self::unreachable(server, &describe(error))
    }

    pub(super) fn unreachable(server: &Server, why: &str) -> Self {
        let detail = format!(
            "{} cannot be reached: {why}; is it running, and is database_url right?",
            server.describe()
        );
        Self::Refused(LogError::Unavailable { detail })
    }

    /// Whether the connection is of no more use: gone, about to go, or to a server that may no longer write.
    pub(super) fn needs_new_connection(&self) -> bool {
        match self {
            Self::Lost { .. } => true,
            Self::Answered { code, .. } => {
                code.starts_with("08") || code.starts_with("57P") || code == "25006"
            }
            Self::NoLog | Self::Refused(_) => false,
        }
    }

    pub(super) fn timed_out(&self) -> bool {
        matches!(self, Self::Lost { timed_out: true, .. })
    }

    /// Whether the same transaction may well succeed when it is tried again at once: a deadlock was broken, or somebody
    /// else came first.
    pub(super) fn is_collision(&self) -> bool {
        matches!(self, Self::Answered { code, .. } if matches!(code.as_str(), "40001" | "40P01"))
    }

    /// What the caller is told.
    pub(super) fn into_error(self) -> LogError {
        match self {
            Self::NoLog => LogError::NotMigrated { found: 0, needed: super::LAYOUT },
            Self::Lost { detail, .. } => LogError::Unavailable {
                detail: format!("the connection to the database was lost: {detail}; try again"),
            },
            Self::Refused(error) => error,
            Self::Answered { code, message } => match code.as_str() {
                "53100" => LogError::Full {
                    detail: format!(
                        "the database's disk is full ({message}); make room, or keep events for a shorter time"
                    ),
                },
                "57014" | "55P03" => LogError::Unavailable {
                    detail: format!("the database was too slow ({message}); try again"),
                },
                "25006" => LogError::Unavailable {
                    detail: format!(
                        "the database is read-only ({message}); add target_session_attrs=read-write to database_url and name all hosts"
                    ),
                },
                "42501" => LogError::Other {
                    detail: format!(
                        "the database role lacks a right ({message}); grant it with: select everpoll.grant_reader('role'), everpoll.grant_publisher('role'), everpoll.grant_trimmer('role')"
                    ),
                },
                _ if ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class)) => {
                    LogError::Unavailable {
                        detail: format!("the database cannot serve now ({message}); try again"),
                    }
                }
                _ => LogError::Other {
                    detail: format!("the database gave an unexpected answer: {message} (SQLSTATE {code})"),
                },
            },
        }
    }

    /// What a publisher is told: the values it sent may be at fault.
    pub(super) fn into_publish_error(self) -> LogError {
        match self {
            Self::Lost { detail, .. } => LogError::OutcomeUnknown { detail },
            // Bad values, violated constraints, errors raised by triggers, JSON nested too deep for the server.
            Self::Answered { code, message }
                if ["22", "23", "P0"].iter().any(|class| code.starts_with(class)) || code == "54001" =>
            {
                LogError::Rejected(RequestError::Refused { reason: message })
            }
            other => other.into_error(),
        }
    }
}

/// The driver's error with its causes; it never contains the password.
pub(super) fn describe(error: &Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return answer.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: &str) -> Failure {
        Failure::Answered { code: code.to_owned(), message: "no".to_owned() }
    }

    #[test]
    fn answers_are_sorted_by_what_helps() {
        for code in ["57P01", "57P03", "53300", "57014", "55P03", "25006", "40P01", "08006"] {
            assert!(matches!(answered(code).into_publish_error(), LogError::Unavailable { .. }), "{code}");
        }
        assert!(matches!(answered("53100").into_publish_error(), LogError::Full { .. }));
        for code in ["23514", "22P02", "P0001", "54001"] {
            assert!(matches!(answered(code).into_publish_error(), LogError::Rejected(_)), "{code}");
            assert!(matches!(answered(code).into_error(), LogError::Other { .. }), "{code}");
        }
        let lost = || Failure::Lost { detail: "gone".to_owned(), timed_out: false };
        assert!(matches!(lost().into_publish_error(), LogError::OutcomeUnknown { .. }));
        assert!(matches!(lost().into_error(), LogError::Unavailable { .. }));
    }

    #[test]
    fn connection_to_a_server_that_may_not_write_any_more_is_given_up() {
        assert!(answered("25006").needs_new_connection() && answered("57P01").needs_new_connection());
        assert!(!answered("23514").needs_new_connection() && !answered("57014").needs_new_connection());
    }
}
