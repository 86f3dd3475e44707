//! Metrics of the fallback under FastCGI, at an address of their own.
//!
//! What comes by FastCGI is asked by clients, whatever the web server lets through; so nothing of this is answered there. One
//! thread serves one connection after the other, each for a moment: this is for a monitoring that asks every few seconds.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use everpoll_protocol::{Head, Headers, Reply, RequestError};
use everpoll_settings::Settings;
use socket2::Socket;
use tracing::{error, info};

use crate::answer::Answers;
use crate::counts::COUNTS;
use crate::fastcgi::listener::Listener;
use crate::fastcgi::responder::Responder;

/// The media type of the metrics.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long whoever asks may take, to ask and to read.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest head of a question, in bytes.
const HEAD_MAX: usize = 8 * 1024;

/// Pause after the system had no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the metrics where the settings say, if they do. What is returned keeps a socket's file in place.
///
/// That it does not work is told, and does not keep the program from what it is there for: of several processes that a web server
/// starts with the same settings, only one gets the address.
pub(crate) fn serve(settings: &Settings, responder: Arc<Responder>) -> Option<Listener> {
    let address = settings.fallback_status.as_ref()?;
    let opened = Listener::bind(address, settings.socket_mode).and_then(|listener| {
        let socket = listener.blocking().map_err(|error| error.to_string())?;
        Ok((listener, socket))
    });
    let (listener, socket) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            error!("no metrics (fallback_status): {problem}");
            return None;
        }
    };
    info!("metrics at {}", listener.address());
    let started = Instant::now();
    let run = move || {
        loop {
            match socket.accept() {
                // Whoever asks for less than a whole answer gets it, or has left.
                Ok((asks, _)) => drop(answer(&asks, responder.answers(), started)),
                Err(_) => std::thread::sleep(ACCEPT_PAUSE),
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("status".into()).spawn(run) {
        error!("no metrics (fallback_status): {error}");
        return None;
    }
    Some(listener)
}

fn answer(mut asks: &Socket, answers: &Answers, started: Instant) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || read.len() > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        asks.set_read_timeout(Some(left))?;
        let mut some = [0; 1024];
        match asks.read(&mut some)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => read.extend_from_slice(&some[..bytes]),
        }
    }
    let peer = asks.peer_addr()?.as_socket().map(|peer| peer.ip());
    let reply = reply(&Question(&read), peer, answers, started);
    let date = httpdate::fmt_http_date(SystemTime::now());
    asks.set_write_timeout(Some(PATIENCE))?;
    asks.write_all(&reply.to_http1(Head { keep_alive: false, http10: false, date: &date }))
}

/// A request's head.
struct Question<'a>(&'a [u8]);

impl Question<'_> {
    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }

    /// Method and target.
    fn asks_for(&self) -> (&[u8], &[u8]) {
        let mut words = self.lines().next().unwrap_or_default().split(|byte| *byte == b' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }
}

impl Headers for Question<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values: Vec<_> = self
            .lines()
            .skip(1)
            .filter_map(|line| {
                let (field, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
                field.eq_ignore_ascii_case(name.as_bytes()).then(|| value[1..].trim_ascii())
            })
            .collect();
        (!values.is_empty()).then(|| values.join(b", ".as_slice()).into())
    }
}

/// Over a unix socket, whoever asks comes from nowhere.
fn reply(question: &Question<'_>, peer: Option<IpAddr>, answers: &Answers, started: Instant) -> Reply {
    let (method, target) = question.asks_for();
    let head_only = method == b"HEAD";
    let limits = answers.limits();
    let peer_is_local = peer.is_none_or(|peer| peer.to_canonical().is_loopback());
    // What a web server passes on is asked by its client.
    let sender = limits.fronts.sender(question, peer, peer_is_local);
    if let Err(error) = limits.may_see_status(sender, peer) {
        return Reply::request_error(&error, head_only);
    }
    match (method, target) {
        (b"GET" | b"HEAD", b"/metrics") => Reply::text(page(answers, started), CONTENT_TYPE, head_only),
        (_, b"/metrics") => {
            Reply::request_error(&RequestError::MethodNotAllowed { allow: "GET, HEAD" }, head_only)
        }
        _ => Reply::health(404, "not_found", "only /metrics is served here", head_only),
    }
}

/// The metrics, in the text format of OpenMetrics. Each name stands in `docs/reference/metrics.md`, and a test compares the two.
fn page(answers: &Answers, started: Instant) -> String {
    let mut page = Page(String::with_capacity(4096));
    page.gauge("connections", "Open connections of web servers", COUNTS.connections.get());
    page.gauge("connections_max", "Most connections at once", COUNTS.connections_max.get());
    page.gauge("requests_in_hand", "Requests that are complete and not answered yet", COUNTS.in_hand.get());
    let kinds =
        [("poll", COUNTS.polls.get()), ("publish", COUNTS.publishes.get()), ("other", COUNTS.others.get())];
    page.counters("requests", "Requests that were taken in", "kind", &kinds);
    page.counters(
        "published_events",
        "Events that were published over HTTP here",
        "",
        &[("", COUNTS.published.get())],
    );
    page.gauge("log_works", "Whether the log's database is not known to be away", answers.log_works().into());
    page.counters("errors", "Errors that were answered", "code", &COUNTS.errors());
    page.counters("limit_hits", "How often a limit was hit", "limit", &COUNTS.limits());
    page.gauge("uptime_seconds", "How long the fallback has run", started.elapsed().as_secs());
    page.0.push_str("# EOF\n");
    page.0
}

struct Page(String);

impl Page {
    fn describe(&mut self, name: &str, kind: &str, help: &str) {
        // A string takes all that is written.
        let _ = writeln!(
            self.0,
            "# HELP everpoll_fallback_{name} {help}.\n# TYPE everpoll_fallback_{name} {kind}"
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.describe(name, "gauge", help);
        let _ = writeln!(self.0, "everpoll_fallback_{name} {value}");
    }

    /// By the values of a label; one without a label if that has no name. The values are words of ours: nothing in them is to be
    /// escaped.
    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.describe(name, "counter", help);
        for (word, value) in values {
            let _ = match label {
                "" => writeln!(self.0, "everpoll_fallback_{name}_total {value}"),
                _ => writeln!(self.0, "everpoll_fallback_{name}_total{{{label}=\"{word}\"}} {value}"),
            };
        }
    }
}
