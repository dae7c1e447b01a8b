//! Limits of requests to a host: a number of concurrent ones, and pauses after failures.
//!
//! Tenants choose the repositories that are asked for, and on a shared registry some repositories fail or hang. A failure therefore pauses
//! the requests of one namespace, and failed connections only pause the requests of all.

use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Requester;
use arch_decision::images::LookupError;

/// Largest number of concurrent requests to a host.
const AT_A_TIME: usize = 8;
/// Largest number of those for one namespace: requests that hang leave some for the others.
const AT_A_TIME_FOR_ONE: usize = 6;
/// Number of consecutive failures that cause a pause.
const FAILURES: u32 = 4;
/// The pause after them.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);
/// The pause after 429 without `Retry-After`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(15);
/// The longest `Retry-After` that counts.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(1);
/// Entries of each kind that are remembered. Tenants can name any number of hosts and repositories.
const ENTRIES: u64 = 1024;
/// How long an entry without use is remembered.
const ENTRY_IDLE: Duration = Duration::from_mins(5);

/// The result of a request, as far as it decides about further ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestResult<'r> {
    /// The host answered.
    Answered,
    /// No connection to the host.
    NotConnected,
    /// The host didn't answer in time.
    TimedOut,
    /// An error of the host, with `Retry-After`.
    ServerError(Option<&'r str>),
    /// 429, with `Retry-After`.
    TooManyRequests(Option<&'r str>),
}

type Host = Arc<str>;

/// The limits of all hosts.
#[derive(Debug)]
pub(crate) struct HostLimiters {
    /// Connections to a host.
    hosts: Cache<Host, Arc<Limiter<AT_A_TIME>>>,
    /// Requests of a namespace to a host.
    namespaces: Cache<(Host, Arc<str>), Arc<Limiter<AT_A_TIME_FOR_ONE>>>,
    /// Errors of a namespace's requests for a repository.
    repositories: Cache<(Host, Arc<str>, Arc<str>), Arc<Failures>>,
    /// Pauses of a credential, which a registry counts requests by. Anonymous requests have one credential.
    credentials: Cache<(Host, [u8; 16]), Instant>,
}

/// Permission to send a request.
pub(crate) struct RequestPermit<'l> {
    limiters: &'l HostLimiters,
    host: Host,
    requester: Requester,
    on_host: Arc<Limiter<AT_A_TIME>>,
    of_namespace: Arc<Limiter<AT_A_TIME_FOR_ONE>>,
    _permits: [OwnedSemaphorePermit; 2],
}

#[derive(Debug)]
struct Limiter<const PERMITS: usize> {
    permits: Arc<Semaphore>,
    failures: Failures,
}

/// Consecutive failures, and the end of the pause after them.
#[derive(Debug, Default)]
struct Failures(Mutex<(u32, Option<Instant>)>);

impl<const PERMITS: usize> Default for Limiter<PERMITS> {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(PERMITS)), failures: Failures::default() }
    }
}

impl<const PERMITS: usize> Limiter<PERMITS> {
    async fn permit(&self) -> Result<OwnedSemaphorePermit, LookupError> {
        self.failures.check()?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| LookupError::Unavailable)?;
        self.failures.check()?;
        Ok(permit)
    }
}

impl Failures {
    fn check(&self) -> Result<(), LookupError> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).1 {
            Some(until) if Instant::now() < until => Err(LookupError::Unavailable),
            _ => Ok(()),
        }
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = 0;
    }

    /// Counts a failure, or pauses at once.
    fn add(&self, pause: Option<Duration>) {
        let (count, rest) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        let pause = pause.or_else(|| (*count >= FAILURES).then_some(FAILURE_PAUSE));
        if let Some(pause) = pause {
            (*count, *rest) = (0, Some(Instant::now() + pause));
        }
    }
}

impl Default for HostLimiters {
    fn default() -> Self {
        fn cache<K: Hash + Eq + Send + Sync + 'static, V: Clone + Send + Sync + 'static>() -> Cache<K, V> {
            Cache::builder().max_capacity(ENTRIES).time_to_idle(ENTRY_IDLE).build()
        }
        Self { hosts: cache(), namespaces: cache(), repositories: cache(), credentials: cache() }
    }
}

impl HostLimiters {
    /// Waits for permission to send a request to `host:port`. An error during a pause.
    pub(crate) async fn permit(
        &self,
        host: &str,
        requester: &Requester,
    ) -> Result<RequestPermit<'_>, LookupError> {
        let (host, requester): (Host, _) = (host.into(), requester.clone());
        self.check(&host, &requester)?;
        let on_host = self.hosts.get_with_by_ref(&host, Arc::default);
        let key = (Arc::clone(&host), Arc::clone(&requester.namespace));
        let of_namespace = self.namespaces.get_with(key, Arc::default);
        // The limit of the namespace comes first: while it waits, it takes nothing from others.
        let own = of_namespace.permit().await?;
        let permits = [own, on_host.permit().await?];
        self.check(&host, &requester)?;
        Ok(RequestPermit { limiters: self, host, requester, on_host, of_namespace, _permits: permits })
    }

    fn check(&self, host: &Host, requester: &Requester) -> Result<(), LookupError> {
        let paused = self.credentials.get(&(Arc::clone(host), requester.identity));
        if paused.is_some_and(|until| Instant::now() < until) {
            return Err(LookupError::RateLimited);
        }
        let failures = self.repositories.get(&repository(host, requester));
        failures.map_or(Ok(()), |failures| failures.check())
    }
}

fn repository(
    host: &Host,
    Requester { namespace, repository, .. }: &Requester,
) -> (Host, Arc<str>, Arc<str>) {
    (Arc::clone(host), Arc::clone(namespace), Arc::clone(repository))
}

impl RequestPermit<'_> {
    /// Records the result of the request.
    pub(crate) fn record(&self, result: RequestResult<'_>) {
        let repository = || repository(&self.host, &self.requester);
        match result {
            RequestResult::NotConnected => self.on_host.failures.add(None),
            RequestResult::TimedOut => self.of_namespace.failures.add(None),
            RequestResult::ServerError(retry_after) => {
                let failures = self.limiters.repositories.get_with(repository(), Arc::default);
                failures.add(retry_after.map(pause));
            }
            RequestResult::TooManyRequests(retry_after) => {
                let until = Instant::now() + retry_after.map_or(DEFAULT_RETRY_AFTER, pause);
                self.limiters.credentials.insert((Arc::clone(&self.host), self.requester.identity), until);
            }
            RequestResult::Answered => {
                self.on_host.failures.clear();
                self.of_namespace.failures.clear();
                self.limiters.repositories.invalidate(&repository());
            }
        }
    }
}

/// The time of `Retry-After` in seconds; a date counts as none.
fn pause(retry_after: &str) -> Duration {
    retry_after.trim().parse().map_or(DEFAULT_RETRY_AFTER, Duration::from_secs).min(MAX_RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requester(namespace: &str, repository: &str, identity: u8) -> Requester {
        Requester { namespace: namespace.into(), repository: repository.into(), identity: [identity; 16] }
    }

    async fn error(limiters: &HostLimiters, host: &str, requester: &Requester) -> Option<LookupError> {
        limiters.permit(host, requester).await.err()
    }

    #[tokio::test(start_paused = true)]
    async fn credential_pauses_for_retry_after() {
        let limiters = HostLimiters::default();
        let anonymous = requester("ns", "a", 0);
        for (retry_after, seconds) in
            [(Some("30"), 30), (Some("99999999999"), 60), (None, 15), (Some("Mon"), 15)]
        {
            let permit = limiters.permit("a:443", &anonymous).await.unwrap();
            permit.record(RequestResult::TooManyRequests(retry_after));
            tokio::time::advance(Duration::from_secs(seconds - 1)).await;
            assert_eq!(error(&limiters, "a:443", &anonymous).await, Some(LookupError::RateLimited));
            let other = requester("other", "b", 0);
            assert_eq!(error(&limiters, "a:443", &other).await, Some(LookupError::RateLimited));
            assert_eq!(error(&limiters, "a:443", &requester("ns", "a", 1)).await, None, "another credential");
            assert_eq!(error(&limiters, "b:443", &anonymous).await, None, "another host");
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(error(&limiters, "a:443", &anonymous).await, None, "{retry_after:?}");
        }
    }

    /// The effect of a result on the same request, another repository, another namespace and another host.
    async fn paused(result: RequestResult<'_>) -> [bool; 4] {
        let limiters = HostLimiters::default();
        let greedy = requester("greedy", "dead-proxy/a", 0);
        for number in 0..FAILURES {
            if number == FAILURES - 1 {
                let permit = limiters.permit("a:443", &greedy).await.unwrap();
                permit.record(RequestResult::Answered);
            }
            assert!(error(&limiters, "a:443", &greedy).await.is_none());
            limiters.permit("a:443", &greedy).await.unwrap().record(result);
        }
        assert!(error(&limiters, "a:443", &greedy).await.is_none(), "an answer resets the count");
        for _ in 1..FAILURES {
            limiters.permit("a:443", &greedy).await.unwrap().record(result);
        }
        let others = [
            ("a:443", greedy.clone()),
            ("a:443", requester("greedy", "b", 0)),
            ("a:443", requester("other", "dead-proxy/a", 0)),
            ("b:443", greedy.clone()),
        ];
        let mut paused = [false; 4];
        for (paused, (host, requester)) in paused.iter_mut().zip(others) {
            *paused = error(&limiters, host, &requester).await == Some(LookupError::Unavailable);
        }
        tokio::time::advance(FAILURE_PAUSE).await;
        assert!(error(&limiters, "a:443", &greedy).await.is_none(), "the pause ends");
        paused
    }

    #[tokio::test(start_paused = true)]
    async fn failures_pause_as_little_as_they_may() {
        assert_eq!(paused(RequestResult::NotConnected).await, [true, true, true, false]);
        assert_eq!(paused(RequestResult::TimedOut).await, [true, true, false, false]);
        assert_eq!(paused(RequestResult::ServerError(None)).await, [true, false, false, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn server_error_pauses_for_retry_after() {
        let limiters = HostLimiters::default();
        let own = requester("ns", "a", 0);
        limiters.permit("a", &own).await.unwrap().record(RequestResult::ServerError(Some("20")));
        assert_eq!(error(&limiters, "a", &own).await, Some(LookupError::Unavailable));
        assert_eq!(error(&limiters, "a", &requester("other", "a", 0)).await, None);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(error(&limiters, "a", &own).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_are_limited() {
        let limiters = HostLimiters::default();
        let greedy = requester("greedy", "a", 0);
        let other = requester("other", "a", 0);
        let waits = async |requester| {
            tokio::time::timeout(Duration::from_secs(1), limiters.permit("a", requester)).await.is_err()
        };
        let mut permits = Vec::new();
        for _ in 0..AT_A_TIME_FOR_ONE {
            permits.push(limiters.permit("a", &greedy).await.unwrap());
        }
        assert!(waits(&greedy).await);
        for _ in AT_A_TIME_FOR_ONE..AT_A_TIME {
            permits.push(limiters.permit("a", &other).await.unwrap());
        }
        assert!(waits(&other).await);
        permits.remove(0);
        assert!(!waits(&other).await);
        assert!(!waits(&greedy).await);
    }
}
