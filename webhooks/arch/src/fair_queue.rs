//! So many look-ups at a time, and of each namespace no more than its share: a tenant whose registries never answer keeps its
//! own pods waiting, and nobody else's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// GateVerdict-ups at a time.
const AT_A_TIME: usize = 128;
/// GateVerdict-ups that are under way or wait for their turn.
const SEATS: usize = 8 * AT_A_TIME;
/// What one namespace may have of either.
const PART: usize = 4;

/// Who looks up how much.
pub(crate) struct FairQueue {
    turns: Semaphore,
    seats: Mutex<Queued>,
}

#[derive(Default)]
struct Queued {
    taken: usize,
    /// Of namespaces that have any.
    namespaces: HashMap<Box<str>, NamespaceShare>,
}

struct NamespaceShare {
    turns: Arc<Semaphore>,
    seats: usize,
}

/// One look-up's place in the queue, for as long as it is there.
pub(crate) struct QueuedLookup {
    shares: Arc<FairQueue>,
    namespace: Box<str>,
    turns: Arc<Semaphore>,
}

/// Leave to go on.
pub(crate) struct LookupPermit<'s> {
    _own: Option<SemaphorePermit<'s>>,
    _all: Option<SemaphorePermit<'s>>,
}

impl Default for FairQueue {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_A_TIME), seats: Mutex::default() }
    }
}

impl FairQueue {
    /// A place for a look-up of this namespace; none if too many wait already.
    pub(crate) fn seat(self: &Arc<Self>, namespace: &str) -> Option<QueuedLookup> {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let Queued { taken, namespaces } = &mut *seats;
        if *taken == SEATS || namespaces.get(namespace).is_some_and(|share| share.seats == SEATS / PART) {
            return None;
        }
        let new = || NamespaceShare { turns: Arc::new(Semaphore::new(AT_A_TIME / PART)), seats: 0 };
        let share = namespaces.entry(namespace.into()).or_insert_with(new);
        share.seats += 1;
        *taken += 1;
        let turns = Arc::clone(&share.turns);
        Some(QueuedLookup { shares: Arc::clone(self), namespace: namespace.into(), turns })
    }
}

impl QueuedLookup {
    /// Waits for the turn of this look-up: its namespace's, and then everybody's.
    pub(crate) async fn turn(&self) -> LookupPermit<'_> {
        // Neither is ever closed.
        let own = self.turns.acquire().await.ok();
        LookupPermit { _own: own, _all: self.shares.turns.acquire().await.ok() }
    }
}

impl Drop for QueuedLookup {
    fn drop(&mut self) {
        let mut seats = self.shares.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.taken = seats.taken.saturating_sub(1);
        if let Some(share) = seats.namespaces.get_mut(&self.namespace) {
            share.seats = share.seats.saturating_sub(1);
            if share.seats == 0 {
                seats.namespaces.remove(&self.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whether its turn comes while nothing else happens.
    async fn goes(seat: &QueuedLookup) -> bool {
        timeout(Duration::from_mins(1), seat.turn()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_has_its_share_and_waits_for_its_own() {
        let shares = Arc::new(FairQueue::default());
        let seats: Vec<_> = (0..SEATS / PART).map(|_| shares.seat("greedy").unwrap()).collect();
        assert!(shares.seat("greedy").is_none(), "so many may wait");
        let mut turns = Vec::new();
        for seat in &seats[..AT_A_TIME / PART] {
            turns.push(seat.turn().await);
        }
        assert!(!goes(&seats[AT_A_TIME / PART]).await);
        assert!(goes(&shares.seat("other").unwrap()).await, "it is nobody else's");
        turns.pop();
        assert!(goes(&seats[AT_A_TIME / PART]).await);
        drop(turns);
        drop(seats);
        assert!(shares.seat("greedy").is_some());
        assert!(shares.seats.lock().unwrap().namespaces.is_empty(), "nothing is kept of who has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_so_many_at_a_time() {
        let shares = Arc::new(FairQueue::default());
        let seat = |n: usize| shares.seat(&(n % PART).to_string()).unwrap();
        let mut seats: Vec<_> = (0..AT_A_TIME).map(seat).collect();
        let another = shares.seat("another").unwrap();
        seats.extend((AT_A_TIME + 1..SEATS).map(seat));
        assert!(shares.seat("late").is_none());
        let mut turns = Vec::new();
        for seat in &seats[..AT_A_TIME] {
            turns.push(timeout(Duration::from_secs(1), seat.turn()).await.unwrap());
        }
        assert!(!goes(&another).await);
        turns.pop();
        assert!(goes(&another).await);
    }
}
