//! A manifest or index of a registry, whatever it is: it is read or refused, and what is read is bounded.
#![no_main]

use arch::registry::manifest::{Config, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (content_type, body) = text.split_once('\n').unwrap_or(("", text));
    let content_type = Some(content_type).filter(|content_type| !content_type.is_empty());
    if let Ok(Manifest::Index { platforms, unnamed, .. }) = Manifest::read(content_type, body) {
        assert!(platforms.len() <= 256 && unnamed.len() <= 24);
        assert!(unnamed.iter().all(|digest| body.len() >= digest.len()));
    }
    drop(Config::of_image(body));
    drop(Config::of_undeclared(body));
});
