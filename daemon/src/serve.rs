//! `everpoll serve`: puts the daemon together, runs it, and stops it without losing a request.
//!
//! Connections are served by tokio's threads; those of the [backend](crate::backend) talk to the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use everpoll_settings::Settings;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::backend::Backend;
use crate::front;
use crate::hub::Wake;
use crate::listen::{Listener, somebody_listens};
use crate::pages::Pages;
use crate::reload::{self, Source};
use crate::server::{Patience, Server};
use crate::tls::Tls;

/// How often it is looked whether what is waited for has happened: the window filled, all requests answered.
const LOOK: Duration = Duration::from_millis(20);

/// How long the return of those who were held is spread at most, and the share of the time for a drain that it may take.
const SPREAD: (Duration, u32) = (Duration::from_secs(5), 2);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
///
/// When the settings cannot be met: the address is taken, the database URL is wrong, the log has another layout.
pub(crate) fn run(settings: &Settings, source: Source) -> Result<()> {
    // It takes the variables out of the environment, which may only be done while there is one thread.
    let handed = ListenFd::from_env();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(serve(settings, source, handed))
}

async fn serve(settings: &Settings, source: Source, handed: ListenFd) -> Result<()> {
    // Before anything else, so that no signal ends the process halfway.
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let hangup = signal(SignalKind::hangup())?;
    let tls = settings.tls.as_ref().map(|(certificate, key)| Tls::read(certificate, key)).transpose()?;
    let mut listeners = Listener::inherited(handed, settings)?;
    let takes_over = listeners.is_empty() && settings.reuse_port && somebody_listens(&settings.listen).await;
    if listeners.is_empty() && !takes_over {
        listeners.push(Listener::bind(settings)?);
    }
    let listens_locally = listeners.iter().all(Listener::is_local);
    if let (false, Some(problem)) = (listens_locally, settings.unprotected(&reload::public())) {
        bail!(problem);
    }
    let mut backend = Backend::start(settings)?;
    if takes_over {
        info!(address = %settings.listen, "another daemon listens there; taking its place when the window is filled");
        tokio::select! {
            () = ready(&backend) => {}
            signal = signals.next() => {
                info!("{signal}: stopped before it had its place");
                return Ok(());
            }
        }
        listeners.push(Listener::bind(settings)?);
    }

    let listens_locally = listeners.iter().all(Listener::is_local);
    let limits = settings.limits(listens_locally);
    let patience = Patience::of(settings);
    let connections_max = patience.connections_max;
    let mut server = Server::new(
        limits.clone(),
        patience,
        backend.window.clone(),
        backend.hub.clone(),
        backend.catch_up.clone(),
        backend.publishing.clone(),
        backend.health.clone(),
    );
    server.pages = Pages::new(settings.probe, settings.demo, connections_max);
    server.tls = tls.map(Arc::new);
    let server = Arc::new(server);
    backend.attend(&server)?;
    let may_have_successor = listeners.iter().any(Listener::may_have_successor) && settings.reuse_port;
    for listener in &listeners {
        let tls = server.tls.is_some() && listener.is_tcp();
        info!(address = %listener.address(), connections_max, tls, "listening");
    }
    if let Some(tls) = server.tls.clone() {
        if !listeners.iter().any(Listener::is_tcp) {
            warn!("tls_certificate is set, and only unix sockets are listened on, which do not speak TLS");
        }
        tokio::spawn(tls.follow_files(signal(SignalKind::hangup())?));
    }
    reload::follow(settings, limits, source, &server, &backend, hangup)?;
    let mut doors: JoinSet<bool> =
        listeners.into_iter().map(|listener| front::accept(listener, server.clone())).collect();
    tell_service_manager(NotifyState::Ready);

    let signal = signals.next().await;
    info!("{signal}: draining");
    tell_service_manager(NotifyState::Stopping);
    let drain_timeout = backend.settings.get().drain_timeout;
    let end = Instant::now() + drain_timeout;
    server.closing.send_replace(true);
    if may_have_successor {
        // Only behind a door that is closed is it seen whether somebody has opened it again.
        let mut has_successor = false;
        while let Some(successor) = doors.join_next().await {
            has_successor |= successor.unwrap_or(false);
        }
        if has_successor {
            hand_over(&server, SPREAD.0.min(drain_timeout / SPREAD.1)).await;
        }
    }
    // Not before: until then, a request over a kept connection is served, and its reply closes the connection.
    server.stop.send_replace(true);
    server.hub.lots().stop();
    // Where the drain ends early, the socket's file is to be removed all the same.
    drain(&server, &mut doors, end, drain_timeout).await;
    while doors.join_next().await.is_some() {}
    drop(server);
    tokio::task::spawn_blocking(move || backend.stop()).await?;
    info!("stopped");
    Ok(())
}

/// What ends the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits until polls are served in full.
async fn ready(backend: &Backend) {
    while backend.health.reply(true).status != 200 {
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells systemd, if that has started us and wants to know.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("cannot tell the service manager how it goes: {error}");
    }
}

/// Answers those who are held one after the other, over `spread`: each goes on at the daemon that has taken this one's
/// place, and until its turn it is served as ever. So nobody is late, and the other is not stormed.
async fn hand_over(server: &Server, spread: Duration) {
    let held = server.hand_over();
    info!(held = held.len(), ?spread, "another daemon has taken the place: handing over what is held");
    let (start, mut woken) = (Instant::now(), 0);
    // Also when nobody is held: a web server in front asks over the connections that it has kept, and sees none of them close
    // at that moment.
    while woken < held.len() || start.elapsed() < spread {
        tokio::time::sleep(LOOK).await;
        let share = start.elapsed().as_secs_f64() / spread.as_secs_f64().max(LOOK.as_secs_f64());
        let due = held.len().min((held.len() as f64 * share).ceil() as usize);
        for sleeper in &held[woken..due] {
            sleeper.wake(Wake::Drain);
        }
        woken = due;
    }
}

/// Stops accepting, answers what is held, and waits until all requests are answered.
async fn drain(server: &Server, doors: &mut JoinSet<bool>, end: Instant, longest: Duration) {
    let held = server.busy.load(Ordering::Relaxed);
    server.drain();
    // Not only those that are busy: of a new connection the request may still be on its way. In this order: whoever was
    // accepted last is counted.
    while !is_over(doors) || server.connections.load(Ordering::SeqCst) > 0 {
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
        tokio::time::sleep(LOOK).await;
        // A poll that came to hold in between.
        server.drain();
    }
    info!(held, "all requests are answered");
}

/// Whether nobody accepts connections any more.
fn is_over(doors: &mut JoinSet<bool>) -> bool {
    while doors.try_join_next().is_some() {}
    doors.is_empty()
}
