//! `metav1.OwnerReference`, and which of an object's owners is its controller.

use serde::Deserialize;

/// Bytes of the longest uid. The API server assigns uids, and each is a UUID.
const MAX_UID: usize = 36;
/// Bytes of the longest name, and of the longest group with its version.
const MAX_NAME: usize = 317;
/// Bytes of the longest kind: in lower case it is an RFC 1035 label.
pub const MAX_KIND: usize = 63;

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
