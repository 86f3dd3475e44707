//! The fallback program.
fn main() {}
