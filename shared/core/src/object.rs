//! Objects as the API server sends them, read for a few fields.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::owner_reference::{OwnerReference, controller_of};

/// What is kept of one kind of object.
pub trait FromObject: Sized + PartialEq + Send + Sync + 'static {
    /// The part of `spec` that is read; `IgnoredAny` for none.
    type Spec: DeserializeOwned + Clone + Send;
    /// The part of `status` that is read; `IgnoredAny` for none.
    type Status: DeserializeOwned + Clone + Send;
    /// The kind's plural, as paths, metrics and messages name it.
    const PLURAL: &'static str;
    /// Where the API group and version stand: `/api/v1`, `/apis/apps/v1`.
    const API: &'static str;

    /// What is kept of `object`, or nothing if it is of no interest.
    fn from_object(object: Object<Self::Spec, Self::Status>) -> Option<Self>;
}

/// One object.
#[derive(Clone, Debug, Deserialize)]
pub struct Object<S, T> {
    /// `metadata`.
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default = "Option::default")]
    pub spec: Option<S>,
    /// `status`.
    #[serde(default = "Option::default")]
    pub status: Option<T>,
}

/// `metav1.ObjectMeta`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// `name`.
    pub name: String,
    /// `namespace`; none for what is cluster-scoped.
    pub namespace: Option<String>,
    /// `uid`.
    pub uid: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `creationTimestamp`, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// `generation`, of kinds that count changes of their `spec`.
    pub generation: i64,
    /// `labels`.
    pub labels: Option<BTreeMap<String, String>>,
    /// `annotations`.
    pub annotations: Option<BTreeMap<String, String>>,
    /// `deletionTimestamp`: set while the object goes.
    pub deletion_timestamp: Option<String>,
    /// `ownerReferences`.
    pub owner_references: Option<Vec<OwnerReference>>,
}

impl ObjectMeta {
    /// `annotations[key]`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The owner that manages the object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        controller_of(self.owner_references.as_deref())
    }

    /// By what a store knows the object.
    pub fn key(&self) -> String {
        key(self.namespace.as_deref(), &self.name)
    }
}

/// A field that says nothing where it isn't of the expected shape.
pub fn perhaps<'de, D: Deserializer<'de>, T: DeserializeOwned>(field: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(field)?).ok())
}

/// Whether anything can be called so (RFC 1123 §2.1). What a pod says of other objects is anybody's word, of any length,
/// and must not become part of a path as it is.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    text.len() <= 253 && text.bytes().all(allowed) && text.bytes().next().is_some_and(|first| first != b'.')
}

/// `NAMESPACE/NAME`, or the name alone of what is cluster-scoped.
pub fn key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn no_name_leads_elsewhere() {
        for name in ["a", "node-1.example.com", &"a".repeat(253)] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", ".", "..", "../secrets", "a/status", "a?watch=true", "a%2F", "A", "a b", &"a".repeat(254)]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
