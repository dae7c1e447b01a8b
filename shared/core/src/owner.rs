//! A reference to the object that owns another one.

/// No object's uid is longer: the API server makes them, and they are UUIDs.
const LONGEST_UID: usize = 36;
/// Nor its name, or the group and version of its kind.
const LONGEST_NAME: usize = 317;
/// No kind is longer: in small letters it is a label of RFC 1035.
pub const LONGEST_KIND: usize = 63;

/// One owner, as what it owns names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerRef {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `name`; it is in the pod's namespace.
    pub name: String,
    /// `uid`.
    pub uid: String,
}

impl OwnerRef {
    /// Whether it is this object. Of `api_version` the group counts: an object is the same in each version.
    pub fn is(&self, api_version: &str, kind: &str, name: &str) -> bool {
        group(&self.api_version) == group(api_version) && self.kind == kind && self.name == name
    }

    /// Whether there can be such an object: anybody may write what they like, of any length, and it is kept for each pod.
    pub fn makes_sense(&self) -> bool {
        let Self { api_version, kind, name, uid } = self;
        let names = [api_version, name].into_iter().all(|text| text.len() <= LONGEST_NAME);
        names && kind.len() <= LONGEST_KIND && is_uid(uid)
    }

    /// Whether its pods run to their end.
    pub fn is_job(&self) -> bool {
        self.is_batch("Job")
    }

    /// Whether it is of this kind of the group `batch`.
    pub fn is_batch(&self, kind: &str) -> bool {
        group(&self.api_version) == "batch" && self.kind == kind
    }
}

/// Whether this may be the uid of an object, and so part of a name and of a path: anybody may write one into a pod or a Job.
pub fn is_uid(text: &str) -> bool {
    (1..=LONGEST_UID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The group of an `apiVersion`; the core group is empty.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}
