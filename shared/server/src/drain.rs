//! Ends the server without losing a request.
//!
//! ```text
//! Serving ──SIGTERM──▶ Draining ──drain time, and quiet──▶ Closing ──last connection──▶ end
//! ```
//!
//! While it drains, the server isn't ready but still answers: the API server removes the endpoint with a delay, in a large cluster of 10 s
//! or more (kubernetes/kubernetes#21418), and keeps its connections. Each response asks for its connection
//! to be closed. Idle connections stay open until no request has come for a while, because closing one may cross a request that is
//! being sent, and the API server doesn't retry that.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::connection::Stage;
use crate::connection_pool::RequestCounter;

/// The time without a request after which a draining server closes idle connections.
const QUIET: Duration = Duration::from_secs(3);
/// How much longer than its time a drain can take, while requests keep coming. The chart's `terminationGracePeriodSeconds` allows for
/// it.
const MAX_EXTENSION: Duration = Duration::from_secs(10);

/// Drains for `time` and until no request has come for [`QUIET`], but no longer than [`MAX_EXTENSION`] after `time`, and then closes.
pub(crate) async fn drain(stage: &watch::Sender<Stage>, requests: &RequestCounter, time: Duration) {
    stage.send_replace(Stage::Draining);
    let begun = Instant::now();
    let earliest = begun + time;
    let latest = begun + time + MAX_EXTENSION;
    loop {
        let quiet_at = (requests.last_change().max(begun) + QUIET).max(earliest);
        let now = Instant::now();
        if now >= latest || (now >= quiet_at && requests.in_flight() == 0) {
            break;
        }
        let next = if now < quiet_at { quiet_at } else { now + QUIET };
        sleep_until(next.min(latest)).await;
    }
    stage.send_replace(Stage::Closing);
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const TIME: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn idle_server_closes_after_the_drain_time() {
        let stage = watch::Sender::new(Stage::Serving);
        let begun = Instant::now();
        let requests = RequestCounter::new();
        tokio::join!(drain(&stage, &requests, TIME), async {
            sleep(Duration::from_millis(14_999)).await;
            assert_eq!(*stage.borrow(), Stage::Draining, "the first request may still come");
        });
        assert_eq!(begun.elapsed(), TIME);
        assert_eq!(*stage.borrow(), Stage::Closing);
    }

    #[tokio::test(start_paused = true)]
    async fn request_at_the_end_extends_the_drain_by_the_quiet_time() {
        let stage = watch::Sender::new(Stage::Serving);
        let begun = Instant::now();
        let requests = RequestCounter::new();
        tokio::join!(drain(&stage, &requests, TIME), async {
            sleep(Duration::from_secs(14)).await;
            drop(requests.begin());
        });
        assert_eq!(begun.elapsed(), Duration::from_secs(14) + QUIET);
    }

    #[tokio::test(start_paused = true)]
    async fn request_in_flight_delays_closing_until_the_longest_time() {
        let stage = watch::Sender::new(Stage::Serving);
        let requests = RequestCounter::new();
        let _request = requests.begin();
        let begun = Instant::now();
        drain(&stage, &requests, Duration::ZERO).await;
        assert_eq!(begun.elapsed(), MAX_EXTENSION);
        assert_eq!(requests.in_flight(), 1);
    }
}
