//! The self-test: a page, and two kinds of requests for it to send.
//!
//! `hold` is answered like a held poll, plain or padded, but after a time that the page chooses; `echo` at once, with
//! what arrived of the request. Neither reads the log, so they tell about the network even where the database is down.
//! They never show what could be secret: of cookies and of authorization only that they arrived.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::sleep_until;

use super::answer;
use super::asset::Asset;
use super::problem::Problem;
use super::{Body, Page};
use crate::hub::lock;
use crate::server::{self, Server};
use crate::service;

/// Longest hold of a test, seconds: proxies that cut were seen to do so after 20 to 120 s.
const SECONDS_MAX: f64 = 125.0;

/// The hold of a test that names none, seconds: that of a poll.
const SECONDS_DEFAULT: f64 = 25.0;

/// Seconds between two spaces of a padded hold that names none.
const BEAT_DEFAULT: f64 = 10.0;

/// Largest body that is counted, bytes: that of a poll.
const BODY_MAX: usize = 64 * 1024;

/// Longest key of a test request, bytes. A longer one is as good as none.
const KEY_MAX: usize = 64;

/// How soon a request with the same key is a copy that a proxy sent along with it, and not one that was sent again.
const COPY: Duration = Duration::from_secs(1);

/// Most holds that are remembered, the latest of which it takes to know one that is sent again.
const REMEMBERED_MAX: usize = 1024;

/// Longest header value that is shown, bytes.
const SHOWN_MAX: usize = 200;

static ASSETS: [Asset; 4] = [
    Asset::new("", "text/html; charset=utf-8", include_bytes!("probe/probe.html")),
    Asset::new("/probe.css", "text/css; charset=utf-8", include_bytes!("probe/probe.css")),
    Asset::new("/probe.js", "text/javascript; charset=utf-8", include_bytes!("probe/probe.js")),
    Asset::new("/icon.svg", "image/svg+xml", include_bytes!("icon.svg")),
];

/// What `/e/_probe` with `rest` behind it asks for.
pub(super) fn find(rest: &[u8]) -> Option<Page> {
    match rest {
        b"/hold" => Some(Page::ProbeHold),
        b"/echo" => Some(Page::ProbeEcho),
        _ => ASSETS.iter().find(|asset| asset.name.as_bytes() == rest).map(Page::Asset),
    }
}

/// When the latest holds began, by the keys that the page gave them.
///
/// Browsers and some proxies send a GET again when its connection is cut, without telling anybody. The page would take three
/// cuts for one long hold; so what comes again is answered at once, with the time since it first came.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<VecDeque<(String, Instant)>>);

impl Remembered {
    /// How long ago this hold began for the first time, if this is not that.
    fn again(&self, key: &str, now: Instant) -> Option<Duration> {
        let mut all = lock(&self.0);
        if let Some((_, began)) = all.iter().find(|(other, _)| other == key) {
            return Some(now.duration_since(*began)).filter(|ago| *ago >= COPY);
        }
        if all.len() >= REMEMBERED_MAX {
            all.pop_front();
        }
        all.push_back((key.to_owned(), now));
        None
    }
}

/// What a test asks for.
#[derive(Clone, Debug, PartialEq)]
struct Wish {
    seconds: f64,
    /// Length of the padded body, bytes.
    pad: Option<usize>,
    /// Seconds.
    beat: f64,
    /// The page's name for this one request.
    key: Option<String>,
}

impl Wish {
    fn parse(query: &str) -> Result<Self, Problem> {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &'static str, range: &'static str, from: f64, to: f64| match value(name) {
            None => Ok(None),
            // Neither signs nor exponents, nor infinity.
            Some(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                match text.parse::<f64>() {
                    Ok(number) if (from..=to).contains(&number) => Ok(Some(number)),
                    _ => Err(Problem::ProbeMalformed(name, shown(text), range)),
                }
            }
            Some(text) => Err(Problem::ProbeMalformed(name, shown(text), range)),
        };
        Ok(Self {
            seconds: number("seconds", "0 to 125", 0.0, SECONDS_MAX)?.unwrap_or(SECONDS_DEFAULT),
            pad: number("pad", "1024 to 65536", 1024.0, 65536.0)?.map(|bytes| bytes as usize),
            beat: number("beat", "1 to 60", 1.0, 60.0)?.unwrap_or(BEAT_DEFAULT),
            key: value("key").filter(|key| (1..=KEY_MAX).contains(&key.len())).map(str::to_owned),
        })
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

/// The answer to a hold.
#[derive(Serialize)]
struct Held {
    test: &'static str,
    serial: u64,
    seconds: f64,
    held_ms: u64,
    /// `time`; `draining` when the daemon stops; `again` when the request was sent again on the way.
    ended: &'static str,
    end: u8,
}

/// A hold that runs. It gives its place back when it is dropped, as happens when the client leaves.
struct Hold {
    serial: u64,
    wish: Wish,
    began: Instant,
    stop: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Hold {
    fn answer(&self, ended: &'static str) -> Bytes {
        answer::to_json(&self.held(ended))
    }

    fn held(&self, ended: &'static str) -> Held {
        Held {
            test: "hold",
            serial: self.serial,
            seconds: self.wish.seconds,
            held_ms: millis(self.began.elapsed()),
            ended,
            end: 1,
        }
    }

    /// Waits until `at`, or the daemon stops; says which.
    async fn wait(&mut self, at: Instant) -> &'static str {
        tokio::select! {
            () = sleep_until(at.into()) => "time",
            _ = self.stop.wait_for(|stopped| *stopped) => "draining",
        }
    }

    /// Sends a space each beat, then the answer, then spaces to the end; stops when nobody takes them.
    async fn pad(mut self, bytes: usize, pieces: mpsc::Sender<Bytes>) {
        let end = self.began + Duration::from_secs_f64(self.wish.seconds);
        let beat = Duration::from_secs_f64(self.wish.beat);
        let mut next = self.began + beat;
        let mut left = bytes;
        let left_client = pieces.clone();
        let ended = loop {
            let until = next.min(end);
            let ended = tokio::select! {
                ended = self.wait(until) => ended,
                () = left_client.closed() => return,
            };
            if ended == "draining" || until == end {
                break ended;
            }
            next += beat;
            left -= 1;
            if pieces.send(Bytes::from_static(b" ")).await.is_err() {
                return;
            }
        };
        let mut last = self.answer(ended).to_vec();
        last.resize(left, b' ');
        // Whoever left does not need it.
        let _ = pieces.send(last.into()).await;
    }
}

/// Answers a test request after the time it asks for.
pub(super) async fn hold(request: &Request<Incoming>, server: &Server) -> Response<Body> {
    let head_only = request.method() == Method::HEAD;
    let wish = match Wish::parse(request.uri().query().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(problem) => return answer::problem(&problem, head_only),
    };
    let pages = &server.pages;
    let Ok(place) = pages.holds.clone().try_acquire_owned() else {
        return answer::problem(&Problem::ProbeBusy(pages.holds_max), head_only);
    };
    let mut hold = Hold {
        serial: pages.serial.fetch_add(1, Ordering::Relaxed),
        wish,
        began: Instant::now(),
        stop: server.stop.subscribe(),
        _place: place,
    };
    if head_only {
        return answer::json(StatusCode::OK, &hold.held("time"), true);
    }
    let again = hold.wish.key.as_ref().and_then(|key| pages.remembered.again(key, hold.began));
    if let Some(ago) = again {
        return answer::json(StatusCode::OK, &Held { held_ms: millis(ago), ..hold.held("again") }, false);
    }
    match hold.wish.pad {
        None => {
            let end = hold.began + Duration::from_secs_f64(hold.wish.seconds);
            let ended = hold.wait(end).await;
            answer::json(StatusCode::OK, &hold.held(ended), false)
        }
        Some(bytes) => {
            let (pieces, body) = mpsc::channel(1);
            tokio::spawn(hold.pad(bytes, pieces));
            answer::streamed(Pieces(body).boxed_unsync(), bytes)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A body that comes in pieces.
struct Pieces(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// What arrived of a request.
#[derive(Serialize)]
struct Echo<'a> {
    test: &'static str,
    serial: u64,
    method: &'a str,
    protocol: &'a str,
    last_event_id: Option<&'a str>,
    flavor: Option<&'a str>,
    via: Option<&'a str>,
    accept_encoding: Option<&'a str>,
    /// How many addresses the proxies on the way have noted.
    forwarded_for: usize,
    cookie: bool,
    authorization: bool,
    x_requested_with: bool,
    body_bytes: usize,
    /// The server's time, milliseconds since 1970.
    now: u64,
    end: u8,
}

/// Answers a test request with what arrived of it.
pub(super) async fn echo(request: Request<Incoming>, server: &Server) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let head_only = parts.method == Method::HEAD;
    let body = match service::read_body(body, BODY_MAX, true, server.rules().patience.body).await {
        Ok(body) => body,
        Err(error) => return super::refuse(&error, server, head_only),
    };
    let headers = &parts.headers;
    let echo = Echo {
        test: "echo",
        serial: server.pages.serial.fetch_add(1, Ordering::Relaxed),
        method: parts.method.as_str(),
        protocol: if parts.version == hyper::Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
        last_event_id: text(headers, "last-event-id"),
        flavor: text(headers, "flavor"),
        via: text(headers, "via"),
        accept_encoding: text(headers, "accept-encoding"),
        forwarded_for: text(headers, "x-forwarded-for").map_or(0, |all| all.split(',').count()),
        cookie: headers.contains_key(header::COOKIE),
        authorization: headers.contains_key(header::AUTHORIZATION),
        x_requested_with: headers.contains_key("x-requested-with"),
        body_bytes: body.len(),
        now: server::now().micros() / 1000,
        end: 1,
    };
    let mut response = answer::json(StatusCode::OK, &echo, head_only);
    // What the page looks for: whether the headers of a poll's reply come back.
    for (name, value) in [("x-ps-reconnect-in", "0"), ("x-shortpoll-info", "true"), ("x-ps-cursor", "0")] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// A header of plain characters, if it is short enough to be shown.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().filter(|value| value.len() <= SHOWN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_outside_the_bounds_are_refused() {
        let usual = Wish { seconds: 25.0, pad: None, beat: 10.0, key: None };
        assert_eq!(Wish::parse("_=x&other"), Ok(usual));
        let padded = Wish { seconds: 0.5, pad: Some(4096), beat: 1.0, key: Some("a".to_owned()) };
        assert_eq!(Wish::parse("pad=4096&seconds=.5&beat=1&key=a"), Ok(padded));
        for query in [
            "seconds=126",
            "seconds=-1",
            "seconds=1e1",
            "seconds=",
            "seconds=.",
            "seconds=inf",
            "pad=1023",
            "pad=65537",
            "beat=0",
            "beat=61",
        ] {
            assert_eq!(
                Wish::parse(query).map_err(|problem| problem.code()),
                Err("probe_malformed"),
                "{query}"
            );
        }
    }

    #[test]
    fn hold_that_is_sent_again_is_known_and_a_copy_is_none() {
        let (all, now) = (Remembered::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        assert_eq!(all.again("a", now), None);
        assert_eq!(all.again("a", later(999)), None);
        assert_eq!(all.again("a", later(3000)), Some(Duration::from_secs(3)));
        assert_eq!(all.again("b", later(3000)), None);
        for number in 0..REMEMBERED_MAX {
            assert_eq!(all.again(&number.to_string(), later(3000)), None);
        }
        assert_eq!(lock(&all.0).len(), REMEMBERED_MAX);
    }
}
