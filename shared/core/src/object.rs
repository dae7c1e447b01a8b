//! Objects of the API server: the part of them that is kept, references to them, and the result of reading one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Bytes of the longest uid. The API server assigns uids, and each is a UUID.
const MAX_UID: usize = 36;
/// Bytes of the longest name, and of the longest group with its version.
const MAX_NAME: usize = 317;
/// Bytes of the longest kind: in lower case it is an RFC 1035 label.
pub const MAX_KIND: usize = 63;

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

/// Whether `text` can be the name of a namespace (RFC 1123 §2.1: one label).
pub fn is_namespace(text: &str) -> bool {
    text.len() <= 63 && is_name(text) && !text.contains('.')
}

/// `NAMESPACE/NAME`, or the name alone if the kind is cluster-scoped.
pub fn key(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// The path of an API group and version, such as `/api/v1` and `/apis/apps/v1`; none for an invalid name.
pub fn api_path(api_version: &str) -> Option<String> {
    match api_version.split_once('/') {
        None => is_name(api_version).then(|| format!("/api/{api_version}")),
        Some((group, version)) => {
            (is_name(group) && is_name(version)).then(|| format!("/apis/{group}/{version}"))
        }
    }
}

/// One owner, as a dependent object names it. `T` is `String`, or text borrowed from the request.
///
/// Any client can write any owner reference into an object that it may create. A stored one is checked by
/// [`Self::is_valid`], and it proves nothing until the owner was read and has this uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference<T = String> {
    /// `apiVersion`.
    #[serde(default)]
    pub api_version: T,
    /// `kind`.
    #[serde(default)]
    pub kind: T,
    /// `name`. The owner is in the namespace of its dependent, or is cluster-scoped.
    #[serde(default)]
    pub name: T,
    /// `uid`.
    #[serde(default)]
    pub uid: T,
    /// `controller`.
    pub controller: Option<bool>,
}

/// The owner that manages an object (`metav1.GetControllerOf`).
pub fn controller_of<T>(owners: Option<&[OwnerReference<T>]>) -> Option<&OwnerReference<T>> {
    owners?.iter().find(|owner| owner.controller == Some(true))
}

impl OwnerReference {
    /// The object of these coordinates.
    pub fn new(
        api_version: impl Into<String>,
        kind: impl Into<String>,
        name: impl Into<String>,
        uid: impl Into<String>,
    ) -> Self {
        Self {
            api_version: api_version.into(),
            kind: kind.into(),
            name: name.into(),
            uid: uid.into(),
            controller: None,
        }
    }

    /// Whether an API server could have an object with these coordinates. Their lengths are bounded: one reference is kept for each
    /// pod.
    pub fn is_valid(&self) -> bool {
        self.api_version.len() <= MAX_NAME
            && self.name.len() <= MAX_NAME
            && self.kind.len() <= MAX_KIND
            && is_uid(&self.uid)
    }
}

impl<T: AsRef<str>> OwnerReference<T> {
    /// Which object it is, without `controller`: references to one object are equal then (`ownerReferenceCoordinates` of
    /// k8s.io/kubernetes/pkg/controller/garbagecollector).
    pub fn coordinates(&self) -> OwnerReference {
        let Self { api_version, kind, name, uid, .. } = self;
        OwnerReference::new(api_version.as_ref(), kind.as_ref(), name.as_ref(), uid.as_ref())
    }

    /// Whether it names this object. Only the group of `api_version` counts: an object is the same in each version.
    pub fn names(&self, api_version: &str, kind: &str, name: &str) -> bool {
        self.is_kind(group_of(api_version), kind) && self.name.as_ref() == name
    }

    /// Whether it is of this kind; `group` is empty for the core group.
    pub fn is_kind(&self, group: &str, kind: &str) -> bool {
        group_of(self.api_version.as_ref()) == group && self.kind.as_ref() == kind
    }
}

/// Whether `text` can be a uid, and thus part of an object's name and of a path.
pub fn is_uid(text: &str) -> bool {
    (1..=MAX_UID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The group of an `apiVersion`; the core group is empty.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The object, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<T> {
    /// The object exists.
    Found(Arc<T>),
    /// The API server has no such object.
    NotFound,
    /// The API server refuses the read (403).
    Forbidden,
    /// The API server did not answer in time, or with an error.
    Unavailable,
}

impl<T> Lookup<T> {
    /// The object, if there is one.
    pub fn found(self) -> Option<Arc<T>> {
        match self {
            Self::Found(object) => Some(object),
            Self::NotFound | Self::Forbidden | Self::Unavailable => None,
        }
    }
}

// Derived, it would ask for `T: Clone`.
impl<T> Clone for Lookup<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Found(object) => Self::Found(Arc::clone(object)),
            Self::NotFound => Self::NotFound,
            Self::Forbidden => Self::Forbidden,
            Self::Unavailable => Self::Unavailable,
        }
    }
}

impl<T> From<Option<Arc<T>>> for Lookup<T> {
    fn from(object: Option<Arc<T>>) -> Self {
        object.map_or(Self::NotFound, Self::Found)
    }
}

#[cfg(test)]
mod tests {
    use super::{is_name, is_namespace};

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

    #[test]
    fn namespace_is_one_label() {
        assert!(is_namespace("kube-system") && is_namespace(&"a".repeat(63)));
        for text in ["", "a.b", "kube-system/pods?x=", "../x", &"a".repeat(64)] {
            assert!(!is_namespace(text), "{text}");
        }
    }
}
