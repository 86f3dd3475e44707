//! What hyper serves: publishing, health, pages, polls with a body, and everything that is not found.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use everpoll_protocol::{
    Failure, Flavor, Headers, MAX_HEAD_FIELDS, RawRequest, Reconnect, Reply, Request, RequestError, Route,
    Sender, ServeError,
};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;

use crate::front::linger;
use crate::metrics::{COUNTS, Way, page};
use crate::pages;
use crate::server::{self, Counted, Server};
use crate::stream::{Answer, Lent, Loan, Rewound, Stream};
use crate::transport::long_poll;

/// The smallest buffer that hyper takes, in bytes.
const BUFFER_MIN: usize = 8 * 1024;

/// How much of a body that is refused is read in any case, in bytes, and for how long. A web server in front that cannot get rid of a body
/// takes the daemon for broken; the shipped configuration of nginx lets through 9 MiB.
const REFUSED_BODY: (usize, Duration) = (16 * 1024 * 1024, Duration::from_secs(10));

/// Serves one request of `length` bytes, of which those that are `read` have come, and perhaps more than those. Returns what has come
/// behind it; `None` when the connection is of no use any more.
pub(crate) async fn serve_one(
    stream: &Stream,
    mut read: Vec<u8>,
    length: u64,
    server: &Arc<Server>,
) -> Option<Vec<u8>> {
    let peer = stream.peer();
    let loan = Loan::new(length, &mut read);
    let goes_on = {
        let service = service_fn(|request| async {
            let response = respond(request, server, peer, true).await;
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, loan.clone())))
        });
        let patience = server.rules().patience.write;
        let connection = builder(server)
            .serve_connection(TokioIo::new(Lent::new(stream, read, loan.clone(), patience)), service);
        let mut connection = pin!(connection);
        poll_fn(|context| {
            // What breaks a connection is the client's affair; hyper has told it what it could.
            if connection.as_mut().poll(context).is_ready() {
                Poll::Ready(false)
            } else if loan.is_over() {
                Poll::Ready(true)
            } else {
                Poll::Pending
            }
        })
        .await
    };
    if goes_on {
        return Some(loan.behind());
    }
    if loan.is_read() {
        stream.end();
    } else {
        let (bytes, patience) = REFUSED_BODY;
        let bytes = bytes.max(server.rules().limits.publish_body_max);
        let mut stopped = server.stop.subscribe();
        tokio::select! {
            () = linger(stream, bytes, patience) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }
    None
}

/// Serves a connection whose first bytes were read, until it is closed. That is for a request of which nobody knows how long it is before
/// it has come.
pub(crate) async fn serve(stream: Stream, read: Vec<u8>, server: &Arc<Server>) {
    let peer = stream.peer();
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(respond(request, server, peer, false).await) });
    let rewound = Rewound::new(read, stream, Some(server.rules().patience.write));
    let connection = builder(server).serve_connection(TokioIo::new(rewound), service);
    let mut connection = pin!(connection);
    let mut stopped = server.stop.subscribe();
    let finished = tokio::select! {
        // In this order: hyper closes a connection of which it has read nothing yet.
        biased;
        finished = connection.as_mut() => Some(finished),
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    if finished.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

fn builder(server: &Server) -> http1::Builder {
    let rules = server.rules();
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(rules.patience.head)
        // Heads may be that large; bodies are read in pieces.
        .max_buf_size((2 * rules.limits.head_max).max(BUFFER_MIN))
        .max_headers(MAX_HEAD_FIELDS);
    builder
}

/// Whether the other end is this machine, and its address.
type Peer = (bool, Option<IpAddr>);

/// Answers a request. If the connection is only `lent`, the front gets it back.
async fn respond(
    request: hyper::Request<Incoming>,
    server: &Arc<Server>,
    peer: Peer,
    is_lent: bool,
) -> Response<pages::Body> {
    let _busy = Counted::new(&server.busy);
    let sender = server.rules().limits.fronts.sender(&HyperHeaders(request.headers()), peer.1, peer.0);
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    // Publishing that is admitted has a limit of its own, so whether it is has to be seen first.
    let publishes = request.method() == hyper::Method::POST && Route::of(target.as_bytes()) == Route::Publish;
    if !publishes && let Err(error) = server.rules().limits.count(sender, server::now()) {
        return too_many(error, &request, target, server, peer);
    }
    if let Some(page) = server.pages.find(request.uri().path()) {
        let mut response = pages::respond(page, request, server, peer.0).await;
        if !is_lent || server.draining() {
            close_after(&mut response);
        }
        return response;
    }
    let head_only = request.method() == hyper::Method::HEAD;
    let (reply, closes) = match request.uri().path() {
        "/healthz" => (Reply::health(200, "alive", "the daemon runs", head_only), false),
        path @ ("/readyz" | "/metrics") => match server.rules().limits.may_see_status(sender, peer.1) {
            Ok(()) if path == "/readyz" => (server.health.reply(head_only), false),
            Ok(()) => (Reply::text(page::write(server), page::CONTENT_TYPE, head_only), false),
            Err(error) => {
                COUNTS.error(error.code());
                (Reply::request_error(&error, head_only), false)
            }
        },
        _ => respond_to_protocol(request, server, peer, sender, publishes).await,
    };
    let mut response = to_response(&reply, server);
    if closes && !is_lent {
        close_after(&mut response);
    }
    response
}

/// Answers a request that is one too many, without its body.
fn too_many(
    error: ServeError,
    request: &hyper::Request<Incoming>,
    target: &str,
    server: &Server,
    (peer_is_local, peer): Peer,
) -> Response<pages::Body> {
    let failure = Failure::Serve(error);
    COUNTS.failure(&failure);
    let raw = RawRequest {
        method: request.method().as_str(),
        target: target.as_bytes(),
        headers: &HyperHeaders(request.headers()),
        body: b"",
        peer_is_local,
        peer,
        may_upgrade: false,
        web_server: None,
        now: server::now(),
    };
    let reconnect_in = || server.reconnect_in(Reconnect::ShortPoll);
    to_response(&Reply::refused(&failure, &raw, &server.rules().limits, reconnect_in), server)
}

/// How long a poll is held that wants padding and came where there is none.
const UNPADDED: Duration = Duration::from_secs(1);

/// Whether a connection that stays with hyper is to be closed after this request. The front does not get it back, and hyper cannot serve
/// streams: browsers, and web servers in front, would send the next one into it after they have loaded the client. A
/// stream that came here all the same is answered in short, and finds the front when it comes again.
fn wants_the_front(parsed: &Result<Request, Reply>) -> bool {
    match parsed {
        Ok(Request::Script(_)) => true,
        Ok(Request::Poll(request)) => {
            request.pad.is_some() || matches!(request.flavor, Flavor::EventSource | Flavor::WebSocket)
        }
        Ok(_) => false,
        // A WebSocket, which is never more than refused here.
        Err(reply) => reply.status == 426,
    }
}

fn close_after<B>(response: &mut Response<B>) {
    response.headers_mut().insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
}

/// Also whether the connection is to be closed then.
async fn respond_to_protocol(
    request: hyper::Request<Incoming>,
    server: &Arc<Server>,
    peer: Peer,
    sender: Sender,
    publishes: bool,
) -> (Reply, bool) {
    let (parts, body) = request.into_parts();
    let head_only = parts.method == hyper::Method::HEAD;
    // In statements and blocks of their own: what borrows the headers must be gone before anything is waited for.
    let (limit, keep, patience) = {
        let rules = server.rules();
        let headers = HyperHeaders(&parts.headers);
        let keep = Request::needs_body(&describe(&parts, &headers, b"", peer), &rules.limits);
        (rules.limits.body(target(&parts)), keep, rules.patience.body)
    };
    let body = match read_body(body, limit, keep, patience).await {
        Ok(body) => body,
        Err(error) => {
            let reply = Reply::request_error(&error, head_only);
            COUNTS.failure(&error.into());
            return (reply, false);
        }
    };
    let parsed = {
        let headers = HyperHeaders(&parts.headers);
        let raw = describe(&parts, &headers, &body, peer);
        let received = match publishes {
            true => Request::receive(&raw, &server.rules().limits, sender),
            // It is counted already.
            false => Request::parse_of(&raw, &server.rules().limits, sender),
        };
        received.map_err(|failure| {
            COUNTS.failure(&failure);
            let reconnect_in = || server.reconnect_in(Reconnect::ShortPoll);
            Reply::refused(&failure, &raw, &server.rules().limits, reconnect_in)
        })
    };
    let closes = wants_the_front(&parsed);
    let reply = match parsed {
        Ok(Request::Poll(mut request)) => {
            if request.pad.take().is_some() {
                // There is no padding here, and a silent hold is what this client flees from.
                request.hold = request.hold.map(|hold| hold.min(UNPADDED)).or(Some(UNPADDED));
            }
            COUNTS.requests[Way::of(&request) as usize].one();
            long_poll::reply(server, &request).await
        }
        Ok(Request::Publish(request)) => match server.publishing.publish(request).await {
            Ok(ids) => Reply::published(&ids),
            Err(failure) => {
                COUNTS.failure(&failure);
                Reply::failure(&failure, || server.reconnect_in(Reconnect::ShortPoll), false)
            }
        },
        Ok(Request::Options { allow, form }) => Reply::options(allow, &form),
        Ok(Request::Script(request)) => Reply::script(request),
        Err(reply) => reply,
    };
    (reply, closes)
}

fn target(parts: &Parts) -> &[u8] {
    parts.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes()
}

/// The request as the protocol reads it.
fn describe<'a>(
    parts: &'a Parts,
    headers: &'a HyperHeaders<'a>,
    body: &'a [u8],
    (peer_is_local, peer): Peer,
) -> RawRequest<'a> {
    RawRequest {
        method: parts.method.as_str(),
        target: target(parts),
        headers,
        body,
        peer_is_local,
        peer,
        // A WebSocket is opened by GET, and that is the front's.
        may_upgrade: false,
        web_server: None,
        now: server::now(),
    }
}

/// Reads a body of at most `limit` bytes, as long as it keeps coming. Where it makes no difference, nothing of it is kept: it is
/// read so that its sender sees the answer.
pub(crate) async fn read_body(
    mut body: Incoming,
    limit: usize,
    keep: bool,
    patience: Duration,
) -> Result<Bytes, RequestError> {
    // What says that it is too large is not read at all.
    if body.size_hint().lower() > limit as u64 {
        return Err(RequestError::BodyTooLarge { limit });
    }
    let (mut all, mut length) = (Vec::new(), 0);
    loop {
        let frame = match timeout(patience, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(RequestError::HeadMalformed { reason: error.to_string() }),
            Ok(None) => return Ok(all.into()),
            Err(_) => return Err(RequestError::BodyTimeout { seconds: patience.as_secs() }),
        };
        if let Some(data) = frame.data_ref() {
            length += data.len();
            if length > limit {
                return Err(RequestError::BodyTooLarge { limit });
            }
            if keep {
                all.extend_from_slice(data);
            }
        }
    }
}

/// The headers that hyper has read.
pub(crate) struct HyperHeaders<'a>(pub(crate) &'a HeaderMap);

impl Headers for HyperHeaders<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.0.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |all, value| [&all, b", ".as_slice(), value].concat().into()))
    }
}

/// A reply as hyper sends it.
pub(crate) fn to_response(reply: &Reply, server: &Server) -> Response<pages::Body> {
    let mut response = Response::new(Full::new(reply.body()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers() {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().append(name_of(name), value);
        }
    }
    // After these, the rest of the body is still on its way, and must not be taken for the next request.
    let unread = matches!(reply.status, 408 | 413 | 429);
    if unread || server.draining() || server.is_crowded() {
        close_after(&mut response);
    }
    response
}

/// Reply headers are known names; hyper wants them in lower case.
fn name_of(name: &str) -> hyper::header::HeaderName {
    hyper::header::HeaderName::from_bytes(name.as_bytes()).expect("the protocol's header names are tokens")
}
