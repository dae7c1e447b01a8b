//! The header `WWW-Authenticate` of a registry: a challenge that is found has a bounded size.
#![no_main]

use arch::registry::challenge::Challenge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(challenge) = Challenge::of(text.lines()) {
        assert!(challenge.text_len() <= text.len() + 64);
        assert!(challenge.without_scopes().text_len() <= challenge.text_len());
        if let Challenge::Bearer { scopes, .. } = challenge {
            assert!(scopes.len() <= 4 && scopes.iter().all(|scope| scope.ends_with(":pull")));
        }
    }
});
