//! Ends the server without losing a request.
//!
//! ```text
//! Serving ──SIGTERM──▶ Draining ──quiet──▶ Closing ──last connection──▶ end
//! ```
//!
//! While it drains, the server isn't ready but still answers: the API server removes the endpoint with a delay, and keeps its connections.
//! Each response asks for its connection to be closed. Idle connections stay open
//! until no request has come for a while, because closing one may cross a request that is being sent, and the API server
//! doesn't retry that.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::connection::Stage;
use crate::endpoint::RequestCounter;

/// Drains until no request has come for `quiet`, for at most `longest`, and then closes.
pub(crate) async fn drain(
    stage: &watch::Sender<Stage>,
    requests: &RequestCounter,
    quiet: Duration,
    longest: Duration,
) {
    stage.send_replace(Stage::Draining);
    let begun = Instant::now();
    loop {
        let quiet_at = requests.last_change().max(begun) + quiet;
        let now = Instant::now();
        if now >= begun + longest || (now >= quiet_at && requests.in_flight() == 0) {
            break;
        }
        let until = if now < quiet_at { quiet_at } else { now + quiet };
        tokio::time::sleep_until(until.min(begun + longest).into()).await;
    }
    stage.send_replace(Stage::Closing);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_server_closes_after_the_quiet_time() {
        let stage = watch::Sender::new(Stage::Serving);
        let begun = Instant::now();
        drain(&stage, &RequestCounter::new(), Duration::from_millis(50), Duration::from_secs(10)).await;
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert_eq!(*stage.borrow(), Stage::Closing);
    }

    #[tokio::test]
    async fn request_in_flight_delays_closing_until_the_longest_time() {
        let stage = watch::Sender::new(Stage::Serving);
        let requests = RequestCounter::new();
        let _request = requests.begin();
        let begun = Instant::now();
        drain(&stage, &requests, Duration::from_millis(5), Duration::from_millis(60)).await;
        assert!(begun.elapsed() >= Duration::from_millis(60));
        assert_eq!(requests.in_flight(), 1);
    }
}
