//! The scheduling gate of pods that wait for their images to become known.

use podshaper_core::pod::{Pod, PodPatch};

/// The gate's name.
pub const GATE: &str = "podshaper.dev/arch";
/// The label of pods that have it, so that they alone need to be watched.
pub const LABEL: &str = "podshaper.dev/arch-gated";

/// The index of the gate in the pod's scheduling gates, if it has the gate.
pub fn gate_of(pod: &Pod<'_>) -> Option<usize> {
    let gates = pod.spec.as_ref()?.scheduling_gates.as_deref()?;
    gates.iter().position(|gate| &*gate.name == GATE)
}

/// Whether the pod has the gate.
pub fn is_gated(pod: &Pod<'_>) -> bool {
    gate_of(pod).is_some()
}

/// Puts the gate up where it isn't, and the label that it is found by.
pub(crate) fn add_gate(patch: &mut PodPatch<'_, '_>) {
    if !is_gated(patch.pod()) {
        patch.add_scheduling_gate(GATE);
    }
    patch.set_label(LABEL, "true");
}
