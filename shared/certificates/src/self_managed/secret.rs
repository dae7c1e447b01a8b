//! What the Secret holds, and how it is written there.
//!
//! | key | what |
//! |---|---|
//! | `tls.crt`, `tls.key` | the leaf in service |
//! | `ca.crt` | every CA to trust, the leaf's own first |
//! | `ca.key` | the key of that first CA |
//! | `next-ca.crt`, `next-ca.key` | the CA that waits for its turn, while it is made known |
//! | `retired.crt` | leaves that were replaced but haven't expired, each followed by its CA |
//!
//! Other keys are left alone. The annotation [`ROTATE`] asks for a rotation: `leaf` or `ca`.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

use super::issue::{Authority, Key, Leaf};
use crate::certificate::{Certificate, pem};

/// The annotation by which an operator asks for a rotation; it is removed when that has begun.
pub(super) const ROTATE: &str = "podshaper.dev/rotate";

/// The content of the Secret. What can't be read is as good as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    /// The CA that signs. Its key may be lost: then it serves until the next CA has taken over.
    pub(super) authority: Option<Authority>,
    pub(super) leaf: Option<Leaf>,
    /// The CA that signs next, once it has stood in every caBundle for the hold.
    pub(super) next: Option<Authority>,
    /// Replaced leaves, at most one a CA: while such a leaf is valid a replica may still serve it, so its CA must stay.
    pub(super) retired: Vec<Chain>,
    pub(super) rotate: Option<Rotate>,
}

/// A leaf and the CA that signed it, without keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) leaf: Certificate,
    pub(super) ca: Certificate,
}

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rotate {
    Leaf,
    Ca,
}

impl Stored {
    /// Reads the `data` (values in base64) and annotations of a Secret; what can't be read is told.
    pub(super) fn decode(
        data: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut note = |key: &str, problem: &str| problems.push(format!("{key}: {problem}"));
        let mut bytes = |key: &str| {
            let value = data.get(key).filter(|value| !value.is_empty())?;
            BASE64.decode(value).inspect_err(|e| note(key, &e.to_string())).ok()
        };
        let [tls_crt, tls_key, ca_crt, ca_key, next_crt, next_key, retired] = KEYS.map(&mut bytes);

        let mut certificates = |key: &str, pem: Option<Vec<u8>>| {
            Certificate::parse_pem(&pem.unwrap_or_default()).inspect_err(|e| note(key, e)).unwrap_or_default()
        };
        let leaf = certificates("tls.crt", tls_crt).into_iter().next();
        let authority = certificates("ca.crt", ca_crt).into_iter().next();
        let next = certificates("next-ca.crt", next_crt).into_iter().next();
        let retired = certificates("retired.crt", retired);

        let mut with_key = |key: &str, pem: Option<Vec<u8>>| {
            let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&pem?);
            let pkcs8 = pkcs8.inspect_err(|_| note(key, "no PKCS#8 private key in it")).ok()?;
            Some(Key::new(pkcs8.secret_pkcs8_der().to_vec()))
        };
        let (tls_key, ca_key, next_key) =
            (with_key("tls.key", tls_key), with_key("ca.key", ca_key), with_key("next-ca.key", next_key));
        let leaf = leaf.zip(tls_key).and_then(|(certificate, key)| {
            Leaf::new(certificate, key).inspect_err(|e| note("tls.key", e)).ok()
        });
        let authority = authority.map(|certificate| {
            let with_key = ca_key.map(|key| Authority::new(certificate.clone(), key));
            let with_key = with_key.and_then(|result| result.inspect_err(|e| note("ca.key", e)).ok());
            with_key.unwrap_or(Authority { certificate, key: None })
        });
        let next = next.zip(next_key).and_then(|(certificate, key)| {
            Authority::new(certificate, key).inspect_err(|e| note("next-ca.key", e)).ok()
        });
        let retired = retired.chunks_exact(2).filter_map(|pair| match pair {
            [leaf, ca] => Some(Chain { leaf: leaf.clone(), ca: ca.clone() }),
            _ => None,
        });
        let rotate = match annotations.get(ROTATE).map(String::as_str) {
            None => None,
            Some("leaf") => Some(Rotate::Leaf),
            Some("ca") => Some(Rotate::Ca),
            Some(other) => {
                note(ROTATE, &format!("{other:?} is neither \"leaf\" nor \"ca\""));
                None
            }
        };
        (Self { authority, leaf, next, retired: retired.collect(), rotate }, problems)
    }

    /// The merge patch (RFC 7386) that makes a Secret at `resource_version` hold this; it conflicts with any other.
    pub(super) fn patch(&self, resource_version: &str) -> Value {
        let mut data = Map::new();
        for (key, text) in KEYS.into_iter().zip(self.texts()) {
            data.insert(key.to_owned(), text.map_or(Value::Null, |text| BASE64.encode(text).into()));
        }
        let annotations = if self.rotate.is_none() { json!({ ROTATE: null }) } else { json!({}) };
        let metadata = json!({ "resourceVersion": resource_version, "annotations": annotations });
        json!({ "metadata": metadata, "data": data })
    }

    /// Remembers that `chain` may still be served somewhere.
    pub(super) fn retire(&mut self, chain: Chain) {
        match self.retired.iter_mut().find(|other| other.ca == chain.ca) {
            None => self.retired.push(chain),
            Some(known) if known.leaf.not_after < chain.leaf.not_after => *known = chain,
            Some(_) => {}
        }
    }

    fn texts(&self) -> [Option<String>; 7] {
        let key = |key: &Key| pem("PRIVATE KEY", key.pkcs8());
        let authority_key = |authority: &Option<Authority>| authority.as_ref()?.key.as_ref().map(key);
        let some = |text: String| Some(text).filter(|text| !text.is_empty());

        let trusted = self.authority.iter().flat_map(|authority| {
            let others = self
                .next
                .iter()
                .map(|next| &next.certificate)
                .chain(self.retired.iter().map(|chain| &chain.ca));
            [&authority.certificate].into_iter().chain(others.filter(|ca| **ca != authority.certificate))
        });
        [
            self.leaf.as_ref().map(|leaf| leaf.certificate.pem()),
            self.leaf.as_ref().map(|leaf| key(&leaf.key)),
            some(trusted.map(Certificate::pem).collect()),
            authority_key(&self.authority),
            self.next.as_ref().map(|next| next.certificate.pem()),
            authority_key(&self.next),
            some(self.retired.iter().flat_map(|chain| [chain.leaf.pem(), chain.ca.pem()]).collect()),
        ]
    }
}

const KEYS: [&str; 7] =
    ["tls.crt", "tls.key", "ca.crt", "ca.key", "next-ca.crt", "next-ca.key", "retired.crt"];

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;
    use crate::self_managed::issue::Service;

    const NOW: i64 = 2_000_000_000;
    const DAY: Duration = Duration::from_hours(24);

    fn stored() -> Stored {
        let service = Service { name: "n".into(), namespace: "ns".into() };
        let [old, now, next] = [(); 3].map(|()| service.new_authority(NOW, 30 * DAY).unwrap());
        let retired =
            Chain { leaf: service.new_leaf(&old, NOW, DAY).unwrap().certificate, ca: old.certificate };
        let leaf = service.new_leaf(&now, NOW, DAY).unwrap();
        let (authority, next, leaf) = (Some(now), Some(next), Some(leaf));
        Stored { authority, leaf, next, retired: vec![retired], rotate: None }
    }

    fn data(stored: &Stored) -> BTreeMap<String, String> {
        let patch = stored.patch("7");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        serde_json::from_value(patch["data"].clone()).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let before = stored();
        let (after, problems) = Stored::decode(&data(&before), &BTreeMap::new());
        assert_eq!(problems, [""; 0]);
        assert_eq!(after.texts(), before.texts());
        assert_eq!(after.retired, before.retired);
        let trusted = before.texts()[2].clone().unwrap();
        assert_eq!(trusted.matches("BEGIN").count(), 3, "ca.crt is everything to trust");
    }

    #[test]
    fn an_empty_secret_is_no_problem() {
        let empty = KEYS.map(|key| (key.to_owned(), String::new())).into();
        for data in [BTreeMap::new(), empty] {
            let (stored, problems) = Stored::decode(&data, &BTreeMap::new());
            assert!(stored.texts().iter().all(Option::is_none) && problems.is_empty(), "{problems:?}");
        }
    }

    #[test]
    fn what_cant_be_read_is_named_and_the_rest_stays() {
        let good = data(&stored());
        let garbage = BASE64.encode("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let other = data(&stored());
        for key in KEYS {
            let foreign = if key == "retired.crt" { None } else { Some(other[key].clone()) };
            for wrong in ["*".to_owned(), garbage.clone()].into_iter().chain(foreign) {
                let mut data = good.clone();
                data.insert(key.to_owned(), wrong);
                let (stored, problems) = Stored::decode(&data, &BTreeMap::new());
                assert_eq!(problems.len(), 1, "{key}: {problems:?}");
                let lost = match key {
                    "tls.crt" | "tls.key" => stored.leaf.is_none(),
                    "ca.crt" if stored.authority.is_none() => true,
                    "ca.crt" | "ca.key" => stored.authority.unwrap().key.is_none(),
                    "next-ca.crt" | "next-ca.key" => stored.next.is_none(),
                    _ => stored.retired.is_empty(),
                };
                assert!(lost, "{key}");
            }
        }
    }

    #[test]
    fn a_rotation_is_asked_for_by_name() {
        let annotated = |value: &str| BTreeMap::from([(ROTATE.to_owned(), value.to_owned())]);
        let decode = |value| Stored::decode(&BTreeMap::new(), &annotated(value));
        assert_eq!(decode("leaf").0.rotate, Some(Rotate::Leaf));
        assert_eq!(decode("ca").0.rotate, Some(Rotate::Ca));
        let (stored, problems) = decode("everything");
        assert!(stored.rotate.is_none() && problems[0].contains("everything"), "{problems:?}");
    }

    #[test]
    fn the_annotation_goes_with_the_write_that_begins_the_rotation() {
        let annotations = |stored: &Stored| stored.patch("7")["metadata"]["annotations"].clone();
        assert_eq!(annotations(&stored()), json!({ ROTATE: null }));
        assert_eq!(annotations(&Stored { rotate: Some(Rotate::Ca), ..stored() }), json!({}));
    }

    #[test]
    fn of_one_ca_the_leaf_that_lives_longest_is_remembered() {
        let mut stored = stored();
        let long = stored.retired[0].clone();
        let mut short = long.clone();
        short.leaf.not_after -= 1;
        stored.retire(short.clone());
        assert_eq!(stored.retired, std::slice::from_ref(&long));
        stored.retired = vec![short];
        stored.retire(long.clone());
        assert_eq!(stored.retired, [long]);
    }
}
