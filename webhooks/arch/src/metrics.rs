//! What Prometheus scrapes of this webhook.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Metrics of arch. A registry has a label of its own only if it was configured: tenants can name any number.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    images: Family<AnswerLabel, Counter>,
    lookups: Family<LookupLabel, Histogram>,
    /// Images that are remembered.
    known: Gauge,
    /// Bytes that they take.
    bytes: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    answer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookupLabel {
    registry: Arc<str>,
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.005, 2.0, 12));
        Self {
            images: Family::default(),
            lookups: Family::new_with_constructor(histogram),
            known: Gauge::default(),
            bytes: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "arch_images",
            "Images of pods, by what was known at once: hit, stale or miss",
            self.images.clone(),
        );
        let lookups = "Seconds that lookups took, by registry (other: none of those configured) and outcome";
        registry.register("arch_lookup_seconds", lookups, self.lookups.clone());
        registry.register("arch_known_images", "Images that are remembered", self.known.clone());
        registry.register("arch_cache_bytes", "Memory that they take", self.bytes.clone());
    }

    /// An image was wanted.
    pub(crate) fn wanted(&self, answer: &'static str) {
        self.images.get_or_create(&AnswerLabel { answer }).inc();
    }

    pub(crate) fn set_cache_size(&self, bytes: u64, images: u64) {
        self.bytes.set(bytes.try_into().unwrap_or(i64::MAX));
        self.known.set(images.try_into().unwrap_or(i64::MAX));
    }

    /// Records a lookup.
    pub(crate) fn record_lookup(&self, registry: &str, outcome: &'static str, took: Duration) {
        let label = LookupLabel { registry: registry.into(), outcome };
        self.lookups.get_or_create(&label).observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_documented() {
        let metrics = Metrics::default();
        let mut registry = Registry::with_prefix("podshaper");
        metrics.register(&mut registry);
        metrics.wanted("hit");
        metrics.record_lookup("registry.example.com", "known", Duration::from_secs(1));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        podshaper_testing::metrics::assert_documented("arch", &text);
    }
}
