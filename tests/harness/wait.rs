//! Waiting for conditions instead of durations.
//!
//! A test that sleeps is either slow or wrong on a busy machine. What is looked for here is asked again every few
//! milliseconds, and the deadline is generous, since only failures ever reach it.

use std::time::{Duration, Instant};

/// How long anything may take that normally takes milliseconds, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(5);

/// Waits until `look` finds something, and returns that.
///
/// # Panics
/// With `what` when `deadline` has passed without it.
#[track_caller]
pub fn until_some<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    match try_until_some(deadline, &mut look) {
        Some(found) => found,
        None => panic!("waited {deadline:?} in vain until {what}"),
    }
}

/// Waits until `holds` says `true`.
///
/// # Panics
/// With `what` when `deadline` has passed without it.
#[track_caller]
pub fn until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    until_some(what, deadline, || holds().then_some(()));
}

/// Waits until `look` finds something; `None` when `deadline` has passed without it.
pub fn try_until_some<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_that_comes_late_is_found() {
        let mut looks = 0;
        until("the third look", PATIENCE, || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain until pigs fly")]
    fn condition_that_never_comes_fails_by_name() {
        until("pigs fly", Duration::from_millis(20), || false);
    }
}
