//! What is wrong with the settings, all of it.

use std::fmt;

/// Everything that is wrong with the settings: at least one text, each with what is there, what is wrong and what
/// would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub(crate) texts: Vec<String>,
    /// What the safety rule would add for a program that serves.
    pub(crate) unprotected: Option<String>,
}

impl Problems {
    /// These; there must be one at least.
    #[must_use]
    pub fn new(texts: Vec<String>) -> Self {
        Self { texts, unprotected: None }
    }

    /// One text for each problem, in the order of the sources: file, then environment.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.texts.as_slice() {
            [only] => f.write_str(only),
            several => {
                write!(f, "the settings have {} problems:", several.len())?;
                several.iter().try_for_each(|text| write!(f, "\n- {text}"))
            }
        }
    }
}

impl std::error::Error for Problems {}
