//! JSON answers of the pages' own requests. Like those to polls they forbid caching in all ways that proxies heed, have
//! a `Content-Length`, and say at their end that they are whole.

use bytes::Bytes;
use everpoll_protocol::UNCACHED;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::Body;
use super::asset::insert;
use super::problem::Problem;

/// An answer with this status and this body.
pub(super) fn json(status: StatusCode, body: &impl Serialize, head_only: bool) -> Response<Body> {
    let bytes = to_json(body);
    let length = bytes.len();
    let sent = if head_only { Bytes::new() } else { bytes };
    let mut response = streamed(Full::new(sent).boxed_unsync(), length);
    *response.status_mut() = status;
    response
}

/// An answer of a length that is known before its body.
pub(super) fn streamed(body: Body, length: usize) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in UNCACHED {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            insert(headers, name, value);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

/// Why a request is not served (RFC 9457).
pub(super) fn problem(problem: &Problem, head_only: bool) -> Response<Body> {
    #[derive(Serialize)]
    struct Details<'a> {
        title: &'a str,
        status: u16,
        code: &'a str,
        detail: String,
        reconnect_in: u32,
    }
    let details = Details {
        title: problem.title(),
        status: problem.status(),
        code: problem.code(),
        detail: problem.to_string(),
        reconnect_in: problem.reconnect_in(),
    };
    let status = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &details, head_only);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(HeaderName::from_static("x-ps-reconnect-in"), problem.reconnect_in().into());
    response
}

pub(super) fn to_json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("structs of texts and numbers are JSON").into()
}
