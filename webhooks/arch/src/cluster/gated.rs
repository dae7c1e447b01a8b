//! Pods that wait.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use podshaper_core::object::{FromObject, Object};
use serde::Deserialize;
use serde::de::IgnoredAny;

use arch_decision::gate::GATE;

/// A pod that has the gate.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GatedPod {
    uid: Box<str>,
    /// The creation timestamp, if it is valid.
    created: Option<Timestamp>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    scheduling_gates: Option<Vec<Gate>>,
}

#[derive(Clone, Deserialize)]
struct Gate {
    name: String,
}

impl GatedPod {
    #[cfg(test)]
    pub(super) fn for_test(uid: &str, created: Option<Timestamp>) -> Self {
        Self { uid: uid.into(), created }
    }

    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    /// The time since its creation, if the timestamp is valid.
    pub(super) fn age(&self, now: Timestamp) -> Option<SignedDuration> {
        Some(now.duration_since(self.created?))
    }
}

impl FromObject for GatedPod {
    type Spec = Spec;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "pods";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<Spec, IgnoredAny>) -> Option<Self> {
        let gates = object.spec?.scheduling_gates?;
        let waits =
            gates.iter().any(|gate| gate.name == GATE) && object.metadata.deletion_timestamp.is_none();
        waits.then(|| Self {
            uid: object.metadata.uid.into(),
            created: object.metadata.creation_timestamp.and_then(|created| created.parse().ok()),
        })
    }
}
