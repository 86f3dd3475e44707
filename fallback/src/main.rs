//! The fallback program; all of it is in the library, so that `everpoll fallback` is the same.

fn main() -> std::process::ExitCode {
    everpoll_fallback::run(std::env::args_os().skip(1))
}
