//! What decisions are made by, besides the pod.

use std::future::Future;
use std::time::Instant;

use podshaper_core::lookup::Lookup;

use crate::daemon_set::Owner;
use crate::node::Node;
use crate::range::Range;
use crate::template_object::TemplateFact;

/// A cluster, or files that stand for one.
///
/// Each look-up may wait for one read of the API server where its watch hasn't shown the object yet, but never past
/// `deadline`.
pub trait Facts: Send + Sync + 'static {
    /// A node.
    fn node(&self, name: &str, deadline: Instant) -> impl Future<Output = Lookup<Node>> + Send;
    /// A template.
    fn template(&self, name: &str, deadline: Instant) -> impl Future<Output = Lookup<TemplateFact>> + Send;
    /// The `DaemonSet` with this uid.
    fn owner(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        deadline: Instant,
    ) -> impl Future<Output = Lookup<Owner>> + Send;
    /// The bounds of a namespace.
    fn range(&self, namespace: &str) -> Range;
    /// Hears of each pod that is of interest.
    fn heard(&self, pod: &Subject<'_>, outcome: Outcome);
    /// Why nothing can be decided yet, if so.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// The pod that an outcome is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'r> {
    /// Its namespace.
    pub namespace: &'r str,
    /// The name and uid of its `DaemonSet`, if it has one.
    pub daemon_set: Option<(&'r str, &'r str)>,
    /// The template's name.
    pub template: &'r str,
    /// Whether nothing is going to be stored.
    pub dry_run: bool,
}

/// What became of a pod that names a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its size.
    Sized,
    /// The template gives it none on this node.
    Unsized,
    /// There is no such template.
    TemplateMissing,
    /// The template is none.
    TemplateInvalid,
    /// The node isn't known, or the pod names none.
    NodeUnknown,
    /// Something in the pod can't be read, or the API server couldn't be asked.
    Undecided,
}
