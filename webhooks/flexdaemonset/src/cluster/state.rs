//! How a running pod stands to its template.

use podshaper_core::pod::Pod;

use flexdaemonset_decision::memory::Memory;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::range::Range;
use flexdaemonset_decision::refit::{Difference, compare};
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::sizing::size;

use super::pods::{Resize, RunningPod};

/// One pod.
#[derive(Debug)]
pub(super) struct State {
    /// Whether the webhook has given it a size, at its creation or since.
    pub(super) sized: bool,
    /// Why the kubelet doesn't resize it, if it doesn't.
    pub(super) held: Option<String>,
    /// Whether its node is too small for it.
    pub(super) short: bool,
    /// What differs from the size that it should have.
    pub(super) difference: Option<Difference>,
    /// What the annotation is to be, for a pod without.
    pub(super) memory: Option<String>,
}

/// How `pod` stands to the template `name`; none if its size can't be told.
pub(super) fn state(
    (name, template): (&str, &Template),
    node: &Node,
    range: &Range,
    pod: &RunningPod,
    hysteresis: u8,
) -> Option<State> {
    let view: Pod<'_> = serde_json::from_str(&pod.text).ok()?;
    let memory = Memory::of(&view).ok()?;
    let sizing = size(template, node, range, &view, memory.as_ref()).ok()?;
    let sized = memory.is_some() || !sizing.sizes_anything();
    let held = match &pod.resize {
        Some(Resize::Held(reason)) => Some(reason.to_string()),
        Some(Resize::InProgress) | None => None,
    };
    Some(State {
        sized,
        held,
        short: sizing.is_short(node),
        difference: compare(&sizing, memory.is_some(), &pod.qos, hysteresis),
        memory: (!sized).then(|| flexdaemonset_decision::patch::memory(&view, name, &pod.node, None)),
    })
}
