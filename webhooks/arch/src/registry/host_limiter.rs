//! Limits of requests to a host: a number of concurrent ones, and a pause after `Retry-After` or repeated failures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use arch_decision::images::LookupError;

/// Largest number of concurrent requests to a host.
const AT_A_TIME: usize = 8;
/// Number of consecutive failures that pause a host.
const FAILURES: u32 = 4;
/// The pause after them.
const REST: Duration = Duration::from_secs(10);
/// The pause after 429 without `Retry-After`.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest `Retry-After` that counts.
const LONGEST: Duration = Duration::from_mins(5);
/// Hosts that are remembered. Tenants can name any number.
const HOSTS: u64 = 1024;

/// The pace of all hosts.
#[derive(Debug)]
pub(crate) struct HostLimiters(Cache<String, Arc<HostLimiter>>);

/// The pace of one host.
#[derive(Debug)]
pub(crate) struct HostLimiter {
    permits: Arc<Semaphore>,
    failures: AtomicU32,
    rest: Mutex<Option<(Instant, LookupError)>>,
}

impl Default for HostLimiters {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(HOSTS).time_to_idle(Duration::from_mins(30)).build())
    }
}

impl HostLimiters {
    /// The pace of `host:port`.
    pub(crate) fn of(&self, authority: &str) -> Arc<HostLimiter> {
        let new = || {
            let permits = Arc::new(Semaphore::new(AT_A_TIME));
            Arc::new(HostLimiter { permits, failures: AtomicU32::new(0), rest: Mutex::default() })
        };
        self.0.get_with_by_ref(authority, new)
    }
}

impl HostLimiter {
    /// Waits for a permit. An error if the host is paused.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, LookupError> {
        self.rested()?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| LookupError::Unavailable)?;
        self.rested()?;
        Ok(permit)
    }

    fn rested(&self) -> Result<(), LookupError> {
        match *self.rest.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((until, why)) if Instant::now() < until => Err(why),
            _ => Ok(()),
        }
    }

    /// The host answered.
    pub(crate) fn record_success(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// The host didn't answer, or with an error of its own.
    pub(crate) fn record_failure(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            self.failures.store(0, Ordering::Relaxed);
            self.leave(REST, LookupError::Unavailable);
        }
    }

    /// Pauses the host for `Retry-After` seconds, or for the default.
    pub(crate) fn pause_after(&self, retry_after: Option<&str>, why: LookupError) {
        let seconds = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        self.leave(seconds.unwrap_or(PATIENCE).min(LONGEST), why);
    }

    fn leave(&self, time: Duration, why: LookupError) {
        let until = Instant::now() + time;
        *self.rest.lock().unwrap_or_else(PoisonError::into_inner) = Some((until, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn host_pauses_for_retry_after() {
        let paces = HostLimiters::default();
        let pace = paces.of("a:443");
        pace.pause_after(Some("60"), LookupError::RateLimited);
        assert_eq!(paces.of("a:443").turn().await.err(), Some(LookupError::RateLimited));
        assert!(paces.of("b:443").turn().await.is_ok());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(pace.turn().await.is_ok());
        pace.pause_after(Some("99999999999"), LookupError::RateLimited);
        tokio::time::advance(LONGEST).await;
        assert!(pace.turn().await.is_ok(), "the pause is bounded");
    }

    #[tokio::test(start_paused = true)]
    async fn failing_host_pauses() {
        let pace = HostLimiters::default().of("a");
        for _ in 1..FAILURES {
            pace.record_failure();
            assert!(pace.turn().await.is_ok());
        }
        pace.record_success();
        for _ in 0..FAILURES {
            assert!(pace.turn().await.is_ok());
            pace.record_failure();
        }
        assert_eq!(pace.turn().await.err(), Some(LookupError::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_requests_are_limited() {
        let pace = HostLimiters::default().of("a");
        let mut permits = Vec::new();
        for _ in 0..AT_A_TIME {
            permits.push(pace.turn().await.unwrap());
        }
        let waiting = tokio::time::timeout(Duration::from_secs(1), pace.turn()).await;
        assert!(waiting.is_err());
        permits.pop();
        assert!(pace.turn().await.is_ok());
    }
}
