//! The caBundle of one webhook: which CAs it holds, and the text with some more or less of them.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::certificate::Certificate;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A caBundle. What we don't know in it stays as it is, to the byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Bundle {
    text: String,
    pub(super) certificates: Vec<Certificate>,
}

impl Bundle {
    /// Reads a caBundle, out of its base64. Bytes that aren't text are no PEM, and as good as none.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes).unwrap_or_default();
        let certificates = text.split_inclusive(END).filter_map(certificate).collect();
        Self { text, certificates }
    }

    pub(super) fn contains(&self, ca: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|certificate| certificate.der == *ca)
    }

    /// The text with `add` and without `remove`; none if that is what it is.
    pub(super) fn edited(&self, add: &[&Certificate], remove: &[&Certificate]) -> Option<String> {
        let missing: Vec<_> = add.iter().filter(|ca| !self.contains(&ca.der)).collect();
        if missing.is_empty() && !remove.iter().any(|ca| self.contains(&ca.der)) {
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
            text += &ca.pem();
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Some(text.trim_start().to_owned())
    }
}

/// The certificate that ends a segment of the text: a segment is what follows on the one before.
fn certificate(segment: &str) -> Option<Certificate> {
    Certificate::parse(CertificateDer::from_pem_slice(segment.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;
    use crate::self_managed::issue::Service;

    fn ca() -> Certificate {
        let service = Service { name: "n".into(), namespace: "ns".into() };
        service.new_authority(2_000_000_000, Duration::from_hours(1)).unwrap().certificate
    }

    fn bundle(text: &str) -> Bundle {
        Bundle::new(text.as_bytes().to_vec())
    }

    #[test]
    fn what_is_there_isnt_added_again() {
        let ca = ca();
        let text = bundle("").edited(&[&ca], &[]).unwrap();
        assert_eq!(text, ca.pem());
        assert_eq!(bundle(&text).edited(&[&ca], &[]), None);
        assert_eq!(bundle(&text).edited(&[], &[]), None);
    }

    #[test]
    fn what_others_wrote_stays_as_it_is() {
        let (ours, theirs) = (ca(), ca());
        let before = format!("# theirs\r\n{}\n# more", theirs.pem().replace('\n', "\r\n"));
        let with = bundle(&before).edited(&[&ours], &[]).unwrap();
        assert_eq!(with, format!("{before}\n{}", ours.pem()));
        assert_eq!(bundle(&with).certificates, [theirs, ours.clone()]);
        assert_eq!(bundle(&with).edited(&[], &[&ours]).unwrap(), format!("{before}\n"));
    }

    #[test]
    fn one_is_replaced_by_another() {
        let (old, new) = (ca(), ca());
        assert_eq!(bundle(&old.pem()).edited(&[&new], &[&old]).unwrap(), new.pem());
    }

    #[test]
    fn what_is_no_certificate_is_no_obstacle() {
        let ca = ca();
        for text in [
            "\n",
            "garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----",
        ] {
            let edited = bundle(text).edited(&[&ca], &[]).unwrap();
            assert_eq!(bundle(&edited).certificates, std::slice::from_ref(&ca), "{edited}");
            assert!(edited.starts_with(text.trim()));
        }
        assert_eq!(Bundle::new(vec![0xff, 0xfe]).edited(&[&ca], &[]).unwrap(), ca.pem());
    }
}
