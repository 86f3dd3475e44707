//! The daemon and the command line.
//!
//! `serve` is the daemon; all other commands are small and live in [`cli`]. The way of a poll through the daemon: `front`
//! reads its head, `seats` and `hub` hold it, `tailer` follows the log and wakes it up, `window` has what it is answered with.

mod backend;
mod catch_up;
mod cli;
mod front;
mod head;
mod health;
mod hub;
mod listen;
mod lot;
mod metrics;
mod pages;
mod publish;
mod reload;
mod replies;
mod retention;
mod seats;
mod serve;
mod server;
mod service;
mod stream;
mod tailer;
mod tls;
mod transport;
mod visitors;
mod wakeup;
mod window;

fn main() -> std::process::ExitCode {
    cli::main()
}
