//! Complete requests on their way to the workers, and replies on their way back.
//!
//! The loop that owns the sockets never waits for the database, and the workers never touch a socket. Between them are
//! lists; the loop is woken once for however many replies have come meanwhile, and a worker takes all requests that have come
//! since the last one looked. One look at the log is enough for most of them (as with a group commit), and what one look does
//! not tell stands in a second list, of reads and publishes, each of which has a worker to itself.
//!
//! What a newcomer gets wrong: a look answers requests that had come *before* it began, and no others. That is why a worker takes
//! its requests first and looks then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use mio::Waker;

use super::later::Later;
use super::receiver::Request;
use super::service::Service;
use crate::counts::COUNTS;

/// Most requests that share a look. It takes a moment to understand and answer so many; more are work for two.
const LOOK_MAX: usize = 64;

/// While a look takes longer than this, another worker begins one for those who have come meanwhile.
pub(super) const LOOK_SLOW: Duration = Duration::from_millis(10);

/// Time in which the remembered load halves.
const LOAD_HALVES_IN: f64 = 5.0;

/// When a request is going to wait so long for its worker, the load is full: clients come back after as long.
const FULL_WAIT: Duration = Duration::from_secs(5);

/// So many requests in a short time are a full load, however fast they are answered: all of them are going to come back.
const FULL_RETURN: f64 = 50_000.0;

/// An answer counts for so much of the average time that one takes.
const ANSWER_SHARE: f64 = 1.0 / 16.0;

/// A request and the connection that it came on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) connection: usize,
    pub(super) request: Request,
    pub(super) since: Instant,
}

/// A request that needs a read of its own.
pub(super) struct Own<S: Service> {
    pub(super) job: Job,
    pub(super) asked: S::Asked,
    /// What others may have in common with it.
    pub(super) same: Option<S::Same>,
}

/// What a connection is to send.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) connection: usize,
    pub(super) keep: bool,
    /// All records of the answer.
    pub(super) response: Vec<u8>,
}

/// What a worker does next.
pub(super) enum Work<S: Service> {
    /// Requests that have come, to be looked at together.
    Look(Vec<Job>),
    /// Requests that one read answers, or a single one.
    Own(Vec<Own<S>>),
}

/// All lists.
pub(super) struct Queue<S: Service> {
    jobs: Mutex<Jobs<S>>,
    done: Mutex<Vec<Done>>,
    waker: Waker,
    jobs_max: AtomicUsize,
    workers: usize,
}

struct Jobs<S: Service> {
    /// In the order in which they came.
    fresh: VecDeque<Job>,
    later: Later<S>,
    /// Requests that workers have in hand.
    busy: usize,
    /// Looks that workers are at, and the requests in them: some of these are going to wait again.
    looks: usize,
    looked_at: usize,
    /// When the last of them began.
    looked: Instant,
    /// Workers that are busy with what one look did not tell.
    owners: usize,
    /// Workers that have nothing to do and were not called. The last one to become idle is called first: it is still warm, and those
    /// that are never needed have no connection to the database.
    idle: Vec<Thread>,
    /// Workers that were called and have not come yet.
    called: usize,
    load: Load,
    /// Average time of the last answers, in seconds.
    answer_time: f64,
    stopped: bool,
}

/// The used share of what can wait, or of the time that a request should wait at most, where that is more; and a little
/// for each request. It rises at once and falls slowly: when thousands come in the same moment, the last of them are
/// answered from a queue that is nearly empty, but they are to be spread as widely as the first.
#[derive(Debug)]
struct Load {
    thousandths: f64,
    at: Instant,
}

impl<S: Service> Queue<S> {
    /// Empty lists for so many workers; at most `jobs_max` requests wait, and `waker` is woken when there are replies.
    pub(super) fn new(jobs_max: usize, workers: usize, waker: Waker) -> Self {
        let now = Instant::now();
        let jobs = Jobs {
            fresh: VecDeque::new(),
            later: Later::default(),
            busy: 0,
            looks: 0,
            looked_at: 0,
            looked: now,
            owners: 0,
            idle: Vec::with_capacity(workers),
            called: 0,
            load: Load { thousandths: 0.0, at: now },
            answer_time: 0.0,
            stopped: false,
        };
        Self {
            jobs: Mutex::new(jobs),
            done: Mutex::default(),
            waker,
            jobs_max: AtomicUsize::new(jobs_max),
            workers,
        }
    }

    /// From now on lets at most so many requests wait.
    pub(super) fn limit(&self, jobs_max: usize) {
        self.jobs_max.store(jobs_max, Ordering::Relaxed);
    }

    fn jobs_max(&self) -> usize {
        self.jobs_max.load(Ordering::Relaxed)
    }

    /// Hands requests to the workers, and leaves those in `came` for which there is no room.
    pub(super) fn push(&self, came: &mut Vec<Job>, now: Instant) {
        let mut jobs = lock(&self.jobs);
        let room =
            if jobs.stopped { 0 } else { self.jobs_max().saturating_sub(jobs.waiting() + jobs.looked_at) };
        let taken = room.min(came.len());
        jobs.fresh.extend(came.drain(..taken));
        let waiting = jobs.waiting() as f64;
        let wait = waiting * jobs.answer_time / self.workers.max(1) as f64;
        let share = (waiting / self.jobs_max() as f64).max(wait / FULL_WAIT.as_secs_f64());
        jobs.load.rise(share * 1000.0, now);
        jobs.load.add(taken as f64 * 1000.0 / FULL_RETURN);
        jobs.tell();
        self.call(&mut jobs, now);
    }

    /// Calls another worker when those that look at the log take long, and says whether requests wait for that.
    pub(super) fn attend(&self, now: Instant) -> bool {
        let mut jobs = lock(&self.jobs);
        if jobs.looks == 0 || jobs.fresh.is_empty() {
            return false;
        }
        self.call(&mut jobs, now);
        true
    }

    /// The replies that have come.
    pub(super) fn take_done(&self) -> Vec<Done> {
        std::mem::take(&mut lock(&self.done))
    }

    /// The load, in thousandths.
    pub(super) fn load(&self, now: Instant) -> u32 {
        lock(&self.jobs).load.at(now) as u32
    }

    /// Whether no request waits and none is being served.
    pub(super) fn is_empty(&self) -> bool {
        let jobs = lock(&self.jobs);
        jobs.waiting() == 0 && jobs.busy == 0
    }

    /// Ends [`next`](Self::next) for all workers, each after what it has in hand.
    pub(super) fn stop(&self) {
        let mut jobs = lock(&self.jobs);
        jobs.stopped = true;
        jobs.called += jobs.idle.len();
        jobs.idle.drain(..).for_each(|worker| worker.unpark());
    }

    /// The next work and the load, once there is some; `None` when the server has stopped. `looked` says that this worker's last work
    /// was a look: then it is the turn of what such looks leave behind.
    pub(super) fn next(&self, looked: bool) -> Option<(Work<S>, u32)> {
        let mut jobs = lock(&self.jobs);
        loop {
            let now = Instant::now();
            let (own, look) = (jobs.may_own(self.workers), jobs.may_look(now));
            if own && (looked || !look) {
                let own = jobs.later.take();
                jobs.owners += 1;
                jobs.busy += own.len();
                self.call(&mut jobs, now);
                return Some((Work::Own(own), jobs.load.at(now) as u32));
            }
            if look {
                let count = jobs.fresh.len().min(LOOK_MAX);
                let fresh: Vec<_> = jobs.fresh.drain(..count).collect();
                jobs.looks += 1;
                jobs.looked = now;
                jobs.looked_at += fresh.len();
                jobs.busy += fresh.len();
                self.call(&mut jobs, now);
                return Some((Work::Look(fresh), jobs.load.at(now) as u32));
            }
            if jobs.stopped {
                return None;
            }
            jobs.idle.push(thread::current());
            while jobs.is_idle() {
                drop(jobs);
                // It may end for no reason, and ends at once if the call came first.
                thread::park();
                jobs = lock(&self.jobs);
            }
            jobs.called -= 1;
        }
    }

    /// Takes the replies of a look that took so long, and what it did not tell.
    pub(super) fn end_look(&self, done: Vec<Done>, left: Vec<Own<S>>, took: Duration) {
        {
            let mut jobs = lock(&self.jobs);
            jobs.looks -= 1;
            jobs.looked_at -= done.len() + left.len();
            jobs.busy -= done.len() + left.len();
            jobs.note(done.len(), took);
            left.into_iter().for_each(|own| jobs.later.push(own));
            jobs.tell();
        }
        self.send(done);
    }

    /// Takes the replies of a read or a publish that took so long.
    pub(super) fn end_own(&self, done: Vec<Done>, took: Duration) {
        {
            let mut jobs = lock(&self.jobs);
            jobs.owners -= 1;
            jobs.busy -= done.len();
            jobs.note(done.len(), took);
            jobs.tell();
        }
        self.send(done);
    }

    fn send(&self, mut done: Vec<Done>) {
        if done.is_empty() {
            return;
        }
        let first = {
            let mut list = lock(&self.done);
            let first = list.is_empty();
            match first {
                true => *list = done,
                false => list.append(&mut done),
            }
            first
        };
        if first {
            // It fails only without memory in the kernel; the loop looks each second in any case.
            let _ = self.waker.wake();
        }
    }

    /// Calls an idle worker if there is something for it to do. It calls the next one when there is more.
    fn call(&self, jobs: &mut Jobs<S>, now: Instant) {
        let needed = jobs.may_look(now) || jobs.may_own(self.workers);
        if !needed || jobs.called > 0 {
            return;
        }
        if let Some(worker) = jobs.idle.pop() {
            jobs.called += 1;
            worker.unpark();
        }
    }
}

impl<S: Service> Jobs<S> {
    fn waiting(&self) -> usize {
        self.fresh.len() + self.later.len()
    }

    /// Tells how many requests are in hand.
    fn tell(&self) {
        COUNTS.in_hand.set(self.waiting() + self.busy);
    }

    /// Whether this thread stands among the idle workers.
    fn is_idle(&self) -> bool {
        let this = thread::current().id();
        self.idle.iter().any(|worker| worker.id() == this)
    }

    /// Whether one more worker may take what a look did not tell. One stays for those whose answer a look does tell, however long the
    /// others read.
    fn may_own(&self, workers: usize) -> bool {
        !self.later.is_empty() && (self.owners == 0 || self.owners + 1 < workers)
    }

    /// Whether those that have come are to be looked at now. While somebody looks already, those that come then are better off
    /// together behind that, unless they are many or it takes long.
    fn may_look(&self, now: Instant) -> bool {
        let more = self.looks == 0
            || self.fresh.len() >= LOOK_MAX
            || now.saturating_duration_since(self.looked) >= LOOK_SLOW;
        more && !self.fresh.is_empty()
    }

    /// Takes in how long so many answers took together.
    fn note(&mut self, answers: usize, took: Duration) {
        let Ok(count) = i32::try_from(answers.min(1000)) else { return };
        if count > 0 {
            let each = took.as_secs_f64() / f64::from(count);
            self.answer_time += (each - self.answer_time) * (1.0 - (1.0 - ANSWER_SHARE).powi(count));
        }
    }
}

impl Load {
    fn at(&self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.thousandths * 0.5_f64.powf(seconds / LOAD_HALVES_IN)
    }

    fn rise(&mut self, thousandths: f64, now: Instant) {
        *self = Self { thousandths: self.at(now).max(thousandths).min(1000.0), at: now };
    }

    fn add(&mut self, thousandths: f64) {
        self.thousandths = (self.thousandths + thousandths).min(1000.0);
    }
}

/// Locks; what a panicking thread left behind is whole, since nothing is changed in two steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_rises_at_once_and_falls_slowly() {
        let start = Instant::now();
        let mut load = Load { thousandths: 0.0, at: start };
        load.rise(800.0, start);
        load.rise(10.0, start);
        assert_eq!(load.at(start), 800.0);
        assert_eq!(load.at(start + Duration::from_secs(5)), 400.0);
        assert_eq!(load.at(start + Duration::from_secs(10)), 200.0);
        load.rise(5000.0, start + Duration::from_secs(10));
        assert_eq!(load.at(start + Duration::from_secs(10)), 1000.0);
    }

    #[test]
    fn load_rises_with_each_request_however_fast_it_is_answered() {
        let start = Instant::now();
        let mut load = Load { thousandths: 0.0, at: start };
        for _ in 0..15_000 {
            load.rise(0.0, start);
            load.add(1000.0 / FULL_RETURN);
        }
        assert_eq!(load.at(start).round(), 300.0);
    }
}
