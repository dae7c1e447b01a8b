//! The certificate that is served now.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::certificate::unix_now;

/// The certificate that every new TLS connection gets, and what metrics tell of it.
///
/// A source ([`CertificateArgs::start`](super::CertificateArgs::start)) puts it in and replaces it; until the first one
/// is there, handshakes are refused.
#[derive(Debug)]
pub struct Serving {
    key: ArcSwapOption<CertifiedKey>,
    loaded: watch::Sender<bool>,
    leaf_not_after: AtomicI64,
    ca_not_after: AtomicI64,
    last_sync: AtomicI64,
    replacements: AtomicU64,
    errors: AtomicU64,
}

/// A reading of [`Serving`] for metrics. Times are in seconds since 1970, 0 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When the certificate that is served expires.
    pub leaf_not_after: i64,
    /// When its CA expires; 0 where the CA isn't known (files without `ca.crt`).
    pub ca_not_after: i64,
    /// When the source (files or Secret) was last read and found in order.
    pub last_sync: i64,
    /// How often the certificate was replaced by another since the start.
    pub replacements: u64,
    /// How often reading or writing the source failed since the start.
    pub errors: u64,
}

impl Serving {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            key: ArcSwapOption::empty(),
            loaded: watch::Sender::new(false),
            leaf_not_after: AtomicI64::new(0),
            ca_not_after: AtomicI64::new(0),
            last_sync: AtomicI64::new(0),
            replacements: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        })
    }

    /// Whether there is a certificate that hasn't expired.
    pub fn ready(&self) -> bool {
        *self.loaded.borrow() && unix_now() < self.leaf_not_after.load(Relaxed)
    }

    /// Waits for the first certificate.
    pub async fn loaded(&self) {
        // An error would mean that the sender is gone, and we hold it.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// What metrics tell.
    pub fn facts(&self) -> Facts {
        Facts {
            leaf_not_after: self.leaf_not_after.load(Relaxed),
            ca_not_after: self.ca_not_after.load(Relaxed),
            last_sync: self.last_sync.load(Relaxed),
            replacements: self.replacements.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }

    /// Serves `key` on every connection from now on.
    pub(super) fn serve(&self, key: Arc<CertifiedKey>, leaf_not_after: i64, ca_not_after: i64) {
        self.leaf_not_after.store(leaf_not_after, Relaxed);
        self.ca_not_after.store(ca_not_after, Relaxed);
        if self.key.swap(Some(key)).is_some() {
            self.replacements.fetch_add(1, Relaxed);
        }
        self.loaded.send_replace(true);
    }

    pub(super) fn synced(&self, now: i64) {
        self.last_sync.store(now, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// The DER of the leaf that is served.
    #[cfg(test)]
    pub(super) fn leaf(&self) -> Option<Vec<u8>> {
        self.key.load().as_ref().map(|key| key.cert[0].to_vec())
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.load_full()
    }
}
