//! A worker: takes requests from the queue until the server stops.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::queue::{Done, Job, Own, Queue, Work};
use super::receiver::{Fault, Request};
use super::record;
use super::service::Service;

/// A request that has waited this long is not served any more: its client is about to be told that nobody answers
/// (web servers wait for 30 or 60 s), and those behind it still have time.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Serves requests until stopped.
pub(super) fn work<S: Service>(queue: &Queue<S>, service: &S) {
    let mut worker = service.worker();
    let mut looked = false;
    while let Some((work, load)) = queue.next(looked) {
        looked = matches!(work, Work::Look(_));
        let began = Instant::now();
        match work {
            Work::Look(jobs) => {
                let (done, left) = look(service, &mut worker, jobs, load, began);
                queue.end_look(done, left, began.elapsed());
            }
            Work::Own(owns) => {
                let done = answer(service, &mut worker, owns, load, began);
                queue.end_own(done, began.elapsed());
            }
        }
    }
}

/// Answers those of which one look tells all; the others are left.
fn look<S: Service>(
    service: &S,
    worker: &mut S::Worker,
    jobs: Vec<Job>,
    load: u32,
    now: Instant,
) -> (Vec<Done>, Vec<Own<S>>) {
    let (mut done, mut left) = (Vec::with_capacity(jobs.len()), Vec::new());
    let (mut asking, mut asked) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
    for job in jobs {
        match understand(service, &job, load, now) {
            Ok(understood) => {
                asking.push(job);
                asked.push(understood);
            }
            Err(stdout) => done.push(Done::new(&job, &stdout)),
        }
    }
    let told = if asked.is_empty() {
        Vec::new()
    } else {
        let all: Vec<_> = asked.iter().collect();
        guarded(service, worker, |worker| service.look(worker, &all, load))
            .unwrap_or_else(|| all.iter().map(|_| Some(service.refuse(Fault::Panicked, load))).collect())
    };
    for ((job, asked), told) in asking.into_iter().zip(asked).zip(told) {
        match told {
            Some(stdout) => done.push(Done::new(&job, &stdout)),
            None => left.push(Own { same: service.same(&asked), job, asked }),
        }
    }
    (done, left)
}

/// Answers requests by one read.
fn answer<S: Service>(
    service: &S,
    worker: &mut S::Worker,
    owns: Vec<Own<S>>,
    load: u32,
    now: Instant,
) -> Vec<Done> {
    let is_late = |own: &Own<S>| now.saturating_duration_since(own.job.since) > WAIT_MAX;
    let (late, owns): (Vec<_>, Vec<_>) = owns.into_iter().partition(is_late);
    let late = late.iter().map(|own| Done::new(&own.job, &service.refuse(Fault::Overloaded, load)));
    let mut done: Vec<_> = late.collect();
    if owns.is_empty() {
        return done;
    }
    let asked: Vec<_> = owns.iter().map(|own| &own.asked).collect();
    let answers = guarded(service, worker, |worker| service.answer(worker, &asked, load))
        .unwrap_or_else(|| asked.iter().map(|_| service.refuse(Fault::Panicked, load)).collect());
    done.extend(owns.iter().zip(answers).map(|(own, stdout)| Done::new(&own.job, &stdout)));
    done
}

fn understand<S: Service>(service: &S, job: &Job, load: u32, now: Instant) -> Result<S::Asked, Vec<u8>> {
    if now.saturating_duration_since(job.since) > WAIT_MAX {
        return Err(service.refuse(Fault::Overloaded, load));
    }
    // Each by itself: what one request breaks is not the others' fault.
    catch_unwind(AssertUnwindSafe(|| service.understand(&job.request, load)))
        .unwrap_or_else(|_| Err(service.refuse(Fault::Panicked, load)))
}

/// Does it; `None` if it panics.
fn guarded<S: Service, T>(
    service: &S,
    worker: &mut S::Worker,
    work: impl FnOnce(&mut S::Worker) -> T,
) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(|| work(worker)));
    // The panic's text is on stderr. Nothing is known of the worker's state.
    done.inspect_err(|_| *worker = service.worker()).ok()
}

impl Done {
    fn new(job: &Job, stdout: &[u8]) -> Self {
        let Request { id, keep, .. } = job.request;
        Self { connection: job.connection, keep, response: record::response(id, stdout) }
    }
}
