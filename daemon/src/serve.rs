//! `everpoll serve`: puts the daemon together, runs it, and stops it without losing a request.
//!
//! Connections are served by tokio's threads; those of the [backend](crate::backend) talk to the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use everpoll_settings::{Listen, Settings};
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
use crate::server::{Patience, Server};
use crate::tls::Tls;

/// How often it is looked whether what is waited for has happened: the window filled, all requests answered.
const LOOK: Duration = Duration::from_millis(20);

/// Pause of a body after which a client is given up. Old Internet Explorers repeat a POST without its body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// How long the return of those who were held is spread at most, and the share of the time for a drain that it may take.
const SPREAD: (Duration, u32) = (Duration::from_secs(5), 2);

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
///
/// When the settings cannot be met: the address is taken, the database URL is wrong, the log has another layout.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    // It takes the variables out of the environment, which may only be done while there is one thread.
    let handed = ListenFd::from_env();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    runtime.block_on(serve(settings, handed))
}

async fn serve(settings: &Settings, handed: ListenFd) -> Result<()> {
    // Before anything else, so that no signal ends the process halfway.
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let tls = settings.tls.as_ref().map(|(certificate, key)| Tls::read(certificate, key)).transpose()?;
    let mut listeners = Listener::inherited(handed, settings)?;
    let takes_over = listeners.is_empty() && settings.reuse_port && somebody_listens(&settings.listen).await;
    if listeners.is_empty() && !takes_over {
        listeners.push(Listener::bind(settings)?);
    }
    if let (false, Some(problem)) =
        (listeners.iter().all(Listener::is_local), settings.unprotected(&public()))
    {
        bail!(problem);
    }
    let connections_max = raise_file_limit(settings.connections_max as usize);
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

    let limits = settings.limits(listeners.iter().all(Listener::is_local));
    settings.follow_keys(&limits, |file, told| match told {
        Ok(()) => info!(file = %file.display(), "the keys are exchanged"),
        Err(problem) => warn!("{} {problem}; the keys stay as they are", file.display()),
    })?;
    let patience = Patience {
        head: settings.head_timeout,
        body: BODY_PATIENCE,
        idle: settings.idle_timeout,
        write: settings.write_timeout,
        head_max: usize::try_from(settings.head_max).unwrap_or(usize::MAX),
        connections_max,
        // Nobody takes more than half.
        per_address: (settings.connections_per_address as usize).min(connections_max.div_ceil(2)),
        websockets_per_wait_id: settings.websockets_per_wait_id as usize,
        // Whoever is not held needs a connection as well.
        holds_max: (settings.holds_max as usize).min(connections_max - connections_max / 20),
        unsent_max: usize::try_from(settings.unsent_max).unwrap_or(usize::MAX),
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
        // Without TLS, the signal ends the daemon, as it does any program that a terminal leaves behind.
        tokio::spawn(tls.follow_files(signal(SignalKind::hangup())?));
    }
    let mut doors: JoinSet<bool> =
        listeners.into_iter().map(|listener| front::accept(listener, server.clone())).collect();
    tell_service_manager(NotifyState::Ready);

    let signal = signals.next().await;
    info!("{signal}: draining");
    tell_service_manager(NotifyState::Stopping);
    let end = Instant::now() + settings.drain_timeout;
    server.closing.send_replace(true);
    if may_have_successor {
        // Only behind a door that is closed is it seen whether somebody has opened it again.
        let mut has_successor = false;
        while let Some(successor) = doors.join_next().await {
            has_successor |= successor.unwrap_or(false);
        }
        if has_successor {
            hand_over(&server, SPREAD.0.min(settings.drain_timeout / SPREAD.1)).await;
        }
    }
    // Not before: until then, a request over a kept connection is served, and its reply closes the connection.
    server.stop.send_replace(true);
    server.hub.lots().stop();
    // Where the drain ends early, the socket's file is to be removed all the same.
    drain(&server, &mut doors, end, settings.drain_timeout).await;
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

/// Some address that other machines can reach.
fn public() -> Listen {
    Listen::Tcp { host: "0.0.0.0".to_owned(), port: 0 }
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

/// Raises the limit of open files as far as the system allows, and returns how many connections fit.
fn raise_file_limit(wanted: usize) -> usize {
    // Besides connections: databases, the listener, tokio's own, and those that are sent away.
    const OTHER_FILES: u64 = 64 + front::GOODBYES as u64;
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
