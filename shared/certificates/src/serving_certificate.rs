//! The certificate of the TLS server and its metrics.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
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
    /// 0 for an unknown CA: files without `ca.crt`.
    ca_expiry: Gauge,
    last_sync: Gauge,
    replacements: Counter,
    errors: Counter,
}

impl ServingCertificate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            key: ArcSwapOption::empty(),
            loaded: watch::Sender::new(false),
            leaf_expiry: Gauge::default(),
            ca_expiry: Gauge::default(),
            last_sync: Gauge::default(),
            replacements: Counter::default(),
            errors: Counter::default(),
        })
    }

    /// Registers the metrics of the certificate.
    pub fn register(&self, registry: &mut Registry) {
        let times = [
            (
                "tls_certificate_expiry",
                "Expiry of the serving certificate, in Unix seconds",
                &self.leaf_expiry,
            ),
            (
                "tls_ca_expiry",
                "Expiry of the CA of the serving certificate, in Unix seconds; 0 if the CA is unknown",
                &self.ca_expiry,
            ),
            (
                "tls_last_sync",
                "Last successful read of the certificate files or the Secret, in Unix seconds",
                &self.last_sync,
            ),
        ];
        for (name, help, gauge) in times {
            registry.register_with_unit(name, help, Unit::Seconds, gauge.clone());
        }
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
        self.ca_expiry.set(ca_expiry);
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
            (self.leaf_expiry.get(), self.ca_expiry.get())
        }

        pub(crate) fn replacements(&self) -> u64 {
            self.replacements.get()
        }

        pub(crate) fn errors(&self) -> u64 {
            self.errors.get()
        }
    }
}
