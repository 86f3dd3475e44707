//! libFuzzer's entry; what is promised is in `targets/`.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::frames::check(input));
