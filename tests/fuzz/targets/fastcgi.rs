//! What a web server, or whoever pretends to be one, sends to the fallback.
//!
//! The first byte says how long the pieces are in which the rest arrives.

use std::sync::Arc;

use everpoll_fallback::fastcgi::Budget;
use everpoll_fallback::fastcgi::params::Params;
use everpoll_fallback::fastcgi::receiver::{Fault, Incoming, Receiver, Waiting};
use everpoll_fallback::variables::Described;

const BODY_MAX: usize = 20_000;

/// Less than two of the largest bodies.
const MEMORY_MAX: usize = 30_000;

/// What came of a connection's bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    seen: Vec<Seen>,
    waiting: Waiting,
    broken: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request { id: u16, keep: bool, pairs: Vec<(Vec<u8>, Vec<u8>)>, body: Vec<u8>, fault: Option<Fault> },
    Answer(Vec<u8>),
    Aborted(Vec<u8>, bool),
}

fn receive(bytes: &[u8], piece: usize) -> Outcome {
    let budget = Budget::new(MEMORY_MAX);
    let mut receiver = Receiver::new(Arc::clone(&budget), 100);
    let body_max = |_: &Params| BODY_MAX;
    let (mut seen, mut broken) = (Vec::new(), false);
    'connection: for piece in bytes.chunks(piece.max(1)) {
        let mut input = piece;
        loop {
            match receiver.receive(&mut input, &body_max) {
                Ok(Some(incoming)) => seen.push(take(incoming)),
                Ok(None) => break,
                Err(error) => {
                    assert!(error.to_string().len() < 200);
                    broken = true;
                    break 'connection;
                }
            }
            assert!(budget.used() <= MEMORY_MAX);
        }
        assert!(input.is_empty(), "what was left over is lost");
        assert!(budget.used() <= MEMORY_MAX);
    }
    let waiting = receiver.waiting();
    if !broken && let Some(request) = receiver.give_up() {
        assert!(!request.keep && request.fault.is_some() && request.body.is_empty());
        assert!(receiver.give_up().is_none());
    }
    drop(receiver);
    assert_eq!(budget.used(), 0, "memory is given back");
    Outcome { seen, waiting, broken }
}

fn take(incoming: Incoming) -> Seen {
    match incoming {
        Incoming::Request(request) => {
            assert!(request.body.len() <= BODY_MAX && request.body.capacity() <= 2 * BODY_MAX + 64);
            assert!(request.fault.is_none() || request.body.is_empty());
            let described = Described::new(&request.params);
            let _ = super::replies::check(&described.with_body(&request.body));
            let pairs = request.params.pairs().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            Seen::Request {
                id: request.id,
                keep: request.keep,
                pairs,
                body: request.body,
                fault: request.fault,
            }
        }
        Incoming::Answer(answer) => Seen::Answer(check_records(answer)),
        Incoming::Aborted { answer, close } => Seen::Aborted(check_records(answer), close),
    }
}

/// What goes out without a request is one short record: a hostile sender gets no more than it sends.
fn check_records(answer: Vec<u8>) -> Vec<u8> {
    assert_eq!(answer[0], 1);
    let content = usize::from(u16::from_be_bytes([answer[4], answer[5]]));
    assert_eq!(answer.len(), 8 + content + usize::from(answer[6]));
    assert!(answer.len() < 100);
    answer
}

/// Records mean the same in pieces of any length, and memory is bounded and given back.
pub(crate) fn check(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else { return };
    let whole = receive(bytes, bytes.len());
    assert_eq!(whole, receive(bytes, usize::from(*piece)));
    assert_eq!(whole, receive(bytes, 8));
}
