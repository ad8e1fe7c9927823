#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| h_realtime_fuzz::history_file(input));
