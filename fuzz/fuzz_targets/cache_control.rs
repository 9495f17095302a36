#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tower_m2m::tests::fuzzing::cache_control(bytes));
