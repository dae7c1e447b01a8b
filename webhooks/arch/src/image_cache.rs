//! The cache of answers for images. Concurrent lookups of one image and credential are joined.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache as Moka;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::fair_queue::FairQueue;
use crate::registry::Resolved;
use arch_decision::config::CacheSettings;
use arch_decision::images::LookupError;
use arch_decision::platform::Platforms;

/// The longest time of a lookup, including its wait in the queue.
const LONGEST: Duration = Duration::from_secs(30);

/// The key of an answer: the full name, and the identity of the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) name: Box<str>,
    pub(crate) identity: [u8; 16],
}

pub(crate) type LookupResult = Result<Resolved, LookupError>;

#[derive(Clone, Debug)]
struct Entry {
    outcome: LookupResult,
    at: Instant,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// A digest always means the same.
    Always,
    /// No older than this.
    Within(Duration),
    /// The registry is asked. The cached answer is used if it does not respond.
    Now,
}

/// The result of a read.
pub(crate) enum CacheAnswer {
    /// A fresh answer.
    Fresh(LookupResult),
    /// An answer that should be looked up again.
    Stale(LookupResult),
    /// Nothing.
    Miss,
}

/// The cache.
pub(crate) struct ImageCache {
    entries: Moka<Key, Entry>,
    flights: Mutex<HashMap<Key, watch::Receiver<Option<LookupResult>>>>,
    shares: Arc<FairQueue>,
}

impl ImageCache {
    pub(crate) fn new(settings: CacheSettings) -> Self {
        let entries = Moka::builder().weigher(weight).max_capacity(settings.bytes).build();
        Self { entries, flights: Mutex::default(), shares: Arc::default() }
    }

    /// Reads an answer.
    pub(crate) fn get(&self, key: &Key, freshness: Freshness) -> CacheAnswer {
        let Some(Entry { outcome, at }) = self.entries.get(key) else { return CacheAnswer::Miss };
        let age = at.elapsed();
        match (&outcome, freshness) {
            (Err(why), _) if age < patience(*why) => CacheAnswer::Fresh(outcome),
            (Err(_), _) => CacheAnswer::Miss,
            (Ok(_), Freshness::Always) => CacheAnswer::Fresh(outcome),
            (Ok(_), Freshness::Within(time)) if age < time => CacheAnswer::Fresh(outcome),
            (Ok(_), Freshness::Within(_) | Freshness::Now) => CacheAnswer::Stale(outcome),
        }
    }

    /// Remembers what an image is.
    pub(crate) fn keep(&self, key: Key, outcome: LookupResult) {
        let before = self.entries.get(&key);
        // A temporary failure does not replace an answer.
        let kept = match (&outcome, before) {
            (
                Err(LookupError::Unavailable | LookupError::Timeout | LookupError::RateLimited),
                Some(before),
            ) if before.outcome.is_ok() => {
                return;
            }
            _ => outcome,
        };
        self.entries.insert(key, Entry { outcome: kept, at: Instant::now() });
    }

    /// Joins the running lookup, or starts one for this namespace. A lookup is a task of its own and continues without its callers.
    /// None if too many wait for their turn.
    pub(crate) fn join_or_start(
        self: &Arc<Self>,
        key: &Key,
        namespace: &str,
        start_lookup: impl Future<Output = LookupResult> + Send + 'static,
    ) -> Option<watch::Receiver<Option<LookupResult>>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(key) {
            return Some(flight.clone());
        }
        let enqueue = self.shares.enqueue(namespace)?;
        let (outcome_sender, flight) = watch::channel(None);
        flights.insert(key.clone(), flight.clone());
        let landing = EndOfLookup { cache: Arc::clone(self), key: key.clone() };
        // A task has room for all that it is made of, twice: as what it begins with, and as what it waits for.
        let start_lookup = Box::pin(async move {
            let _turn = enqueue.turn().await;
            start_lookup.await
        });
        tokio::spawn(async move {
            let outcome = timeout(LONGEST, start_lookup).await.unwrap_or(Err(LookupError::Timeout));
            landing.cache.keep(landing.key.clone(), outcome.clone());
            drop(landing);
            outcome_sender.send_replace(Some(outcome));
        });
        Some(flight)
    }

    /// Bytes taken, and images known.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.entries.weighted_size(), self.entries.entry_count())
    }
}

/// Removes the lookup when it ends, also by a panic.
struct EndOfLookup {
    cache: Arc<ImageCache>,
    key: Key,
}

impl Drop for EndOfLookup {
    fn drop(&mut self) {
        self.cache.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// How long what isn't known isn't asked for again.
fn patience(why: LookupError) -> Duration {
    Duration::from_secs(match why {
        LookupError::Unavailable | LookupError::Timeout | LookupError::RateLimited => 5,
        LookupError::Unauthorized | LookupError::NotFound => 20,
        LookupError::Invalid | LookupError::NotAllowed | LookupError::Refused | LookupError::Malformed => 60,
    })
}

/// Bytes of an entry, roughly: text, sets and the cache's own.
fn weight(key: &Key, entry: &Entry) -> u32 {
    let platforms = match &entry.outcome {
        Ok(Resolved { platforms, .. }) => match &**platforms {
            Platforms::Only(platforms) => platforms.iter().map(|platform| 96 + platform.text_len()).sum(),
            Platforms::Any => 0,
        },
        Err(_) => 0,
    };
    u32::try_from(400 + key.name.len() + platforms).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use arch_decision::config::Settings;
    use arch_decision::platform::Platform;

    fn cache() -> Arc<ImageCache> {
        Arc::new(ImageCache::new(Settings::default().cache))
    }

    fn key(name: &str) -> Key {
        Key { name: name.into(), identity: [0; 16] }
    }

    fn resolved() -> Resolved {
        Resolved {
            digest: "sha256:1".into(),
            platforms: Arc::new(Platforms::Any),
            index: false,
            from: "a".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lookup_continues_without_its_first_caller() {
        let (cache, asked) = (cache(), Arc::new(AtomicUsize::new(0)));
        let start_lookup = || {
            let asked = Arc::clone(&asked);
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(3)).await;
                Ok(resolved())
            }
        };
        let mut first = cache.join_or_start(&key("a"), "ns", start_lookup()).unwrap();
        assert!(
            timeout(Duration::from_secs(1), first.wait_for(Option::is_some)).await.is_err(),
            "out of time"
        );
        drop(first);
        let mut others: Vec<_> =
            (0..1000).map(|_| cache.join_or_start(&key("a"), "ns", start_lookup()).unwrap()).collect();
        for other in &mut others {
            assert_eq!(*other.wait_for(Option::is_some).await.unwrap(), Some(Ok(resolved())));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(matches!(cache.get(&key("a"), Freshness::Always), CacheAnswer::Fresh(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_short_and_never_replace_what_is_known() {
        let cache = cache();
        cache.keep(key("a"), Err(LookupError::NotFound));
        assert!(matches!(
            cache.get(&key("a"), Freshness::Always),
            CacheAnswer::Fresh(Err(LookupError::NotFound))
        ));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(matches!(cache.get(&key("a"), Freshness::Always), CacheAnswer::Miss));
        cache.keep(key("a"), Ok(resolved()));
        let week = Freshness::Within(Duration::from_hours(168));
        assert!(matches!(cache.get(&key("a"), week), CacheAnswer::Fresh(Ok(_))));
        assert!(matches!(cache.get(&key("a"), Freshness::Now), CacheAnswer::Stale(Ok(_))));
        tokio::time::advance(Duration::from_hours(169)).await;
        cache.keep(key("a"), Err(LookupError::Unavailable));
        assert!(
            matches!(cache.get(&key("a"), week), CacheAnswer::Stale(Ok(_))),
            "a registry that is down is forgiven"
        );
        cache.keep(key("a"), Err(LookupError::NotFound));
        assert!(matches!(cache.get(&key("a"), week), CacheAnswer::Fresh(Err(LookupError::NotFound))));
    }

    #[tokio::test]
    async fn memory_is_bounded_for_any_platform_name() {
        let settings = CacheSettings { bytes: 1 << 20, ..Settings::default().cache };
        let cache = Arc::new(ImageCache::new(settings));
        for number in 0..100 {
            let platform = Platform::new("linux", &"x".repeat(100_000), None);
            let platforms = Arc::new(Platforms::Only([platform].into()));
            cache.keep(key(&number.to_string()), Ok(Resolved { platforms, ..resolved() }));
            cache.entries.run_pending_tasks();
        }
        let known = (0..100).filter(|number| cache.entries.contains_key(&key(&number.to_string())));
        assert!((1..11).contains(&known.count()));
    }

    #[tokio::test]
    async fn credentials_separate_entries_and_panics_end_lookups() {
        let cache = cache();
        cache.keep(key("a"), Ok(resolved()));
        let other = Key { identity: [1; 16], ..key("a") };
        assert!(matches!(cache.get(&other, Freshness::Always), CacheAnswer::Miss));
        let mut flight =
            cache.join_or_start(&other, "ns", async { panic!("a lookup that ends in a panic") }).unwrap();
        assert!(flight.wait_for(Option::is_some).await.is_err());
        let mut flight = cache.join_or_start(&other, "ns", async { Ok(resolved()) }).unwrap();
        assert!(flight.wait_for(Option::is_some).await.is_ok());
    }
}
