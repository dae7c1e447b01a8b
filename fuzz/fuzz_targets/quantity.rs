//! A quantity prints, and is stored, as a quantity of the same amount. Its notation may change: Go prints 0.5Ki as 512.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podshaper_core::quantity::Quantity;

fuzz_target!(|text: &str| {
    let _ = Quantity::from_json(text);
    let Ok(quantity) = Quantity::parse(text) else { return };
    let printed = quantity.to_string();
    let stored = Quantity::stored(text).expect("a quantity");
    for same in [&*printed, &*stored] {
        let again = Quantity::parse(same).expect("a printed quantity is a quantity");
        if let Some(difference) = again.checked_sub(&quantity) {
            assert!(difference.is_zero(), "{text} {same}");
        }
    }
});
