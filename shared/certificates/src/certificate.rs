//! One X.509 certificate with what we read in it, as PEM and back, and whether a leaf chains to a CA.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use k8s_openapi::jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate; times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) der: CertificateDer<'static>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Certificate {
    pub(super) fn parse(der: CertificateDer<'static>) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| format!("not a certificate: {e}"))?;
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Self { der, not_before, not_after })
    }

    /// Every certificate in PEM text, which may hold none.
    pub(super) fn parse_pem(pem: &[u8]) -> Result<Vec<Self>, String> {
        CertificateDer::pem_slice_iter(pem)
            .map(|der| Self::parse(der.map_err(|e| format!("not PEM: {e}"))?))
            .collect()
    }

    pub(super) fn pem(&self) -> String {
        pem("CERTIFICATE", &self.der)
    }

    pub(super) fn expired(&self, now: i64) -> bool {
        self.not_after <= now
    }

    /// Whom the certificate is for, as DER.
    pub(super) fn subject(&self) -> Option<Vec<u8>> {
        X509Certificate::from_der(&self.der).ok().map(|(_, parsed)| parsed.subject().as_raw().to_vec())
    }

    /// The public key, as the DER of a `SubjectPublicKeyInfo`.
    pub(super) fn public_key(&self) -> Option<Vec<u8>> {
        X509Certificate::from_der(&self.der).ok().map(|(_, parsed)| parsed.public_key().raw.to_vec())
    }
}

/// Whether a client that trusts `ca` alone accepts `chain` (leaf first) at `now`, for `name` if one is given.
pub(super) fn verify(
    chain: &[CertificateDer<'_>],
    ca: &Certificate,
    name: Option<&str>,
    now: i64,
) -> Result<(), rustls::Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
    let leaf = ParsedCertificate::try_from(leaf)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.der.clone())?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or_default()));
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, time, algorithms)?;
    match name {
        None => Ok(()),
        Some(name) => {
            let name = ServerName::try_from(name).map_err(|e| rustls::Error::General(e.to_string()))?;
            verify_server_name(&leaf, &name)
        }
    }
}

/// PEM text (RFC 7468) of `der`.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut lines = format!("-----BEGIN {label}-----\n");
    for (i, c) in base64.chars().enumerate() {
        if i > 0 && i % 64 == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    lines + &format!("\n-----END {label}-----\n")
}

/// `seconds` since 1970 as people read them.
pub(super) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}

/// The wall clock, in seconds since 1970.
pub(super) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs().cast_signed())
}
