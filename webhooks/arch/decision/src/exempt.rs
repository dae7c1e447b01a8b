//! Pods that the webhook does not change.

use podshaper_core::json::Text;
use podshaper_core::object::OwnerReference;
use podshaper_core::pod::Pod;

use crate::config::Settings;
use crate::decide::ANNOTATION;
use crate::gate::is_gated;
use crate::overrides::Overrides;

/// The reason why the webhook does not change a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// The pod names its node, or is a mirror pod.
    Bound,
    /// The pod of a `DaemonSet` is for one node.
    OfADaemonSet,
    /// The node selector or affinity of the pod selects one architecture.
    Decided,
    /// The node selector and affinity of the pod exceed the limits.
    TooManyRequirements,
    /// An annotation of the pod or of its namespace skips the webhook.
    Skipped,
    /// The runtime class of the pod is exempt.
    RuntimeClass,
}

/// The reason why the webhook does not change this pod, if there is one.
///
/// Changes that the webhook made in an earlier call do not count as the choice of the author.
pub fn exemption(settings: &Settings, overrides: &Overrides, pod: &Pod<'_>) -> Option<Exemption> {
    let spec = pod.spec.as_ref()?;
    let table = &settings.table;
    let class = spec.runtime_class_name.as_deref().unwrap_or_default();
    let of_a_daemon_set = |owner: &OwnerReference<Text<'_>>| {
        &*owner.kind == "DaemonSet" && owner.api_version.starts_with("apps/")
    };
    if pod.is_bound() || pod.is_mirror() {
        Some(Exemption::Bound)
    } else if pod.controller().is_some_and(of_a_daemon_set) {
        Some(Exemption::OfADaemonSet)
    } else if overrides.skip == Some(true) {
        Some(Exemption::Skipped)
    } else if settings.exempt_runtime_classes.contains(class) {
        Some(Exemption::RuntimeClass)
    } else if table.is_exceeded_by(pod) {
        Some(Exemption::TooManyRequirements)
    } else if pod.annotation(ANNOTATION).is_some() || is_gated(pod) {
        None
    } else if table.admits_one_architecture(pod) {
        Some(Exemption::Decided)
    } else {
        None
    }
}
