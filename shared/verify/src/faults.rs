//! What is broken on purpose.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Breaks or mends something; the error says why it could not.
pub type Action = Box<dyn FnMut() -> Result<(), String> + Send>;

/// Something that is broken for a time and mended.
pub struct Fault {
    /// What it is called in the report. Several of the same name are counted together.
    pub name: String,
    /// Breaks it.
    pub strike: Action,
    /// Mends it; without one it mends itself.
    pub mend: Option<Action>,
    /// How long it stays broken.
    pub lasts: Duration,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("name", &self.name).field("lasts", &self.lasts).finish_non_exhaustive()
    }
}

/// Runs a command of the shell. It fails when the command does.
#[must_use]
pub fn command(text: &str) -> Action {
    let text = text.to_owned();
    Box::new(move || {
        // Its output goes where ours says something to people.
        let status = Command::new("sh")
            .args(["-c", &text])
            .stdin(Stdio::null())
            .stdout(std::io::stderr())
            .status()
            .map_err(|error| format!("{text:?} cannot be run: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("{text:?} failed: {status}")) }
    })
}
