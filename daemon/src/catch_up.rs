//! Reads of the log for polls whose cursor the window does not reach.
//!
//! After a restart thousands of clients may ask the same at once, so equal questions are asked of the database once
//! (*single-flight*), by a few threads, and the queue of different ones has an end.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

use everpoll_log::{Limit, Log};
use everpoll_protocol::{Channels, Cursor, Failure, Page, ServeError};
use tokio::sync::oneshot;
use tracing::warn;

use crate::hub::lock;
use crate::window::Window;

/// Most different questions that wait for a thread.
const QUEUE_MAX: usize = 4096;

type Question = (Channels, Cursor);
type Answer = Result<Arc<Page>, ServeError>;

/// The queue of questions to the database.
#[derive(Debug, Default)]
pub(crate) struct CatchUp {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Question>,
    /// Who waits for the answer of a question, queued or being asked.
    askers: HashMap<Question, Vec<oneshot::Sender<Answer>>>,
    stopped: bool,
}

impl CatchUp {
    /// What the database has for `channels` from `cursor` on.
    ///
    /// # Errors
    ///
    /// [`ServeError::Overloaded`] when too many questions wait; what the database's failure means to the client.
    pub(crate) async fn read(&self, channels: &Channels, cursor: Cursor) -> Answer {
        let receiver = self.ask((channels.clone(), cursor))?;
        receiver.await.unwrap_or(Err(ServeError::Draining))
    }

    fn ask(&self, question: Question) -> Result<oneshot::Receiver<Answer>, ServeError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = lock(&self.state);
        if let Some(askers) = state.askers.get_mut(&question) {
            askers.push(sender);
        } else if state.stopped {
            return Err(ServeError::Draining);
        } else if state.queue.len() == QUEUE_MAX {
            return Err(ServeError::Overloaded);
        } else {
            state.queue.push_back(question.clone());
            state.askers.insert(question, vec![sender]);
            self.changed.notify_one();
        }
        Ok(receiver)
    }

    /// Ends [`CatchUp::run`] on all threads. Who still waits for the database is told that the daemon stops.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.askers.clear();
        self.changed.notify_all();
    }

    /// Answers questions with a connection of this thread's own until stopped.
    pub(crate) fn run(&self, mut log: Log, window: &Mutex<Window>) {
        while let Some(question) = self.next() {
            let (channels, cursor) = &question;
            let answer = match log.read(channels.as_slice(), *cursor, Limit::BATCH) {
                Ok(read) => {
                    let page = Page::from(read);
                    lock(window).learn(channels, *cursor, &page);
                    Ok(Arc::new(page))
                }
                Err(error) => Err(match Failure::from(&error) {
                    Failure::Serve(ServeError::LogUnavailable) => ServeError::LogUnavailable,
                    other => {
                        warn!("cannot catch up from the log: {error}");
                        // A read appends nothing that could be refused.
                        if let Failure::Serve(error) = other { error } else { ServeError::Internal }
                    }
                }),
            };
            // Who asked after the read began gets its answer as well: the window has what came since.
            let askers = lock(&self.state).askers.remove(&question).unwrap_or_default();
            for asker in askers {
                // Who has left does not matter.
                let _ = asker.send(answer.clone());
            }
        }
    }

    /// The next question that somebody still waits for; `None` when stopped.
    fn next(&self) -> Option<Question> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped {
                return None;
            }
            while let Some(question) = state.queue.pop_front() {
                if state.askers.get(&question).is_some_and(|askers| askers.iter().any(|a| !a.is_closed())) {
                    return Some(question);
                }
                state.askers.remove(&question);
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}
