//! The demo: a page with four subscribers, and a job that publishes its progress.
//!
//! Cheese is published by the page itself, over `POST /publish`. The job is what a long-running task of an application
//! would be: it runs in the daemon, knows nothing of the pages that look on, and tells them by events.

use std::sync::Arc;
use std::time::Duration;

use everpoll_protocol::{
    Failure, NewEvent, PublishRequest, RawRequest, Reconnect, Reply, Request as ProtocolRequest, RequestError,
};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

use super::asset::Asset;
use super::problem::Problem;
use super::{Body, JOBS_MAX, Page, answer};
use crate::server::{self, Server};
use crate::service::{self, HyperHeaders};

/// The channel of the page, and of the lines that `everpoll up` prints.
const CHANNEL: &str = "cheese";

/// The type of the job's events.
const KIND: &str = "job_progress";

/// How often a job tells of its progress, and how far it is then: 100 % after 10 s.
const STEP: (Duration, u8) = (Duration::from_millis(500), 5);

/// How often a step that could not be published is tried again, a [`STEP`] apart, before the job is given up.
const TRIES: u32 = 20;

/// Largest body of a job's request, bytes. Nothing of it is needed.
const BODY_MAX: usize = 1024;

static ASSETS: [Asset; 4] = [
    Asset::new("", "text/html; charset=utf-8", include_bytes!("demo/demo.html")),
    Asset::new("/demo.css", "text/css; charset=utf-8", include_bytes!("demo/demo.css")),
    Asset::new("/demo.js", "text/javascript; charset=utf-8", include_bytes!("demo/demo.js")),
    Asset::new("/icon.svg", "image/svg+xml", include_bytes!("icon.svg")),
];

/// What `/demo` with `rest` behind it asks for.
pub(super) fn find(rest: &str) -> Option<Page> {
    match rest {
        "/clock" => Some(Page::DemoClock),
        "/job" => Some(Page::DemoJob),
        _ => ASSETS.iter().find(|asset| asset.name == rest).map(Page::Asset),
    }
}

/// Answers with the server's time, so that the page can tell how long an event was on its way.
pub(super) fn clock(head_only: bool) -> Response<Body> {
    #[derive(Serialize)]
    struct Clock {
        /// Milliseconds since 1970.
        now: u64,
        end: u8,
    }
    answer::json(StatusCode::OK, &Clock { now: server::now().micros() / 1000, end: 1 }, head_only)
}

/// What a job's event says.
#[derive(Serialize)]
struct Progress<'a> {
    job: &'a str,
    percent: u8,
}

/// A job that runs.
struct Job {
    name: String,
    server: Arc<Server>,
    _place: OwnedSemaphorePermit,
}

/// Starts a job, for whoever may publish: its events are published in that one's stead. The answer comes once the first
/// one is in the log.
pub(super) async fn start_job(
    request: Request<Incoming>,
    server: &Arc<Server>,
    peer_is_local: bool,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if let Err(error) = service::read_body(body, BODY_MAX, false, server.rules().patience.body).await {
        return super::refuse(&error, server, false);
    }
    let name = format!("job-{}", server::now().micros());
    if let Err(error) = admit(&parts.headers, &name, server, peer_is_local) {
        return super::refuse(&error, server, false);
    }
    let Ok(place) = server.pages.jobs.clone().try_acquire_owned() else {
        return answer::problem(&Problem::DemoBusy(JOBS_MAX), false);
    };
    let job = Job { name: name.clone(), server: server.clone(), _place: place };
    // In a task of its own: who reloads the page before the answer is there does not take the job along.
    let begun = tokio::spawn(async move {
        job.publish(0).await?;
        tokio::spawn(job.run());
        Ok(())
    });
    if let Err(failure) = begun.await.expect("publishing does not panic") {
        let reply = Reply::failure(&failure, || server.reconnect_in(Reconnect::ShortPoll), false);
        return service::to_response(&reply, server);
    }
    #[derive(Serialize)]
    struct Started<'a> {
        job: &'a str,
        channel: &'a str,
        end: u8,
    }
    answer::json(StatusCode::ACCEPTED, &Started { job: &name, channel: CHANNEL, end: 1 }, false)
}

/// Reads the job's first event as if it were published by the one who asks, so that the same rules admit it.
fn admit(
    headers: &HeaderMap,
    name: &str,
    server: &Server,
    peer_is_local: bool,
) -> Result<ProtocolRequest, RequestError> {
    let data = Progress { job: name, percent: 0 };
    let event = serde_json::json!({"channel": CHANNEL, "type": KIND, "data": data}).to_string();
    let raw = RawRequest {
        method: "POST",
        target: b"/publish",
        headers: &HyperHeaders(headers),
        body: event.as_bytes(),
        peer_is_local,
        peer: None,
        may_upgrade: false,
        web_server: None,
        now: server::now(),
    };
    ProtocolRequest::parse(&raw, &server.rules().limits)
}

impl Job {
    /// Works until it is done, or the daemon stops. A job is lost with its daemon; the page sees that it falls silent.
    async fn run(self) {
        let mut stop = self.server.stop.subscribe();
        let work = async {
            for percent in (STEP.1..=100).step_by(usize::from(STEP.1)) {
                tokio::time::sleep(STEP.0).await;
                if let Err(failure) = self.publish_surely(percent).await {
                    warn!(job = self.name, percent, "the demo's job is given up: {failure}");
                    return;
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stop.wait_for(|stopped| *stopped) => info!(job = self.name, "the demo's job ends with the daemon"),
        }
    }

    /// Publishes a step; again while the log is away. By its key it is one event all the same.
    async fn publish_surely(&self, percent: u8) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            match self.publish(percent).await {
                Err(Failure::Serve(_)) if tries < TRIES => tries += 1,
                outcome => return outcome,
            }
            tokio::time::sleep(STEP.0).await;
        }
    }

    async fn publish(&self, percent: u8) -> Result<(), Failure> {
        let data = answer::to_json(&Progress { job: &self.name, percent });
        let key = format!("{}:{percent}", self.name);
        let event = NewEvent::parse(CHANNEL, KIND, &String::from_utf8_lossy(&data), Some(&key), None)?;
        self.server.publishing.publish(PublishRequest { events: vec![event] }).await.map(drop)
    }
}
