//! The open connections of a port, up to a maximum.
//!
//! Every client on the network can open connections and leave them idle. When a port has its maximum, a new connection therefore
//! replaces another one, in this order:
//!
//! 1. the oldest idle connection that has never carried a review;
//! 2. the oldest connection with its first request in flight;
//! 3. the connection that is idle for the longest time, of the peer with the most connections. An API server keeps at most 25 idle ones.
//!
//! Connections of one peer that have never carried a review take at most a quarter of the port. Connections that have carried one are
//! not limited by peer: behind a proxy all API servers have one address.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::listen::ACCEPT_PAUSE;

/// The part of a port that new connections of one peer may take: 1 of this number.
const PEER_SHARE: usize = 4;

/// The connections of one port.
#[derive(Debug)]
pub struct ConnectionPool {
    max: usize,
    open: Mutex<Open>,
    /// A connection has ended.
    ended: Notify,
    evictions: Counter,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    /// By id, and so by age.
    connections: BTreeMap<u64, Arc<Connection>>,
}

#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    requests: Arc<RequestCounter>,
    reviewed: AtomicBool,
    evicted: Notify,
}

/// The place of one connection in its pool, until this is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    pool: Arc<ConnectionPool>,
    id: u64,
    connection: Arc<Connection>,
}

impl ConnectionPool {
    /// A pool of at most `max` connections, and at least one.
    pub fn new(max: usize) -> Arc<Self> {
        Self::with_evictions(max, Counter::default())
    }

    /// A pool that counts its evictions.
    pub(crate) fn with_evictions(max: usize, evictions: Counter) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), open: Mutex::default(), ended: Notify::new(), evictions })
    }

    /// Whether a new connection would have to wait: every open one has a request in flight.
    pub fn is_full(&self) -> bool {
        let open = self.lock();
        open.connections.len() >= self.max && open.replaceable().is_none()
    }

    /// Takes a place for a connection of `peer`. Waits while the pool is full.
    pub(crate) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Slot {
        loop {
            let ended = self.ended.notified();
            if let Some(slot) = self.try_admit(peer) {
                return slot;
            }
            // The end of a request makes a connection replaceable, too, but notifies nothing.
            let _ = timeout(ACCEPT_PAUSE, ended).await;
        }
    }

    fn try_admit(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut open = self.lock();
        if open.new_of(peer).count() >= (self.max / PEER_SHARE).max(1) {
            let oldest = open.oldest(open.new_of(peer));
            self.evict(&mut open, oldest);
        }
        if open.connections.len() >= self.max {
            let replaceable = open.replaceable();
            if !self.evict(&mut open, replaceable) {
                return None;
            }
        }
        let id = open.next_id;
        open.next_id += 1;
        let connection = Arc::new(Connection {
            peer,
            requests: RequestCounter::new(),
            reviewed: AtomicBool::new(false),
            evicted: Notify::new(),
        });
        open.connections.insert(id, Arc::clone(&connection));
        Some(Slot { pool: Arc::clone(self), id, connection })
    }

    fn evict(&self, open: &mut Open, id: Option<u64>) -> bool {
        let evicted = id.and_then(|id| open.connections.remove(&id));
        if let Some(connection) = &evicted {
            self.evictions.inc();
            connection.evicted.notify_one();
        }
        evicted.is_some()
    }

    /// Waits until no connection is open.
    pub(crate) async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            if self.lock().connections.is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The connections of `peer` that have never carried a review.
    fn new_of(&self, peer: IpAddr) -> impl Iterator<Item = u64> {
        let new = self.connections.iter().filter(move |(_, c)| c.peer == peer && !c.is_reviewed());
        new.map(|(id, _)| *id)
    }

    /// The oldest idle one of `connections`, or else the oldest.
    fn oldest(&self, connections: impl Iterator<Item = u64>) -> Option<u64> {
        let mut oldest = None;
        for id in connections {
            if self.connections.get(&id).is_some_and(|connection| connection.is_idle()) {
                return Some(id);
            }
            oldest = oldest.or(Some(id));
        }
        oldest
    }

    /// The connection that a new one may replace.
    fn replaceable(&self) -> Option<u64> {
        let new = self.connections.iter().filter(|(_, connection)| !connection.is_reviewed());
        self.oldest(new.map(|(id, _)| *id)).or_else(|| self.longest_idle())
    }

    /// The longest idle connection of the peer with the most connections, of those with an idle one.
    fn longest_idle(&self) -> Option<u64> {
        let mut peers = HashMap::<IpAddr, usize>::new();
        for connection in self.connections.values() {
            *peers.entry(connection.peer).or_default() += 1;
        }
        let idle = self.connections.iter().filter(|(_, connection)| connection.is_idle());
        let longest = idle.max_by_key(|(_, connection)| {
            (peers.get(&connection.peer), Reverse(connection.requests.last_change()))
        });
        longest.map(|(id, _)| *id)
    }
}

impl Connection {
    fn is_reviewed(&self) -> bool {
        self.reviewed.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.requests.in_flight() == 0
    }
}

impl Slot {
    /// The requests of the connection. A connection with one in flight is not idle.
    pub(crate) fn requests(&self) -> &Arc<RequestCounter> {
        &self.connection.requests
    }

    /// The connection has carried a review.
    pub(crate) fn set_reviewed(&self) {
        self.connection.reviewed.store(true, Ordering::Relaxed);
    }

    /// Resolves when another connection has replaced this one.
    pub(crate) async fn evicted(&self) {
        self.connection.evicted.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.lock().connections.remove(&self.id);
        self.pool.ended.notify_waiters();
    }
}

/// Counts requests in flight and remembers their last change.
#[derive(Debug)]
pub(crate) struct RequestCounter {
    created: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds since `created`.
    last_change: AtomicU64,
}

/// A request in flight, until this is dropped.
pub(crate) struct RequestGuard(Arc<RequestCounter>);

impl RequestCounter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            created: Instant::now(),
            in_flight: AtomicUsize::new(0),
            last_change: AtomicU64::new(0),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// When the last request ended, or the last call of [`Self::touch`].
    pub(crate) fn last_change(&self) -> Instant {
        self.created + Duration::from_millis(self.last_change.load(Ordering::Relaxed))
    }

    pub(crate) fn touch(&self) {
        let milliseconds = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_change.fetch_max(milliseconds, Ordering::Relaxed);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn peer(number: u8) -> IpAddr {
        [10, 0, 0, number].into()
    }

    fn is_evicted(slot: &Slot) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    #[tokio::test]
    async fn full_pool_evicts_the_oldest_idle_connection_without_a_review() {
        let pool = ConnectionPool::new(4);
        let reviewed = pool.admit(peer(1)).await;
        reviewed.set_reviewed();
        let receiving = pool.admit(peer(2)).await;
        let request = receiving.requests().begin();
        let idle = pool.admit(peer(3)).await;
        let newer = pool.admit(peer(4)).await;
        let _fifth = pool.admit(peer(5)).await;
        assert!(is_evicted(&idle));
        let sixth = pool.admit(peer(6)).await;
        assert!(is_evicted(&newer));
        drop(request);
        sixth.set_reviewed();
        let _seventh = pool.admit(peer(7)).await;
        assert!(is_evicted(&receiving), "older than the fifth, and idle now");
        assert!(!is_evicted(&reviewed));
        assert!(!is_evicted(&sixth));
    }

    #[tokio::test]
    async fn peer_without_a_review_gets_a_quarter_of_the_pool() {
        let pool = ConnectionPool::new(8);
        let other = pool.admit(peer(9)).await;
        let first = pool.admit(peer(1)).await;
        let second = pool.admit(peer(1)).await;
        let third = pool.admit(peer(1)).await;
        assert!(is_evicted(&first) && !is_evicted(&second) && !is_evicted(&other));
        second.set_reviewed();
        let _fourth = pool.admit(peer(1)).await;
        assert!(!is_evicted(&second) && !is_evicted(&third), "a connection with a review counts no more");
    }

    #[tokio::test]
    async fn pool_of_reviewed_connections_evicts_one_of_the_largest_peer() {
        let pool = ConnectionPool::new(4);
        let mut slots = Vec::new();
        for number in [1, 2, 2, 2] {
            let slot = pool.admit(peer(number)).await;
            slot.set_reviewed();
            slots.push(slot);
        }
        assert!(!pool.is_full());
        slots.push(pool.admit(peer(3)).await);
        let evicted: Vec<_> = slots.iter().map(is_evicted).collect();
        assert_eq!(evicted, [false, true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn pool_with_requests_on_all_connections_is_full() {
        let pool = ConnectionPool::new(2);
        let slots = [pool.admit(peer(1)).await, pool.admit(peer(2)).await];
        let requests = slots.each_ref().map(|slot| {
            slot.set_reviewed();
            slot.requests().begin()
        });
        assert!(pool.is_full());
        assert!(timeout(ACCEPT_PAUSE * 10, pool.admit(peer(3))).await.is_err(), "waits");
        drop(requests);
        assert!(!pool.is_full());
        let slot = timeout(ACCEPT_PAUSE * 10, pool.admit(peer(3))).await.unwrap();
        drop((slots, slot));
        pool.empty().await;
    }
}
