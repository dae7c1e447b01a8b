//! Objects of the API server, and the part of them that is kept.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::owner_reference::{OwnerReference, controller_of};

/// A projection of an object: the part of one kind that is kept.
pub trait FromObject: Sized + PartialEq + Send + Sync + 'static {
    /// The part of `spec` that is read; `IgnoredAny` for none.
    type Spec: DeserializeOwned + Clone + Send;
    /// The part of `status` that is read; `IgnoredAny` for none.
    type Status: DeserializeOwned + Clone + Send;
    /// The kind's plural, as paths, metrics and messages name it.
    const PLURAL: &'static str;
    /// The path of the API group and version: `/api/v1`, `/apis/apps/v1`.
    const API: &'static str;

    /// Projects an object; `None` if it is of no interest.
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
    /// `namespace`; `None` if the kind is cluster-scoped.
    pub namespace: Option<String>,
    /// `uid`.
    pub uid: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `creationTimestamp`, RFC 3339.
    pub creation_timestamp: Option<String>,
    /// `generation`: the number of changes of `spec`; 0 if the kind does not count them.
    pub generation: i64,
    /// `labels`.
    pub labels: Option<BTreeMap<String, String>>,
    /// `annotations`.
    pub annotations: Option<BTreeMap<String, String>>,
    /// `deletionTimestamp`, once the object is being deleted.
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

    /// The key of the object in a store.
    pub fn key(&self) -> String {
        key(self.namespace.as_deref(), &self.name)
    }
}

/// Deserializes a field of a foreign kind, which may mean something else by it: `None` if it has another shape.
pub fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(field: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(field)?).ok())
}

/// Whether `text` can be the name of an object (RFC 1123 §2.1). A pod can name other objects by any text, which must not become part of a
/// path unchecked.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    text.len() <= 253 && text.bytes().all(allowed) && text.bytes().next().is_some_and(|first| first != b'.')
}

/// `NAMESPACE/NAME`, or the name alone if the kind is cluster-scoped.
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
    fn is_name_refuses_other_paths() {
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
