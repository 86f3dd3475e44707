//! `everpoll serve`: puts the daemon together, runs it, and stops it without losing a request.
//!
//! Threads: tokio's for connections; one follows the log, one waits for its wake-ups, one commits what is published over
//! HTTP, and a few look up what the window does not have. Each of these has a database connection of its own, and all
//! database code is blocking: it is the same that the fallback uses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use everpoll_log::{Log, Options, Wakeups};
use everpoll_protocol::{Limits, Publisher};
use everpoll_settings::Settings;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::catch_up::CatchUp;
use crate::front;
use crate::health::Health;
use crate::hub::Hub;
use crate::listen::Listener;
use crate::publish::publishing;
use crate::retention;
use crate::server::{Patience, Server};
use crate::tailer::{Bell, Tailer};
use crate::wakeup;
use crate::window::Window;

/// How often the drain looks whether all requests are answered.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Pause of a body after which a client is given up. Old Internet Explorers repeat a POST without its body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
///
/// When the settings cannot be met: the address is taken, the database URL is wrong, the log has another layout.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: &Settings) -> Result<()> {
    // Before anything else, so that no signal ends the process halfway.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = Listener::bind(&settings.listen, settings.socket_mode)?;
    let address = listener.address();
    let connections_max = raise_file_limit(settings.connections_max as usize);

    let backend = Backend::start(settings)?;
    let limits = Limits {
        hold_max: settings.hold_max,
        publish_body_max: usize::try_from(settings.body_max).unwrap_or(usize::MAX),
        publisher: Publisher {
            key: settings.publish_key.as_ref().map(|key| key.expose().to_owned()),
            listens_locally: settings.listen.is_local(),
        },
    };
    let patience = Patience {
        head: settings.head_timeout,
        body: BODY_PATIENCE,
        idle: settings.idle_timeout,
        write: settings.write_timeout,
        connections_max,
    };
    let server = Arc::new(Server::new(
        limits,
        patience,
        backend.window.clone(),
        backend.hub.clone(),
        backend.catch_up.clone(),
        backend.publishing.clone(),
        backend.health.clone(),
    ));
    let accepting = tokio::spawn(front::accept(listener, server.clone()));
    info!(%address, connections_max, "listening");

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: draining"),
        _ = interrupt.recv() => info!("SIGINT: draining"),
    }
    drain(&server, settings.drain_timeout).await;
    // It ends by itself, and with it the socket's file is removed.
    let _ = accepting.await;
    drop(server);
    tokio::task::spawn_blocking(move || backend.stop()).await?;
    info!("stopped");
    Ok(())
}

/// Stops accepting, answers what is held, and waits until all requests are answered.
async fn drain(server: &Server, longest: Duration) {
    let held = server.busy.load(Ordering::Relaxed);
    let end = Instant::now() + longest;
    server.stop.send_replace(true);
    server.drain();
    while server.busy.load(Ordering::SeqCst) > 0 {
        if Instant::now() >= end {
            warn!(
                unanswered = server.busy.load(Ordering::Relaxed),
                "clients do not take their replies; stopping"
            );
            return;
        }
        tokio::time::sleep(DRAIN_LOOK).await;
        // A poll that came to hold in between.
        server.drain();
    }
    info!(held, "all requests are answered");
}

/// Raises the limit of open files as far as the system allows, and returns how many connections fit.
fn raise_file_limit(wanted: usize) -> usize {
    // Besides connections: databases, the listener, tokio's own.
    const OTHER_FILES: u64 = 64;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let Some(files) = files else { return wanted };
    let fit = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX);
    if fit < wanted {
        info!(connections_max = fit, "the limit of open files is {files}: connections_max is lowered");
    }
    fit.min(wanted)
}

/// Everything that talks to the log, and its threads.
struct Backend {
    window: Arc<Mutex<Window>>,
    hub: Arc<Hub>,
    catch_up: Arc<CatchUp>,
    publishing: crate::publish::Publishing,
    health: Arc<Health>,
    bell: Arc<Bell>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Backend {
    fn start(settings: &Settings) -> Result<Self> {
        let url = settings.database_url.expose();
        let options =
            |part: &str| Options { application_name: format!("everpoll {part}"), ..Options::default() };
        let log = |part: &str| Log::new(url, options(part));
        let window_bytes = usize::try_from(settings.window_bytes).unwrap_or(usize::MAX);
        let window = Arc::new(Mutex::new(Window::new(window_bytes, 0)));
        let (hub, catch_up, health, bell) =
            (Arc::default(), Arc::<CatchUp>::default(), Arc::new(Health::new()), Arc::<Bell>::default());
        let (publishing, committer) = publishing(log("publish")?, bell.clone());
        let stopped = Arc::<AtomicBool>::default();
        let mut threads = Vec::new();
        let mut spawn = |name: &str, run: Box<dyn FnOnce() + Send>| -> Result<()> {
            threads.push(std::thread::Builder::new().name(name.into()).spawn(run)?);
            Ok(())
        };

        let tailer = Tailer {
            log: log("tail")?,
            window: window.clone(),
            hub: Arc::clone(&hub),
            health: health.clone(),
            bell: bell.clone(),
            window_bytes,
        };
        spawn("tail", Box::new(move || tailer.run()))?;
        let wakeups = Wakeups::new(url, options("wake-up"))?;
        let (ring, stop) = (bell.clone(), stopped.clone());
        spawn("wake-up", Box::new(move || wakeup::run(wakeups, &ring, &stop)))?;
        spawn("publish", Box::new(move || committer.run()))?;
        for _ in 0..settings.database_connections {
            let (log, catch_up, window) = (log("catch up")?, catch_up.clone(), window.clone());
            spawn("catch-up", Box::new(move || catch_up.run(log, &window)))?;
        }
        let (log, keep, stop) = (log("trim")?, retention::of(settings), stopped.clone());
        spawn("trim", Box::new(move || retention::run(log, &keep, &stop)))?;
        Ok(Self { window, hub, catch_up, publishing, health, bell, stopped, threads })
    }

    /// Ends all threads; what is queued for publishing is committed first.
    fn stop(self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.bell.stop();
        self.catch_up.stop();
        drop(self.publishing);
        for thread in self.threads {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
