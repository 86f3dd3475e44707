//! Pages for people that the daemon serves itself: the self-test at `/e/_probe` and the demo at `/demo`.
//!
//! They are no part of the protocol, and the fallback has none of them: the self-test is about connections that are held,
//! and the demo's job runs in the daemon. What a newcomer gets wrong: the pages allow no inline scripts or styles
//! (Content-Security-Policy), so everything is a file of its own; and their addresses are relative, so that they work
//! behind a web server that serves `/e` below some folder.

mod answer;
mod asset;
mod demo;
mod probe;
mod problem;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use everpoll_protocol::{Reply, RequestError, Route};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use tokio::sync::Semaphore;

use crate::server::Server;
use crate::service;
use asset::Asset;

/// The body of whatever hyper sends: most are whole, a padded one of the self-test comes in pieces.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Most holds of the self-test at once, whatever the number of connections is. A visitor needs three.
const HOLDS_MAX: usize = 256;

/// The share of `connections_max` that the holds of the self-test may take: one in so many.
const HOLDS_SHARE: usize = 10;

/// Most jobs of the demo at once.
const JOBS_MAX: usize = 3;

/// Which pages are switched on, and what they need while they are used.
#[derive(Debug)]
pub(crate) struct Pages {
    probe: AtomicBool,
    demo: AtomicBool,
    holds_max: usize,
    holds: Arc<Semaphore>,
    remembered: probe::Remembered,
    jobs: Arc<Semaphore>,
    /// Numbers the self-test's answers, so that one from a cache is seen to be old.
    serial: AtomicU64,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) enum Page {
    /// A file of one of the pages.
    Asset(&'static Asset),
    /// A test request that is held.
    ProbeHold,
    /// A test request that tells what arrived of it.
    ProbeEcho,
    /// The server's time.
    DemoClock,
    /// The start of a job.
    DemoJob,
}

impl Pages {
    /// With the self-test or the demo, in a daemon with room for so many connections.
    pub(crate) fn new(probe: bool, demo: bool, connections_max: usize) -> Self {
        let holds_max = (connections_max / HOLDS_SHARE).clamp(1, HOLDS_MAX);
        Self {
            probe: AtomicBool::new(probe),
            demo: AtomicBool::new(demo),
            holds_max,
            holds: Arc::new(Semaphore::new(holds_max)),
            remembered: probe::Remembered::default(),
            jobs: Arc::new(Semaphore::new(JOBS_MAX)),
            serial: AtomicU64::new(1),
        }
    }

    /// Switches them on or off, for requests from now on.
    pub(crate) fn switch(&self, probe: bool, demo: bool) {
        self.probe.store(probe, Ordering::Relaxed);
        self.demo.store(demo, Ordering::Relaxed);
    }

    /// What this path asks for, if it is one of the pages and that is switched on.
    pub(crate) fn find(&self, path: &str) -> Option<Page> {
        if let Route::Probe(rest) = Route::of(path.as_bytes()) {
            return self.probe.load(Ordering::Relaxed).then(|| probe::find(rest)).flatten();
        }
        match path.strip_prefix("/demo") {
            Some(rest) if self.demo.load(Ordering::Relaxed) => demo::find(rest),
            _ => None,
        }
    }
}

impl Page {
    fn allow(self) -> &'static str {
        match self {
            Self::Asset(_) | Self::ProbeHold | Self::DemoClock => "GET, HEAD",
            Self::ProbeEcho => "GET, HEAD, POST",
            Self::DemoJob => "POST",
        }
    }
}

/// Answers a request for a page.
pub(crate) async fn respond(
    page: Page,
    request: Request<Incoming>,
    server: &Arc<Server>,
    peer_is_local: bool,
) -> Response<Body> {
    let head_only = request.method() == Method::HEAD;
    if !page.allow().split(", ").any(|method| method == request.method().as_str()) {
        return refuse(&RequestError::MethodNotAllowed { allow: page.allow() }, server, head_only);
    }
    match page {
        Page::Asset(asset) => asset.respond(request.headers()),
        Page::ProbeHold => probe::hold(&request, server).await,
        Page::ProbeEcho => probe::echo(request, server).await,
        Page::DemoClock => demo::clock(head_only),
        Page::DemoJob => demo::start_job(request, server, peer_is_local).await,
    }
}

fn refuse(error: &RequestError, server: &Server, head_only: bool) -> Response<Body> {
    service::to_response(&Reply::request_error(error, head_only), server)
}
