//! The checker: publishes numbered events, subscribes with many clients, breaks things on request, and holds what each
//! client got against what was published.
//!
//! `everpoll verify` is its command line, and Everpoll's own fault tests run the same code.
//!
//! What a newcomer gets wrong:
//! - The truth is what the publisher was *told*. An acknowledged event must reach every client of its channel exactly once.
//!   One whose outcome is unknown may be in the log or not: it must come to all or to none, at most once.
//! - The clients do not repair anything: they go on from the cursor they were given, as a page does, but an event that comes
//!   twice counts, although a page would know it by its id.
//! - It knows the server only by its interface, as anybody's client does, so that a mistake is not made on both sides.
//! - The [`Ledger`] judges, and knows nothing of requests: tests that publish and read in other ways feed it themselves.

mod client;
mod clock;
mod faults;
mod ledger;
mod plan;
mod publish;
mod record;
mod report;
mod run;
mod tally;
mod target;

pub use faults::{Action, Fault, command};
pub use ledger::{Ledger, Reader, Told};
pub use plan::{Cause, Plan, PlanError, Transport};
pub use report::{Group, Lateness, Progress, Report};
pub use run::{Stop, run};
pub use target::Target;
