//! Reads of the log for polls whose cursor the window does not reach.
//!
//! After a restart thousands of clients come back at once, each with a cursor of its own. Their number must not be that of the
//! statements, so there are three steps before one costs a read:
//!
//! 1. Equal questions are one (*single-flight*).
//! 2. Most of those who come back have missed nothing. Of all channels that are asked for in the same moment, one statement
//!    tells the newest event below the window ([`Log::latest`]); the window remembers it, and answers from then on whoever has
//!    seen that.
//! 3. Those who are behind are read for channel by channel: from the lowest cursor on, for all whose cursors lie above, and for
//!    those as well who come within the next seconds.
//!
//! A question that comes alone is read for at once. In a burst, others are waited for a moment, so that the second step has many.
//! The threads are few, and the queue has an end.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use everpoll_log::{Log, LogError};
use everpoll_protocol::{Channel, Channels, Cursor, Failure, Page, ServeError};
use tokio::sync::oneshot;
use tracing::warn;

mod kept;

use crate::hub::lock;
use crate::metrics::{COUNTS, Limit};
use crate::window::{Look, Window};
use kept::{Kept, complete, share};

/// Most questions of one statement of the second step.
const LOOK_MAX: usize = 512;

/// How long a question waits at the start for the window: it is filled soon, or the database is away, and says so itself.
const FILLING: Duration = Duration::from_secs(5);

/// How often it is looked whether it is filled.
const FILLING_LOOK: Duration = Duration::from_millis(10);

/// So many questions within so short a time are a burst.
const BURST: (usize, Duration) = (16, Duration::from_millis(200));

/// How long others are waited for in a burst.
const GATHER: Duration = Duration::from_millis(10);

type Question = (Channels, Cursor);
type Answer = Result<Arc<Page>, ServeError>;

/// The queue of questions to the database.
#[derive(Debug)]
pub(crate) struct CatchUp {
    state: Mutex<State>,
    changed: Condvar,
    /// What was read last.
    kept: Kept,
    /// Most different questions at a time.
    questions_max: AtomicUsize,
    started: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// Not looked at yet.
    fresh: VecDeque<Question>,
    /// To be read: questions for the same channels, by their cursor.
    behind: VecDeque<Behind>,
    /// Who waits for the answer of a question, queued or being asked.
    askers: HashMap<Question, Vec<oneshot::Sender<Answer>>>,
    /// When the last of so many questions came.
    pace: Pace,
    /// Whether a thread waits for more questions; it will take all of them.
    gathering: bool,
    stopped: bool,
}

/// How many questions came lately.
#[derive(Debug, Default)]
struct Pace {
    since: Option<Instant>,
    count: usize,
    /// Whether they were a burst just before.
    goes_on: bool,
}

#[derive(Debug)]
struct Behind {
    channels: Channels,
    /// Lowest first.
    cursors: VecDeque<Cursor>,
}

/// What a thread does next.
enum Job {
    /// Look which of these the window can answer once it knows more.
    Look(Vec<Question>),
    /// Read.
    Read(Behind),
}

impl CatchUp {
    /// An empty queue for at most `questions_max` different questions.
    pub(crate) fn new(questions_max: usize) -> Self {
        let (state, kept) = (Mutex::default(), Kept::default());
        let questions_max = AtomicUsize::new(questions_max);
        Self { state, changed: Condvar::new(), kept, questions_max, started: Instant::now() }
    }

    /// From now on takes at most so many different questions.
    pub(crate) fn limit(&self, questions_max: usize) {
        self.questions_max.store(questions_max, Ordering::Relaxed);
    }

    fn questions_max(&self) -> usize {
        self.questions_max.load(Ordering::Relaxed)
    }

    /// What the database has for `channels` from `cursor` on.
    ///
    /// # Errors
    ///
    /// [`ServeError::Overloaded`] when too many questions wait; what the database's failure means to the client.
    pub(crate) async fn read(&self, channels: &Channels, cursor: Cursor) -> Answer {
        COUNTS.questions.one();
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
        } else if state.askers.len() >= self.questions_max() {
            COUNTS.hit(Limit::CatchUp);
            return Err(ServeError::Overloaded);
        } else {
            state.pace.count(Instant::now());
            state.fresh.push_back(question.clone());
            state.askers.insert(question, vec![sender]);
            self.changed.notify_one();
        }
        Ok(receiver)
    }

    /// How many different questions wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state).askers.len()
    }

    /// The used share of the queue, in thousandths.
    pub(crate) fn load(&self) -> u32 {
        let waiting = self.waiting();
        u32::try_from(waiting * 1000 / self.questions_max().max(1)).unwrap_or(1000)
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
        while let Some(job) = self.next() {
            self.wait_for(window);
            match job {
                Job::Look(questions) => self.look(questions, &mut log, window),
                Job::Read(behind) => self.read_all(behind, &mut log, window),
            }
        }
    }

    /// A window that is just being filled will have the answers of nearly all.
    fn wait_for(&self, window: &Mutex<Window>) {
        while lock(window).base().is_none() && self.started.elapsed() < FILLING && !lock(&self.state).stopped
        {
            std::thread::sleep(FILLING_LOOK);
        }
    }

    /// The second step: one statement for all of them. Those that the window cannot answer even then are sorted for the third.
    fn look(&self, questions: Vec<Question>, log: &mut Log, window: &Mutex<Window>) {
        let (base, unknown) = {
            let window = lock(window);
            let unknown = questions.iter().filter(|question| look(&window, question).is_none());
            let unknown: HashSet<_> =
                unknown.flat_map(|(channels, _)| channels.as_slice()).cloned().collect();
            (window.base(), unknown.into_iter().collect::<Vec<Channel>>())
        };
        if let Some(base) = base
            && !unknown.is_empty()
        {
            COUNTS.looks.one();
            match log.latest(&unknown, base.floor) {
                Ok(latest) => lock(window).learn_latest(base, &unknown, &latest),
                Err(error) => {
                    let error = failed(&error);
                    return questions.iter().for_each(|question| self.answer(question, &Err(error)));
                }
            }
        }
        let mut behind: HashMap<Channels, Vec<Cursor>> = HashMap::new();
        for question in questions {
            let found = look(&lock(window), &question).map(Arc::new);
            match found.or_else(|| self.kept.find(&question.0, question.1, window)) {
                Some(page) => self.answer(&question, &Ok(page)),
                None => behind.entry(question.0).or_default().push(question.1),
            }
        }
        let mut state = lock(&self.state);
        state.behind.extend(behind.into_iter().flat_map(|(channels, cursors)| sort(&channels, cursors)));
        self.changed.notify_all();
    }

    /// The third step.
    fn read_all(&self, mut behind: Behind, log: &mut Log, window: &Mutex<Window>) {
        let channels = behind.channels;
        while let Some(cursor) = behind.cursors.pop_front() {
            let question = (channels.clone(), cursor);
            if !self.is_asked(&question) {
                continue;
            }
            if let Some(page) = self.kept.find(&question.0, question.1, window) {
                self.answer(&question, &Ok(page));
                continue;
            }
            // What is trimmed during the read may be gone from it, or not.
            let (base, low_marks) = {
                let window = lock(window);
                (window.base(), window.low_marks().clone())
            };
            COUNTS.reads.one();
            match log.read(channels.as_slice(), cursor, everpoll_log::Limit::BATCH) {
                Ok(read) => {
                    let bounds = read.bounds;
                    let page = Arc::new(Page::from(read));
                    lock(window).learn(&channels, cursor, &page, &low_marks);
                    self.kept.keep(&channels, cursor, base, bounds, &page);
                    // Who asked after the read began gets its answer as well: the window has what came since.
                    let complete = |page| complete(page, &channels, base, window);
                    behind.cursors.retain(|later| match share(&page, &bounds, *later) {
                        Some(page) => {
                            self.answer(&(channels.clone(), *later), &Ok(complete(Arc::new(page))));
                            false
                        }
                        None => true,
                    });
                    self.answer(&question, &Ok(complete(page)));
                }
                Err(error) => self.answer(&question, &Err(failed(&error))),
            }
        }
    }

    fn answer(&self, question: &Question, answer: &Answer) {
        let askers = lock(&self.state).askers.remove(question).unwrap_or_default();
        for asker in askers {
            // Who has left does not matter.
            let _ = asker.send(answer.clone());
        }
    }

    /// Whether somebody still waits for the answer; if not, the question is forgotten.
    fn is_asked(&self, question: &Question) -> bool {
        let mut state = lock(&self.state);
        let asked = state.is_asked(question);
        if !asked {
            state.askers.remove(question);
        }
        asked
    }

    /// The next job for which somebody still waits; `None` when stopped.
    fn next(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped {
                return None;
            }
            if let Some(behind) = state.behind.pop_front() {
                // Perhaps this thread was woken for another reason.
                self.changed.notify_one();
                return Some(Job::Read(behind));
            }
            if !state.fresh.is_empty() && !state.gathering {
                if state.pace.is_burst(Instant::now()) {
                    state.gathering = true;
                    let waited = self.changed.wait_timeout_while(state, GATHER, |state| !state.stopped);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    state.gathering = false;
                }
                if let Some(job) = state.take_fresh() {
                    // The rest is for another thread.
                    self.changed.notify_one();
                    return Some(job);
                }
                continue;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    /// A job for the questions that nobody has looked at.
    fn take_fresh(&mut self) -> Option<Job> {
        let mut questions = Vec::new();
        while questions.len() < LOOK_MAX
            && let Some(question) = self.fresh.pop_front()
        {
            if self.is_asked(&question) {
                questions.push(question);
            } else {
                self.askers.remove(&question);
            }
        }
        if questions.len() > 1 {
            return Some(Job::Look(questions));
        }
        // A look would be a statement more than the read alone.
        let (channels, cursor) = questions.pop()?;
        Some(Job::Read(Behind { channels, cursors: [cursor].into() }))
    }

    fn is_asked(&self, question: &Question) -> bool {
        self.askers.get(question).is_some_and(|askers| askers.iter().any(|asker| !asker.is_closed()))
    }
}

impl Pace {
    fn count(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) > BURST.1) {
            *self = Self { since: Some(now), count: 0, goes_on: self.is_burst(now) };
        }
        self.count += 1;
    }

    fn is_burst(&self, now: Instant) -> bool {
        let lately = self.since.is_some_and(|since| now.duration_since(since) <= BURST.1 * 2);
        lately && (self.goes_on || self.count >= BURST.0)
    }
}

fn look(window: &Window, (channels, cursor): &Question) -> Option<Page> {
    match window.look(channels, *cursor, false) {
        Look::Found(page) => Some(page),
        Look::Miss => None,
    }
}

/// One job for all ids, and one for each of the other cursors.
fn sort(channels: &Channels, cursors: Vec<Cursor>) -> Vec<Behind> {
    let mut ids = BTreeMap::new();
    let mut jobs = Vec::new();
    for cursor in cursors {
        match cursor {
            Cursor::After(id) => drop(ids.insert(id, cursor)),
            Cursor::Since(_) | Cursor::Now => {
                jobs.push(Behind { channels: channels.clone(), cursors: [cursor].into() });
            }
        }
    }
    if !ids.is_empty() {
        jobs.push(Behind { channels: channels.clone(), cursors: ids.into_values().collect() });
    }
    jobs
}

fn failed(error: &LogError) -> ServeError {
    match Failure::from(error) {
        Failure::Serve(ServeError::LogUnavailable) => ServeError::LogUnavailable,
        other => {
            warn!("cannot catch up from the log: {error}");
            // A read appends nothing that could be refused.
            if let Failure::Serve(error) = other { error } else { ServeError::Internal }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_begins_with_many_questions_and_lasts_while_they_come() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let at = |millis| start + Duration::from_millis(millis);
        for _ in 0..15 {
            pace.count(at(0));
        }
        assert!(!pace.is_burst(at(1)));
        pace.count(at(10));
        assert!(pace.is_burst(at(10)));
        // The next ones are few at first.
        pace.count(at(250));
        assert!(pace.is_burst(at(250)) && pace.is_burst(at(600)) && !pace.is_burst(at(700)));
        pace.count(at(800));
        assert!(!pace.is_burst(at(800)));
    }

    #[test]
    fn equal_questions_are_one_and_the_queue_has_an_end() {
        let catch_up = CatchUp::new(2);
        let question =
            |name: &str, after| (Channels::parse_segment(name.as_bytes()).unwrap(), Cursor::After(after));
        let first = catch_up.ask(question("a", 1)).unwrap();
        let _same = catch_up.ask(question("a", 1)).unwrap();
        assert_eq!(catch_up.load(), 500);
        let _other = catch_up.ask(question("a", 2)).unwrap();
        assert_eq!(catch_up.ask(question("b", 1)).unwrap_err(), ServeError::Overloaded);
        drop((first, _same));
        // Nobody waits for the first any more.
        let Some(Job::Read(behind)) = catch_up.next() else { panic!() };
        assert_eq!(behind.cursors, [Cursor::After(2)]);
        catch_up.stop();
        assert!(catch_up.next().is_none());
        assert_eq!(catch_up.ask(question("b", 1)).unwrap_err(), ServeError::Draining);
    }
}
