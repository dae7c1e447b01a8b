//! The settings of one runtime class of peer pods.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::catalogue::Catalogue;
use crate::remaining_resources::RemainingResources;
use crate::sizing::{Headroom, Sizing, SizingRules, VmSize};

/// The runtime class of peer pods unless another is configured.
pub const DEFAULT_RUNTIME_CLASS: &str = "kata-remote";
/// The extended resource of a VM unless another is configured.
pub const DEFAULT_VM_RESOURCE: &str = "kata.peerpods.io/vm";

/// A runtime class of peer pods.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeClass {
    /// `spec.runtimeClassName` of its pods.
    pub name: String,
    /// The extended resource of which a pod requests one, for its VM.
    pub resource: String,
    /// Whether its pods are changed.
    pub mode: Mode,
    /// How its VMs are sized.
    pub sizing: SizingRules,
    /// Which size counts if the pod's author annotated one.
    pub user_annotations: UserAnnotations,
    /// The resources of containers beside the VM's.
    pub remaining: RemainingResources,
    /// The machine types to choose from; `None` leaves the choice to cloud-api-adaptor.
    pub catalogue: Option<Catalogue>,
}

/// Whether pods are changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Pods are changed.
    #[default]
    Enforce,
    /// Warnings describe the change.
    Audit,
}

/// Which size counts if the pod's author annotated one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UserAnnotations {
    /// The size that the containers need, if it isn't zero.
    #[default]
    Overwrite,
    /// The author's.
    Keep,
    /// The larger one.
    Max,
}

impl RuntimeClass {
    /// The class `name` as the peer-pods webhook of cloud-api-adaptor treats it.
    pub fn compatible(name: &str) -> Self {
        Self {
            name: name.into(),
            resource: DEFAULT_VM_RESOURCE.into(),
            mode: Mode::default(),
            sizing: SizingRules {
                sizing: Sizing::default(),
                vcpu_headroom: Headroom::None,
                memory_headroom: Headroom::None,
                fallback: VmSize::default(),
                floor: VmSize::default(),
                step: VmSize::default(),
                gpus: BTreeMap::from([("nvidia.com/gpu".into(), 1)]),
                counts_disk: false,
            },
            user_annotations: UserAnnotations::default(),
            remaining: RemainingResources::default(),
            catalogue: None,
        }
    }
}
