//! What one connection sends, put together to requests. No IO: bytes go in, in pieces of any size.
//!
//! A connection serves one request at a time; a second one that begins meanwhile is refused with `CANT_MPX_CONN`. What
//! is too large is counted but not kept: its sender must be able to send it to the end, or a web server would report
//! a broken pipe instead of passing the answer on.

mod partial;

use std::sync::Arc;

use super::budget::{Budget, Charge};
pub use partial::PARAMS_BYTES_MAX;
use partial::Partial;

use super::params::Params;
use super::record::{self, BODY_BYTES, HEADER_BYTES, Header, Kind, ProtocolStatus, RecordError};

/// Most bytes of an `FCGI_GET_VALUES` that are looked at; there are three names to ask for.
const VALUES_BYTES_MAX: usize = 1024;

/// What came, complete.
#[derive(Debug)]
pub enum Incoming {
    /// A request.
    Request(Request),
    /// Something that is to be answered with these bytes, at once and in this order.
    Answer(Vec<u8>),
    /// The request in hand was aborted; these bytes say so. The connection ends if `close` is set.
    Aborted {
        /// The answer.
        answer: Vec<u8>,
        /// The web server does not want to keep the connection.
        close: bool,
    },
}

/// A request, complete or refused.
#[derive(Debug)]
pub struct Request {
    /// Its number on the connection.
    pub id: u16,
    /// Whether the connection stays open behind the answer.
    pub keep: bool,
    /// The CGI variables.
    pub params: Params,
    /// The body.
    pub body: Vec<u8>,
    /// Why it is not served, if so; variables and body are empty then.
    pub fault: Option<Fault>,
    _charge: Charge,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its variables are more than [`PARAMS_BYTES_MAX`], or more than
    /// [`PARAMS_MAX`](super::params::PARAMS_MAX).
    ParamsTooLarge,
    /// Its variables cannot be read.
    ParamsMalformed,
    /// Its body is larger than the limit, in bytes.
    BodyTooLarge(usize),
    /// All requests together need too much memory.
    NoMemory,
    /// Its variables did not arrive in time.
    ParamsTimeout,
    /// Its body did not arrive in time.
    BodyTimeout,
    /// Too many requests wait, or it has waited too long.
    Overloaded,
    /// The program has a fault: serving it panicked.
    Panicked,
}

/// The incoming side of a connection.
#[derive(Debug)]
pub struct Receiver {
    budget: Arc<Budget>,
    connections_max: usize,
    header: [u8; HEADER_BYTES],
    /// Bytes of `header` that are there.
    header_bytes: usize,
    /// The record whose content or padding is being read.
    record: Option<Open>,
    partial: Option<Box<Partial>>,
}

/// A record of which something is still to come.
#[derive(Debug)]
struct Open {
    header: Header,
    content_left: usize,
    /// The content is there; only padding is still to come.
    seen: bool,
    padding_left: usize,
    /// The content of short records that must be seen whole.
    whole: Vec<u8>,
}

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// For the beginning of a request, of which nothing came yet.
    Idle,
    /// For the rest of the variables.
    Params,
    /// For the rest of the body.
    Body,
}

impl Receiver {
    /// The receiver of a new connection. `budget` bounds what all receivers keep; `connections_max` is what a web
    /// server is told that asks.
    #[must_use]
    pub fn new(budget: Arc<Budget>, connections_max: usize) -> Self {
        Self {
            budget,
            connections_max,
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            record: None,
            partial: None,
        }
    }

    /// What is being waited for.
    pub fn waiting(&self) -> Waiting {
        match &self.partial {
            Some(partial) if partial.params.is_some() => Waiting::Body,
            Some(_) => Waiting::Params,
            None if self.record.as_ref().is_none_or(|open| open.seen) && self.header_bytes == 0 => {
                Waiting::Idle
            }
            None => Waiting::Params,
        }
    }

    /// Takes from `input` until something is complete or `input` is empty. `body_max` says how large the body of a
    /// request with these variables may be, in bytes.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: the connection is to be closed.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        body_max: &dyn Fn(&Params) -> usize,
    ) -> Result<Option<Incoming>, RecordError> {
        loop {
            let Some(mut open) = self.record.take() else {
                if !self.take_header(input)? {
                    return Ok(None);
                }
                continue;
            };
            if !open.seen {
                let (piece, rest) = input.split_at(input.len().min(open.content_left));
                *input = rest;
                open.content_left -= piece.len();
                open.seen = open.content_left == 0;
                let incoming = match piece.is_empty() && !open.seen {
                    true => None,
                    false => self.take_content(&mut open, piece, body_max)?,
                };
                let goes_on = open.seen && incoming.is_none();
                self.record = Some(open);
                if goes_on {
                    continue;
                }
                return Ok(incoming);
            }
            let padding = input.len().min(open.padding_left);
            *input = &input[padding..];
            open.padding_left -= padding;
            if open.padding_left > 0 {
                self.record = Some(open);
                return Ok(None);
            }
        }
    }

    /// Gives the request in hand up and returns it, to be answered with the fault that its lateness is. `None` if
    /// nothing of a request is there to be answered.
    pub fn give_up(&mut self) -> Option<Request> {
        let fault = if self.waiting() == Waiting::Body { Fault::BodyTimeout } else { Fault::ParamsTimeout };
        let mut partial = self.partial.take()?;
        partial.refuse(fault);
        // Where the next record would begin is not known.
        partial.keep = false;
        Some(partial.finish())
    }

    /// Whether the next header is there; then the record is open.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<bool, RecordError> {
        let missing = HEADER_BYTES - self.header_bytes;
        let (bytes, rest) = input.split_at(input.len().min(missing));
        self.header[self.header_bytes..][..bytes.len()].copy_from_slice(bytes);
        self.header_bytes += bytes.len();
        *input = rest;
        if self.header_bytes < HEADER_BYTES {
            return Ok(false);
        }
        self.header_bytes = 0;
        let header = Header::parse(self.header)?;
        if header.kind == Kind::BeginRequest {
            if usize::from(header.content) != BODY_BYTES {
                return Err(RecordError::Length { kind: header.kind.number(), bytes: header.content });
            }
            if header.request_id == 0 {
                return Err(RecordError::RequestId(0));
            }
        }
        self.record = Some(Open {
            header,
            content_left: header.content.into(),
            seen: false,
            padding_left: header.padding.into(),
            whole: Vec::new(),
        });
        Ok(true)
    }

    /// Takes a piece of a record's content; the last one if `open.seen`.
    fn take_content(
        &mut self,
        open: &mut Open,
        piece: &[u8],
        body_max: &dyn Fn(&Params) -> usize,
    ) -> Result<Option<Incoming>, RecordError> {
        let Header { kind, request_id, content, .. } = open.header;
        let ours = self.partial.as_ref().is_some_and(|partial| partial.id == request_id);
        let ended = open.seen;
        let out_of_order = RecordError::OutOfOrder { kind: kind.number() };
        match kind {
            Kind::BeginRequest => {
                open.whole.extend_from_slice(piece);
                Ok(if ended { self.begin(request_id, &open.whole) } else { None })
            }
            Kind::Params if ours => {
                let partial = self.partial.as_mut().expect("it is ours");
                if partial.params.is_some() {
                    return Err(out_of_order);
                }
                if content == 0 {
                    partial.end_params(body_max);
                } else {
                    partial.add_params(piece);
                }
                Ok(None)
            }
            Kind::Stdin if ours => {
                let partial = self.partial.as_mut().expect("it is ours");
                if partial.params.is_none() {
                    return Err(out_of_order);
                }
                if content > 0 {
                    partial.add_body(piece);
                    return Ok(None);
                }
                Ok(self.partial.take().map(|partial| Incoming::Request(partial.finish())))
            }
            Kind::AbortRequest if ours && ended => {
                let close = !self.partial.take().expect("it is ours").keep;
                let mut answer = Vec::new();
                record::end_request(request_id, ProtocolStatus::RequestComplete, &mut answer);
                Ok(Some(Incoming::Aborted { answer, close }))
            }
            Kind::GetValues if request_id == 0 => {
                // All or nothing: what is answered must not depend on the pieces in which it came.
                if usize::from(content) <= VALUES_BYTES_MAX {
                    open.whole.extend_from_slice(piece);
                }
                Ok(ended.then(|| {
                    let mut answer = Vec::new();
                    let asked = std::mem::take(&mut open.whole);
                    record::values(
                        &Params::parse(asked).unwrap_or_default(),
                        self.connections_max,
                        &mut answer,
                    );
                    Incoming::Answer(answer)
                }))
            }
            _ if request_id == 0 && ended => {
                let mut answer = Vec::new();
                record::unknown_type(kind, &mut answer);
                Ok(Some(Incoming::Answer(answer)))
            }
            // Of requests that ended, or that were refused; the specification says to pass them over.
            _ => Ok(None),
        }
    }

    fn begin(&mut self, id: u16, body: &[u8]) -> Option<Incoming> {
        const RESPONDER: u16 = 1;
        const KEEP_CONNECTION: u8 = 1;
        let role = u16::from_be_bytes([body[0], body[1]]);
        let keep = body[2] & KEEP_CONNECTION != 0;
        let refuse = |status| {
            let mut answer = Vec::new();
            record::end_request(id, status, &mut answer);
            answer
        };
        if self.partial.is_some() {
            return Some(Incoming::Answer(refuse(ProtocolStatus::CantMultiplex)));
        }
        if role != RESPONDER {
            let answer = refuse(ProtocolStatus::UnknownRole);
            return Some(Incoming::Aborted { answer, close: !keep });
        }
        self.partial = Some(Box::new(Partial {
            id,
            keep,
            raw_params: Vec::new(),
            params: None,
            params_bytes: 0,
            body: Vec::new(),
            body_max: 0,
            fault: None,
            charge: self.budget.charge(),
        }));
        None
    }
}

#[cfg(test)]
mod tests;
