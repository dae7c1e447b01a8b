//! Kinds of controllers that create one pod for each node.

use podshaper_core::object::{MAX_KIND, api_path, group_of, is_name};
use serde::Deserialize;

/// The `DaemonSet` of `apps/v1`, or a kind with the same fields, such as the Advanced DaemonSet of Kruise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnerKind {
    /// API group and version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Its plural, as paths have it.
    pub resource: String,
}

impl OwnerKind {
    /// The `DaemonSet` of Kubernetes.
    pub fn daemon_set() -> Self {
        Self {
            api_version: "apps/v1".to_owned(),
            kind: "DaemonSet".to_owned(),
            resource: "daemonsets".to_owned(),
        }
    }

    /// Whether an object of this group and kind is one, in any version.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        group_of(&self.api_version) == group && self.kind == kind
    }

    /// The path of its API group and version.
    pub fn api_path(&self) -> Option<String> {
        api_path(&self.api_version)
    }

    /// The problem of a kind that no API server can have.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { api_version, kind, resource } = self;
        if !api_version.contains('/') || self.api_path().is_none() {
            Err(format!("ownerKinds: apiVersion {api_version} is not GROUP/VERSION"))
        } else if kind.is_empty()
            || kind.len() > MAX_KIND
            || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            Err(format!("ownerKinds: {kind} is not the name of a kind"))
        } else if !is_name(resource) {
            Err(format!("ownerKinds: {resource} is not the plural of a kind"))
        } else if *self == Self::daemon_set() {
            Err("ownerKinds: the DaemonSet of apps/v1 is always read".to_owned())
        } else {
            Ok(())
        }
    }
}

/// The controller of a pod, as its owner reference names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DaemonSetReference<'p> {
    /// `apiVersion`.
    pub api_version: &'p str,
    /// `kind`.
    pub kind: &'p str,
    /// `name`.
    pub name: &'p str,
    /// `uid`.
    pub uid: &'p str,
}
