//! A cache of parsed strategies.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::strategy::{Strategy, StrategyError};

/// Largest number of cached strategies. Workloads with the same strategy share an allocator.
const MAX_REMEMBERED: usize = 256;

/// The allocators of strategies.
#[derive(Debug, Default)]
pub struct Strategies(Mutex<HashMap<String, Arc<SlotAllocator>>>);

impl Strategies {
    /// The allocator of a strategy.
    pub fn allocator(&self, text: &str) -> Result<Arc<SlotAllocator>, StrategyError> {
        let strategy = Strategy::parse(text)?;
        // The printed form is short, whatever spaces and zeros the text has.
        let printed = strategy.to_string();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(allocator) = known.get(&printed) {
            return Ok(Arc::clone(allocator));
        }
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        let allocator = Arc::new(SlotAllocator::new(strategy.policy().clone()));
        known.insert(printed, Arc::clone(&allocator));
        Ok(allocator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strategies_share_an_allocator() {
        let strategies = Strategies::default();
        let allocator = |text: &str| strategies.allocator(text).unwrap();
        let one = allocator("a=b,weight=1");
        assert!(Arc::ptr_eq(&one, &allocator(" a=b , base=0, weight=01")));
        assert!(!Arc::ptr_eq(&one, &allocator("a=c,weight=1")));
        for number in 0..3 * MAX_REMEMBERED {
            allocator(&format!("a=b{number},weight=1"));
        }
        assert!(strategies.0.lock().unwrap().len() <= MAX_REMEMBERED);
        assert!(strategies.allocator("a=b").is_err());
    }
}
