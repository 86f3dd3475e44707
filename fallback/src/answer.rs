//! From a request to its reply: the blocking edge between the protocol and the log.
//!
//! Nothing is decided here. The protocol parses, says what to read, and writes the reply; the log reads. Neither CGI nor
//! FastCGI is seen here, so both answer alike.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use everpoll_log::{Limit, Log, LogError, Options};
use everpoll_protocol::{
    Channels, Cursor, Failure, Input, Limits, Live, MAX_PUBLISH_EVENTS, NewEvent, Page, Poll, PollRequest,
    PublishRequest, Rates, Reconnect, Reply, Request, ServeError, Steering, Step,
};
use everpoll_settings::Settings;

use crate::counts::COUNTS;
use crate::look::Look;
use crate::outage::Outage;
use crate::strain::Strain;
use crate::variables::{Described, Variables, now, target};

/// A transaction with so much data takes no further request in.
const TRANSACTION_BYTES: usize = 1024 * 1024;

/// Answers requests, from any number of threads.
#[derive(Debug)]
pub struct Answers {
    limits: Live<Limits>,
    database_url: String,
    steering: Steering,
    outage: Outage,
    strain: Strain,
    random: RandomState,
    random_state: AtomicU32,
}

/// A request that asks the log for something.
#[derive(Debug)]
pub enum Asked {
    /// For the events after a cursor.
    Poll(Box<PollRequest>),
    /// To append events.
    Publish {
        /// The events.
        request: PublishRequest,
        /// Whether only the reply's head is wanted.
        head_only: bool,
    },
}

/// What requests have in common that one statement serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Same {
    /// They read the same.
    Read(Channels, Cursor),
    /// They append, and share a transaction.
    Publish,
}

impl Asked {
    /// What it has in common with others.
    pub fn same(&self) -> Same {
        match self {
            Self::Poll(poll) => Same::Read(poll.channels.clone(), poll.cursor),
            Self::Publish { .. } => Same::Publish,
        }
    }

    fn poll(&self) -> Option<&PollRequest> {
        match self {
            Self::Poll(request) => Some(request),
            Self::Publish { .. } => None,
        }
    }

    /// What it appends.
    fn events(&self) -> &[NewEvent] {
        match self {
            Self::Poll(_) => &[],
            Self::Publish { request, .. } => &request.events,
        }
    }

    fn head_only(&self) -> bool {
        match self {
            Self::Poll(request) => request.head_only,
            Self::Publish { head_only, .. } => *head_only,
        }
    }
}

impl Answers {
    /// Answers as these settings say. `listens_locally`: only this machine can reach the program.
    #[must_use]
    pub fn new(settings: &Settings, listens_locally: bool) -> Self {
        Self {
            limits: Live::new(settings.limits(listens_locally)),
            database_url: settings.database_url.expose().to_owned(),
            steering: Steering::default(),
            outage: Outage::default(),
            strain: Strain::default(),
            random: RandomState::new(),
            random_state: AtomicU32::new(0),
        }
    }

    /// Answers a single request: what counts many of them has no use then.
    #[must_use]
    pub fn for_one_request(self) -> Self {
        self.exchange(Limits { rates: Rates::new(None, 0), ..self.limits() });
        self
    }

    /// What requests are judged by at this moment.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits::clone(&self.limits.get())
    }

    /// Whether the log's database is not known to be away.
    #[must_use]
    pub fn log_works(&self) -> bool {
        !self.outage.is_known()
    }

    /// Judges all requests from now on by these.
    pub fn exchange(&self, limits: Limits) {
        self.limits.set(limits);
    }

    /// A connection to the log, made when it is first needed.
    ///
    /// # Errors
    ///
    /// [`LogError::Settings`] when the database's URL is wrong.
    pub fn log(&self) -> Result<Log, LogError> {
        let application_name = "everpoll-fallback".to_owned();
        Log::new(&self.database_url, Options { application_name, ..Options::default() })
    }

    /// Most bytes of the body of a request with these variables.
    pub fn body_max(&self, variables: &dyn Variables) -> usize {
        self.limits.get().body(&target(variables))
    }

    /// Answers a request. `load` is how busy the program is, in thousandths.
    pub fn answer(&self, log: &mut Log, variables: &dyn Variables, body: &[u8], load: u32) -> Reply {
        match self.understand(variables, body, load) {
            Ok(asked) => self.ask(log, &asked, load),
            Err(reply) => reply,
        }
    }

    /// Takes a request in. `load` is how busy the program is, in thousandths.
    ///
    /// # Errors
    ///
    /// The reply, where the log need not be asked.
    pub fn understand(&self, variables: &dyn Variables, body: &[u8], load: u32) -> Result<Asked, Reply> {
        let described = Described::new(variables);
        let raw = described.with_body(body);
        let limits = self.limits.get();
        let (bytes, fields) = described.head();
        if let Err(error) = limits.check_head(bytes, fields) {
            return Err(self.refuse(&error.into(), load, described.head_only()));
        }
        Err(match Request::receive(&raw, &limits, limits.fronts.sender_of(&raw)) {
            Ok(Request::Poll(request)) => {
                COUNTS.polls.add(1);
                return Ok(Asked::Poll(Box::new(request)));
            }
            Ok(Request::Publish(request)) => {
                COUNTS.publishes.add(1);
                return Ok(Asked::Publish { request, head_only: described.head_only() });
            }
            Ok(Request::Options { allow, form }) => {
                COUNTS.others.add(1);
                Reply::options(allow, &form)
            }
            Ok(Request::Script(request)) => {
                COUNTS.others.add(1);
                Reply::script(request)
            }
            Err(failure) => {
                COUNTS.failure(&failure);
                let reconnect_in = || self.reconnect_in(Reconnect::ShortPoll, load);
                Reply::refused(&failure, &raw, &limits, reconnect_in)
            }
        })
    }

    /// Answers those of many requests of which one look at the log tells all. It begins when this is called.
    pub fn look(&self, log: &mut Log, asked: &[&Asked], load: u32) -> Vec<Option<Reply>> {
        let polls: Vec<_> = asked.iter().filter_map(|asked| asked.poll()).collect();
        // One of them tries whether the database is back; the others are told at once that it is not.
        let refused = self.outage.is_known().then_some(ServeError::LogUnavailable);
        let looks = refused.is_none() && !polls.is_empty();
        let seen = looks.then(|| self.with_log(|| Look::take(log, &polls)));
        let mut first = true;
        let told = |asked: &&Asked| {
            let poll = asked.poll()?;
            let page = match (&seen, refused) {
                (Some(Ok(look)), _) => Ok(look.page(poll)?),
                (Some(Err(failure)), _) => Err(serve_error(failure)),
                (None, Some(error)) if !std::mem::take(&mut first) => Err(error),
                (None, _) => return None,
            };
            // An empty page of a poll that is never held is its answer.
            self.reply(&mut Poll::short(poll), poll, page.as_ref().map_err(|error| *error), load)
        };
        asked.iter().map(told).collect()
    }

    /// Answers requests that [ask the same](Asked::same), or a single one, by one statement.
    pub fn ask_together(&self, log: &mut Log, asked: &[&Asked], load: u32) -> Vec<Reply> {
        let polls: Vec<_> = asked.iter().filter_map(|asked| asked.poll()).collect();
        match polls.as_slice() {
            [first, _, ..] if polls.len() == asked.len() => {
                let page = self.read(log, &first.channels, first.cursor);
                let page = page.as_ref().map_err(|error| *error);
                let reply = |poll: &&PollRequest| {
                    let told = self.reply(&mut Poll::short(poll), poll, page, load);
                    told.unwrap_or_else(|| self.poll(log, poll, load))
                };
                polls.iter().map(reply).collect()
            }
            _ => self.publish_together(log, asked, load),
        }
    }

    /// Publishes, as many requests in one transaction as fit, and answers in their order.
    fn publish_together(&self, log: &mut Log, mut asked: &[&Asked], load: u32) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(asked.len());
        while !asked.is_empty() {
            let (now, rest) = asked.split_at(fitting(asked));
            asked = rest;
            let events: Vec<_> = now.iter().flat_map(|asked| asked.events()).cloned().collect();
            let alone = now.len() == 1 || now.iter().any(|asked| asked.poll().is_some());
            let published = (!alone).then(|| self.append(log, &events));
            match published {
                Some(Ok(ids)) => {
                    let mut ids = ids.as_slice();
                    for asked in now {
                        let (own, others) = ids.split_at(asked.events().len().min(ids.len()));
                        ids = others;
                        replies.push(Reply::published(own));
                    }
                }
                Some(Err(failure @ Failure::Serve(_))) => {
                    replies.extend(now.iter().map(|asked| self.refuse(&failure, load, asked.head_only())));
                }
                // One of several may be at fault; each is tried alone.
                Some(Err(Failure::Request(_))) | None => {
                    replies.extend(now.iter().map(|asked| self.ask(log, asked, load)));
                }
            }
        }
        replies
    }

    fn ask(&self, log: &mut Log, asked: &Asked, load: u32) -> Reply {
        match asked {
            Asked::Poll(request) => self.poll(log, request, load),
            Asked::Publish { request, head_only } => {
                let reply = self.publish(log, request);
                reply.unwrap_or_else(|failure| self.refuse(&failure, load, *head_only))
            }
        }
    }

    /// Answers a request that is not served.
    pub fn refuse(&self, failure: &Failure, load: u32, head_only: bool) -> Reply {
        COUNTS.failure(failure);
        Reply::failure(failure, || self.reconnect_in(Reconnect::ShortPoll, load), head_only)
    }

    /// Nothing is ever held here: the poll is asked, and answers at once.
    fn poll(&self, log: &mut Log, request: &PollRequest, load: u32) -> Reply {
        let mut poll = Poll::short(request);
        loop {
            let page = self.read(log, &request.channels, poll.cursor());
            let page = page.as_ref().map_err(|error| *error);
            if let Some(reply) = self.reply(&mut poll, request, page, load) {
                return reply;
            }
        }
    }

    /// What the poll says to what was read; `None` if it wants to read again.
    fn reply(
        &self,
        poll: &mut Poll,
        request: &PollRequest,
        page: Result<&Page, ServeError>,
        load: u32,
    ) -> Option<Reply> {
        let input = page.map_or_else(Input::Failed, Input::Read);
        let Step::Reply(answer) = poll.handle(input, request.wait_id.as_ref(), Instant::now()) else {
            return None;
        };
        if let Err(error) = page {
            COUNTS.error(error.code());
        }
        let hold = u32::try_from(self.limits.get().hold_max.as_secs()).unwrap_or(u32::MAX);
        Some(answer.reply(request, hold, now(), |reconnect| self.reconnect_in(reconnect, load)))
    }

    fn read(&self, log: &mut Log, channels: &Channels, cursor: Cursor) -> Result<Page, ServeError> {
        let read = self.with_log(|| log.read(channels.as_slice(), cursor, Limit::BATCH));
        read.map(Page::from).map_err(|failure| serve_error(&failure))
    }

    fn publish(&self, log: &mut Log, request: &PublishRequest) -> Result<Reply, Failure> {
        self.append(log, &request.events).map(|ids| Reply::published(&ids))
    }

    fn append(&self, log: &mut Log, events: &[NewEvent]) -> Result<Vec<u64>, Failure> {
        self.with_log(|| log.publish(events)).inspect(|ids| COUNTS.published.add(ids.len()))
    }

    /// Asks the log, unless its database is known to be down.
    fn with_log<T>(&self, ask: impl FnOnce() -> Result<T, LogError>) -> Result<T, Failure> {
        let began = Instant::now();
        if !self.outage.may_try(began) {
            return Err(Failure::Serve(ServeError::LogUnavailable));
        }
        let asked = ask();
        self.strain.note(began.elapsed());
        match asked {
            Ok(answer) => {
                self.outage.worked(Instant::now());
                Ok(answer)
            }
            Err(LogError::Rejected(error)) => {
                self.outage.worked(Instant::now());
                Err(Failure::Request(error))
            }
            Err(error) => {
                self.outage.failed(&error, began, Instant::now());
                Err(Failure::from(&error))
            }
        }
    }

    /// When to come back: the later, the more waits here, and the more the database is strained.
    fn reconnect_in(&self, reconnect: Reconnect, load: u32) -> u32 {
        let load = load.max(self.strain.load(self.outage.is_known()));
        self.steering.reconnect_in(reconnect, load, || self.random())
    }

    /// Evenly spread, not secret: it only keeps clients apart.
    fn random(&self) -> u32 {
        self.random.hash_one(self.random_state.fetch_add(1, Ordering::Relaxed)) as u32
    }
}

/// How many of these fit into one transaction: one, or as many as do not make it long.
fn fitting(asked: &[&Asked]) -> usize {
    let (mut events, mut bytes) = (0, 0);
    let fits = |asked: &&&Asked| {
        let fits = events < MAX_PUBLISH_EVENTS && bytes < TRANSACTION_BYTES;
        events += asked.events().len();
        bytes += asked.events().iter().map(|event| event.data.as_str().len()).sum::<usize>();
        fits
    };
    asked.iter().take_while(fits).count().max(1)
}

/// A read appends nothing that could be refused.
fn serve_error(failure: &Failure) -> ServeError {
    match failure {
        Failure::Serve(error) => *error,
        Failure::Request(_) => ServeError::Internal,
    }
}
