//! Publishing over HTTP: many requests share a transaction.
//!
//! A commit waits for the disk. Requests that come meanwhile are published together by the next one, so that their
//! number per second is not bound by the number of commits. Each request stays atomic: when the shared transaction is
//! refused, they are published one by one, and only those at fault are told.

mod unseen;

use std::sync::Arc;
use std::time::{Duration, Instant};

use everpoll_log::{Log, LogError};
use everpoll_protocol::{Failure, MAX_PUBLISH_EVENTS, NewEvent, PublishRequest, ServeError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::warn;

use crate::metrics::{COUNTS, Limit};
use crate::tailer::Bell;
pub(crate) use unseen::Unseen;

/// Most requests that wait for the next transaction.
const QUEUE_MAX: usize = 1024;

/// How long a request waits for its place in the queue.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer waits until the daemon's own polls have the events, up to twice as long. They are committed in any case.
const SEEN_PATIENCE: Duration = Duration::from_secs(1);

/// A transaction ends at this many bytes of data.
const TRANSACTION_BYTES: usize = 8 * 1024 * 1024;

struct Job {
    request: PublishRequest,
    reply: unseen::Reply,
}

enum Message {
    Publish(Job),
    Stop,
}

/// Takes publishing requests to the thread that commits them.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    queue: mpsc::Sender<Message>,
    unseen: Arc<Unseen>,
}

/// The thread's end.
pub(crate) struct Committer {
    messages: mpsc::Receiver<Message>,
    stopped: bool,
    log: Log,
    bell: Arc<Bell>,
    unseen: Arc<Unseen>,
}

/// A queue and the end of it that commits with `log`, then rings `bell`. The tailer tells `unseen` up to where it has read.
pub(crate) fn publishing(log: Log, bell: Arc<Bell>, unseen: Arc<Unseen>) -> (Publishing, Committer) {
    let (queue, messages) = mpsc::channel(QUEUE_MAX);
    let publishing = Publishing { queue, unseen: unseen.clone() };
    (publishing, Committer { messages, stopped: false, log, bell, unseen })
}

impl Publishing {
    /// Publishes; returns once the transaction is committed, or was not. Not cancel safe: the events may be published
    /// although nobody waits for the answer any more.
    ///
    /// Whoever is told that an event is published finds it with the next poll: the answer waits until the tailer has it.
    pub(crate) async fn publish(&self, request: PublishRequest) -> Result<Vec<u64>, Failure> {
        let (reply, mut answer) = oneshot::channel();
        // A full queue is waited for, but not for ever.
        match self.queue.send_timeout(Message::Publish(Job { request, reply }), QUEUE_PATIENCE).await {
            Ok(()) => {}
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                COUNTS.hit(Limit::PublishQueue);
                return Err(Failure::Serve(ServeError::Overloaded));
            }
            Err(mpsc::error::SendTimeoutError::Closed(_)) => {
                return Err(Failure::Serve(ServeError::Draining));
            }
        }
        loop {
            match timeout(SEEN_PATIENCE, &mut answer).await {
                Ok(answer) => return answer.unwrap_or(Err(Failure::Serve(ServeError::OutcomeUnknown))),
                // The tailer may have lost the database; what is committed is answered all the same.
                Err(_) => self.unseen.give_up(SEEN_PATIENCE, Instant::now()),
            }
        }
    }

    /// Ends [`Committer::run`] once all that is queued is committed. Connections that are still open keep their end of
    /// the queue, so its end cannot be waited for.
    pub(crate) fn stop(&self) {
        // A full queue ends with the process.
        let _ = self.queue.try_send(Message::Stop);
    }
}

impl Committer {
    /// Commits until stopped.
    pub(crate) fn run(mut self) {
        while !self.stopped
            && let Some(Message::Publish(job)) = self.messages.blocking_recv()
        {
            let jobs = self.gather(job);
            self.commit(jobs);
        }
    }

    /// The job and those that wait behind it, as many as fit into one transaction.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let size =
            |job: &Job| job.request.events.iter().map(|event| event.data.as_str().len()).sum::<usize>();
        let (mut events, mut bytes) = (first.request.events.len(), size(&first));
        let mut jobs = vec![first];
        while events < MAX_PUBLISH_EVENTS && bytes < TRANSACTION_BYTES {
            let job = match self.messages.try_recv() {
                Ok(Message::Publish(job)) => job,
                Ok(Message::Stop) => {
                    self.stopped = true;
                    break;
                }
                Err(_) => break,
            };
            events += job.request.events.len();
            bytes += size(&job);
            jobs.push(job);
        }
        jobs
    }

    fn commit(&mut self, mut jobs: Vec<Job>) {
        let mut events: Vec<NewEvent> = Vec::new();
        let mut lengths = Vec::with_capacity(jobs.len());
        for job in &mut jobs {
            lengths.push(job.request.events.len());
            events.append(&mut job.request.events);
        }
        // The tailer reads them while this thread asks for their ids.
        match self.log.publish_then(&events, || self.bell.ring_and_announce()) {
            Ok(ids) => {
                COUNTS.published.add(ids.len());
                let mut ids = ids.into_iter();
                let answers = jobs.into_iter().zip(lengths);
                let answers = answers.map(|(job, length)| (job.reply, ids.by_ref().take(length).collect()));
                self.unseen.committed(answers.collect(), Instant::now());
            }
            // One of several may be at fault; each is tried alone.
            Err(LogError::Rejected(_)) if jobs.len() > 1 => {
                let mut events = events.into_iter();
                for (mut job, length) in jobs.into_iter().zip(lengths) {
                    job.request.events = events.by_ref().take(length).collect();
                    self.commit(vec![job]);
                }
            }
            Err(error) => {
                warn!(events = events.len(), "cannot publish: {error}");
                for job in jobs {
                    let _ = job.reply.send(Err(Failure::from(&error)));
                }
            }
        }
    }
}
