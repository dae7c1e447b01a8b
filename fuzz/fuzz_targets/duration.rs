//! Any text is a duration or an error that repeats at most part of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podshaper_core::duration;

fuzz_target!(|text: &str| {
    if let Err(error) = duration::parse(text) {
        assert!(error.to_string().len() < 1000);
    }
});
