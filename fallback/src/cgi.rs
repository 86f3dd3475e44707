//! One request as plain CGI (RFC 3875): variables in the environment, the body on stdin, the reply to stdout.
//!
//! What a newcomer gets wrong: stdin need not end behind the body (web servers leave it open), so exactly
//! `CONTENT_LENGTH` bytes are read. And the exit code says nothing to the client: an error is a reply like any other.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use everpoll_log::Log;
use everpoll_protocol::{Failure, Reply, RequestError, ServeError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::answer::Answers;
use crate::variables::Variables;

/// Pause of a body after which its sender is given up. Old Internet Explorers repeat a POST without its body.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of a body that are read although it is too large.
const PASSED_OVER_MAX: u64 = 64 * 1024 * 1024;

/// Answers the request that `variables` and `stdin` are. The log is the caller's, who writes the reply before it is closed.
pub fn answer(answers: &Answers, log: &mut Log, variables: &dyn Variables, stdin: impl Read + AsFd) -> Reply {
    let body = match body(variables, answers.body_max(variables), stdin) {
        Ok(body) => body,
        Err(error) => {
            let head_only = *variables.text("REQUEST_METHOD") == *b"HEAD";
            return answers.refuse(&Failure::Request(error), 0, head_only);
        }
    };
    // The load of a machine that starts a process for each request is not known here.
    answers.answer(log, variables, &body, 0)
}

/// The reply when the program itself is set up wrongly. What is wrong is for the operator, on stderr.
#[must_use]
pub fn misconfigured() -> Reply {
    // Long enough not to flood the operator's log, short enough to find out when it is mended.
    const SECONDS: u32 = 30;
    Reply::serve_error(ServeError::Internal, SECONDS, false)
}

/// Writes a reply in one piece.
///
/// # Errors
///
/// When the web server does not take it: the client has left.
pub fn write(reply: &Reply, mut stdout: impl Write) -> io::Result<()> {
    stdout.write_all(&reply.to_cgi())
}

/// The other end of the web server's pipe. The standard library's own would write line by line.
#[derive(Debug)]
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a body of at most `limit` bytes, as long as it keeps coming.
fn body(
    variables: &dyn Variables,
    limit: usize,
    mut stdin: impl Read + AsFd,
) -> Result<Vec<u8>, RequestError> {
    let Some(length) = content_length(variables)? else { return Ok(Vec::new()) };
    if let Some(length) = length.filter(|length| *length > limit as u64) {
        pass_over(stdin, length);
        return Err(RequestError::BodyTooLarge { limit });
    }
    let mut body = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let missing = match length {
            Some(length) => usize::try_from(length).unwrap_or(usize::MAX) - body.len(),
            None => buffer.len(),
        };
        if missing == 0 {
            return Ok(body);
        }
        wait_for(&stdin)?;
        let room = missing.min(buffer.len());
        match stdin.read(&mut buffer[..room]) {
            Ok(0) if length.is_none() => return Ok(body),
            Ok(0) => {
                let reason = format!("it ended {missing} bytes before its Content-Length");
                return Err(RequestError::BodyLost { reason });
            }
            Ok(bytes) => body.extend_from_slice(&buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RequestError::HeadMalformed { reason: error.to_string() }),
        }
        if body.len() > limit {
            pass_over(stdin, PASSED_OVER_MAX);
            return Err(RequestError::BodyTooLarge { limit });
        }
    }
}

/// Reads what is not wanted, up to a limit: a program that ends with input left breaks Apache's connection to it, and
/// with that its reply.
fn pass_over(mut stdin: impl Read + AsFd, bytes: u64) {
    let mut left = bytes.min(PASSED_OVER_MAX);
    let mut buffer = [0; 16 * 1024];
    while left > 0 && wait_for(&stdin).is_ok() {
        match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(read as u64),
        }
    }
}

/// How long the body is; `Some(None)` if it lasts until stdin ends, `None` if there is none.
fn content_length(variables: &dyn Variables) -> Result<Option<Option<u64>>, RequestError> {
    let length = variables.text("CONTENT_LENGTH");
    if length.is_empty() {
        // Apache passes a chunked body on without its length, and ends stdin behind it.
        return Ok(variables.variable("HTTP_TRANSFER_ENCODING").map(|_| None));
    }
    let digits = std::str::from_utf8(&length).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(0) => Ok(None),
        Some(length) => Ok(Some(Some(length))),
        None => Err(RequestError::HeadMalformed { reason: "Content-Length is no number".to_owned() }),
    }
}

/// Waits until stdin can be read, but not for ever.
fn wait_for(stdin: impl AsFd) -> Result<(), RequestError> {
    let patience = Timespec { tv_sec: BODY_PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&patience)) {
            Ok(0) => return Err(RequestError::BodyTimeout { seconds: BODY_PATIENCE.as_secs() }),
            Err(Errno::INTR) => {}
            // What is wrong with it, reading it will tell.
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::{PipeReader, pipe};

    use super::*;
    use crate::variables::Environment;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    fn stdin(text: &str) -> PipeReader {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        reader
    }

    fn read(length: &str, limit: usize, text: &str) -> Result<Vec<u8>, &'static str> {
        let variables = environment(&[("CONTENT_LENGTH", length)]);
        body(&variables, limit, stdin(text)).map_err(|error| error.code())
    }

    #[test]
    fn body_is_as_long_as_its_length_says() {
        assert_eq!(read("3", 10, "abcdef"), Ok(b"abc".to_vec()));
        assert_eq!(read("0", 10, "abcdef"), Ok(Vec::new()));
        assert_eq!(read("", 10, "abcdef"), Ok(Vec::new()));
        assert_eq!(read("10", 10, "0123456789"), Ok(b"0123456789".to_vec()));
    }

    #[test]
    fn body_that_is_too_large_or_incomplete_is_refused() {
        assert_eq!(read("11", 10, "01234567890"), Err("body_too_large"));
        assert_eq!(read("18446744073709551615", 10, ""), Err("body_too_large"));
        assert_eq!(read("5", 10, "abc"), Err("body_lost"));
        assert_eq!(read("5", 10, ""), Err("body_lost"));
        for length in ["x", "-1", "1.5", "+3", " 3", "18446744073709551616"] {
            assert_eq!(read(length, 10, "abc"), Err("head_malformed"), "{length}");
        }
    }

    #[test]
    fn body_without_a_length_lasts_until_stdin_ends() {
        let variables = environment(&[("HTTP_TRANSFER_ENCODING", "chunked")]);
        assert_eq!(body(&variables, 10, stdin("abc")), Ok(b"abc".to_vec()));
        assert_eq!(body(&variables, 10, stdin("01234567890")).unwrap_err().code(), "body_too_large");
    }
}
