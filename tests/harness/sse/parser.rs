//! The parsing rules of event streams, as the HTML standard has them ("9.2.6 Interpreting an event stream").
//!
//! Written from the standard and not from what Everpoll sends, so that a stream that only we understand fails. What a
//! newcomer gets wrong: the id that a client reconnects with changes when a block is *dispatched*, not when the line comes;
//! a block without data is no event, but its id counts; and what stands behind the last blank line is thrown away.

/// One event, as `onmessage` gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `message` where the stream named none.
    pub kind: String,
    /// Its lines, joined by line feeds.
    pub data: String,
    /// What `event.lastEventId` is.
    pub last_event_id: String,
}

/// Takes bytes as they come and gives events as soon as they are complete.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line that is not at its end yet.
    line: Vec<u8>,
    lines: usize,
    /// A line feed now belongs to the carriage return before it.
    after_carriage_return: bool,
    data: String,
    kind: String,
    id: String,
    last_event_id: String,
    retry: Option<u64>,
    comments: Vec<String>,
}

impl Parser {
    /// For a client that reconnects: it has an id from before.
    pub fn after(last_event_id: &str) -> Self {
        Self { id: last_event_id.to_owned(), last_event_id: last_event_id.to_owned(), ..Self::default() }
    }

    /// Takes bytes in and returns the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for &byte in bytes {
            let swallowed = byte == b'\n' && self.after_carriage_return;
            self.after_carriage_return = byte == b'\r';
            match byte {
                _ if swallowed => {}
                // A carriage return ends the line at once: to wait for what follows would delay the event.
                b'\r' | b'\n' => messages.extend(self.end_of_line()),
                _ => self.line.push(byte),
            }
        }
        messages
    }

    /// What a client would reconnect with; empty when there was no id.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// How long a client would wait before it reconnects, in milliseconds, if the stream said it.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// The comments so far. A page cannot see them.
    pub fn comments(&self) -> &[String] {
        &self.comments
    }

    fn end_of_line(&mut self) -> Option<Message> {
        let mut line = std::mem::take(&mut self.line);
        if self.lines == 0 && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        self.lines += 1;
        // Line ends are ASCII, so what is no UTF-8 is replaced alike in a line and in the whole.
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            return self.dispatch();
        }
        match line.split_once(':') {
            Some(("", comment)) => self.comments.push(comment.to_owned()),
            Some((name, value)) => self.field(name, value.strip_prefix(' ').unwrap_or(value)),
            None => self.field(&line, ""),
        }
        None
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().or(self.retry);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Message> {
        self.id.clone_into(&mut self.last_event_id);
        let (mut data, mut kind) = (std::mem::take(&mut self.data), std::mem::take(&mut self.kind));
        // The line feed that the last line added. No line at all: no event.
        data.pop()?;
        if kind.is_empty() {
            "message".clone_into(&mut kind);
        }
        Some(Message { kind, data, last_event_id: self.last_event_id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses it at once and byte by byte; both must agree.
    fn parse(stream: impl AsRef<[u8]>) -> (Vec<Message>, Parser) {
        let stream = stream.as_ref();
        let mut at_once = Parser::default();
        let messages = at_once.push(stream);
        let mut slow = Parser::default();
        let slowly: Vec<_> = stream.iter().flat_map(|byte| slow.push(&[*byte])).collect();
        assert_eq!(slowly, messages);
        assert_eq!((slow.last_event_id(), slow.retry()), (at_once.last_event_id(), at_once.retry()));
        (messages, at_once)
    }

    fn message(kind: &str, data: &str, last_event_id: &str) -> Message {
        Message { kind: kind.into(), data: data.into(), last_event_id: last_event_id.into() }
    }

    #[test]
    fn examples_of_the_standard_mean_what_it_says() {
        let (messages, _) = parse("data: YHOO\ndata: +2\ndata: 10\n\n");
        assert_eq!(messages, [message("message", "YHOO\n+2\n10", "")]);

        let stream =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let (messages, parser) = parse(stream);
        let expected = [("first event", "1"), ("second event", ""), (" third event", "")];
        assert_eq!(messages, expected.map(|(data, id)| message("message", data, id)));
        assert_eq!(parser.comments(), [" test stream"]);

        let (messages, _) = parse("data\n\ndata\ndata\n\ndata:");
        assert_eq!(messages, [message("message", "", ""), message("message", "\n", "")]);

        let (messages, _) = parse("data:test\n\ndata: test\n\n");
        assert_eq!(messages, [message("message", "test", ""), message("message", "test", "")]);
    }

    #[test]
    fn lines_end_in_any_of_three_ways() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = ["event: a", "data: 1", "data: 2", "id: 7", "", "data: 3", "", ""].join(end);
            let (messages, _) = parse(stream);
            assert_eq!(messages, [message("a", "1\n2", "7"), message("message", "3", "7")], "{end:?}");
        }
        // Mixed: CR LF is one end, LF CR are two.
        assert_eq!(parse("data: 1\r\n\ndata: 2\n\r").0.len(), 2);
    }

    #[test]
    fn byte_order_mark_is_dropped_once_and_only_at_the_start() {
        assert_eq!(parse("\u{feff}data: 1\n\n").0, [message("message", "1", "")]);
        // The second is a part of a field's name, which nobody knows.
        assert_eq!(parse("\u{feff}\u{feff}data: 1\n\n").0, []);
        assert_eq!(parse("data: 1\n\u{feff}data: 2\n\n").0, [message("message", "1", "")]);
    }

    #[test]
    fn fields_that_are_malformed_are_ignored() {
        let (messages, parser) =
            parse("id: 5\n\nid: 6\0\nretry: 12s\nretry: -1\nretry:\nDATA: x\n data: x\ndata: y\n\n");
        assert_eq!((messages, parser.retry()), (vec![message("message", "y", "5")], None));
        assert_eq!(parse("retry: 1500\nretry: x\n").1.retry(), Some(1500));
    }

    #[test]
    fn id_counts_from_its_blank_line_on_also_without_data() {
        let (messages, parser) = parse("id: 1\ndata: x\n\nid: 2\n\nid: 3\ndata: lost");
        assert_eq!((messages.len(), parser.last_event_id()), (1, "2"));
        // An event's type does not leak into the next block.
        assert_eq!(parse("event: a\n\ndata: 1\n\n").0, [message("message", "1", "")]);
        let mut again = Parser::after("9");
        assert_eq!(again.push(b"data: 1\n\n"), [message("message", "1", "9")]);
    }

    #[test]
    fn what_is_no_utf_8_is_replaced() {
        let (messages, _) = parse(b"data: \xf0\x9f\xa7\x80 \xff\n\n");
        assert_eq!(messages, [message("message", "\u{1f9c0} \u{fffd}", "")]);
    }
}
