//! Issues CAs and leaves for one Service, with ECDSA P-256 keys.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::time::Duration;

use crate::certificate::Certificate;

/// Certificates begin this many seconds before they are issued, so that clocks may differ by as much.
pub(super) const BACKDATE: i64 = 3600;

/// The Service that the API server calls.
#[derive(Clone, Debug)]
pub(crate) struct WebhookService {
    name: String,
    namespace: String,
}

/// A CA. Its key is `None` if it was lost.
#[derive(Clone, Debug)]
pub(super) struct CertificateAuthority {
    certificate: Certificate,
    key: Option<Arc<KeyPair>>,
}

/// A serving certificate with its key.
#[derive(Clone, Debug)]
pub(super) struct LeafCertificate {
    certificate: Certificate,
    key: Arc<KeyPair>,
    certified: Arc<CertifiedKey>,
}

impl WebhookService {
    pub(crate) fn new(name: String, namespace: String) -> Self {
        Self { name, namespace }
    }

    /// The host name that the API server verifies.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// The subject that identifies CAs of this Service. RFC 5280 limits each attribute to 64 characters.
    fn subject(&self) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, self.namespace.as_str());
        subject.push(DnType::OrganizationalUnitName, self.name.as_str());
        subject.push(DnType::CommonName, "podshaper webhook CA");
        subject
    }

    pub(super) fn issue_ca(
        &self,
        now: i64,
        lifetime: Duration,
    ) -> Result<CertificateAuthority, rcgen::Error> {
        let mut params = params(now - BACKDATE, now + seconds(lifetime));
        params.distinguished_name = self.subject();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let certificate = parse(&params.self_signed(&key)?)?;
        Ok(CertificateAuthority { certificate, key: Some(Arc::new(key)) })
    }

    /// Issues a leaf that `ca` signs. It expires with its CA if that is earlier than its lifetime.
    pub(super) fn issue_leaf(
        &self,
        ca: &CertificateAuthority,
        now: i64,
        lifetime: Duration,
    ) -> Result<LeafCertificate, rcgen::Error> {
        let not_before = ca.certificate.not_before().max(now - BACKDATE);
        let not_after = ca.certificate.not_after().min(now + seconds(lifetime));
        let mut params = params(not_before, not_after);
        let host = self.host();
        let short = format!("{}.{}", self.name, self.namespace);
        params.subject_alt_names =
            CertificateParams::new([format!("{host}.cluster.local"), short, host])?.subject_alt_names;
        params.distinguished_name.push(DnType::CommonName, self.name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;

        let ca_key = ca.key.as_ref().ok_or(rcgen::Error::CouldNotParseKeyPair)?;
        let issuer = Issuer::from_ca_cert_der(ca.certificate.der(), &**ca_key)?;
        let key = KeyPair::generate()?;
        let certificate = parse(&params.signed_by(&key, &issuer)?)?;
        LeafCertificate::new(certificate, key).map_err(rcgen::Error::X509)
    }
}

impl CertificateAuthority {
    /// Fails if `key` isn't the key of the certificate.
    pub(super) fn new(certificate: Certificate, key: KeyPair) -> Result<Self, String> {
        if certificate.public_key() != Some(key.subject_public_key_info()) {
            return Err("isn't the key of the certificate".into());
        }
        Ok(Self { certificate, key: Some(Arc::new(key)) })
    }

    pub(super) fn without_key(certificate: Certificate) -> Self {
        Self { certificate, key: None }
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn key(&self) -> Option<&KeyPair> {
        self.key.as_deref()
    }
}

impl LeafCertificate {
    /// Fails if `key` isn't the key of the certificate.
    pub(super) fn new(certificate: Certificate, key: KeyPair) -> Result<Self, String> {
        let chain = vec![certificate.der().clone()];
        let pkcs8 = PrivatePkcs8KeyDer::from(key.serialize_der());
        let certified = CertifiedKey::from_der(chain, pkcs8.into(), &ring::default_provider());
        let certified = Arc::new(certified.map_err(|e| e.to_string())?);
        Ok(Self { certificate, key: Arc::new(key), certified })
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }
}

fn params(not_before: i64, not_after: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before.try_into().unwrap_or_default());
    params.not_after = epoch + Duration::from_secs(not_after.try_into().unwrap_or_default());
    params.distinguished_name = DistinguishedName::new();
    params
}

fn parse(certificate: &rcgen::Certificate) -> Result<Certificate, rcgen::Error> {
    Certificate::parse(certificate.der().clone()).map_err(rcgen::Error::X509)
}

pub(super) fn seconds(duration: Duration) -> i64 {
    duration.as_secs().try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 2_000_000_000;
    const DAY: Duration = Duration::from_hours(24);

    fn service() -> WebhookService {
        WebhookService::new("peerpods".into(), "podshaper".into())
    }

    fn accepts(leaf: &LeafCertificate, ca: &CertificateAuthority, name: &str, now: i64) -> bool {
        ca.certificate.verifies(std::slice::from_ref(leaf.certificate.der()), Some(name), now)
    }

    #[test]
    fn leaf_is_valid_for_its_service_only() {
        let ca = service().issue_ca(NOW, 365 * DAY).unwrap();
        let leaf = service().issue_leaf(&ca, NOW, 90 * DAY).unwrap();
        for name in ["peerpods.podshaper.svc", "peerpods.podshaper.svc.cluster.local", "peerpods.podshaper"] {
            assert!(accepts(&leaf, &ca, name, NOW), "{name}");
        }
        for name in ["arch.podshaper.svc", "peerpods.default.svc", "peerpods", "a.peerpods.podshaper.svc"] {
            assert!(!accepts(&leaf, &ca, name, NOW), "{name}");
        }
        let other = service().issue_ca(NOW, 365 * DAY).unwrap();
        assert!(!accepts(&leaf, &other, "peerpods.podshaper.svc", NOW), "another CA of the same name");
    }

    #[test]
    fn leaf_is_backdated_and_expires_with_its_ca() {
        let ca = service().issue_ca(NOW, 30 * DAY).unwrap();
        let leaf = service().issue_leaf(&ca, NOW, 90 * DAY).unwrap();
        let end = NOW + 30 * 24 * 3600;
        assert_eq!((leaf.certificate.not_before(), leaf.certificate.not_after()), (NOW - BACKDATE, end));
        for (now, accepted) in
            [(NOW - BACKDATE, true), (NOW - BACKDATE - 1, false), (end, true), (end + 1, false)]
        {
            assert_eq!(accepts(&leaf, &ca, "peerpods.podshaper.svc", now), accepted, "{now}");
        }
    }

    #[test]
    fn ca_signs_leaves_only() {
        let ca = service().issue_ca(NOW, 30 * DAY).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(ca.certificate.der()).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(
            constraints.critical && constraints.value.ca && constraints.value.path_len_constraint == Some(0)
        );
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && !usage.digital_signature());

        let leaf = service().issue_leaf(&ca, NOW, DAY).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf.certificate.der()).unwrap();
        assert!(!parsed.is_ca() && parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
    }

    #[test]
    fn longest_names_fit() {
        let service = WebhookService::new("n".repeat(63), "s".repeat(63));
        let ca = service.issue_ca(NOW, 30 * DAY).unwrap();
        let leaf = service.issue_leaf(&ca, NOW, DAY).unwrap();
        assert!(accepts(&leaf, &ca, &service.host(), NOW));
    }

    #[test]
    fn debug_output_contains_no_key() {
        let ca = service().issue_ca(NOW, 30 * DAY).unwrap();
        let leaf = service().issue_leaf(&ca, NOW, DAY).unwrap();
        let secret = &leaf.key.serialized_der()[36..68];
        let printed = format!("{leaf:?} {ca:?}");
        assert!(printed.contains("[secret key elided]"), "{printed}");
        assert!(!printed.contains(&format!("{secret:?}")[1..20]), "{printed}");
    }
}
