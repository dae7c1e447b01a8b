//! The facts that the size of a pod depends on, besides the pod.

use std::future::Future;
use std::time::Instant;

use podshaper_core::object::Lookup;
use podshaper_core::pod::Pod;
use serde_json::Value;

use crate::daemon_set::DaemonSet;
use crate::namespace_limits::NamespaceLimits;
use crate::node::Node;
use crate::owner_kind::DaemonSetReference;
use crate::template_object::TemplateObject;

/// The objects of a cluster, or of files.
///
/// A lookup may read one object from the API server if the watch hasn't delivered it yet, until `deadline` at most.
pub trait SizingFacts: Send + Sync + 'static {
    /// A node.
    fn node(&self, name: &str, deadline: Instant) -> impl Future<Output = Lookup<Node>> + Send;
    /// A template.
    fn template(&self, name: &str, deadline: Instant) -> impl Future<Output = Lookup<TemplateObject>> + Send;
    /// The `DaemonSet` with this uid.
    fn daemon_set(
        &self,
        namespace: &str,
        reference: DaemonSetReference<'_>,
        deadline: Instant,
    ) -> impl Future<Output = Lookup<DaemonSet>> + Send;
    /// Whether objects of this group and kind are read as DaemonSets.
    fn is_daemon_set(&self, group: &str, kind: &str) -> bool;
    /// The LimitRanges and ResourceQuotas of a namespace.
    fn namespace_limits(&self, namespace: &str) -> NamespaceLimits;
    /// Why the webhook isn't for the pod. In a cluster, the API server calls the webhook only for the pods that it is for.
    fn exclusion(&self, _namespace: &str, _pod: &Pod<'_>) -> Option<String> {
        None
    }
    /// Whether decisions say why a pod stays unchanged, as a warning. An API server would show it for every pod of a DaemonSet.
    fn explains(&self) -> bool {
        false
    }
    /// Takes note of an object in the files of an offline command.
    fn observe(&self, _object: &Value, _namespace: &str) {}
    /// Records the outcome for a pod that names a template.
    fn record_outcome(&self, pod: &TemplatedPod<'_>, outcome: SizingOutcome);
    /// Why the facts are incomplete, if they are.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// A pod that names a template, by itself or by its `DaemonSet`.
#[derive(Clone, Copy, Debug)]
pub struct TemplatedPod<'r> {
    /// The pod's namespace.
    pub namespace: &'r str,
    /// Its `DaemonSet`, if it has one.
    pub daemon_set: Option<DaemonSetReference<'r>>,
    /// The template's name.
    pub template: &'r str,
    /// Whether the API server won't store the pod.
    pub dry_run: bool,
}

/// The outcome for a pod that names a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizingOutcome {
    /// The pod gets its size.
    Sized,
    /// The template sets no size on this node.
    Unsized,
    /// The template doesn't exist.
    TemplateMissing,
    /// The template is invalid.
    TemplateInvalid,
    /// The node doesn't exist, or the pod names none.
    NodeUnknown,
    /// The pod can't be parsed, or the API server didn't answer in time.
    Undecided,
}
