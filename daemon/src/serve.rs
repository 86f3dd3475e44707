//! `everpoll serve`: puts the daemon together, runs it, and stops it without losing a request.
//!
//! Connections are served by tokio's threads; those of the [backend](crate::backend) talk to the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use everpoll_settings::Settings;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::backend::Backend;
use crate::front;
use crate::listen::Listener;
use crate::pages::Pages;
use crate::server::{Patience, Server};

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
    let limits = settings.limits(settings.listen.is_local());
    let patience = Patience {
        head: settings.head_timeout,
        body: BODY_PATIENCE,
        idle: settings.idle_timeout,
        write: settings.write_timeout,
        connections_max,
    };
    let mut server = Server::new(
        limits,
        patience,
        backend.window.clone(),
        backend.hub.clone(),
        backend.catch_up.clone(),
        backend.publishing.clone(),
        backend.health.clone(),
    );
    server.pages = Pages::new(settings.probe, settings.demo, connections_max);
    let server = Arc::new(server);
    let accepting = tokio::spawn(front::accept(listener, server.clone()));
    info!(%address, connections_max, "listening");

    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: draining"),
        _ = interrupt.recv() => info!("SIGINT: draining"),
    }
    // Where the drain ends early, the socket's file is to be removed all the same.
    drain(&server, &accepting, settings.drain_timeout).await;
    let _ = accepting.await;
    drop(server);
    tokio::task::spawn_blocking(move || backend.stop()).await?;
    info!("stopped");
    Ok(())
}

/// Stops accepting, answers what is held, and waits until all requests are answered.
async fn drain(server: &Server, accepting: &JoinHandle<()>, longest: Duration) {
    let held = server.busy.load(Ordering::Relaxed);
    let end = Instant::now() + longest;
    server.stop.send_replace(true);
    server.drain();
    // Not only those that are busy: of a new connection the request may still be on its way. In this order: whoever was
    // accepted last is counted.
    while !accepting.is_finished() || server.connections.load(Ordering::SeqCst) > 0 {
        let now = Instant::now();
        // Half of the time is over, so the database hangs, and whoever waits for it gets an error rather than nothing.
        if now + longest / 2 >= end {
            server.catch_up.stop();
        }
        if now >= end {
            warn!(
                unanswered = server.busy.load(Ordering::Relaxed),
                connections = server.connections.load(Ordering::Relaxed),
                "clients do not take their replies or send half a request; stopping"
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
