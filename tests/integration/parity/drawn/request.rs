//! Requests drawn by a grammar: what clients send, what they might, and bytes that nobody should.

use std::fmt::Write as _;

use everpoll_tests::http::{self, Request};
use everpoll_tests::numbers::Numbers;

use super::super::cases::{BODIES, CHANNELS, CURSORS, METHODS, PARAMETERS, PATHS, PUBLISHES, WAIT_IDS};
use super::super::dressed;
use super::credentials::Credentials;

/// A request in the parts that it can do without.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    method: Vec<u8>,
    path: Vec<u8>,
    /// Joined by `&`.
    query: Vec<Vec<u8>>,
    version: &'static str,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    chunked: bool,
    how: How,
}

/// How it asks to be answered. No long hold is among these: it has no counterpart, as the fallback holds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// At once, by a header.
    ShortPoll,
    /// At once, by the query.
    NoHold,
    /// After a moment, so that it is held where nothing is new.
    Hold,
    /// The same, with spaces until then.
    PaddedHold,
    /// As an EventSource, by this header.
    Stream(&'static str, &'static str),
    /// The same, by the query.
    StreamByQuery,
    /// As a WebSocket, by the header alone or by the query, too.
    Socket { by_query: bool },
}

/// How long is held, if it is.
const MOMENT: &[u8] = b"hold=0.01";

/// What makes a stream of a poll.
const STREAMS: [How; 5] = [
    How::Stream("Accept", "text/event-stream"),
    How::Stream("Accept", "text/event-stream"),
    How::Stream("Accept", "text/html;q=0.5, Text/Event-Stream;q=1"),
    How::Stream("Flavor", "eventsource"),
    How::StreamByQuery,
];

impl How {
    fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::ShortPoll => Some(("Flavor", "short-poll")),
            Self::Stream(name, value) => Some((name, value)),
            Self::Socket { .. } => Some(("Upgrade", "websocket")),
            _ => None,
        }
    }

    /// What stands first in the query: of several, the first counts.
    fn parameter(self) -> Option<&'static [u8]> {
        match self {
            Self::NoHold => Some(b"hold=0"),
            Self::Hold => Some(MOMENT),
            Self::PaddedHold => Some(b"hold=0.01&pad=2048"),
            Self::StreamByQuery => Some(b"flavor=eventsource"),
            Self::Socket { by_query: true } => Some(b"flavor=websocket"),
            _ => None,
        }
    }
}

/// Header fields that mean something to a program or to a server in front, and values for them.
const HEADERS: &[(&str, &[&str])] = &[
    ("Last-Event-ID", &["", "0", "2", "now", "x", "rt-1", "rt-99999999999", "9223372036854775808", "2, 3"]),
    ("Flavor", &["", "short-poll", "Short-Poll", "telegraph", "websocket"]),
    ("Accept", &["*/*", "application/json", ","]),
    ("Origin", &["https://shop.example", "null", "http://localhost:8377", "https://evil.example", ""]),
    ("Access-Control-Request-Method", &["GET", "POST", "FOO"]),
    ("Access-Control-Request-Headers", &["last-event-id", "x-y, flavor", ""]),
    ("Cookie", &["a=b", "session=\"x\"; y", ";;=;", "everpoll_token="]),
    ("X-Forwarded-For", &["192.0.2.7", "127.0.0.1", "::1, 192.0.2.7", "x", ""]),
    ("X-Real-IP", &["192.0.2.7", "::1"]),
    ("Forwarded", &["for=192.0.2.7", ""]),
    ("Via", &["1.1 squid"]),
    (
        "Content-Type",
        &["application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""],
    ),
    ("If-None-Match", &["*", "\"x\"", "W/\"x\""]),
    ("Range", &["bytes=0-0", "bytes=-1"]),
    ("Expect", &["100-continue"]),
    ("Upgrade", &["websocket", "h2c", "WebSocket"]),
    ("Connection", &["Upgrade", "close, X", "TE"]),
    ("Sec-WebSocket-Version", &["13", "8"]),
    ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "x"]),
    ("Sec-WebSocket-Protocol", &["chat"]),
    ("X-Everpoll-Channels", &["*", "cheese"]),
    ("X-Everpoll-Until", &["9999999999", "1"]),
    ("X_Everpoll_Channels", &["*"]),
    ("Proxy", &["http://evil.example"]),
    ("Host", &["localhost", "shop.example:80", "[::1]"]),
    ("Accept-Encoding", &["gzip, br"]),
    ("TE", &["trailers"]),
    ("X-Requested-With", &["XMLHttpRequest"]),
    ("Everpoll-Access", &["open"]),
];

impl Drawn {
    /// The next one, for a log whose newest event has this id.
    pub(super) fn next(numbers: &mut Numbers, newest: u64, credentials: &Credentials) -> Self {
        let mut drawn = match numbers.below(12) {
            0 => Self::publish(numbers),
            1 => Self::odd_path(numbers),
            _ => Self::poll(numbers, newest),
        };
        for _ in 0..[0, 0, 1, 1, 2, 4][numbers.below(6)] {
            let (name, values) = numbers.pick(HEADERS);
            drawn.add(name, numbers.pick(values).as_bytes());
        }
        credentials.bring(numbers, &mut drawn);
        // Where bytes are damaged, so may be the query.
        match numbers.below(5) {
            0 => {
                drawn.damage(numbers);
                drawn.how = *numbers.pick(&[How::ShortPoll, How::ShortPoll, STREAMS[0], STREAMS[3]]);
            }
            _ => drawn.how = Self::how(numbers),
        }
        if let How::Socket { .. } = drawn.how {
            // With another one it would be a poll, and held.
            drawn.headers.retain(|(name, _)| name != b"Upgrade");
            drawn.shake_hands(numbers);
        }
        drawn
    }

    fn how(numbers: &mut Numbers) -> How {
        match numbers.below(12) {
            0..4 => How::ShortPoll,
            4..6 => How::NoHold,
            6 => How::Hold,
            7 => How::PaddedHold,
            8 => How::Socket { by_query: numbers.below(2) == 0 },
            _ => *numbers.pick(&STREAMS),
        }
    }

    /// What a WebSocket's handshake has besides, or most of it.
    fn shake_hands(&mut self, numbers: &mut Numbers) {
        const FIELDS: [(&str, &[u8], &[u8]); 3] = [
            ("Connection", b"Upgrade", b"close"),
            ("Sec-WebSocket-Version", b"13", b"12"),
            ("Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZR=="),
        ];
        for (name, good, bad) in FIELDS {
            match numbers.below(10) {
                0 => {}
                1 => self.add(name, bad),
                _ => self.add(name, good),
            }
        }
    }

    fn new(method: &str, path: String) -> Self {
        Self {
            method: method.into(),
            path: path.into(),
            query: Vec::new(),
            version: "HTTP/1.1",
            headers: Vec::new(),
            body: Vec::new(),
            chunked: false,
            how: How::ShortPoll,
        }
    }

    fn poll(numbers: &mut Numbers, newest: u64) -> Self {
        // Rights are for a few channels; and large batches take long.
        let channels = match numbers.below(3) {
            0 => ["cheese", "wine", "cheese,wine", "nobody", "a%20b"][numbers.below(5)],
            _ => match numbers.pick(CHANNELS).1 {
                "large" | "spaces" | "escapes" if numbers.below(10) > 0 => "more",
                channels => channels,
            },
        };
        let wait_id = if numbers.below(3) == 0 { numbers.pick(WAIT_IDS) } else { "" };
        let prefix = if numbers.below(8) == 0 { "/e.php/" } else { "/e/" };
        let method = match numbers.below(10) {
            0 => numbers.pick(METHODS),
            1 => "HEAD",
            2 => "OPTIONS",
            3 | 4 => "POST",
            _ => "GET",
        };
        let mut drawn = Self::new(method, format!("{prefix}{channels}{wait_id}"));
        if numbers.below(4) > 0 {
            let cursor = numbers.pick::<&str>(CURSORS);
            let cursor = cursor.replace("MIDDLE", "2010").replace("NEWEST", &newest.to_string());
            drawn.query.push(format!("last_event_id={cursor}").into());
        }
        for _ in 0..[0, 0, 1, 2][numbers.below(4)] {
            let list = if numbers.below(2) == 0 { PARAMETERS } else { dressed::PARAMETERS };
            drawn.query.push((*numbers.pick::<&str>(list)).into());
        }
        if method == "POST" || numbers.below(30) == 0 {
            let (_, kind, body) = numbers.pick(BODIES);
            drawn.body = match *body {
                // Of one that is larger nginx may not get rid before the daemon has closed the connection.
                "FULL" | "OVER" => vec![b'x'; 64 * 1024 - 16],
                "DEEP" => vec![b'['; 200],
                body => body.into(),
            };
            if !kind.is_empty() {
                drawn.add("Content-Type", kind.as_bytes());
            }
            drawn.chunked = numbers.below(5) == 0;
        }
        drawn.version = if numbers.below(15) == 0 { "HTTP/1.0" } else { "HTTP/1.1" };
        drawn
    }

    /// Publishes nothing new: both would publish something else then.
    fn publish(numbers: &mut Numbers) -> Self {
        let mut drawn = Self::new("POST", "/publish".into());
        let (_, kind, body) = numbers.pick(PUBLISHES);
        drawn.body = body.replace("LONG", &"x".repeat(201)).replace("DEEP", &"[".repeat(129)).into();
        // A mebibyte is no more than what is broken.
        drawn.body = String::from_utf8_lossy(&drawn.body).replace("LARGE\"}", "").into();
        // What is refused for its type alone stays as it is.
        if body.contains("\"k1\"") && numbers.below(4) == 0 {
            drawn.body.truncate(numbers.below(drawn.body.len()));
        }
        if !kind.is_empty() {
            drawn.headers.push((b"Content-Type".to_vec(), kind.as_bytes().to_vec()));
        }
        drawn.chunked = numbers.below(5) == 0;
        drawn
    }

    fn odd_path(numbers: &mut Numbers) -> Self {
        let path = *numbers.pick::<&str>(PATHS);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut drawn = Self::new("GET", path.to_owned());
        if !query.is_empty() {
            drawn.query.push(query.into());
        }
        drawn
    }

    pub(super) fn add(&mut self, name: &str, value: &[u8]) {
        // With another type, what is refused would be published, by both and as two events.
        let would_publish = name == "Content-Type" && self.path == b"/publish";
        // Of several, nginx tells the daemon one.
        let asks_again = name == "Upgrade" && self.headers.iter().any(|(other, _)| other == b"Upgrade");
        if !would_publish && !asks_again {
            self.headers.push((name.into(), value.to_vec()));
        }
    }

    pub(super) fn ask(&mut self, parameter: Vec<u8>) {
        self.query.push(parameter);
    }

    /// Puts bytes where they do not belong.
    fn damage(&mut self, numbers: &mut Numbers) {
        const BYTES: &[u8] = b"\x80\xff\xc3\xe4\t\x01\x7f\x1b\"'<>\\^`{|}%&=+;,/?#:@[]~*.. ";
        for _ in 0..=numbers.below(3) {
            let headers = self.headers.len();
            let part = match numbers.below(4) {
                0 => &mut self.path,
                1 if !self.query.is_empty() => {
                    let at = numbers.below(self.query.len());
                    // A cut that is believed makes the daemon's holds shorter from then on.
                    if self.query[at].starts_with(b"cut=") {
                        continue;
                    }
                    &mut self.query[at]
                }
                2 if headers > 0 => &mut self.headers[numbers.below(headers)].1,
                // Of an event that is refused another could become that is not.
                3 if self.path.starts_with(b"/e/") => &mut self.body,
                _ => continue,
            };
            let at = numbers.below(part.len() + 1);
            match numbers.below(3) {
                0 => part.insert(at, *numbers.pick(BYTES)),
                1 if at < part.len() => part[at] = *numbers.pick(BYTES),
                _ => part.truncate(at),
            }
        }
        if !self.path.starts_with(b"/") {
            self.path.insert(0, b'/');
        }
        // Over a connection that hyper has, a head that is refused is the end: of a large body behind it nginx would not get rid.
        self.body.truncate(8000);
    }

    /// The same with one part less, or a shorter one, for each part.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut but = |change: &dyn Fn(&mut Self)| {
            let mut smaller = self.clone();
            change(&mut smaller);
            if smaller.bytes() != self.bytes() {
                all.push(smaller);
            }
        };
        for n in 0..self.headers.len() {
            but(&|it| drop(it.headers.remove(n)));
            let value = &self.headers[n].1;
            but(&|it| it.headers[n].1.truncate(value.len() / 2));
            but(&|it| drop(it.headers[n].1.drain(..value.len() / 2)));
        }
        for n in 0..self.query.len() {
            but(&|it| drop(it.query.remove(n)));
            for at in self.query[n].iter().enumerate().filter(|(_, b)| **b == b'&').map(|(at, _)| at) {
                but(&|it| it.query[n].truncate(at));
                but(&|it| drop(it.query[n].drain(..=at)));
            }
        }
        but(&|it| it.body.clear());
        but(&|it| it.body.truncate(it.body.len() / 2));
        but(&|it| it.chunked = false);
        but(&|it| it.how = How::ShortPoll);
        if matches!(self.how, How::Stream(..) | How::StreamByQuery) && self.how != STREAMS[0] {
            but(&|it| it.how = STREAMS[0]);
        }
        but(&|it| it.method = b"GET".to_vec());
        but(&|it| it.version = "HTTP/1.1");
        if self.path != b"/publish" {
            but(&|it| it.path = b"/e/cheese".to_vec());
        }
        all
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let has =
            |name: &str| self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        let mut bytes = [&self.method, &b" "[..], &self.path].concat();
        let first = self.how.parameter().map(<[u8]>::to_vec);
        let query: Vec<_> = first.iter().chain(&self.query).cloned().collect();
        if !query.is_empty() {
            bytes.push(b'?');
            bytes.extend(query.join(&b'&'));
        }
        bytes.extend(format!(" {}\r\n", self.version).bytes());
        if !has("host") && self.version == "HTTP/1.1" {
            bytes.extend(b"Host: localhost\r\n");
        }
        if !has("connection") {
            bytes.extend(b"Connection: close\r\n");
        }
        for (name, value) in &self.headers {
            bytes.extend([name, &b": "[..], value, b"\r\n"].concat());
        }
        if let Some((name, value)) = self.how.header() {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        if self.chunked && self.version == "HTTP/1.1" {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in self.body.chunks(1000) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend([chunk, b"\r\n"].concat());
            }
            bytes.extend(b"0\r\n\r\n");
            return bytes;
        }
        if !self.body.is_empty() || self.method == b"POST" {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

/// Whether it may be held.
pub(super) fn may_be_held(bytes: &[u8]) -> bool {
    let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
    line.windows(MOMENT.len()).any(|part| part == MOMENT)
}

/// The values of a header field, joined as the programs read them.
pub(super) fn field(bytes: &[u8], name: &str) -> Option<String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(bytes.len());
    let lines = bytes[..end].split(|b| *b == b'\n').skip(1).map(String::from_utf8_lossy);
    let values: Vec<_> = lines
        .filter_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim_ascii().to_owned())
        })
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// These bytes as a request.
pub(super) fn request(bytes: Vec<u8>) -> Request {
    let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    http::request(method, target).instead(bytes)
}

/// The bytes as a literal of Rust, for the table of fixed cases.
pub(super) fn literal(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            byte => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    format!("b\"{text}\"")
}
