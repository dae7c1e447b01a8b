//! A strategy, whatever it is: it is understood and printed as what is understood as the same, or the mistake is in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::strategy::Strategy;

fuzz_target!(|text: &str| {
    match Strategy::parse(text) {
        Ok(strategy) => {
            let printed = strategy.to_string();
            let again = Strategy::parse(&printed).expect("what is printed is a strategy");
            assert!(again == strategy && again.to_string() == printed);
            let allocator = SlotAllocator::new(strategy.policy().clone());
            let bounded = strategy.policy().groups().iter().all(|group| group.weight == 0);
            let bases: u32 = strategy.policy().groups().iter().map(|group| group.base).sum();
            let pods = if bounded { bases.min(100) } else { 100 };
            assert_eq!(allocator.desired(100).iter().sum::<u32>(), pods);
        }
        Err(error) => {
            assert!(error.at <= text.chars().count());
            let [line, mark] = error.pointing(text);
            assert!(mark.ends_with('^') && mark.len() <= line.chars().count() + 1);
            assert!(error.problem.len() < 1000);
        }
    }
});
