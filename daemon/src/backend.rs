//! Everything that talks to the log, and its threads.
//!
//! One follows the log, one waits for its wake-ups, one tests these, one commits what is published over HTTP, one trims, and a few look up
//! what the window does not have. Each has a database connection of its own. All database code is blocking: it is the same
//! that the fallback uses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use everpoll_log::{Log, Options};
use everpoll_protocol::Live;
use everpoll_settings::Settings;
use tracing::error;

use crate::catch_up::CatchUp;
use crate::health::Health;
use crate::hub::Hub;
use crate::lot::{Attendant, Lots};
use crate::publish::{Publishing, Unseen, publishing};
use crate::retention;
use crate::server::Server;
use crate::tailer::{Bell, Tailer};
use crate::wakeup;
use crate::window::Window;

/// Everything that talks to the log, and its threads.
pub(crate) struct Backend {
    pub(crate) window: Arc<Mutex<Window>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) catch_up: Arc<CatchUp>,
    pub(crate) publishing: Publishing,
    pub(crate) health: Arc<Health>,
    /// The settings of this moment, for those that look at them again.
    pub(crate) settings: Live<Settings>,
    bell: Arc<Bell>,
    stopped: Arc<AtomicBool>,
    committer: JoinHandle<()>,
    attendants: Vec<Attendant>,
}

impl Backend {
    /// Starts all threads. None of them needs the database to be there yet.
    ///
    /// # Errors
    ///
    /// When the database's URL is wrong, or the system has no thread left.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let url = settings.database_url.expose();
        let options =
            |part: &str| Options { application_name: format!("everpoll {part}"), ..Options::default() };
        let log = |part: &str| Log::new(url, options(part));
        let window_bytes = usize::try_from(settings.window_bytes).unwrap_or(usize::MAX);
        let window = Arc::new(Mutex::new(Window::new(window_bytes, 0)));
        let paths = wakeup::paths(settings);
        let health = Arc::new(Health::new(paths.clone()));
        let catch_up = Arc::new(CatchUp::new(settings.catch_up_max as usize));
        // Most of what they do is done by the kernel, and one is as fast as a bare loop. The other processors have the log,
        // the tasks, and the clients' web server.
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2);
        let (lots, attendants) = Lots::open(threads).context("cannot watch sockets")?;
        let (hub, bell) = (Arc::new(Hub::new(lots)), Arc::<Bell>::default());
        let unseen = Arc::<Unseen>::default();
        let (publishing, committer) = publishing(log("publish")?, bell.clone(), unseen.clone());
        let stopped = Arc::<AtomicBool>::default();
        let tailer = Tailer {
            log: log("tail")?,
            window: window.clone(),
            hub: Arc::clone(&hub),
            health: health.clone(),
            bell: bell.clone(),
            sweep_interval: settings.sweep_interval,
            window_bytes,
            unseen,
        };
        spawn("tail", move || tailer.run())?;
        let wakeup::Work { listener, sender, redis } =
            wakeup::prepare(settings, options, &paths, &bell, &stopped)?;
        spawn("wake-up", move || listener.run())?;
        if let Some(sender) = sender {
            spawn("canary", move || sender.run())?;
        }
        if let Some(redis) = redis {
            tokio::spawn(async move {
                let _alarm = Alarm;
                redis.run().await;
            });
        }
        let committer = spawn("publish", move || committer.run())?;
        for _ in 0..settings.database_connections {
            let (log, catch_up, window) = (log("catch up")?, catch_up.clone(), window.clone());
            spawn("catch-up", move || catch_up.run(log, &window))?;
        }
        let settings = Live::new(settings.clone());
        let (log, now, stop) = (log("trim")?, settings.clone(), stopped.clone());
        spawn("trim", move || retention::run(log, &now, &stop))?;
        Ok(Self { window, hub, catch_up, publishing, health, settings, bell, stopped, committer, attendants })
    }

    /// Lets connections wait in the lots.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub(crate) fn attend(&mut self, server: &Arc<Server>) -> Result<()> {
        for attendant in self.attendants.drain(..) {
            let (server, runtime) = (server.clone(), tokio::runtime::Handle::current());
            spawn("clients", move || attendant.run(&server, &runtime))?;
        }
        Ok(())
    }

    /// Commits what is queued for publishing. The other threads end with the process at the latest; what they do can
    /// be broken off anywhere.
    pub(crate) fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.bell.stop();
        self.catch_up.stop();
        self.publishing.stop();
        // It does not panic: that would have ended the process.
        let _ = self.committer.join();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let whole = move || {
        let _alarm = Alarm;
        run();
    };
    std::thread::Builder::new().name(name.into()).spawn(whole).context("cannot start a thread")
}

/// Ends the process when its thread panics. A daemon whose tailer is gone would look alive, and deliver nothing; one that
/// is gone is started again, and the fallback serves meanwhile.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!("a thread that the daemon cannot do without has panicked; aborting");
            std::process::abort();
        }
    }
}
