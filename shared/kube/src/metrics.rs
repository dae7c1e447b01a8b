//! Metrics of the API client: its requests, and the time of the last event of each watched resource.

use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds in seconds. A request times out after 10 s, a page of a list after 30 s.
const DURATION_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0];

/// One process has one client, and its tasks start before and after the registry exists.
static METRICS: LazyLock<ClientMetrics> = LazyLock::new(ClientMetrics::default);

/// Registers the metrics of this process.
pub fn register(registry: &mut Registry) {
    METRICS.register(registry);
}

/// Counts a response of the API server by its status, or a request without one.
pub(crate) fn record_request(method: &http::Method, status: Option<http::StatusCode>, duration: Duration) {
    METRICS.record_request(method, status, duration);
}

/// Records that the list, an event or a bookmark of `resource` has been received now.
pub(crate) fn record_watch(resource: &str) {
    METRICS.record_watch(resource);
}

#[derive(Debug)]
struct ClientMetrics {
    requests: Family<[(&'static str, String); 2], Counter>,
    duration: Histogram,
    watches: Family<[(&'static str, String); 1], Gauge<f64, AtomicU64>>,
}

impl Default for ClientMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Histogram::new(DURATION_BUCKETS),
            watches: Family::default(),
        }
    }
}

impl ClientMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "api_requests",
            "Requests to the API server, by method and status code (none: no response)",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "api_request_duration",
            "Time from a request to the API server to the headers of its response",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "watch_last_event_timestamp",
            "Last list, event or bookmark of a watched resource, in Unix seconds",
            Unit::Seconds,
            self.watches.clone(),
        );
    }

    fn record_request(&self, method: &http::Method, status: Option<http::StatusCode>, duration: Duration) {
        let code = status.map_or_else(|| "none".to_owned(), |status| status.as_str().to_owned());
        self.requests.get_or_create(&[("method", method.as_str().to_owned()), ("code", code)]).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    fn record_watch(&self, resource: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.watches.get_or_create(&[("resource", resource.to_owned())]).set(now.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn encoded(metrics: &ClientMetrics) -> String {
        let mut registry = Registry::with_prefix("podshaper");
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn requests_are_counted_by_method_and_code() {
        let metrics = ClientMetrics::default();
        metrics.record_request(&Method::PATCH, Some(StatusCode::CONFLICT), Duration::from_millis(7));
        metrics.record_request(&Method::GET, None, Duration::from_mins(1));
        let text = encoded(&metrics);
        for line in [
            "podshaper_api_requests_total{method=\"PATCH\",code=\"409\"} 1",
            "podshaper_api_requests_total{method=\"GET\",code=\"none\"} 1",
            "podshaper_api_request_duration_seconds_bucket{le=\"0.01\"} 1",
            "podshaper_api_request_duration_seconds_count 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn metrics_are_documented() {
        let metrics = ClientMetrics::default();
        metrics.record_request(&Method::GET, Some(StatusCode::OK), Duration::ZERO);
        metrics.record_watch("pods");
        podshaper_testing::metrics::assert_documented("api-client", &encoded(&metrics));
    }
}
