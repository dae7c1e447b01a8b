//! Strategies that were understood.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use podshaper_placement::rules::{Rules, SharedRules};
use podshaper_placement::strategy::{Strategy, StrategyError};

/// So many are remembered: what was worked out of one is for all workloads that say the same.
const MAX_REMEMBERED: usize = 256;

/// The rules of strategies.
#[derive(Debug, Default)]
pub struct Strategies(Mutex<HashMap<String, SharedRules>>);

impl Strategies {
    /// The rules that a strategy comes to.
    pub fn rules(&self, text: &str) -> Result<SharedRules, StrategyError> {
        let strategy = Strategy::parse(text)?;
        // As it is printed it is short, whatever it was written like.
        let printed = strategy.to_string();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = known.get(&printed) {
            return Ok(Arc::clone(rules));
        }
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        let rules = Arc::new(Mutex::new(Rules::new(strategy.policy().clone())));
        known.insert(printed, Arc::clone(&rules));
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_shares_its_rules() {
        let strategies = Strategies::default();
        let rules = |text: &str| strategies.rules(text).unwrap();
        let one = rules("a=b,weight=1");
        assert!(Arc::ptr_eq(&one, &rules(" a=b , base=0, weight=01")));
        assert!(!Arc::ptr_eq(&one, &rules("a=c,weight=1")));
        for number in 0..3 * MAX_REMEMBERED {
            rules(&format!("a=b{number},weight=1"));
        }
        assert!(strategies.0.lock().unwrap().len() <= MAX_REMEMBERED);
        assert!(strategies.rules("a=b").is_err());
    }
}
