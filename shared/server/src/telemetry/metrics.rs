//! What Prometheus scrapes.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use podshaper_certificates::Serving;
use podshaper_core::admission::Outcome;

/// Seconds. The API server's own histogram begins at 5 ms, where all of ours would be one bucket.
const LATENCY: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.5, 1.0, 5.0,
];

/// All metrics of one binary.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The admission path.
    pub admission: AdmissionMetrics,
    /// Open connections.
    pub connections: Gauge,
    /// Connections that ended in their TLS handshake.
    pub handshake_errors: Counter,
}

/// Counters of the admission path, looked up once.
#[derive(Clone, Debug)]
pub struct AdmissionMetrics {
    outcomes: [Counter; 4],
    refusals: [Counter; 9],
    latency: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabel {
    reason: &'static str,
}

/// Why an HTTP request got no admission answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing is served under its path.
    Path,
    /// Not POST.
    Method,
    /// Not JSON by its own word.
    ContentType,
    /// The body's length isn't told.
    Length,
    /// The body is too large.
    TooLarge,
    /// The body is no review.
    Review,
    /// Over a limit: it is to come again.
    Busy,
    /// Over its time.
    Timeout,
    /// Our fault.
    Panic,
}

impl Refusal {
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

    /// The HTTP status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Length => StatusCode::LENGTH_REQUIRED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Review => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Panic => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::ContentType => "content_type",
            Self::Length => "length",
            Self::TooLarge => "too_large",
            Self::Review => "review",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
        }
    }
}

impl AdmissionMetrics {
    fn register(registry: &mut Registry) -> Self {
        let outcomes = Family::<OutcomeLabel, Counter>::default();
        let refusals = Family::<RefusalLabel, Counter>::default();
        let latency = Histogram::new(LATENCY);
        registry.register("admission_reviews", "Admission reviews answered, by outcome", outcomes.clone());
        registry.register(
            "admission_refusals",
            "HTTP requests without an admission answer, by reason",
            refusals.clone(),
        );
        registry.register_with_unit(
            "admission_duration",
            "From the headers of a review to its answer",
            Unit::Seconds,
            latency.clone(),
        );
        let outcome = |outcome| outcomes.get_or_create(&OutcomeLabel { outcome }).clone();
        Self {
            outcomes: ["unchanged", "patched", "undecided", "denied"].map(outcome),
            refusals: Refusal::ALL
                .map(|r| refusals.get_or_create(&RefusalLabel { reason: r.reason() }).clone()),
            latency,
        }
    }

    /// Counts an answer.
    pub fn answered(&self, outcome: Outcome, took: Duration) {
        let [unchanged, patched, undecided, denied] = &self.outcomes;
        match outcome {
            Outcome::Unchanged => unchanged,
            Outcome::Patched => patched,
            Outcome::Undecided => undecided,
            Outcome::Denied => denied,
        }
        .inc();
        self.latency.observe(took.as_secs_f64());
    }

    /// Counts a request that got no answer.
    pub fn refused(&self, refusal: Refusal) {
        if let Some(counter) = self.refusals.get(refusal as usize) {
            counter.inc();
        }
    }
}

/// Reads what is known about the certificate at the moment of a scrape.
#[derive(Debug)]
struct CertificateCollector(Arc<Serving>);

impl Collector for CertificateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let facts = self.0.facts();
        let times = [
            (
                "tls_certificate_expiry",
                "When the certificate in service expires, seconds since 1970",
                facts.leaf_not_after,
            ),
            (
                "tls_ca_expiry",
                "When its CA expires, seconds since 1970; 0 where the CA isn't known",
                facts.ca_not_after,
            ),
            (
                "tls_last_sync",
                "When the certificate's source was last found in order, seconds since 1970",
                facts.last_sync,
            ),
        ];
        for (name, help, value) in times {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(
                name,
                help,
                Some(&Unit::Seconds),
                gauge.metric_type(),
            )?)?;
        }
        let counts = [
            (
                "tls_certificate_replacements",
                "How often the certificate in service was replaced",
                facts.replacements,
            ),
            (
                "tls_certificate_errors",
                "How often reading or writing the certificate's source failed",
                facts.errors,
            ),
        ];
        for (name, help, value) in counts {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

impl Metrics {
    /// The metrics of the webhook `name`, which serves with `certificate`.
    pub fn new(name: &'static str, certificate: Arc<Serving>) -> Self {
        let labels = [("webhook".into(), name.into())].into_iter();
        let mut registry = Registry::with_prefix_and_labels("podshaper", labels);
        registry.register_collector(Box::new(CertificateCollector(certificate)));
        let connections = Gauge::default();
        let handshake_errors = Counter::default();
        registry.register("connections", "Open connections to the webhook server", connections.clone());
        registry.register(
            "tls_handshake_errors",
            "Connections that ended in their handshake",
            handshake_errors.clone(),
        );
        let admission = AdmissionMetrics::register(&mut registry);
        Self { registry, admission, connections, handshake_errors }
    }

    /// Where a webhook registers metrics of its own.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// All metrics as `OpenMetrics` text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Only the writer can fail, and a string can't.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
