//! The content of the Secret and its encoding.
//!
//! | key | content |
//! |---|---|
//! | `tls.crt`, `tls.key` | the leaf in service |
//! | `ca.crt` | every CA to trust, the one that signed the leaf first |
//! | `ca.key` | the key of that first CA |
//! | `next-ca.crt`, `next-ca.key` | the CA that signs after the hold |
//! | `retired.crt` | replaced leaves that haven't expired, each followed by its CA |
//!
//! Other keys aren't changed. The annotation [`ROTATE`] requests a rotation: `leaf` or `ca`.

use std::collections::BTreeMap;
use std::fmt::Display;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rcgen::KeyPair;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::authority::{CertificateAuthority, LeafCertificate};
use crate::certificate::Certificate;

/// The annotation that requests a rotation. It is removed when the rotation begins.
pub(super) const ROTATE: &str = "podshaper.dev/rotate";

/// The content of the Secret. A value that can't be decoded counts as absent.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "SecretObject")]
pub(super) struct CertificateSecret {
    resource_version: String,
    /// The CA that signs. If its key is lost, it stays until the next CA takes over.
    authority: Option<CertificateAuthority>,
    leaf: Option<LeafCertificate>,
    /// The CA that signs once it has been in every caBundle for the hold.
    next: Option<CertificateAuthority>,
    /// Replaced leaves, at most one of each CA. A replica may serve such a leaf until it expires, so its CA stays trusted.
    retired: Vec<LeafAndCa>,
    rotation: Option<Rotation>,
    /// The values that can't be decoded, each with the reason.
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct SecretObject {
    metadata: SecretMetadata,
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretMetadata {
    resource_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A leaf and the CA that signed it, without keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeafAndCa {
    leaf: Certificate,
    ca: Certificate,
}

/// A rotation that an operator requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotation {
    Leaf,
    Ca,
}

impl LeafAndCa {
    pub(super) fn new(leaf: Certificate, ca: Certificate) -> Self {
        Self { leaf, ca }
    }

    pub(super) fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    pub(super) fn ca(&self) -> &Certificate {
        &self.ca
    }
}

impl From<SecretObject> for CertificateSecret {
    fn from(SecretObject { metadata, data }: SecretObject) -> Self {
        let mut values = Values { data: data.unwrap_or_default(), problems: Vec::new() };
        let leaf = values.certificates("tls.crt").into_iter().next();
        let leaf_key = values.private_key("tls.key");
        let leaf = leaf
            .zip(leaf_key)
            .and_then(|(certificate, key)| values.valid("tls.key", LeafCertificate::new(certificate, key)));
        let authority = values.certificates("ca.crt").into_iter().next();
        let authority_key = values.private_key("ca.key");
        let authority = authority.map(|certificate| {
            let with_key = authority_key
                .and_then(|key| values.valid("ca.key", CertificateAuthority::new(certificate.clone(), key)));
            with_key.unwrap_or_else(|| CertificateAuthority::without_key(certificate))
        });
        let next = values.certificates("next-ca.crt").into_iter().next();
        let next_key = values.private_key("next-ca.key");
        let next = next.zip(next_key).and_then(|(certificate, key)| {
            values.valid("next-ca.key", CertificateAuthority::new(certificate, key))
        });
        let retired = values.certificates("retired.crt");
        let retired = retired.chunks_exact(2).filter_map(|pair| match pair {
            [leaf, ca] => Some(LeafAndCa::new(leaf.clone(), ca.clone())),
            _ => None,
        });
        let rotation = match metadata.annotations.get(ROTATE).map(String::as_str) {
            None => None,
            Some("leaf") => Some(Rotation::Leaf),
            Some("ca") => Some(Rotation::Ca),
            Some(other) => {
                values.report(ROTATE, &format!("{other:?} is neither \"leaf\" nor \"ca\""));
                None
            }
        };
        Self {
            resource_version: metadata.resource_version,
            authority,
            leaf,
            next,
            retired: retired.collect(),
            rotation,
            problems: values.problems,
        }
    }
}

impl CertificateSecret {
    pub(super) const fn empty() -> Self {
        Self {
            resource_version: String::new(),
            authority: None,
            leaf: None,
            next: None,
            retired: Vec::new(),
            rotation: None,
            problems: Vec::new(),
        }
    }

    /// The merge patch (RFC 7386) that writes this content. It conflicts with every other write since the Secret was read.
    pub(super) fn patch(&self) -> Value {
        let data: Map<_, _> = self
            .values()
            .into_iter()
            .map(|(key, text)| (key.to_owned(), text.map_or(Value::Null, |text| BASE64.encode(text).into())))
            .collect();
        let annotations = if self.rotation.is_none() { json!({ ROTATE: null }) } else { json!({}) };
        let metadata = json!({ "resourceVersion": self.resource_version, "annotations": annotations });
        json!({ "metadata": metadata, "data": data })
    }

    fn values(&self) -> [(&'static str, Option<String>); 7] {
        let certificate = |ca: &CertificateAuthority| ca.certificate().to_pem();
        let key = |ca: &CertificateAuthority| ca.key().map(KeyPair::serialize_pem);
        let trusted = self.authority.iter().flat_map(|authority| {
            let others = self.next.iter().map(CertificateAuthority::certificate);
            let others = others.chain(self.retired.iter().map(LeafAndCa::ca));
            let others = others.filter(|ca| *ca != authority.certificate());
            [authority.certificate()].into_iter().chain(others)
        });
        let retired = self.retired.iter().flat_map(|retired| [retired.leaf.to_pem(), retired.ca.to_pem()]);
        let unless_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        [
            ("tls.crt", self.leaf.as_ref().map(|leaf| leaf.certificate().to_pem())),
            ("tls.key", self.leaf.as_ref().map(|leaf| leaf.key().serialize_pem())),
            ("ca.crt", unless_empty(trusted.map(Certificate::to_pem).collect())),
            ("ca.key", self.authority.as_ref().and_then(key)),
            ("next-ca.crt", self.next.as_ref().map(certificate)),
            ("next-ca.key", self.next.as_ref().and_then(key)),
            ("retired.crt", unless_empty(retired.collect())),
        ]
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(super) fn authority(&self) -> Option<&CertificateAuthority> {
        self.authority.as_ref()
    }

    pub(super) fn leaf(&self) -> Option<&LeafCertificate> {
        self.leaf.as_ref()
    }

    pub(super) fn next(&self) -> Option<&CertificateAuthority> {
        self.next.as_ref()
    }

    pub(super) fn retired(&self) -> &[LeafAndCa] {
        &self.retired
    }

    pub(super) fn rotation(&self) -> Option<Rotation> {
        self.rotation
    }

    /// The CA that signs and the next one.
    pub(super) fn cas(&self) -> impl Iterator<Item = &Certificate> + Clone {
        self.authority.iter().chain(&self.next).map(CertificateAuthority::certificate)
    }

    /// Adds the CA that signs after the hold.
    pub(super) fn prepare(&mut self, next: CertificateAuthority) {
        self.next = Some(next);
        self.rotation = self.rotation.filter(|rotation| *rotation != Rotation::Ca);
    }

    /// Makes the next CA the one that signs. `leaf` is its first leaf.
    pub(super) fn promote(&mut self, leaf: LeafCertificate) {
        self.renew(leaf);
        self.authority = self.next.take();
    }

    /// Retires the leaf and replaces it.
    pub(super) fn renew(&mut self, leaf: LeafCertificate) {
        if let (Some(authority), Some(old)) = (&self.authority, &self.leaf) {
            self.retire(LeafAndCa::new(old.certificate().clone(), authority.certificate().clone()));
        }
        self.leaf = Some(leaf);
        self.rotation = self.rotation.filter(|rotation| *rotation != Rotation::Leaf);
    }

    /// Records that a replica may still serve `retired.leaf`. Of one CA only the leaf that expires last is recorded.
    pub(super) fn retire(&mut self, retired: LeafAndCa) {
        match self.retired.iter_mut().find(|other| other.ca == retired.ca) {
            None => self.retired.push(retired),
            Some(known) if known.leaf.not_after() < retired.leaf.not_after() => *known = retired,
            Some(_) => {}
        }
    }

    pub(super) fn keep_retired(&mut self, keep: impl FnMut(&LeafAndCa) -> bool) {
        self.retired.retain(keep);
    }
}

/// Decodes the values of a Secret and collects the problems.
struct Values {
    data: BTreeMap<String, String>,
    problems: Vec<String>,
}

impl Values {
    fn report(&mut self, key: &str, problem: &dyn Display) {
        self.problems.push(format!("{key}: {problem}"));
    }

    fn valid<T, E: Display>(&mut self, key: &str, result: Result<T, E>) -> Option<T> {
        result.inspect_err(|error| self.report(key, error)).ok()
    }

    fn bytes(&mut self, key: &str) -> Option<Vec<u8>> {
        let value = self.data.remove(key).filter(|value| !value.is_empty())?;
        self.valid(key, BASE64.decode(value))
    }

    fn certificates(&mut self, key: &str) -> Vec<Certificate> {
        let pem = self.bytes(key).unwrap_or_default();
        self.valid(key, Certificate::parse_pem(&pem)).unwrap_or_default()
    }

    fn private_key(&mut self, key: &str) -> Option<KeyPair> {
        let pem = self.bytes(key)?;
        let parsed = str::from_utf8(&pem).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        self.valid(key, parsed.ok_or("contains no PKCS#8 private key"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;
    use crate::self_managed::authority::WebhookService;

    const NOW: i64 = 2_000_000_000;
    const DAY: Duration = Duration::from_hours(24);

    fn stored() -> CertificateSecret {
        let service = WebhookService::new("n".into(), "ns".into());
        let ca = || service.issue_ca(NOW, 30 * DAY).unwrap();
        let leaf = |ca: &CertificateAuthority| service.issue_leaf(ca, NOW, DAY).unwrap();
        let old = ca();
        let authority = ca();
        let next = ca();
        let retired = LeafAndCa::new(leaf(&old).certificate().clone(), old.certificate().clone());
        let leaf = Some(leaf(&authority));
        let authority = Some(authority);
        let next = Some(next);
        CertificateSecret {
            resource_version: "7".into(),
            authority,
            leaf,
            next,
            retired: vec![retired],
            ..CertificateSecret::empty()
        }
    }

    fn decode(data: &BTreeMap<String, String>, annotations: &Value) -> CertificateSecret {
        let metadata = json!({"resourceVersion": "7", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "data": data})).unwrap()
    }

    fn keys() -> impl Iterator<Item = &'static str> {
        CertificateSecret::empty().values().into_iter().map(|(key, _)| key)
    }

    fn data(stored: &CertificateSecret) -> BTreeMap<String, String> {
        let patch = stored.patch();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        serde_json::from_value(patch["data"].clone()).unwrap()
    }

    #[test]
    fn decoded_secret_equals_the_encoded_one() {
        let before = stored();
        let after = decode(&data(&before), &json!({}));
        assert_eq!(after.problems, [""; 0]);
        assert_eq!(after.values(), before.values());
        assert_eq!(after.retired, before.retired);
        let trusted = before.values()[2].1.clone().unwrap();
        assert_eq!(trusted.matches("BEGIN").count(), 3, "ca.crt contains every CA to trust");
    }

    #[test]
    fn empty_secret_has_no_problems() {
        let empty = keys().map(|key| (key.to_owned(), String::new())).collect();
        for data in [BTreeMap::new(), empty] {
            let stored = decode(&data, &json!({}));
            let problems = &stored.problems;
            assert!(
                stored.values().iter().all(|(_, value)| value.is_none()) && problems.is_empty(),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn invalid_value_is_named_and_the_rest_is_decoded() {
        let good = data(&stored());
        let garbage = BASE64.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let other = data(&stored());
        for key in keys() {
            let foreign = if key == "retired.crt" { None } else { Some(other[key].clone()) };
            for wrong in ["*".to_owned(), garbage.clone()].into_iter().chain(foreign) {
                let mut data = good.clone();
                data.insert(key.to_owned(), wrong);
                let stored = decode(&data, &json!({}));
                let problems = &stored.problems;
                assert_eq!(problems.len(), 1, "{key}: {problems:?}");
                let lost = match key {
                    "tls.crt" | "tls.key" => stored.leaf.is_none(),
                    "ca.crt" if stored.authority.is_none() => true,
                    "ca.crt" | "ca.key" => stored.authority.as_ref().unwrap().key().is_none(),
                    "next-ca.crt" | "next-ca.key" => stored.next.is_none(),
                    _ => stored.retired.is_empty(),
                };
                assert!(lost, "{key}");
            }
        }
    }

    #[test]
    fn annotation_requests_a_rotation() {
        let decode = |value: &str| decode(&BTreeMap::new(), &json!({ROTATE: value}));
        assert_eq!(decode("leaf").rotation, Some(Rotation::Leaf));
        assert_eq!(decode("ca").rotation, Some(Rotation::Ca));
        let stored = decode("everything");
        assert!(stored.rotation.is_none() && stored.problems[0].contains("everything"), "{stored:?}");
    }

    #[test]
    fn annotation_is_removed_when_the_rotation_begins() {
        let annotations = |stored: &CertificateSecret| stored.patch()["metadata"]["annotations"].clone();
        assert_eq!(annotations(&stored()), json!({ ROTATE: null }));
        assert_eq!(annotations(&CertificateSecret { rotation: Some(Rotation::Ca), ..stored() }), json!({}));
    }

    #[test]
    fn leaf_of_a_ca_that_expires_last_is_retired() {
        let mut stored = stored();
        let long = stored.retired[0].clone();
        let service = WebhookService::new("n".into(), "ns".into());
        let ca = service.issue_ca(NOW, 30 * DAY).unwrap();
        let earlier = service.issue_leaf(&ca, NOW - 1, DAY).unwrap();
        let short = LeafAndCa::new(earlier.certificate().clone(), long.ca.clone());
        stored.retire(short.clone());
        assert_eq!(stored.retired, std::slice::from_ref(&long));
        stored.retired = vec![short];
        stored.retire(long.clone());
        assert_eq!(stored.retired, [long]);
    }
}
