//! The cache of answers for images. Concurrent lookups of one image and credential are joined.
//!
//! A namespace joins the lookup of another one only while that is no disadvantage: not while the lookup waits in the queue of the other
//! namespace, not for long, and not for a temporary failure, which may be due to the other namespace.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache as Moka;
use oci_client::Reference;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::fair_queue::FairQueue;
use crate::registry::Resolved;
use arch_decision::config::CacheSettings;
use arch_decision::images::LookupError;
use arch_decision::platform::Platforms;

/// The longest wait of a lookup in the queue, and its longest time after that.
const MAX_LOOKUP_STAGE: Duration = Duration::from_secs(30);
/// How long a namespace waits for a lookup of another namespace to get its turn.
const FOREIGN_QUEUE: Duration = Duration::from_millis(50);
/// How long a namespace then waits for its end. A lookup takes up to four requests.
const FOREIGN_LOOKUP: Duration = Duration::from_secs(1);

/// The key of an answer: the full name, and the identity of the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ImageKey {
    name: Box<str>,
    identity: [u8; 16],
}

impl ImageKey {
    pub(crate) fn new(image: &Reference, identity: [u8; 16]) -> Self {
        Self { name: image.to_string().into(), identity }
    }
}

pub(crate) type LookupResult = Result<Resolved, LookupError>;

#[derive(Clone, Debug)]
struct CachedLookup {
    outcome: LookupResult,
    at: Instant,
    /// The only namespace that a temporary failure counts for.
    namespace: Option<Arc<str>>,
}

/// The progress of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LookupState {
    /// The lookup waits for its turn.
    Queued,
    /// The lookup sends requests.
    Running,
    /// The lookup has ended.
    Done(LookupResult),
}

/// Receives the progress of a lookup.
pub(crate) type Flight = watch::Receiver<LookupState>;

impl LookupState {
    /// The result of a lookup that has ended.
    pub(crate) fn result(&self) -> Option<&LookupResult> {
        if let Self::Done(outcome) = self { Some(outcome) } else { None }
    }
}

/// The required age of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Any age: a digest always has the same content.
    Always,
    /// At most this age.
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
    entries: Moka<ImageKey, CachedLookup>,
    flights: Mutex<Flights>,
    shares: Arc<FairQueue>,
}

/// The lookups under way.
#[derive(Default)]
struct Flights {
    /// Those of each namespace.
    own: HashMap<(ImageKey, Arc<str>), Flight>,
    /// The namespace with the lookup that other namespaces join.
    leading: HashMap<ImageKey, Arc<str>>,
}

impl ImageCache {
    pub(crate) fn new(settings: CacheSettings) -> Self {
        let entries = Moka::builder().weigher(weight).max_capacity(settings.bytes).build();
        Self { entries, flights: Mutex::default(), shares: Arc::default() }
    }

    /// Reads an answer for a namespace.
    pub(crate) fn get(&self, key: &ImageKey, freshness: Freshness, namespace: &str) -> CacheAnswer {
        let Some(CachedLookup { outcome, at, namespace: only }) = self.entries.get(key) else {
            return CacheAnswer::Miss;
        };
        if only.is_some_and(|only| &*only != namespace) {
            return CacheAnswer::Miss;
        }
        let age = at.elapsed();
        match (&outcome, freshness) {
            (Err(why), _) if age < error_lifetime(*why) => CacheAnswer::Fresh(outcome),
            (Err(_), _) => CacheAnswer::Miss,
            (Ok(_), Freshness::Always) => CacheAnswer::Fresh(outcome),
            (Ok(_), Freshness::Within(time)) if age < time => CacheAnswer::Fresh(outcome),
            (Ok(_), Freshness::Within(_) | Freshness::Now) => CacheAnswer::Stale(outcome),
        }
    }

    /// Caches the result of a lookup for this namespace.
    pub(crate) fn keep(&self, key: ImageKey, outcome: LookupResult, namespace: &Arc<str>) {
        let temporary = is_temporary(&outcome);
        // A temporary failure does not replace an answer.
        if temporary && self.entries.get(&key).is_some_and(|before| before.outcome.is_ok()) {
            return;
        }
        let namespace = temporary.then(|| Arc::clone(namespace));
        self.entries.insert(key, CachedLookup { outcome, at: Instant::now(), namespace });
    }

    /// Joins the running lookup, or starts one for this namespace. A lookup is a task of its own and continues without its callers.
    /// `None` if too many lookups wait.
    pub(crate) fn join_or_start<F>(
        self: &Arc<Self>,
        key: &ImageKey,
        namespace: &Arc<str>,
        start_lookup: impl FnOnce() -> F + Send + 'static,
    ) -> Option<Flight>
    where
        F: Future<Output = LookupResult> + Send + 'static,
    {
        let mut flights = self.lock();
        let own = (key.clone(), Arc::clone(namespace));
        if let Some(flight) = flights.own.get(&own) {
            return Some(flight.clone());
        }
        let leading = flights.leading.get(key).map(|leading| (key.clone(), Arc::clone(leading)));
        let leading = leading.and_then(|leading| flights.own.get(&leading).cloned());
        let Some(queued) = self.shares.enqueue(namespace) else { return leading };
        let (state, flight) = watch::channel(LookupState::Queued);
        flights.own.insert(own, flight.clone());
        if leading.is_none() {
            flights.leading.insert(key.clone(), Arc::clone(namespace));
        }
        drop(flights);
        let end = EndOfLookup { cache: Arc::clone(self), key: key.clone(), namespace: Arc::clone(namespace) };
        // A task has room for all that it is made of, twice: as what it begins with, and as what it waits for.
        let run = Box::pin(async move {
            if let Some(leading) = leading
                && let Some(outcome) = joined(leading).await
            {
                return end.publish(&state, outcome);
            }
            end.lead();
            let Ok(_turn) = timeout(MAX_LOOKUP_STAGE, queued.turn()).await else {
                return end.publish(&state, Err(LookupError::Timeout));
            };
            state.send_replace(LookupState::Running);
            let outcome =
                timeout(MAX_LOOKUP_STAGE, start_lookup()).await.unwrap_or(Err(LookupError::Timeout));
            end.cache.keep(end.key.clone(), outcome.clone(), &end.namespace);
            end.publish(&state, outcome);
        });
        tokio::spawn(run);
        Some(flight)
    }

    fn lock(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes taken, and images known.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.entries.weighted_size(), self.entries.entry_count())
    }
}

/// The result of another namespace's lookup. None if that isn't worth waiting for.
async fn joined(mut leading: Flight) -> Option<LookupResult> {
    timeout(FOREIGN_QUEUE, leading.wait_for(|state| *state != LookupState::Queued)).await.ok()?.ok()?;
    let done = timeout(FOREIGN_LOOKUP, leading.wait_for(|state| state.result().is_some()));
    let done = done.await.ok()?.ok()?.result().cloned();
    done.filter(|outcome| !is_temporary(outcome))
}

/// Removes the lookup when it ends, also by a panic.
struct EndOfLookup {
    cache: Arc<ImageCache>,
    key: ImageKey,
    namespace: Arc<str>,
}

impl EndOfLookup {
    /// Makes this lookup the one that other namespaces join.
    fn lead(&self) {
        self.cache.lock().leading.insert(self.key.clone(), Arc::clone(&self.namespace));
    }

    fn publish(self, state: &watch::Sender<LookupState>, outcome: LookupResult) {
        drop(self);
        state.send_replace(LookupState::Done(outcome));
    }
}

impl Drop for EndOfLookup {
    fn drop(&mut self) {
        let mut flights = self.cache.lock();
        flights.own.remove(&(self.key.clone(), Arc::clone(&self.namespace)));
        if flights.leading.get(&self.key) == Some(&self.namespace) {
            flights.leading.remove(&self.key);
        }
    }
}

/// Whether a failure may be over in a moment, or may be that of one namespace only.
pub(crate) fn is_temporary(outcome: &LookupResult) -> bool {
    matches!(outcome, Err(LookupError::Unavailable | LookupError::Timeout | LookupError::RateLimited))
}

/// How long a failed lookup is not repeated.
fn error_lifetime(why: LookupError) -> Duration {
    Duration::from_secs(match why {
        LookupError::Unavailable | LookupError::Timeout | LookupError::RateLimited => 5,
        LookupError::Unauthorized | LookupError::NotFound => 20,
        LookupError::Invalid | LookupError::NotAllowed | LookupError::Refused | LookupError::Malformed => 60,
    })
}

/// Bytes of an entry, roughly: text, sets and the cache's own.
fn weight(key: &ImageKey, entry: &CachedLookup) -> u32 {
    let platforms = match &entry.outcome {
        Ok(Resolved { platforms, .. }) => match &**platforms {
            Platforms::Only(platforms) => platforms.iter().map(|platform| 96 + platform.text_len()).sum(),
            Platforms::Any | Platforms::OlmBundle => 0,
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

    fn key(name: &str) -> ImageKey {
        ImageKey { name: name.into(), identity: [0; 16] }
    }

    fn resolved() -> Resolved {
        Resolved {
            digest: "sha256:1".into(),
            platforms: Arc::new(Platforms::Any),
            index: false,
            from: "a".into(),
        }
    }

    fn ns(name: &str) -> Arc<str> {
        name.into()
    }

    /// Waits for the end of a lookup.
    async fn end(flight: &mut Flight) -> Option<LookupResult> {
        flight.wait_for(|state| state.result().is_some()).await.ok()?.result().cloned()
    }

    #[tokio::test(start_paused = true)]
    async fn lookup_continues_without_its_first_caller() {
        let cache = cache();
        let asked = Arc::new(AtomicUsize::new(0));
        let start = |namespace: &str| {
            let asked = Arc::clone(&asked);
            let lookup = move || async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(3)).await;
                Ok(resolved())
            };
            cache.join_or_start(&key("a"), &ns(namespace), lookup).unwrap()
        };
        let mut first = start("ns");
        assert!(timeout(Duration::from_secs(1), end(&mut first)).await.is_err(), "out of time");
        drop(first);
        let mut others: Vec<_> = (0..1000).map(|_| start("ns")).collect();
        for other in &mut others {
            assert_eq!(end(other).await, Some(Ok(resolved())));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(matches!(cache.get(&key("a"), Freshness::Always, "ns"), CacheAnswer::Fresh(Ok(_))));
    }

    /// A lookup that takes this long, and counts.
    fn lookup(
        asked: &Arc<AtomicUsize>,
        time: u64,
        outcome: LookupResult,
    ) -> impl FnOnce() -> futures::future::BoxFuture<'static, LookupResult> + Send + 'static {
        let asked = Arc::clone(asked);
        move || {
            Box::pin(async move {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(time)).await;
                outcome
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_share_a_lookup() {
        let cache = cache();
        let asked = Arc::new(AtomicUsize::new(0));
        for outcome in [Ok(resolved()), Err(LookupError::NotFound)] {
            asked.store(0, Ordering::Relaxed);
            let start = |number: usize| {
                let lookup = lookup(&asked, 900, outcome.clone());
                cache.join_or_start(&key("a"), &ns(&format!("ns{number}")), lookup).unwrap()
            };
            let mut flights: Vec<_> = (0..50).map(start).collect();
            for flight in &mut flights {
                assert_eq!(end(flight).await, Some(outcome.clone()));
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
        assert!(cache.lock().own.is_empty() && cache.lock().leading.is_empty(), "no state remains");
    }

    #[tokio::test(start_paused = true)]
    async fn namespace_does_not_wait_in_the_queue_of_another_one() {
        let cache = cache();
        let asked = Arc::new(AtomicUsize::new(0));
        // So many lookups that the last ones wait for their turn.
        for number in 0..100 {
            let never = lookup(&asked, 1_000_000, Ok(resolved()));
            cache.join_or_start(&key(&number.to_string()), &ns("greedy"), never).unwrap();
        }
        let mut greedy =
            cache.join_or_start(&key("a"), &ns("greedy"), lookup(&asked, 45, Ok(resolved()))).unwrap();
        let begun = Instant::now();
        for name in ["other", "third"] {
            let mut flight =
                cache.join_or_start(&key("a"), &ns(name), lookup(&asked, 45, Ok(resolved()))).unwrap();
            assert_eq!(end(&mut flight).await, Some(Ok(resolved())));
        }
        assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
        assert!(timeout(Duration::from_secs(29), end(&mut greedy)).await.is_err(), "it still waits");
        assert_eq!(end(&mut greedy).await, Some(Err(LookupError::Timeout)));
        assert!(matches!(cache.get(&key("a"), Freshness::Always, "other"), CacheAnswer::Fresh(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_or_failing_lookup_of_another_namespace_is_not_shared() {
        let cache = cache();
        let asked = Arc::new(AtomicUsize::new(0));
        for (time, outcome) in [(1_000_000, Ok(resolved())), (100, Err(LookupError::Unavailable))] {
            let name = time.to_string();
            let first = lookup(&asked, time, outcome);
            drop(cache.join_or_start(&key(&name), &ns("greedy"), first).unwrap());
            tokio::task::yield_now().await;
            let begun = Instant::now();
            let own = lookup(&asked, 45, Ok(resolved()));
            let mut flight = cache.join_or_start(&key(&name), &ns("other"), own).unwrap();
            assert_eq!(end(&mut flight).await, Some(Ok(resolved())));
            assert!(begun.elapsed() < Duration::from_millis(1100), "{:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn temporary_failure_is_cached_for_its_namespace_only() {
        let cache = cache();
        for error in [LookupError::Timeout, LookupError::Unavailable, LookupError::RateLimited] {
            cache.keep(key("a"), Err(error), &ns("one"));
            assert!(matches!(cache.get(&key("a"), Freshness::Always, "one"), CacheAnswer::Fresh(Err(_))));
            assert!(matches!(cache.get(&key("a"), Freshness::Always, "two"), CacheAnswer::Miss));
        }
        cache.keep(key("a"), Err(LookupError::NotFound), &ns("one"));
        assert!(matches!(cache.get(&key("a"), Freshness::Always, "two"), CacheAnswer::Fresh(Err(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_short_and_never_replace_what_is_known() {
        let cache = cache();
        let get = |freshness| cache.get(&key("a"), freshness, "ns");
        let keep = |outcome| cache.keep(key("a"), outcome, &ns("ns"));
        keep(Err(LookupError::NotFound));
        assert!(matches!(get(Freshness::Always), CacheAnswer::Fresh(Err(LookupError::NotFound))));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(matches!(get(Freshness::Always), CacheAnswer::Miss));
        keep(Ok(resolved()));
        let week = Freshness::Within(Duration::from_hours(168));
        assert!(matches!(get(week), CacheAnswer::Fresh(Ok(_))));
        assert!(matches!(get(Freshness::Now), CacheAnswer::Stale(Ok(_))));
        tokio::time::advance(Duration::from_hours(169)).await;
        keep(Err(LookupError::Unavailable));
        assert!(matches!(get(week), CacheAnswer::Stale(Ok(_))), "a registry that is down is forgiven");
        keep(Err(LookupError::NotFound));
        assert!(matches!(get(week), CacheAnswer::Fresh(Err(LookupError::NotFound))));
    }

    #[tokio::test]
    async fn memory_is_bounded_for_any_platform_name() {
        let settings = CacheSettings { bytes: 1 << 20, ..Settings::default().cache };
        let cache = Arc::new(ImageCache::new(settings));
        for number in 0..100 {
            let platform = Platform::new("linux", &"x".repeat(100_000), None);
            let platforms = Arc::new(Platforms::Only([platform].into()));
            cache.keep(key(&number.to_string()), Ok(Resolved { platforms, ..resolved() }), &ns("ns"));
            cache.entries.run_pending_tasks();
        }
        let known = (0..100).filter(|number| cache.entries.contains_key(&key(&number.to_string())));
        assert!((1..11).contains(&known.count()));
    }

    #[tokio::test]
    async fn credentials_separate_entries_and_panics_end_lookups() {
        let cache = cache();
        cache.keep(key("a"), Ok(resolved()), &ns("ns"));
        let other = ImageKey { identity: [1; 16], ..key("a") };
        assert!(matches!(cache.get(&other, Freshness::Always, "ns"), CacheAnswer::Miss));
        let panics = || async { panic!("a lookup that ends in a panic") };
        let mut flight = cache.join_or_start(&other, &ns("ns"), panics).unwrap();
        assert_eq!(end(&mut flight).await, None);
        let mut flight = cache.join_or_start(&other, &ns("ns"), || async { Ok(resolved()) }).unwrap();
        assert!(end(&mut flight).await.is_some());
    }
}
