//! The harness: starts the real programs, speaks to them over real sockets, and takes everything down again.
//!
//! A test says what it needs and drops it when it is done:
//!
//! ```no_run
//! use everpoll_tests::{Daemon, Database, http};
//!
//! let database = Database::shared();
//! let daemon = Daemon::on(database.url()).start();
//! let held = http::get("/e/cheese/tab-1").begin(daemon.address());
//! database.psql("INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '{}')");
//! assert_eq!(held.reply().events().len(), 1);
//! ```
//!
//! What a newcomer gets wrong:
//! - Nothing here sleeps for "long enough". [`wait::until`] looks for a condition until a deadline.
//! - Each program has a directory and ports of its own, so tests run side by side. Only [`Database::shared`] shares
//!   a PostgreSQL server, with a database for each test; a test that stops the server starts [`Postgres`] itself.
//! - Values are cleaned up on drop, also when the test panics, and a panic prints the program's log. When the whole
//!   test process is killed, the [guardian](process) takes down what it left.

pub mod bystanders;
pub mod crowd;
pub mod cutter;
pub mod database;
pub mod directory;
pub mod disk;
pub mod everpoll;
pub mod http;
pub mod link;
pub mod numbers;
pub mod pollers;
pub mod ports;
pub mod process;
pub mod proxies;
pub mod redis;
pub mod script;
pub mod sse;
pub mod stub;
pub mod tls;
pub mod wait;
pub mod web;
pub mod websocket;

pub use bystanders::Bystanders;
pub use crowd::Crowd;
pub use cutter::Cutter;
pub use database::{Database, Dump, Postgres, Sqlite};
pub use directory::TestDir;
pub use disk::Disk;
pub use everpoll::{Daemon, Fallback};
pub use http::{Address, Reply};
pub use link::Link;
pub use process::Process;
pub use redis::Redis;
pub use script::Script;
pub use sse::EventStream;
pub use web::WebServer;
pub use websocket::WebSocket;
