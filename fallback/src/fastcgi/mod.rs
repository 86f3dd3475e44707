//! FastCGI 1.0 as a responder, for nginx, Apache, lighttpd and whoever else speaks it.
//!
//! The crate that was there for it was not fit (`docs/explanation/decisions.md` says why), so this one is our own. It comes
//! in layers, each to be read alone:
//!
//! - [`record`]: single records, to and from bytes.
//! - [`params`]: the name-value pairs inside of them.
//! - [`receiver`]: what one connection sends, put together to requests; no IO.
//! - `connection`: one socket and what is to be done with it.
//! - `queue` and `later`: complete requests on their way to the workers, and replies on their way back.
//! - [`service`] and `worker`: what is served, and who does it.
//! - [`listener`] and [`server`]: the listening socket, and the loop that owns all the others.
//!
//! What a newcomer gets wrong: a connection is not a request. A web server keeps hundreds of idle connections, so a
//! thread for each would starve those that have something to say.

mod budget;
mod connection;
mod later;
pub mod listener;
pub mod params;
mod queue;
pub mod receiver;
pub mod record;
pub mod responder;
pub mod server;
pub mod service;
mod worker;

pub use budget::Budget;
