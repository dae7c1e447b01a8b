//! The full name of an image is itself a name of that image.
#![no_main]

use arch_decision::name::ImageName;
use libfuzzer_sys::fuzz_target;

/// Bytes of a name, with room for the registry and the tag that its full name adds.
const MAX_NAME: usize = 700;

fuzz_target!(|text: &str| {
    // Without these characters, only a capital letter made the first part a registry. The full name has it in lower case.
    if text.len() <= MAX_NAME
        && let Some(name) = ImageName::parse(text)
        && (name.registry.contains(['.', ':']) || &*name.registry == "localhost")
    {
        assert_eq!(ImageName::parse(&name.to_string()), Some(name));
    }
});
