//! A certificate authority of the tests, and the certificates that it issues.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use x509_parser::pem::parse_x509_pem;

/// The name in the certificate.
pub const SERVER_NAME: &str = "webhook.test.svc";
/// Every certificate expires in a year of its own, by which it is recognised.
static EXPIRY: AtomicI32 = AtomicI32::new(2100);

/// A CA.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pem = issuer.pem();
        Self { issuer, pem }
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The same in base64, as a `caBundle` is written.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.pem)
    }

    /// A certificate for `name` and its key, as PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        self.issue_until(name, date_time_ymd(EXPIRY.fetch_add(1, Ordering::Relaxed), 1, 1).into())
    }

    /// The same with another end.
    pub fn issue_until(&self, name: &str, not_after: SystemTime) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = not_after.into();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// When a certificate expires, in seconds since 1970; it is given as a Secret holds it.
pub fn not_after(secret: &str) -> i64 {
    let (_, pem) = parse_x509_pem(&STANDARD.decode(secret).unwrap()).unwrap();
    pem.parse_x509().unwrap().validity().not_after.timestamp()
}
