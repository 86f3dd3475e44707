//! Work that goes on beside a test until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A thread that is ended before what it works on is taken down, also when the test fails.
pub(crate) struct Background<T> {
    /// `None` once it was waited for.
    thread: Option<JoinHandle<T>>,
    stopping: Arc<AtomicBool>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts it. It is to end soon once the flag is set.
    pub(crate) fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stopping = Arc::<AtomicBool>::default();
        let stop = stopping.clone();
        Self { thread: Some(std::thread::spawn(move || work(&stop))), stopping }
    }

    /// Ends it and returns what it came to.
    ///
    /// # Panics
    /// When it panicked.
    #[track_caller]
    pub(crate) fn stop(self) -> T {
        self.stopping.store(true, Ordering::SeqCst);
        self.finish()
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// When it panicked.
    #[track_caller]
    pub(crate) fn finish(mut self) -> T {
        self.thread.take().expect("only this takes it").join().expect("it does not panic")
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A test that fails already must not fail twice.
            let _ = thread.join();
        }
    }
}
