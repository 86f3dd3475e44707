//! Other programs that bring events to browsers, each started as its documentation says, on ports and in folders of its
//! own.
//!
//! What a newcomer gets wrong: they are not installed with the tests. What is missing is left out of the tables, with a
//! sentence that says so; `tests/bench/peers/install` installs all of them. None of them keeps events on disk as it is set
//! up here: nchan's and Socket.IO's histories are in memory, and Pushpin has none.

use std::fs;
use std::path::{Path, PathBuf};

use crate::site::Site;
use crate::table::Table;

mod fanned;
mod nchan;
mod pushpin;
mod socketio;

pub(crate) use fanned::Fanned;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// nginx' module, with so many worker processes.
    Nchan(usize),
    Pushpin,
    Socketio,
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [Self::Nchan(1), Self::Nchan(2), Self::Pushpin, Self::Socketio];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Nchan(1) => "nchan, 1 worker".to_owned(),
            Self::Nchan(workers) => format!("nchan, {workers} workers"),
            Self::Pushpin => "Pushpin".to_owned(),
            Self::Socketio => "Socket.IO".to_owned(),
        }
    }

    /// What `tests/bench/peers/install` calls it.
    fn package(self) -> &'static str {
        match self {
            Self::Nchan(_) => "nchan",
            Self::Pushpin => "pushpin",
            Self::Socketio => "socketio",
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Nchan(_) => Path::new(nchan::MODULE).exists(),
            Self::Pushpin => Path::new(pushpin::PROGRAM).exists(),
            Self::Socketio => socketio::modules().join("socket.io").exists(),
        }
    }

    /// Starts it.
    pub(crate) fn start(self) -> Box<dyn Site> {
        match self {
            Self::Nchan(workers) => Box::new(nchan::Nchan::start(workers)),
            Self::Pushpin => Box::new(pushpin::Pushpin::start()),
            Self::Socketio => Box::new(socketio::Socketio::start()),
        }
    }

    /// Those of `wanted` that are installed; below `table` stands which are not.
    pub(crate) fn installed(wanted: &[Self], table: &mut Table) -> Vec<Self> {
        for peer in wanted.iter().filter(|peer| !peer.is_installed()) {
            let (name, package) = (peer.name(), peer.package());
            table.note(format!(
                "Left out: {name}, which is not installed here; `tests/bench/peers/install {package}` installs it."
            ));
        }
        wanted.iter().copied().filter(|peer| peer.is_installed()).collect()
    }
}

/// Measures a peer; nothing when that fails. Ours fail the whole run instead: theirs is no news of Everpoll.
pub(crate) fn attempt<T>(peer: Option<Peer>, measure: impl FnOnce() -> Option<T>) -> Option<T> {
    let Some(peer) = peer else { return measure() };
    let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(measure));
    measured.unwrap_or_else(|_| {
        eprintln!("{} failed; its figures of this run are left out", peer.name());
        None
    })
}

/// The processes of a group, whose number is its first one's.
pub(crate) fn group(leader: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").expect("the benchmarks need Linux").filter_map(|entry| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind the name, in parentheses: state, parent, group.
        let group: u32 = stat.rsplit(") ").next()?.split(' ').nth(2)?.parse().ok()?;
        (group == leader).then_some(id)
    });
    ids.collect()
}

/// A file beside this program's source.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers").join(name)
}
