//! A document that is written again is the same document.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podshaper_offline::yaml;

fuzz_target!(|text: &str| {
    if let Ok(value) = yaml::parse(text) {
        let written = yaml::to_string(&value);
        assert_eq!(yaml::parse(&written).expect("a written document is YAML"), value, "{written}");
    }
});
