//! X.509 certificates: parsing, encoding and chain verification.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use pem::{EncodeConfig, LineEnding, Pem};
use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate with its validity period in Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// Parses one certificate.
    ///
    /// # Errors
    ///
    /// If it is no X.509 certificate.
    pub(crate) fn parse(der: CertificateDer<'static>) -> Result<Self, String> {
        let (_, parsed) =
            X509Certificate::from_der(&der).map_err(|e| format!("not an X.509 certificate: {e}"))?;
        let validity = parsed.validity();
        let not_before = validity.not_before.timestamp();
        let not_after = validity.not_after.timestamp();
        Ok(Self { der, not_before, not_after })
    }

    /// Parses every certificate in `pem`, which may contain none.
    pub fn parse_pem(pem: &[u8]) -> Result<Vec<Self>, String> {
        CertificateDer::pem_slice_iter(pem)
            .map(|der| Self::parse(der.map_err(|e| format!("not PEM: {e}"))?))
            .collect()
    }

    /// The certificate as a PEM block.
    pub fn to_pem(&self) -> String {
        let pem = Pem::new("CERTIFICATE", &*self.der);
        pem::encode_config(&pem, EncodeConfig::new().set_line_ending(LineEnding::LF))
    }

    /// The certificate in DER.
    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Begin of its validity, in Unix seconds.
    pub(crate) fn not_before(&self) -> i64 {
        self.not_before
    }

    /// End of its validity, in Unix seconds.
    pub(crate) fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Whether it is no longer valid at `now`, in Unix seconds.
    pub(crate) fn is_expired(&self, now: i64) -> bool {
        self.not_after <= now
    }

    /// The subject's distinguished name, as DER.
    pub(crate) fn subject(&self) -> Option<Vec<u8>> {
        X509Certificate::from_der(&self.der).ok().map(|(_, parsed)| parsed.subject().as_raw().to_vec())
    }

    /// The `SubjectPublicKeyInfo`, as DER.
    pub(crate) fn public_key(&self) -> Option<Vec<u8>> {
        X509Certificate::from_der(&self.der).ok().map(|(_, parsed)| parsed.public_key().raw.to_vec())
    }

    /// Whether a client that trusts only this CA accepts `chain`, leaf first, at `now`. `host` is checked if it is given.
    pub(crate) fn verifies(&self, chain: &[CertificateDer<'_>], host: Option<&str>, now: i64) -> bool {
        self.verify(chain, host, now).is_ok()
    }

    fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        host: Option<&str>,
        now: i64,
    ) -> Result<(), rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let leaf = ParsedCertificate::try_from(leaf)?;
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or_default()));
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, time, algorithms)?;
        let Some(host) = host else { return Ok(()) };
        let host = ServerName::try_from(host).map_err(|e| rustls::Error::General(e.to_string()))?;
        verify_server_name(&leaf, &host)
    }
}

/// Converts Unix seconds for logs and errors.
pub(crate) fn format_time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}

/// The wall clock in Unix seconds.
pub(crate) fn unix_now() -> i64 {
    Timestamp::now().as_second()
}
