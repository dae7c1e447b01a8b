//! A pull secret in both formats. An error never contains the content.
#![no_main]

use arch::credentials::DockerConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for config in [DockerConfig::from_json(text), DockerConfig::from_legacy_json(text)] {
        if let Err(error) = config {
            assert!(error.to_string().len() < 300, "{error}");
        }
    }
});
