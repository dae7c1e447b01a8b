//! Makes CAs and leaves: ECDSA P-256, for one Service.

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

/// A certificate begins this long (in seconds) before it is made, so that clocks may differ by as much.
pub(super) const BACKDATE: i64 = 3600;

/// The Service that the API server calls.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) namespace: String,
}

/// A CA, with its key unless that was lost.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) certificate: Certificate,
    pub(super) key: Option<Key>,
}

/// A serving certificate with its key.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) certificate: Certificate,
    pub(super) key: Key,
    pub(super) certified: Arc<CertifiedKey>,
}

/// A private key as PKCS#8, which `Debug` doesn't print.
#[derive(Clone, Debug)]
pub(super) struct Key(Arc<PrivatePkcs8KeyDer<'static>>);

impl Service {
    /// The name that the API server verifies.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// The subject of its CAs, by which they are known again. (RFC 5280 allows 64 characters an attribute.)
    fn subject(&self) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, self.namespace.as_str());
        subject.push(DnType::OrganizationalUnitName, self.name.as_str());
        subject.push(DnType::CommonName, "podshaper webhook CA");
        subject
    }

    /// A new CA, valid for `lifetime` from `now` on.
    pub(super) fn new_authority(&self, now: i64, lifetime: Duration) -> Result<Authority, rcgen::Error> {
        let mut params = params(now - BACKDATE, now + seconds(lifetime));
        params.distinguished_name = self.subject();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let certificate = parse(&params.self_signed(&key)?)?;
        Ok(Authority { certificate, key: Some(Key::new(key.serialize_der())) })
    }

    /// A new leaf under `authority`, valid for `lifetime` from `now` on but no longer than its CA.
    pub(super) fn new_leaf(
        &self,
        authority: &Authority,
        now: i64,
        lifetime: Duration,
    ) -> Result<Leaf, rcgen::Error> {
        let ca = &authority.certificate;
        let not_after = ca.not_after.min(now + seconds(lifetime));
        let mut params = params(ca.not_before.max(now - BACKDATE), not_after);
        let host = self.host();
        let short = format!("{}.{}", self.name, self.namespace);
        params.subject_alt_names =
            CertificateParams::new([format!("{host}.cluster.local"), short, host])?.subject_alt_names;
        params.distinguished_name.push(DnType::CommonName, self.name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;

        let ca_key = authority.key.as_ref().and_then(Key::pair).ok_or(rcgen::Error::CouldNotParseKeyPair)?;
        let issuer = Issuer::from_ca_cert_der(&ca.der, ca_key)?;
        let key = KeyPair::generate()?;
        let certificate = parse(&params.signed_by(&key, &issuer)?)?;
        Leaf::new(certificate, Key::new(key.serialize_der())).map_err(rcgen::Error::X509)
    }
}

impl Authority {
    /// Fails where `key` isn't the CA's.
    pub(super) fn new(certificate: Certificate, key: Key) -> Result<Self, String> {
        let pair = key.pair().ok_or("not a PKCS#8 key that can sign")?;
        if certificate.public_key() != Some(pair.subject_public_key_info()) {
            return Err("not the key of the certificate".into());
        }
        Ok(Self { certificate, key: Some(key) })
    }
}

impl Leaf {
    /// Fails where `key` isn't the certificate's.
    pub(super) fn new(certificate: Certificate, key: Key) -> Result<Self, String> {
        let chain = vec![certificate.der.clone()];
        let certified = CertifiedKey::from_der(chain, key.0.clone_key().into(), &ring::default_provider());
        let certified = Arc::new(certified.map_err(|e| e.to_string())?);
        Ok(Self { certificate, key, certified })
    }
}

impl Key {
    pub(super) fn new(pkcs8: Vec<u8>) -> Self {
        Self(Arc::new(pkcs8.into()))
    }

    pub(super) fn pkcs8(&self) -> &[u8] {
        self.0.secret_pkcs8_der()
    }

    fn pair(&self) -> Option<KeyPair> {
        KeyPair::try_from(&*self.0).ok()
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
    use crate::certificate::verify;

    const NOW: i64 = 2_000_000_000;
    const DAY: Duration = Duration::from_hours(24);

    fn service() -> Service {
        Service { name: "peerpods".into(), namespace: "podshaper".into() }
    }

    fn accepts(leaf: &Leaf, authority: &Authority, name: &str, now: i64) -> bool {
        verify(std::slice::from_ref(&leaf.certificate.der), &authority.certificate, Some(name), now).is_ok()
    }

    #[test]
    fn a_leaf_is_for_its_service_and_nothing_else() {
        let authority = service().new_authority(NOW, 365 * DAY).unwrap();
        let leaf = service().new_leaf(&authority, NOW, 90 * DAY).unwrap();
        for name in ["peerpods.podshaper.svc", "peerpods.podshaper.svc.cluster.local", "peerpods.podshaper"] {
            assert!(accepts(&leaf, &authority, name, NOW), "{name}");
        }
        for name in ["arch.podshaper.svc", "peerpods.default.svc", "peerpods", "a.peerpods.podshaper.svc"] {
            assert!(!accepts(&leaf, &authority, name, NOW), "{name}");
        }
        let other = service().new_authority(NOW, 365 * DAY).unwrap();
        assert!(!accepts(&leaf, &other, "peerpods.podshaper.svc", NOW), "another CA of the same name");
    }

    #[test]
    fn clocks_may_differ_by_an_hour_and_a_leaf_ends_with_its_ca() {
        let authority = service().new_authority(NOW, 30 * DAY).unwrap();
        let leaf = service().new_leaf(&authority, NOW, 90 * DAY).unwrap();
        let end = NOW + 30 * 24 * 3600;
        assert_eq!((leaf.certificate.not_before, leaf.certificate.not_after), (NOW - BACKDATE, end));
        for (now, accepted) in
            [(NOW - BACKDATE, true), (NOW - BACKDATE - 1, false), (end, true), (end + 1, false)]
        {
            assert_eq!(accepts(&leaf, &authority, "peerpods.podshaper.svc", now), accepted, "{now}");
        }
    }

    #[test]
    fn a_ca_signs_leaves_only() {
        let authority = service().new_authority(NOW, 30 * DAY).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&authority.certificate.der).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap();
        assert!(
            constraints.critical && constraints.value.ca && constraints.value.path_len_constraint == Some(0)
        );
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && !usage.digital_signature());

        let leaf = service().new_leaf(&authority, NOW, DAY).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.certificate.der).unwrap();
        assert!(!parsed.is_ca() && parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
    }

    #[test]
    fn the_longest_names_fit() {
        let service = Service { name: "n".repeat(63), namespace: "s".repeat(63) };
        let authority = service.new_authority(NOW, 30 * DAY).unwrap();
        let leaf = service.new_leaf(&authority, NOW, DAY).unwrap();
        assert!(accepts(&leaf, &authority, &service.host(), NOW));
    }

    #[test]
    fn no_key_is_ever_printed() {
        let authority = service().new_authority(NOW, 30 * DAY).unwrap();
        let leaf = service().new_leaf(&authority, NOW, DAY).unwrap();
        let secret = &leaf.key.pkcs8()[36..68];
        let printed = format!("{leaf:?} {authority:?}");
        assert!(printed.contains("[secret key elided]"), "{printed}");
        assert!(!printed.contains(&format!("{secret:?}")[1..20]), "{printed}");
    }
}
