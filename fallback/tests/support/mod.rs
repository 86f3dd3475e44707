//! A web server's side of FastCGI, for tests: it sends what a test wants, right or wrong, and reads what comes back.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use everpoll_fallback::fastcgi::params::write_pair;
use everpoll_fallback::fastcgi::record::{HEADER_BYTES, Header, Kind, write};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of a web server.
pub(crate) struct Client(pub(crate) UnixStream);

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) request_id: u16,
    pub(crate) stdout: Vec<u8>,
    pub(crate) protocol_status: u8,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn status(&self) -> u16 {
        let text = self.text();
        text.strip_prefix("Status: ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_else(|| {
            panic!("no status in {text}");
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let (head, _) = text.split_once("\r\n\r\n")?;
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    }

    pub(crate) fn body(&self) -> &[u8] {
        let end = self.stdout.windows(4).position(|four| four == b"\r\n\r\n").expect("a head ends");
        &self.stdout[end + 4..]
    }
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(&mut self, variables: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(&request(1, true, variables, body));
        self.receive()
    }

    /// Reads records to the end of a request.
    pub(crate) fn receive(&mut self) -> Response {
        self.try_receive().expect("the connection ended before the answer did")
    }

    /// `None` if the connection ends.
    pub(crate) fn try_receive(&mut self) -> Option<Response> {
        let mut stdout = Vec::new();
        loop {
            let mut header = [0; HEADER_BYTES];
            self.0.read_exact(&mut header).ok()?;
            let header = Header::parse(header).unwrap();
            let mut content = vec![0; usize::from(header.content)];
            self.0.read_exact(&mut content).ok()?;
            self.0.read_exact(&mut vec![0; usize::from(header.padding)]).ok()?;
            match header.kind {
                Kind::Stdout => stdout.extend_from_slice(&content),
                Kind::EndRequest => {
                    return Some(Response {
                        request_id: header.request_id,
                        stdout,
                        protocol_status: content[4],
                    });
                }
                other => panic!("{other:?} came"),
            }
        }
    }

    /// Waits until the other end closes, and returns how long that took.
    pub(crate) fn wait_for_the_end(&mut self) -> Duration {
        let start = Instant::now();
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = self.0.read_to_end(&mut rest);
        assert!(start.elapsed() < PATIENCE, "it was not closed");
        assert!(rest.is_empty(), "{} bytes came", rest.len());
        start.elapsed()
    }
}

/// A whole request.
pub(crate) fn request(id: u16, keep: bool, variables: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(Kind::BeginRequest, id, &[0, 1, keep.into(), 0, 0, 0, 0, 0], &mut out);
    let mut pairs = Vec::new();
    for (name, value) in variables {
        write_pair(name.as_bytes(), value.as_bytes(), &mut pairs);
    }
    pairs.chunks(60_000).for_each(|piece| write(Kind::Params, id, piece, &mut out));
    write(Kind::Params, id, b"", &mut out);
    body.chunks(60_000).for_each(|piece| write(Kind::Stdin, id, piece, &mut out));
    write(Kind::Stdin, id, b"", &mut out);
    out
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets this process open as many files as the system allows.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
