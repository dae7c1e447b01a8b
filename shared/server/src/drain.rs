//! Leaving without cutting a request.
//!
//! ```text
//! Serving ──SIGTERM──▶ Draining ──quiet──▶ Closing ──last connection──▶ end
//! ```
//!
//! Draining, the server is not ready any more but goes on answering: the API server learns that an endpoint is gone a
//! little later, and keeps connections to it. Each answer asks for its connection to be closed. Idle connections stay
//! open until nothing has come for a while, because closing one may cross a request that is just being sent, and the
//! API server doesn't retry that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Where the server is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Serving,
    Draining,
    Closing,
}

/// What the connections of one server share about its end.
#[derive(Debug)]
pub(super) struct Drain {
    stage: watch::Sender<Stage>,
    started: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds from `started` to the last request's begin or end.
    last_request: AtomicU64,
}

impl Drain {
    pub(super) fn new() -> Self {
        Self {
            stage: watch::Sender::new(Stage::Serving),
            started: Instant::now(),
            in_flight: AtomicUsize::new(0),
            last_request: AtomicU64::new(0),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Requests being answered now.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request until what this returns is dropped.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Goes from Serving to Closing: when no request has come for `quiet`, or after `longest` at the latest.
    pub(super) async fn run(&self, quiet: Duration, longest: Duration) {
        self.stage.send_replace(Stage::Draining);
        let begun = Instant::now();
        loop {
            let last = self.started + Duration::from_millis(self.last_request.load(Ordering::Relaxed));
            let calm_at = last.max(begun) + quiet;
            let now = Instant::now();
            if now >= begun + longest || (now >= calm_at && self.in_flight() == 0) {
                break;
            }
            let until = if now < calm_at { calm_at } else { now + quiet };
            tokio::time::sleep_until(until.min(begun + longest).into()).await;
        }
        self.stage.send_replace(Stage::Closing);
    }

    fn touch(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_request.fetch_max(millis, Ordering::Relaxed);
    }
}

/// One request being answered.
pub(super) struct InFlight(Arc<Drain>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.touch();
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quiet_server_ends_after_the_quiet_time() {
        let drain = Arc::new(Drain::new());
        let begun = Instant::now();
        drain.run(Duration::from_millis(50), Duration::from_secs(10)).await;
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(drain.stage(), Stage::Closing);
    }

    #[tokio::test]
    async fn a_request_in_flight_holds_the_end_until_the_longest_time() {
        let drain = Arc::new(Drain::new());
        let request = drain.request();
        drain.run(Duration::from_millis(5), Duration::from_millis(60)).await;
        assert_eq!(drain.in_flight(), 1);
        drop(request);
        assert!(drain.started.elapsed() >= Duration::from_millis(60));
    }
}
