//! What one connection sends, put together to requests. No IO: bytes go in, in pieces of any size.
//!
//! A connection serves one request at a time; a second one that begins meanwhile is refused with `CANT_MPX_CONN`. What
//! is too large is counted but not kept: its sender must be able to send it to the end, or a web server would report
//! a broken pipe instead of passing the answer on.

use std::sync::Arc;

use super::budget::{Budget, Charge};
use super::params::{Params, ParamsError};
use super::record::{self, BODY_BYTES, HEADER_BYTES, Header, Kind, ProtocolStatus, RecordError};

/// Most bytes of all variables of one request together: four times the largest head that the settings allow, since web servers
/// send a target up to three times.
pub const PARAMS_BYTES_MAX: usize = 256 * 1024;

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

/// A request of which something is still to come.
#[derive(Debug)]
struct Partial {
    id: u16,
    keep: bool,
    raw_params: Vec<u8>,
    /// `None` until they are complete.
    params: Option<Params>,
    params_bytes: usize,
    body: Vec<u8>,
    body_max: usize,
    fault: Option<Fault>,
    charge: Charge,
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

impl Partial {
    fn add_params(&mut self, piece: &[u8]) {
        let bytes = self.raw_params.len() + piece.len();
        if self.fault.is_some() {
        } else if bytes > PARAMS_BYTES_MAX {
            self.refuse(Fault::ParamsTooLarge);
        } else if !self.charge.raise(bytes) {
            self.refuse(Fault::NoMemory);
        } else {
            self.raw_params.extend_from_slice(piece);
        }
    }

    fn end_params(&mut self, body_max: &dyn Fn(&Params) -> usize) {
        self.params_bytes = self.raw_params.len();
        let params = Params::parse(std::mem::take(&mut self.raw_params)).unwrap_or_else(|error| {
            self.refuse(match error {
                ParamsError::TooMany => Fault::ParamsTooLarge,
                ParamsError::Truncated => Fault::ParamsMalformed,
            });
            Params::default()
        });
        self.body_max = body_max(&params);
        self.params = Some(params);
    }

    fn add_body(&mut self, piece: &[u8]) {
        let bytes = self.body.len() + piece.len();
        if self.fault.is_some() {
        } else if bytes > self.body_max {
            self.refuse(Fault::BodyTooLarge(self.body_max));
        } else if !self.charge.raise(self.params_bytes + bytes) {
            self.refuse(Fault::NoMemory);
        } else {
            self.body.extend_from_slice(piece);
        }
    }

    /// From now on nothing is kept of what comes.
    fn refuse(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.raw_params = Vec::new();
        self.body = Vec::new();
        if let Some(params) = &mut self.params {
            *params = Params::default();
        }
        self.charge.clear();
    }

    fn finish(self) -> Request {
        let Self { id, keep, params, body, fault, charge, .. } = self;
        Request { id, keep, params: params.unwrap_or_default(), body, fault, _charge: charge }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::params::write_pair;
    use super::*;
    use crate::variables::Variables;

    /// What a web server sends.
    fn sent(id: u16, keep: bool, pairs: &[(&str, &str)], body: &[u8], padding: u8) -> Vec<u8> {
        let mut params = Vec::new();
        for (name, value) in pairs {
            write_pair(name.as_bytes(), value.as_bytes(), &mut params);
        }
        let mut out = Vec::new();
        let mut padded = |kind, content: &[u8]| {
            let content_bytes = u16::try_from(content.len()).unwrap();
            let header = Header { kind, request_id: id, content: content_bytes, padding };
            out.extend_from_slice(&header.bytes());
            out.extend_from_slice(content);
            out.resize(out.len() + usize::from(padding), b'#');
        };
        padded(Kind::BeginRequest, &[0, 1, keep.into(), 0, 0, 0, 0, 0]);
        params.chunks(1000).for_each(|piece| padded(Kind::Params, piece));
        padded(Kind::Params, b"");
        body.chunks(30_000).for_each(|piece| padded(Kind::Stdin, piece));
        padded(Kind::Stdin, b"");
        out
    }

    fn receiver() -> Receiver {
        Receiver::new(Budget::new(1 << 20), 100)
    }

    fn receive_all(receiver: &mut Receiver, mut input: &[u8]) -> Result<Vec<Incoming>, RecordError> {
        let mut all = Vec::new();
        loop {
            match receiver.receive(&mut input, &|_| 100_000)? {
                Some(incoming) => all.push(incoming),
                None => {
                    assert!(input.is_empty(), "it stopped before the end");
                    return Ok(all);
                }
            }
        }
    }

    fn the_request(mut all: Vec<Incoming>) -> Request {
        match (all.pop(), all.is_empty()) {
            (Some(Incoming::Request(request)), true) => request,
            other => panic!("{other:?}"),
        }
    }

    /// What the end of a request says.
    fn end_of(incoming: &Incoming) -> (u16, u8) {
        let (Incoming::Answer(bytes) | Incoming::Aborted { answer: bytes, .. }) = incoming else {
            panic!("{incoming:?}")
        };
        let header = Header::parse(bytes[..8].try_into().unwrap()).unwrap();
        assert_eq!(header.kind, Kind::EndRequest);
        (header.request_id, bytes[12])
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_requests(
            first in vec(any::<u8>(), 0..40_000),
            second in vec(any::<u8>(), 0..300),
            padding: u8,
            cuts in vec(0..60_000_usize, 0..12),
        ) {
            let mut bytes = sent(1, true, &[("REQUEST_METHOD", "POST"), ("A", &"b".repeat(200))], &first, padding);
            bytes.extend(sent(2, false, &[], &second, 0));
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut receiver = receiver();
            let mut requests = Vec::new();
            for cut in cuts.windows(2) {
                requests.extend(receive_all(&mut receiver, &bytes[cut[0]..cut[1]]).unwrap());
            }
            let [Incoming::Request(one), Incoming::Request(two)] = &requests[..] else { panic!("{requests:?}") };
            prop_assert_eq!((one.id, one.keep, &one.body), (1, true, &first));
            prop_assert_eq!(one.params.variable("A").unwrap().len(), 200);
            prop_assert_eq!((two.id, two.keep, &two.body), (2, false, &second));
            prop_assert_eq!(receiver.waiting(), Waiting::Idle);
        }

        #[test]
        fn any_bytes_are_received_or_refused(pieces in vec(vec(any::<u8>(), 0..80), 0..12)) {
            let mut receiver = receiver();
            for piece in pieces {
                if receive_all(&mut receiver, &piece).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn any_records_are_received_or_refused(
            records in vec((0..13_u8, 0..3_u16, vec(0..3_u8, 0..12), 0..9_u8), 0..40),
        ) {
            let mut receiver = receiver();
            for (kind, request_id, content, padding) in records {
                let kind = Kind::from_number(kind);
                let mut bytes =
                    Header { kind, request_id, content: content.len() as u16, padding }.bytes().to_vec();
                bytes.extend_from_slice(&content);
                bytes.resize(bytes.len() + usize::from(padding), 0);
                if receive_all(&mut receiver, &bytes).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn body_over_its_limit_is_read_to_the_end_but_not_kept() {
        let mut receiver = receiver();
        let budget = receiver.budget.clone();
        let request =
            the_request(receive_all(&mut receiver, &sent(1, true, &[("A", "b")], &[0; 100_001], 0)).unwrap());
        assert_eq!(request.fault, Some(Fault::BodyTooLarge(100_000)));
        assert_eq!((request.keep, request.body.capacity(), budget.used()), (true, 0, 0));
        let body = [0; 100_000];
        let request = the_request(receive_all(&mut receiver, &sent(1, true, &[], &body, 0)).unwrap());
        assert_eq!((request.fault, request.body.len(), budget.used()), (None, 100_000, 100_000));
        drop(request);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn variables_over_their_limit_are_read_to_the_end_but_not_kept() {
        let large = "x".repeat(PARAMS_BYTES_MAX);
        let mut receiver = receiver();
        let request =
            the_request(receive_all(&mut receiver, &sent(1, true, &[("A", &large)], b"", 0)).unwrap());
        assert_eq!(request.fault, Some(Fault::ParamsTooLarge));
        let many = vec![("A", "b"); 1001];
        let request = the_request(receive_all(&mut receiver, &sent(1, true, &many, b"body", 0)).unwrap());
        assert_eq!((request.fault, request.body.len()), (Some(Fault::ParamsTooLarge), 0));
        assert_eq!(receiver.budget.used(), 0);
    }

    #[test]
    fn request_is_refused_when_others_have_taken_all_memory() {
        let budget = Budget::new(150_000);
        let mut receivers = [(); 2].map(|()| Receiver::new(budget.clone(), 1));
        let bytes = sent(1, false, &[], &[0; 90_000], 0);
        let (most, end) = bytes.split_at(bytes.len() - 8);
        let mut requests = Vec::new();
        for receiver in &mut receivers {
            assert!(receive_all(receiver, most).unwrap().is_empty());
        }
        for receiver in &mut receivers {
            requests.push(the_request(receive_all(receiver, end).unwrap()));
        }
        assert_eq!(requests[0].fault, None);
        assert_eq!(requests[1].fault, Some(Fault::NoMemory));
        assert_eq!(budget.used(), 90_000);
    }

    #[test]
    fn second_request_on_the_same_connection_is_refused_until_the_first_is_complete() {
        let mut receiver = receiver();
        let (one, two) = (sent(1, true, &[], b"one", 3), sent(2, true, &[], b"two", 3));
        assert!(receive_all(&mut receiver, &one[..30]).unwrap().is_empty());
        // The rest of the second is passed over.
        let all = receive_all(&mut receiver, &two).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(end_of(&all[0]), (2, ProtocolStatus::CantMultiplex as u8));
        assert_eq!(the_request(receive_all(&mut receiver, &one[30..]).unwrap()).body, b"one");
        assert_eq!(the_request(receive_all(&mut receiver, &two).unwrap()).body, b"two");
    }

    #[test]
    fn abort_ends_the_request_and_leaves_the_connection_usable() {
        let mut receiver = receiver();
        let one = sent(1, true, &[], b"one", 0);
        assert!(receive_all(&mut receiver, &one[..one.len() - 8]).unwrap().is_empty());
        let mut abort = Vec::new();
        record::write(Kind::AbortRequest, 1, b"", &mut abort);
        let all = receive_all(&mut receiver, &abort).unwrap();
        assert_eq!(end_of(&all[0]), (1, 0));
        assert!(matches!(all[0], Incoming::Aborted { close: false, .. }));
        assert_eq!(the_request(receive_all(&mut receiver, &one).unwrap()).body, b"one");
    }

    #[test]
    fn other_roles_are_refused() {
        let mut bytes = sent(1, true, &[], b"", 0);
        bytes[9] = 2;
        let all = receive_all(&mut receiver(), &bytes).unwrap();
        assert_eq!(end_of(&all[0]), (1, ProtocolStatus::UnknownRole as u8));
    }

    #[test]
    fn questions_about_the_connection_are_answered_within_a_request() {
        let mut receiver = receiver();
        let one = sent(1, true, &[], b"one", 0);
        assert!(receive_all(&mut receiver, &one[..16]).unwrap().is_empty());
        let mut questions = Vec::new();
        record::write(Kind::GetValues, 0, b"", &mut questions);
        record::write(Kind::GetValues, 0, &[0xff; 2000], &mut questions);
        record::write(Kind::Other(200), 0, b"what", &mut questions);
        let all = receive_all(&mut receiver, &questions).unwrap();
        let kinds: Vec<u8> = all
            .iter()
            .map(|incoming| match incoming {
                Incoming::Answer(bytes) => bytes[1],
                other => panic!("{other:?}"),
            })
            .collect();
        let (values, unknown) = (Kind::GetValuesResult.number(), Kind::UnknownType.number());
        assert_eq!(kinds, [values, values, unknown]);
        assert_eq!(the_request(receive_all(&mut receiver, &one[16..]).unwrap()).body, b"one");
    }

    #[test]
    fn records_out_of_order_are_refused() {
        let mut begun = Vec::new();
        record::write(Kind::BeginRequest, 1, &[0, 1, 0, 0, 0, 0, 0, 0], &mut begun);
        let mut early = begun.clone();
        record::write(Kind::Stdin, 1, b"x", &mut early);
        assert_eq!(receive_all(&mut receiver(), &early).unwrap_err(), RecordError::OutOfOrder { kind: 5 });
        let mut twice = begun.clone();
        record::write(Kind::Params, 1, b"", &mut twice);
        record::write(Kind::Params, 1, b"", &mut twice);
        assert_eq!(receive_all(&mut receiver(), &twice).unwrap_err(), RecordError::OutOfOrder { kind: 4 });
        begun[5] = 9;
        let error = RecordError::Length { kind: 1, bytes: 9 };
        assert_eq!(receive_all(&mut receiver(), &begun).unwrap_err(), error);
        assert_eq!(
            receive_all(&mut receiver(), &[1, 1, 0, 0, 0, 8, 0, 0]).unwrap_err(),
            RecordError::RequestId(0)
        );
    }

    #[test]
    fn late_request_is_given_up_and_its_connection_ends() {
        let mut receiver = receiver();
        assert!(receiver.give_up().is_none());
        let one = sent(1, true, &[], b"one", 0);
        assert!(receive_all(&mut receiver, &one[..16]).unwrap().is_empty());
        let request = receiver.give_up().unwrap();
        assert_eq!((request.fault, request.keep), (Some(Fault::ParamsTimeout), false));
        let mut receiver = self::receiver();
        assert!(receive_all(&mut receiver, &one[..one.len() - 8]).unwrap().is_empty());
        assert_eq!(receiver.give_up().unwrap().fault, Some(Fault::BodyTimeout));
    }
}
