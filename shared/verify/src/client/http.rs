//! Requests over a kept connection.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{CONNECT, Failure};
use crate::target::{Stream, Target};

/// A connection that is kept between requests.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    used: bool,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) reconnect_in: Option<Duration>,
    pub(crate) body: Bytes,
}

/// Opens a connection.
pub(super) async fn connect(target: &Target) -> Result<Box<dyn Stream>, Failure> {
    match timeout(CONNECT, target.connect()).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::unsent(error.kind())),
        Err(_) => Err(Failure::unsent("no answer in time")),
    }
}

impl Connection {
    /// Opens one.
    pub(crate) async fn open(target: &Target) -> Result<Self, Failure> {
        let stream = connect(target).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::unsent)?;
        // It ends with the sender.
        tokio::spawn(connection);
        Ok(Self { sender, used: false })
    }

    /// Sends a request and waits at most `patience` for the head of its answer.
    pub(crate) async fn send(
        kept: &mut Option<Self>,
        target: &Target,
        request: impl Fn() -> Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        loop {
            let mut connection = match kept.take() {
                Some(connection) if !connection.sender.is_closed() => connection,
                _ => Self::open(target).await?,
            };
            let again = std::mem::replace(&mut connection.used, true);
            match timeout(patience, connection.sender.send_request(request())).await {
                Ok(Ok(response)) => {
                    *kept = Some(connection);
                    return Ok(response);
                }
                // The server closed a kept connection while the request was on its way: every browser asks again.
                Ok(Err(error)) if again && (error.is_canceled() || error.is_incomplete_message()) => {}
                Ok(Err(error)) => return Err(Failure::new(broken(&error))),
                Err(_) => return Err(Failure::new("no answer in time")),
            }
        }
    }
}

/// What a broken connection is called.
fn broken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_canceled() {
        "closed without an answer".to_owned()
    } else if error.is_parse() {
        "no HTTP".to_owned()
    } else {
        "connection broken".to_owned()
    }
}

impl Reply {
    /// Reads the body, for at most `patience`.
    pub(crate) async fn read(response: Response<Incoming>, patience: Duration) -> Result<Self, Failure> {
        let status = response.status().as_u16();
        let told = response.headers().get("x-ps-reconnect-in");
        let told = told.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = match timeout(patience, response.into_body().collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return Err(Failure::new("answer cut short")),
            Err(_) => return Err(Failure::new("answer not finished in time")),
        };
        Ok(Self { status, reconnect_in: told.map(Duration::from_secs), body })
    }
}
