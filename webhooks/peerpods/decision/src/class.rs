//! A runtime class of peer pods, with everything that decides about them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::catalogue::Catalogue;
use crate::size::{Headroom, Size};
use crate::sizing::Sizing;
use crate::standing::Standing;

/// The class that the webhook watches for unless told otherwise.
pub const RUNTIME_CLASS: &str = "kata-remote";
/// The extended resource that stands for one VM unless told otherwise.
pub const VM_RESOURCE: &str = "kata.peerpods.io/vm";

/// A runtime class of peer pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// `spec.runtimeClassName` of its pods.
    pub name: String,
    /// The extended resource that stands for one of its VMs.
    pub resource: String,
    /// Whether its pods are changed.
    pub mode: Mode,
    /// How containers add up.
    pub sizing: Sizing,
    /// What the guest needs for itself, in millicores.
    pub vcpu_headroom: Headroom,
    /// What the guest needs for itself, in bytes.
    pub memory_headroom: Headroom,
    /// What a pod gets that asks for nothing.
    pub fallback: Size,
    /// What becomes of sizes that the author of the pod wrote down.
    pub user_annotations: UserAnnotations,
    /// How many GPUs one of each of these resources is.
    pub gpus: BTreeMap<String, u32>,
    /// What containers end up with beside the VM.
    pub standing: Standing,
    /// The machines on offer.
    pub catalogue: Catalogue,
}

/// Whether pods are changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// They are.
    #[default]
    Enforce,
    /// They aren't; warnings say how they would be.
    Audit,
}

/// What becomes of a size that the author of a pod wrote into an annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UserAnnotations {
    /// It gives way to the one that the containers come to, if they come to any.
    #[default]
    Overwrite,
    /// It stays.
    Keep,
    /// The greater one stays.
    Max,
}

impl Class {
    /// The class `name` as the peer-pods webhook of cloud-api-adaptor treats it.
    pub fn compatible(name: &str) -> Self {
        Self {
            name: name.into(),
            resource: VM_RESOURCE.into(),
            mode: Mode::default(),
            sizing: Sizing::default(),
            vcpu_headroom: Headroom::None,
            memory_headroom: Headroom::None,
            fallback: Size::default(),
            user_annotations: UserAnnotations::default(),
            gpus: BTreeMap::from([("nvidia.com/gpu".into(), 1)]),
            standing: Standing::default(),
            catalogue: Catalogue::default(),
        }
    }

    /// Whether `resource` is part of the size that is written down.
    pub(crate) fn counts(&self, resource: &str) -> bool {
        matches!(resource, "cpu" | "memory") || self.gpus.contains_key(resource)
    }

    /// Whether `spec.resources` goes to the VM.
    pub(crate) fn moves_pod_resources(&self) -> bool {
        matches!(self.sizing, Sizing::Effective { .. })
    }
}
