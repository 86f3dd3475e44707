//! What comes in pieces of any size is what comes in one.

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
    let request = the_request(receive_all(&mut receiver, &sent(1, true, &[("A", &large)], b"", 0)).unwrap());
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
