//! What is promised of every reply, whatever was asked.

use std::time::{Duration, Instant};

use everpoll_protocol::{
    Answer, Channels, Cursor, Data, Event, Head, Input, Kind, Page, Poll, PollRequest, Record, Reply,
    Request, RequestError, Step, Timestamp,
};
use serde_json::value::RawValue;

/// Checks what a parsed or refused request is answered with.
pub(super) fn check(parsed: &Result<Request, RequestError>) {
    match parsed {
        Ok(Request::Poll(request)) => check_poll(request),
        Ok(Request::Publish(request)) => super::publish::check_events(&request.events),
        Ok(Request::Options { allow }) => check_reply(&Reply::options(allow)),
        Err(error) => {
            assert!((400..=431).contains(&error.status()), "{error:?}");
            let code = error.code();
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{code}"
            );
            check_reply(&Reply::request_error(error, false));
            // What an error repeats of the request must not be the request.
            assert!(error.to_string().len() < 2000, "{error}");
        }
    }
}

fn check_poll(request: &PollRequest) {
    let channels = request.channels.as_slice();
    assert!((1..=64).contains(&channels.len()));
    assert!(channels.windows(2).all(|pair| pair[0] < pair[1]));
    for channel in channels {
        let name = channel.as_str();
        assert!(
            (1..=200).contains(&name.len()) && !name.contains(['/', ',']) && !name.contains(char::is_control)
        );
    }
    assert!(request.wait_id.as_ref().is_none_or(|wait_id| (1..=128).contains(&wait_id.as_str().len())));
    assert!(request.tab.as_ref().is_none_or(|tab| tab.key.len() <= 64));

    let now = Instant::now();
    let mut poll = Poll::new(request, Duration::from_secs(25), now);
    let after = match request.cursor {
        Cursor::After(after) => after.min(u64::MAX - 1),
        Cursor::Since(_) | Cursor::Now => 7,
    };
    // News on one of its channels, then none.
    let event = Event {
        id: after + 1,
        channel: channels[0].clone(),
        kind: Kind::parse("made").expect("a plain name"),
        data: Data::parse("[1]").expect("JSON"),
        ts: Timestamp::from_micros(0),
        exclude: request.wait_id.clone(),
    };
    let page = Page { records: vec![Record::from(&event).into()], next: after + 1, ..Page::default() };
    for page in [page, Page { next: after, ..Page::default() }] {
        match poll.handle(Input::Read(&page), request.wait_id.as_ref(), now) {
            Step::Reply(answer) => check_answer(request, &answer),
            Step::Hold(until) => assert!(until > now && until <= now + Duration::from_secs(25)),
            Step::ReadLog => panic!("a read asks for a read"),
        }
    }
}

fn check_answer(request: &PollRequest, answer: &Answer) {
    let now = Timestamp::from_micros(1_406_125_522_123_000);
    check_reply(&answer.reply(&request.channels, request.form(), 25, now, |_| 5));
}

/// Every reply is JSON in ASCII, and its head is one that any client reads back.
pub(super) fn check_reply(reply: &Reply) {
    let date = "Thu, 01 Jan 2026 00:00:00 GMT";
    let bytes = reply.to_http1(Head { keep_alive: true, http10: false, date });
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let length = head.parse(&bytes).expect("a well-formed head").unwrap();
    assert_eq!(head.code, Some(reply.status));
    let body = &bytes[length..];
    assert_eq!(body, reply.body());
    let field = |name: &str| {
        let mut values = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = values.next().map(|field| std::str::from_utf8(field.value).expect("ASCII"));
        assert!(values.next().is_none(), "{name} twice");
        value
    };
    assert_eq!(head.headers.len(), reply.headers().count() + 1, "a value began a header of its own");
    assert!(field("cache-control").is_some_and(|value| value.contains("no-store")));
    let says: usize = field("content-length").expect("it is always there").parse().expect("a number");
    if !body.is_empty() {
        assert_eq!(says, body.len());
        assert!(body.is_ascii() && matches!(body[0], b'[' | b'{'));
        serde_json::from_slice::<&RawValue>(body).expect("JSON");
    }
    assert!(says > 0, "an empty body cannot be told from one that was cut off");
    let cgi = reply.to_cgi();
    assert!(cgi.starts_with(format!("Status: {} ", reply.status).as_bytes()) && cgi.ends_with(body));
}

/// Whether `channels` would be parsed again as they are from their own names.
pub(super) fn check_channels_again(channels: &Channels) {
    let names: Vec<_> = channels
        .as_slice()
        .iter()
        .map(|channel| {
            percent_encoding::utf8_percent_encode(channel.as_str(), percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        })
        .collect();
    assert_eq!(Channels::parse_segment(names.join(",").as_bytes()).as_ref(), Ok(channels));
}
