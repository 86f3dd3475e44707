//! [`Answers`] behind the FastCGI server.

use std::sync::atomic::{AtomicU64, Ordering};

use everpoll_log::Log;
use everpoll_protocol::{Failure, Reply, RequestError, ServeError};

use super::connection::BODY_PATIENCE;
use super::params::Params;
use super::receiver::{Fault, Request};
use super::service::Service;
use crate::answer::{Answers, Asked, Same};
use crate::counts::COUNTS;
use crate::variables::Variables;

/// Answers requests that came by FastCGI.
#[derive(Debug)]
pub struct Responder {
    answers: Answers,
    /// How long a request's variables may take, in seconds; for the text of an error.
    params_seconds: AtomicU64,
}

impl Responder {
    /// Answers with `answers`; variables may take `params_seconds` to arrive.
    #[must_use]
    pub fn new(answers: Answers, params_seconds: u64) -> Self {
        Self { answers, params_seconds: AtomicU64::new(params_seconds) }
    }

    /// What answers.
    #[must_use]
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// From now on says that variables may take so long.
    pub fn say_params_seconds(&self, params_seconds: u64) {
        self.params_seconds.store(params_seconds, Ordering::Relaxed);
    }
}

impl Service for Responder {
    type Worker = Option<Log>;
    type Asked = Asked;
    type Same = Same;

    fn worker(&self) -> Option<Log> {
        // The URL was checked before the server started.
        self.answers.log().ok()
    }

    fn understand(&self, request: &Request, load: u32) -> Result<Asked, Vec<u8>> {
        if let Some(reason) = missing(request) {
            let lost = Failure::Request(RequestError::BodyLost { reason });
            let head_only = *request.params.text("REQUEST_METHOD") == *b"HEAD";
            return Err(self.answers.refuse(&lost, load, head_only).to_cgi());
        }
        self.answers.understand(&request.params, &request.body, load).map_err(|reply| reply.to_cgi())
    }

    fn look(&self, worker: &mut Option<Log>, asked: &[&Asked], load: u32) -> Vec<Option<Vec<u8>>> {
        let Some(log) = worker else { return asked.iter().map(|_| None).collect() };
        let replies = self.answers.look(log, asked, load);
        replies.into_iter().map(|reply| reply.map(|reply| reply.to_cgi())).collect()
    }

    fn same(&self, asked: &Asked) -> Option<Same> {
        Some(asked.same())
    }

    fn answer(&self, worker: &mut Option<Log>, asked: &[&Asked], load: u32) -> Vec<Vec<u8>> {
        match worker {
            Some(log) => self.answers.ask_together(log, asked, load).iter().map(Reply::to_cgi).collect(),
            None => asked.iter().map(|_| self.refuse(Fault::Panicked, load)).collect(),
        }
    }

    fn refuse(&self, fault: Fault, load: u32) -> Vec<u8> {
        let failure = match fault {
            Fault::ParamsTooLarge => Failure::Request(self.answers.limits().head_too_large()),
            Fault::ParamsMalformed => {
                let reason = "the web server's FastCGI parameters cannot be read".to_owned();
                Failure::Request(RequestError::HeadMalformed { reason })
            }
            Fault::BodyTooLarge(limit) => Failure::Request(RequestError::BodyTooLarge { limit }),
            Fault::ParamsTimeout => Failure::Request(RequestError::HeadTimeout {
                seconds: self.params_seconds.load(Ordering::Relaxed),
            }),
            Fault::BodyTimeout => {
                Failure::Request(RequestError::BodyTimeout { seconds: BODY_PATIENCE.as_secs() })
            }
            Fault::NoMemory => {
                COUNTS.hit("requests_memory");
                Failure::Serve(ServeError::Overloaded)
            }
            Fault::Overloaded => {
                COUNTS.hit("requests_waiting");
                Failure::Serve(ServeError::Overloaded)
            }
            Fault::Panicked => Failure::Serve(ServeError::Internal),
        };
        self.answers.refuse(&failure, load, false).to_cgi()
    }

    fn body_max(&self, params: &Params) -> usize {
        self.answers.body_max(params)
    }
}

/// What is wrong when less of a body came than the web server announced: it has handed the body to somebody else, or its
/// client left in the middle.
fn missing(request: &Request) -> Option<String> {
    let length = request.params.text("CONTENT_LENGTH");
    let length: u64 = std::str::from_utf8(&length).ok()?.parse().ok()?;
    let missing = length.checked_sub(request.body.len() as u64).filter(|missing| *missing > 0)?;
    Some(format!("it ended {missing} bytes before its Content-Length"))
}
