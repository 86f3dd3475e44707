//! Complete requests on their way to the workers, and replies on their way back.
//!
//! The loop that owns the sockets never waits for the database, and the workers never touch a socket. Between them are two
//! lists; the loop is woken once for however many replies have come meanwhile.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::Waker;

use super::params::Params;
use super::receiver::{Fault, Request};

/// A request that has waited this long is not served any more: its client is about to be told that nobody answers
/// (web servers wait for 30 or 60 s), and those behind it still have time.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Time in which the remembered load halves.
const LOAD_HALVES_IN: f64 = 5.0;

/// When a request is going to wait so long for its worker, the load is full: clients come back after as long.
const FULL_WAIT: Duration = Duration::from_secs(5);

/// So many requests in a short time are a full load, however fast they are answered: all of them are going to come back.
const FULL_RETURN: f64 = 50_000.0;

/// An answer counts for so much of the average time that one takes.
const ANSWER_SHARE: f64 = 1.0 / 16.0;

/// What the server serves.
pub trait Service: Send + Sync + 'static {
    /// What one worker needs, such as a database connection.
    type Worker;

    /// Makes a worker.
    fn worker(&self) -> Self::Worker;

    /// Answers a request with what goes to a CGI program's stdout. `load` is in thousandths.
    fn answer(&self, worker: &mut Self::Worker, request: &Request, load: u32) -> Vec<u8>;

    /// Answers a request that is not served.
    fn refuse(&self, fault: Fault, load: u32) -> Vec<u8>;

    /// Most bytes of the body of a request with these variables.
    fn body_max(&self, params: &Params) -> usize;
}

/// A request and the connection that it came on.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) connection: usize,
    pub(super) request: Request,
    pub(super) since: Instant,
}

/// What a connection is to send.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) connection: usize,
    pub(super) request_id: u16,
    pub(super) keep: bool,
    pub(super) stdout: Vec<u8>,
}

/// Both lists.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
    done: Mutex<Vec<Done>>,
    waker: Waker,
    jobs_max: usize,
    workers: usize,
}

#[derive(Debug)]
struct Jobs {
    list: VecDeque<Job>,
    /// Jobs that a worker has in hand.
    busy: usize,
    load: Load,
    /// Seconds that a worker takes for an answer, on average of the last few.
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

impl Queue {
    /// Empty lists for so many workers; at most `jobs_max` requests wait, and `waker` is woken when there are replies.
    pub(super) fn new(jobs_max: usize, workers: usize, waker: Waker) -> Self {
        let load = Load { thousandths: 0.0, at: Instant::now() };
        let jobs = Jobs { list: VecDeque::new(), busy: 0, load, answer_time: 0.0, stopped: false };
        Self {
            jobs: Mutex::new(jobs),
            changed: Condvar::new(),
            done: Mutex::default(),
            waker,
            jobs_max,
            workers,
        }
    }

    /// Hands a request to the workers.
    ///
    /// # Errors
    ///
    /// Gives it back when too many wait.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut jobs = lock(&self.jobs);
        if jobs.list.len() >= self.jobs_max || jobs.stopped {
            return Err(job);
        }
        let now = job.since;
        jobs.list.push_back(job);
        let waiting = jobs.list.len() as f64;
        let wait = waiting * jobs.answer_time / self.workers.max(1) as f64;
        let share = (waiting / self.jobs_max as f64).max(wait / FULL_WAIT.as_secs_f64());
        jobs.load.rise(share * 1000.0, now);
        jobs.load.add(1000.0 / FULL_RETURN);
        drop(jobs);
        self.changed.notify_one();
        Ok(())
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
        jobs.list.is_empty() && jobs.busy == 0
    }

    /// Ends [`work`](Self::work) on all threads, each after what it has in hand.
    pub(super) fn stop(&self) {
        lock(&self.jobs).stopped = true;
        self.changed.notify_all();
    }

    /// Serves requests until stopped.
    pub(super) fn work<S: Service>(&self, service: &S) {
        let mut worker = service.worker();
        while let Some((job, load)) = self.next() {
            let Job { connection, request, since } = job;
            let began = Instant::now();
            let stdout = if since.elapsed() > WAIT_MAX {
                service.refuse(Fault::Overloaded, load)
            } else {
                let answered = catch_unwind(AssertUnwindSafe(|| service.answer(&mut worker, &request, load)));
                answered.unwrap_or_else(|_| {
                    // The panic's text is on stderr. Nothing is known of the worker's state.
                    worker = service.worker();
                    service.refuse(Fault::Panicked, load)
                })
            };
            let done = Done { connection, request_id: request.id, keep: request.keep, stdout };
            self.finish(done, began.elapsed());
        }
    }

    fn next(&self) -> Option<(Job, u32)> {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(job) = jobs.list.pop_front() {
                jobs.busy += 1;
                let load = jobs.load.at(Instant::now()) as u32;
                return Some((job, load));
            }
            if jobs.stopped {
                return None;
            }
            jobs = self.changed.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, done: Done, took: Duration) {
        let first = {
            let mut list = lock(&self.done);
            list.push(done);
            list.len() == 1
        };
        {
            let mut jobs = lock(&self.jobs);
            jobs.busy -= 1;
            jobs.answer_time += (took.as_secs_f64() - jobs.answer_time) * ANSWER_SHARE;
        }
        if first {
            // It fails only without memory in the kernel; the loop looks each second in any case.
            let _ = self.waker.wake();
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
