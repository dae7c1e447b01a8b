//! The metrics that every webhook has.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use podshaper_core::admission::Outcome;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::connection_pool::ConnectionPool;
use crate::limits::Limits;
use crate::open_files;
use crate::process_metrics;

/// Upper bounds in seconds. The API server's own histogram begins at 5 ms, which most reviews stay far below.
/// The last ones are around the timeouts of the chart, 2 s and 5 s.
const DURATION_BUCKETS: [f64; 20] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.5, 1.0, 1.5, 2.0, 4.0, 5.0, 10.0,
];

/// All metrics of one binary.
#[derive(Debug)]
pub struct ServerMetrics {
    registry: Registry,
    process: Registry,
    admission: AdmissionMetrics,
    connections: Gauge,
    evictions: Counter,
    handshake_errors: Counter,
}

/// Metrics of the reviews.
#[derive(Clone, Debug)]
pub(crate) struct AdmissionMetrics {
    reviews: [(Outcome, Counter); 4],
    rejections: Family<Label, Counter>,
    duration: Histogram,
}

type Label = [(&'static str, &'static str); 1];

/// Why an HTTP request is answered without a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectReason {
    Path,
    Method,
    ContentType,
    /// The request has no `Content-Length`.
    Length,
    TooLarge,
    /// The body is no review.
    Review,
    /// The server is at a limit. The API server tries again.
    Busy,
    Timeout,
    Panic,
}

impl RejectReason {
    const ALL: [Self; 9] = [
        Self::Path,
        Self::Method,
        Self::ContentType,
        Self::Length,
        Self::TooLarge,
        Self::Review,
        Self::Busy,
        Self::Timeout,
        Self::Panic,
    ];

    /// The label of the metric and the status of the response.
    pub(crate) fn label_and_status(self) -> (&'static str, StatusCode) {
        match self {
            Self::Path => ("path", StatusCode::NOT_FOUND),
            Self::Method => ("method", StatusCode::METHOD_NOT_ALLOWED),
            Self::ContentType => ("content_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::Length => ("length", StatusCode::LENGTH_REQUIRED),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::Review => ("review", StatusCode::BAD_REQUEST),
            Self::Busy => ("busy", StatusCode::TOO_MANY_REQUESTS),
            Self::Timeout => ("timeout", StatusCode::GATEWAY_TIMEOUT),
            Self::Panic => ("panic", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl AdmissionMetrics {
    fn register(registry: &mut Registry) -> Self {
        let reviews = Family::<Label, Counter>::default();
        registry.register("admission_reviews", "Answered admission reviews, by outcome", reviews.clone());
        let rejections = Family::<Label, Counter>::default();
        registry.register(
            "admission_refusals",
            "HTTP requests rejected without a review, by reason",
            rejections.clone(),
        );
        let duration = Histogram::new(DURATION_BUCKETS);
        registry.register_with_unit(
            "admission_duration",
            "Time from the headers of a review to its response",
            Unit::Seconds,
            duration.clone(),
        );
        for reason in RejectReason::ALL {
            // Every reason is exported from the start, with the value 0.
            drop(rejections.get_or_create(&[("reason", reason.label_and_status().0)]));
        }
        let reviews = [
            (Outcome::Unchanged, "unchanged"),
            (Outcome::Patched, "patched"),
            (Outcome::Undecided, "undecided"),
            (Outcome::Denied, "denied"),
        ]
        .map(|(outcome, label)| (outcome, reviews.get_or_create(&[("outcome", label)]).clone()));
        Self { reviews, rejections, duration }
    }

    pub(crate) fn record_review(&self, outcome: Outcome, duration: Duration) {
        if let Some((_, counter)) = self.reviews.iter().find(|(other, _)| *other == outcome) {
            counter.inc();
        }
        self.duration.observe(duration.as_secs_f64());
    }

    pub(crate) fn record_rejection(&self, reason: RejectReason) {
        self.rejections.get_or_create(&[("reason", reason.label_and_status().0)]).inc();
    }
}

/// `OpenMetrics` in the older text format. There, a family has the name of its samples, an info is a gauge, and there are no units.
fn to_text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            text.extend(["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

impl ServerMetrics {
    /// The metrics of the webhook `name`.
    pub fn new(name: &'static str) -> Self {
        let labels = [("webhook".into(), name.into())].into_iter();
        let mut registry = Registry::with_prefix_and_labels("podshaper", labels);
        let connections = Gauge::default();
        registry.register("connections", "Open connections to the webhook server", connections.clone());
        let evictions = Counter::default();
        registry.register(
            "connection_evictions",
            "Connections to the webhook server that were closed for a new one",
            evictions.clone(),
        );
        let handshake_errors = Counter::default();
        registry.register("tls_handshake_errors", "Failed TLS handshakes", handshake_errors.clone());
        let admission = AdmissionMetrics::register(&mut registry);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of the webhook", version);
        Self {
            registry,
            process: process_metrics::registry(),
            admission,
            connections,
            evictions,
            handshake_errors,
        }
    }

    /// The registry, for further metrics.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Encodes all metrics as `OpenMetrics` text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode_registry(&mut text, &self.registry);
        let _ = encode_registry(&mut text, &self.process);
        let _ = encode_eof(&mut text);
        text
    }

    /// Encodes all metrics in the text format of Prometheus (version 0.0.4), for scrapers that do not ask for `OpenMetrics`.
    pub fn encode_text(&self) -> String {
        to_text_format(&self.encode())
    }

    /// Makes the pool of the webhook server's connections, and raises the limit of open files for it.
    pub fn connection_pool(&self, limits: &Limits) -> Arc<ConnectionPool> {
        let max = open_files::raise_limit(limits.max_connections);
        ConnectionPool::with_evictions(max, self.evictions.clone())
    }

    pub(crate) fn admission(&self) -> AdmissionMetrics {
        self.admission.clone()
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshake_errors.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format_has_names_of_samples() {
        let openmetrics = "# HELP a_b Some help.\n# TYPE a_b counter\na_b_total{x=\"y\"} 1\n\
            # HELP c_seconds C.\n# TYPE c_seconds gauge\n# UNIT c_seconds seconds\nc_seconds 2.5\n\
            # HELP d D.\n# TYPE d info\nd_info{v=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_b_total Some help.\n# TYPE a_b_total counter\na_b_total{x=\"y\"} 1\n\
            # HELP c_seconds C.\n# TYPE c_seconds gauge\nc_seconds 2.5\n\
            # HELP d_info D.\n# TYPE d_info gauge\nd_info{v=\"1\"} 1\n";
        assert_eq!(to_text_format(openmetrics), text);
    }

    #[test]
    fn metrics_are_documented() {
        podshaper_testing::metrics::assert_documented("server", &ServerMetrics::new("arch").encode());
    }

    #[test]
    fn version_is_exposed() {
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!("podshaper_build_info{{webhook=\"arch\",version=\"{version}\"}} 1");
        let text = ServerMetrics::new("arch").encode();
        assert!(text.lines().any(|line| line == expected), "{text}");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    }
}
