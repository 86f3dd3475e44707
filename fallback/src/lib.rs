//! The program that answers while no daemon runs: one request as plain CGI, or many as FastCGI.
//!
//! It is small on purpose. There is no async runtime and nothing that could be wrong in another way than in the daemon:
//! parsing, replies and errors are the protocol's, reading and publishing the log's. What is its own:
//!
//! - [`variables`] and [`cgi`]: a request as a CGI host describes it.
//! - [`fastcgi`]: records, connections, and the loop that owns them.
//! - [`answer`] and [`outage`]: from a request to its reply, and what to do while the database is down.
//! - `look`: one look at the log that answers many polls.
//! - `counts` and `status`: what is counted, and where it is told.
//!
//! It never holds a request. A poll is answered with what there is, and with a delay after which to come back.

pub mod answer;
mod arguments;
pub mod cgi;
mod counts;
pub mod fastcgi;
mod look;
pub mod outage;
mod reload;
mod start;
mod status;
mod strain;
pub mod variables;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with these arguments, without its name, and returns how it ended: 0 after a stop or a reply, 1 when
/// the address cannot be used, 2 when arguments or settings are wrong.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // Of a query without `=`, Apache makes arguments for a CGI program (RFC 3875 section 4.4). They are whatever a client
    // wants, such as another settings file, so as CGI none are looked at.
    let arguments = arguments.filter(|_| !start::is_cgi());
    match arguments::parse(arguments) {
        Ok(arguments::Asked::Help) => start::print(arguments::HELP),
        Ok(arguments::Asked::Version) => {
            start::print(concat!("everpoll-fallback ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Ok(arguments::Asked::Run(arguments)) => start::run(&arguments),
        Err(wrong) => start::refuse(&[format!("{wrong}; see everpoll-fallback --help")], 2),
    }
}
