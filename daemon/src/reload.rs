//! Reads the settings again while the daemon runs: on SIGHUP all of them, and `keys_file` each second.
//!
//! What is checked is what is checked at the start. Requests in hand go on under the rules with which they began, but for one
//! thing: where rights are taken away, all who are held are sent back to ask again, and lose nothing by it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use everpoll_protocol::Limits;
use everpoll_settings::{Listen, Problems, Running, Settings};
use tokio::signal::unix::Signal;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::backend::Backend;
use crate::hub::{Sleeper, Wake};
use crate::server::{Patience, Rules, Server};

/// So many who are held are sent back at once, and in so many steps at most all of them.
const RETURN: (usize, usize) = (500, 50);

/// The pause between two of these steps.
const RETURN_PAUSE: Duration = Duration::from_millis(50);

/// Where the settings come from, and what shows diagnostics as they say.
pub(crate) struct Source {
    /// The file that the command line names.
    pub(crate) config: Option<PathBuf>,
    /// Shows from now on what this filter says.
    pub(crate) show: Box<dyn Fn(&str) + Send>,
}

/// The settings as the daemon is started with them, checked as far as that can be done without starting.
///
/// # Errors
///
/// All [`Problems`] at once.
pub(crate) fn read(config: Option<&std::path::Path>) -> Result<Settings, Problems> {
    Settings::from_process(config).and_then(|settings| match EnvFilter::try_new(&settings.log) {
        Ok(_) => Ok(settings),
        Err(error) => Err(Problems::new(vec![format!(
            "log={:?} is not a filter: {error}; give one such as info,everpoll=debug",
            settings.log
        )])),
    })
}

/// Some address that other machines can reach.
pub(crate) fn public() -> Listen {
    Listen::Tcp { host: "0.0.0.0".to_owned(), port: 0 }
}

/// Follows the settings for as long as the daemon runs.
///
/// # Errors
///
/// When the system has no thread left.
pub(crate) fn follow(
    settings: &Settings,
    limits: Limits,
    Source { config, show }: Source,
    server: &Arc<Server>,
    backend: &Backend,
    mut hangup: Signal,
) -> Result<()> {
    let (listens_locally, listen) = (limits.publisher.listens_locally(), settings.listen.clone());
    let read = move || {
        let settings = read(config.as_deref())?;
        // It goes on listening where it does, whatever the new settings say.
        let where_it_listens = if listens_locally { listen.clone() } else { public() };
        match settings.unprotected(&where_it_listens) {
            None => Ok(settings),
            Some(problem) => Err(Problems::new(vec![problem])),
        }
    };
    let (server, catch_up, live) = (server.clone(), backend.catch_up.clone(), backend.settings.clone());
    let apply = move |settings: &Settings, limits: Limits| {
        show(&settings.log);
        live.set(settings.clone());
        catch_up.limit(settings.catch_up_max as usize);
        server.pages.switch(settings.probe, settings.demo);
        let held = server.exchange(Rules { limits, patience: Patience::of(settings) });
        send_back(&held);
    };
    let reload = Running { settings: settings.clone(), limits, read, apply }.follow()?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.begin();
        }
    });
    Ok(())
}

/// Sends those who are held back to ask again, not all in one moment.
fn send_back(held: &[Sleeper]) {
    if held.is_empty() {
        return;
    }
    info!(held = held.len(), "rights were taken away: all who are held are to ask again");
    for some in held.chunks(RETURN.0.max(held.len().div_ceil(RETURN.1))) {
        for sleeper in some {
            sleeper.wake(Wake::Judged);
        }
        std::thread::sleep(RETURN_PAUSE);
    }
}
