//! The caBundle of one webhook: the CAs in it, and adding and removing some of them.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::certificate::Certificate;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A caBundle. Certificates and text of other writers are kept byte for byte.
#[derive(Clone, Debug, Default)]
pub(super) struct CaBundle {
    text: String,
    certificates: Vec<Certificate>,
}

impl CaBundle {
    /// Parses a caBundle without its base64 encoding. Bytes that aren't UTF-8 count as an empty bundle.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes).unwrap_or_default();
        let certificates = text.split_inclusive(END).filter_map(certificate).collect();
        Self { text, certificates }
    }

    pub(super) fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    pub(super) fn contains(&self, ca: &Certificate) -> bool {
        self.certificates.contains(ca)
    }

    /// The text with `add` and without `remove`, or `None` if the bundle is already like that.
    pub(super) fn edited(&self, add: &[&Certificate], remove: &[&Certificate]) -> Option<String> {
        let missing: Vec<_> = add.iter().filter(|ca| !self.contains(ca)).collect();
        if missing.is_empty() && !remove.iter().any(|ca| self.contains(ca)) {
            return None;
        }
        let removed = |segment: &str| certificate(segment).is_some_and(|found| remove.contains(&&found));
        let kept = |segment| {
            if removed(segment) { segment.split(BEGIN).next().unwrap_or_default() } else { segment }
        };
        let mut text: String = self.text.split_inclusive(END).map(kept).collect();
        text.truncate(text.trim_end().len());
        for ca in missing {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text += &ca.to_pem();
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Some(text.trim_start().to_owned())
    }
}

/// The certificate at the end of a segment, which begins after the previous certificate.
fn certificate(segment: &str) -> Option<Certificate> {
    Certificate::parse(CertificateDer::from_pem_slice(segment.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;
    use crate::self_managed::authority::WebhookService;

    fn ca() -> Certificate {
        let service = WebhookService::new("n".into(), "ns".into());
        service.issue_ca(2_000_000_000, Duration::from_hours(1)).unwrap().certificate().clone()
    }

    fn bundle(text: &str) -> CaBundle {
        CaBundle::new(text.as_bytes().to_vec())
    }

    #[test]
    fn ca_in_the_bundle_isnt_added_again() {
        let ca = ca();
        let text = bundle("").edited(&[&ca], &[]).unwrap();
        assert_eq!(text, ca.to_pem());
        assert_eq!(bundle(&text).edited(&[&ca], &[]), None);
        assert_eq!(bundle(&text).edited(&[], &[]), None);
    }

    #[test]
    fn text_of_other_writers_stays_byte_for_byte() {
        let own = ca();
        let other = ca();
        let before = format!("# other\r\n{}\n# more", other.to_pem().replace('\n', "\r\n"));
        let with = bundle(&before).edited(&[&own], &[]).unwrap();
        assert_eq!(with, format!("{before}\n{}", own.to_pem()));
        assert_eq!(bundle(&with).certificates(), [other, own.clone()]);
        assert_eq!(bundle(&with).edited(&[], &[&own]).unwrap(), format!("{before}\n"));
    }

    #[test]
    fn ca_is_replaced_by_another() {
        let old = ca();
        let new = ca();
        assert_eq!(bundle(&old.to_pem()).edited(&[&new], &[&old]).unwrap(), new.to_pem());
    }

    #[test]
    fn invalid_text_is_kept_and_certificates_are_added() {
        let ca = ca();
        for text in [
            "\n",
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----",
        ] {
            let edited = bundle(text).edited(&[&ca], &[]).unwrap();
            assert_eq!(bundle(&edited).certificates(), std::slice::from_ref(&ca), "{edited}");
            assert!(edited.starts_with(text.trim()));
        }
        assert_eq!(CaBundle::new(vec![0xff, 0xfe]).edited(&[&ca], &[]).unwrap(), ca.to_pem());
    }
}
