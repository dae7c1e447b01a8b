//! The certificate of the TLS server and its metrics.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::certificate::unix_now;

/// The certificate for new TLS connections.
///
/// The source that [`CertificateArgs::start`](super::CertificateArgs::start) starts sets and replaces it. Handshakes fail
/// until the first certificate is set.
#[derive(Debug)]
pub struct ServingCertificate {
    key: ArcSwapOption<CertifiedKey>,
    loaded: watch::Sender<bool>,
    /// Unix seconds, as those below; 0 before the first certificate.
    leaf_expiry: Gauge,
    /// Absent for an unknown CA: files without `ca.crt`.
    ca_expiry: KnownTime,
    last_sync: Gauge,
    replacements: Counter,
    errors: Counter,
}

/// Unix seconds, or 0 if they are unknown. Then there is no series, because 0 would look like a time long ago.
#[derive(Clone, Debug, Default)]
struct KnownTime(Gauge);

impl EncodeMetric for KnownTime {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }

    fn is_empty(&self) -> bool {
        self.0.get() == 0
    }
}

impl ServingCertificate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            key: ArcSwapOption::empty(),
            loaded: watch::Sender::new(false),
            leaf_expiry: Gauge::default(),
            ca_expiry: KnownTime::default(),
            last_sync: Gauge::default(),
            replacements: Counter::default(),
            errors: Counter::default(),
        })
    }

    /// Registers the metrics of the certificate.
    pub fn register(&self, registry: &mut Registry) {
        let times = [
            (
                "tls_certificate_expiry_timestamp",
                "Expiry of the serving certificate, in Unix seconds",
                &self.leaf_expiry,
            ),
            (
                "tls_last_sync_timestamp",
                "Last successful read of the certificate files or the Secret, in Unix seconds",
                &self.last_sync,
            ),
        ];
        for (name, help, gauge) in times {
            registry.register_with_unit(name, help, Unit::Seconds, gauge.clone());
        }
        registry.register_with_unit(
            "tls_ca_expiry_timestamp",
            "Expiry of the CA of the serving certificate, in Unix seconds; absent if the CA is unknown",
            Unit::Seconds,
            self.ca_expiry.clone(),
        );
        registry.register(
            "tls_certificate_replacements",
            "Replacements of the serving certificate",
            self.replacements.clone(),
        );
        registry.register(
            "tls_certificate_errors",
            "Failed reads and writes of the certificate files, the Secret or the caBundles",
            self.errors.clone(),
        );
    }

    /// Whether a certificate is set and hasn't expired.
    pub fn is_ready(&self) -> bool {
        *self.loaded.borrow() && unix_now() < self.leaf_expiry.get()
    }

    /// Waits for the first certificate.
    pub async fn loaded(&self) {
        // An error means that the sender is dropped, and `self` holds it.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// Serves `key` on every new connection.
    pub(crate) fn set(&self, key: Arc<CertifiedKey>, leaf_expiry: i64, ca_expiry: i64) {
        self.leaf_expiry.set(leaf_expiry);
        self.ca_expiry.0.set(ca_expiry);
        if self.key.swap(Some(key)).is_some() {
            self.replacements.inc();
        }
        self.loaded.send_replace(true);
    }

    pub(crate) fn record_sync(&self, now: i64) {
        self.last_sync.set(now);
    }

    pub(crate) fn record_error(&self) {
        self.errors.inc();
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}

#[cfg(test)]
mod test_access {
    use super::ServingCertificate;

    impl ServingCertificate {
        /// The leaf that is served, as DER.
        pub(crate) fn leaf(&self) -> Option<Vec<u8>> {
            self.key.load().as_ref().map(|key| key.cert[0].to_vec())
        }

        pub(crate) fn expiries(&self) -> (i64, i64) {
            (self.leaf_expiry.get(), self.ca_expiry.0.get())
        }

        pub(crate) fn replacements(&self) -> u64 {
            self.replacements.get()
        }

        pub(crate) fn errors(&self) -> u64 {
            self.errors.get()
        }
    }
}

#[cfg(test)]
mod tests {
    use podshaper_testing::metrics;

    use super::*;

    fn encoded(ca_expiry: i64) -> String {
        let certificate = ServingCertificate::new();
        let mut registry = Registry::with_prefix("podshaper");
        certificate.register(&mut registry);
        certificate.ca_expiry.0.set(ca_expiry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn metrics_are_documented() {
        metrics::assert_documented("certificates", &encoded(1));
    }

    #[test]
    fn unknown_ca_has_no_expiry() {
        assert!(encoded(7).contains("podshaper_tls_ca_expiry_timestamp_seconds 7"));
        assert!(!encoded(0).contains("podshaper_tls_ca_expiry"));
    }
}
