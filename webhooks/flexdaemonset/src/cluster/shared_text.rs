//! Texts that many pods share: the pods of a DaemonSet on nodes of one size differ by nothing but their node.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// The number of texts up to which unused ones are kept.
const MIN_TEXTS: usize = 256;

static TEXTS: LazyLock<Mutex<Texts>> = LazyLock::new(Mutex::default);

/// The text, shared with all others that are equal.
pub(super) fn share(text: &str) -> Arc<str> {
    TEXTS.lock().unwrap_or_else(PoisonError::into_inner).share(text)
}

#[derive(Default)]
struct Texts {
    shared: HashSet<Arc<str>>,
    /// The number of texts at which unused ones are removed.
    prune_at: usize,
}

impl Texts {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.shared.get(text) {
            return Arc::clone(shared);
        }
        if self.shared.len() >= self.prune_at {
            self.shared.retain(|shared| Arc::strong_count(shared) > 1);
            self.prune_at = MIN_TEXTS.max(self.shared.len() * 2);
        }
        let shared: Arc<str> = text.into();
        self.shared.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_memory_until_unused() {
        let mut texts = Texts::default();
        let one = texts.share("a");
        assert!(Arc::ptr_eq(&one, &texts.share("a")));
        for number in 0..10 * MIN_TEXTS {
            texts.share(&number.to_string());
        }
        assert!(texts.shared.len() <= 2 * MIN_TEXTS, "{}", texts.shared.len());
        assert!(Arc::ptr_eq(&one, &texts.share("a")), "a used text stays");
    }
}
