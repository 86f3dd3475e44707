//! What the server serves, as far as it must know.

use std::hash::Hash;

use super::params::Params;
use super::receiver::{Fault, Request};

/// What the server serves.
///
/// A request is understood first. Then one look, at what all have in common, may answer many of them; each of the others is answered by
/// itself, or together with those that ask the same.
pub trait Service: Send + Sync + 'static {
    /// What one worker needs, such as a database connection.
    type Worker;

    /// A request that is understood.
    type Asked: Send + 'static;

    /// What two requests have in common that one read answers.
    type Same: Clone + Eq + Hash + Send + 'static;

    /// Makes a worker.
    fn worker(&self) -> Self::Worker;

    /// Understands a request.
    ///
    /// # Errors
    ///
    /// What goes to a CGI program's stdout, if that is all there is to say. `load` is in thousandths.
    fn understand(&self, request: &Request, load: u32) -> Result<Self::Asked, Vec<u8>>;

    /// Looks once, and answers those of which that tells all, in their order. The others come to [`answer`](Self::answer).
    fn look(&self, worker: &mut Self::Worker, asked: &[&Self::Asked], load: u32) -> Vec<Option<Vec<u8>>>;

    /// What this request has in common with others; `None` for one that is answered alone.
    fn same(&self, asked: &Self::Asked) -> Option<Self::Same>;

    /// Answers requests that are [the same](Self::same), or a single one, in their order.
    fn answer(&self, worker: &mut Self::Worker, asked: &[&Self::Asked], load: u32) -> Vec<Vec<u8>>;

    /// Answers a request that is not served.
    fn refuse(&self, fault: Fault, load: u32) -> Vec<u8>;

    /// Most bytes of the body of a request with these variables.
    fn body_max(&self, params: &Params) -> usize;
}
