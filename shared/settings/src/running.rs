//! The settings of a running program: read again when it is told to, and `keys_file` each second.
//!
//! What a newcomer gets wrong: never half of them. New settings are read and checked whole; with one problem, all problems are
//! told and nothing changes. The environment of a running process does not change, so it is the file that counts; a variable
//! still wins over it.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use everpoll_protocol::Limits;
use tracing::{error, info, warn};

use crate::exchange::Exchanged;
use crate::{Problems, Settings};

/// How often `keys_file` is read again.
const LOOK: Duration = Duration::from_secs(1);

/// What is told about settings that were read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The new ones count.
    Exchanged(Exchanged),
    /// They are wrong, and the old ones go on.
    Wrong(Problems),
    /// The keys of this file count.
    Keys(PathBuf),
    /// The file is wrong, and the keys stay as they are.
    WrongKeys(PathBuf, String),
}

impl News {
    /// Whether somebody has to do something.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        match self {
            Self::Exchanged(exchanged) => !exchanged.needs_restart.is_empty(),
            Self::Keys(_) => false,
            Self::Wrong(_) | Self::WrongKeys(..) => true,
        }
    }
}

impl News {
    fn tell(&self) {
        match self {
            Self::Wrong(_) => error!("{self}"),
            _ if self.is_bad() => warn!("{self}"),
            _ => info!("{self}"),
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchanged(Exchanged { changed, needs_restart }) => {
                match changed.as_slice() {
                    [] => f.write_str("read the settings again; nothing has changed")?,
                    changed => write!(f, "read the settings again; changed: {}", changed.join(", "))?,
                }
                match needs_restart.as_slice() {
                    [] => Ok(()),
                    [one] => write!(f, "; {one} needs a restart, and the old value goes on"),
                    several => write!(f, "; {} need a restart, and the old values go on", several.join(", ")),
                }
            }
            Self::Wrong(problems) => {
                write!(f, "the new settings do not count, the old ones go on: {problems}")
            }
            Self::Keys(file) => write!(f, "the keys of {} are exchanged", file.display()),
            Self::WrongKeys(file, problem) => {
                write!(f, "{} {problem}; the keys stay as they are", file.display())
            }
        }
    }
}

/// A program's settings, and what it does with new ones.
pub struct Running<Read, Apply> {
    /// What it was started with.
    pub settings: Settings,
    /// What requests are judged by.
    pub limits: Limits,
    /// Reads the settings as at the start, with all that is checked then.
    pub read: Read,
    /// Puts settings and limits in place of those before.
    pub apply: Apply,
}

/// Tells a program that its settings are to be read again.
#[derive(Clone, Debug)]
pub struct Reload(Sender<()>);

impl Reload {
    /// Lets it read them again, soon, and on another thread.
    pub fn begin(&self) {
        // That thread ends only with the process.
        let _ = self.0.send(());
    }
}

impl<Read, Apply> Running<Read, Apply>
where
    Read: Fn() -> Result<Settings, Problems> + Send + 'static,
    Apply: Fn(&Settings, Limits) + Send + 'static,
{
    /// Follows them on a thread of its own, for as long as the process lives.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub fn follow(self) -> std::io::Result<Reload> {
        let (sender, told) = channel();
        // A sender stays here, so that the keys are followed also when nobody can tell anything any more.
        let kept = sender.clone();
        let run = move || {
            let _kept = kept;
            self.run(&told);
        };
        std::thread::Builder::new().name("settings".into()).spawn(run)?;
        Ok(Reload(sender))
    }

    fn run(mut self, told: &Receiver<()>) {
        let mut complaint = None;
        loop {
            let news = match told.recv_timeout(LOOK) {
                Ok(()) => Some(self.read_again()),
                Err(RecvTimeoutError::Timeout) => self.look_at_keys(&mut complaint),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(news) = news {
                news.tell();
            }
        }
    }

    fn read_again(&mut self) -> News {
        let mut new = match (self.read)() {
            Ok(new) => new,
            Err(problems) => return News::Wrong(problems),
        };
        let exchanged = new.take_over_from(&self.settings);
        self.put(new);
        News::Exchanged(exchanged)
    }

    /// `complaint` is what was told last, since it is told once, and not each second.
    fn look_at_keys(&mut self, complaint: &mut Option<String>) -> Option<News> {
        let file = self.settings.keys_file.as_ref()?;
        let path = file.path().to_owned();
        let again = file.again().and_then(|new| match self.settings.keys_file_problem(&new) {
            None => Ok(new),
            Some(problem) => Err(problem),
        });
        let new = match again {
            Ok(new) => new,
            Err(problem) if complaint.as_ref() == Some(&problem) => return None,
            Err(problem) => {
                *complaint = Some(problem.clone());
                return Some(News::WrongKeys(path, problem));
            }
        };
        *complaint = None;
        if new == *file {
            return None;
        }
        let settings = Settings { keys_file: Some(new), ..self.settings.clone() };
        self.put(settings);
        Some(News::Keys(path))
    }

    fn put(&mut self, settings: Settings) {
        let limits = settings.limits(self.limits.publisher.listens_locally()).after(&self.limits);
        (self.apply)(&settings, limits.clone());
        (self.settings, self.limits) = (settings, limits);
    }
}
