//! A queue of lookups with a limit for each namespace: registries that never answer delay only the pods of the namespaces that name
//! them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lookups at a time.
const AT_A_TIME: usize = 128;
/// Lookups that run or wait for their turn.
const MAX_QUEUED: usize = 8 * AT_A_TIME;
/// A namespace may use one part in this number of both limits.
const NAMESPACE_FRACTION: usize = 4;

/// The queue.
pub(crate) struct FairQueue {
    turns: Arc<Semaphore>,
    queued: Mutex<Queued>,
}

#[derive(Default)]
struct Queued {
    taken: usize,
    /// Namespaces with at least one lookup.
    namespaces: HashMap<Box<str>, NamespaceShare>,
}

struct NamespaceShare {
    turns: Arc<Semaphore>,
    queued: usize,
}

/// A lookup in the queue. It leaves the queue when this is dropped.
pub(crate) struct QueuedLookup {
    shares: Arc<FairQueue>,
    namespace: Box<str>,
    turns: Arc<Semaphore>,
}

/// The permission to run.
pub(crate) struct LookupPermit {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Default for FairQueue {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_A_TIME)), queued: Mutex::default() }
    }
}

impl FairQueue {
    /// Adds a lookup of this namespace. None if too many are waiting.
    pub(crate) fn enqueue(self: &Arc<Self>, namespace: &str) -> Option<QueuedLookup> {
        let mut queued = self.queued.lock().unwrap_or_else(PoisonError::into_inner);
        let Queued { taken, namespaces } = &mut *queued;
        if *taken == MAX_QUEUED
            || namespaces.get(namespace).is_some_and(|share| share.queued == MAX_QUEUED / NAMESPACE_FRACTION)
        {
            return None;
        }
        let new =
            || NamespaceShare { turns: Arc::new(Semaphore::new(AT_A_TIME / NAMESPACE_FRACTION)), queued: 0 };
        let share = namespaces.entry(namespace.into()).or_insert_with(new);
        share.queued += 1;
        *taken += 1;
        let turns = Arc::clone(&share.turns);
        Some(QueuedLookup { shares: Arc::clone(self), namespace: namespace.into(), turns })
    }
}

impl QueuedLookup {
    /// Waits for the limit of the namespace, and then for the limit of all.
    pub(crate) async fn turn(&self) -> LookupPermit {
        // Neither is ever closed.
        let own = Arc::clone(&self.turns).acquire_owned().await.ok();
        LookupPermit { _own: own, _all: Arc::clone(&self.shares.turns).acquire_owned().await.ok() }
    }
}

impl Drop for QueuedLookup {
    fn drop(&mut self) {
        let mut queued = self.shares.queued.lock().unwrap_or_else(PoisonError::into_inner);
        queued.taken = queued.taken.saturating_sub(1);
        if let Some(share) = queued.namespaces.get_mut(&self.namespace) {
            share.queued = share.queued.saturating_sub(1);
            if share.queued == 0 {
                queued.namespaces.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whether the lookup runs while no other one ends.
    async fn goes(enqueue: &QueuedLookup) -> bool {
        timeout(Duration::from_mins(1), enqueue.turn()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn namespace_waits_for_its_own_lookups() {
        let shares = Arc::new(FairQueue::default());
        let queued: Vec<_> =
            (0..MAX_QUEUED / NAMESPACE_FRACTION).map(|_| shares.enqueue("greedy").unwrap()).collect();
        assert!(shares.enqueue("greedy").is_none(), "so many may wait");
        let mut turns = Vec::new();
        for enqueue in &queued[..AT_A_TIME / NAMESPACE_FRACTION] {
            turns.push(enqueue.turn().await);
        }
        assert!(!goes(&queued[AT_A_TIME / NAMESPACE_FRACTION]).await);
        assert!(goes(&shares.enqueue("other").unwrap()).await, "other namespaces are not affected");
        turns.pop();
        assert!(goes(&queued[AT_A_TIME / NAMESPACE_FRACTION]).await);
        drop(turns);
        drop(queued);
        assert!(shares.enqueue("greedy").is_some());
        assert!(shares.queued.lock().unwrap().namespaces.is_empty(), "no state remains");
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_lookups_are_limited() {
        let shares = Arc::new(FairQueue::default());
        let enqueue = |n: usize| shares.enqueue(&(n % NAMESPACE_FRACTION).to_string()).unwrap();
        let mut queued: Vec<_> = (0..AT_A_TIME).map(enqueue).collect();
        let another = shares.enqueue("another").unwrap();
        queued.extend((AT_A_TIME + 1..MAX_QUEUED).map(enqueue));
        assert!(shares.enqueue("late").is_none());
        let mut turns = Vec::new();
        for enqueue in &queued[..AT_A_TIME] {
            turns.push(timeout(Duration::from_secs(1), enqueue.turn()).await.unwrap());
        }
        assert!(!goes(&another).await);
        turns.pop();
        assert!(goes(&another).await);
    }
}
