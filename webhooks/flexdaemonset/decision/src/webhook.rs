//! The admission decision: from a pod to the patch that gives it its size.

use std::time::Instant;

use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::object::{Lookup, group_of};
use podshaper_core::pod::Pod;
use serde_json::Value;

use crate::daemon_set::{RESOURCE_TEMPLATE, named_template};
use crate::facts::{SizingFacts, SizingOutcome, TemplatedPod};
use crate::original_requests::OriginalRequests;
use crate::owner_kind::DaemonSetReference;
use crate::patch::patch;
use crate::sizing::size;

/// The flexdaemonset webhook.
#[derive(Debug)]
pub struct FlexDaemonset<F> {
    facts: F,
    default_node: Option<String>,
}

impl<F: SizingFacts> FlexDaemonset<F> {
    /// The webhook that sizes pods by these facts.
    pub fn new(facts: F) -> Self {
        Self { facts, default_node: None }
    }

    /// Sets the node of pods that name none.
    #[must_use]
    pub fn with_default_node(self, default_node: Option<String>) -> Self {
        Self { default_node, ..self }
    }

    /// Decides about one request.
    pub async fn decide(&self, request: &Request<'_, Pod<'_>>, deadline: Instant) -> Decision {
        let Some(pod) = request.object.as_ref().filter(|_| request.creates_pod()) else {
            return Decision::unchanged();
        };
        let undecided =
            |reason| Decision::undecided(format!("flexdaemonset: {reason}: the pod keeps its own resources"));
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let unchanged = |reason: &str| {
            let reason = format!("flexdaemonset: {reason}: the pod keeps its own resources");
            Decision::unchanged().with_warnings(self.facts.explains().then_some(reason))
        };
        if let Some(reason) = self.facts.exclusion(namespace, pod) {
            return unchanged(&reason);
        }
        let (daemon_set, foreign) = self.controller(pod);
        let template = match self.template_name(pod, namespace, daemon_set, deadline).await {
            Ok(Some(template)) => template,
            Ok(None) => {
                return match (foreign, daemon_set) {
                    (Some(group), _) => Decision::unchanged()
                        .with_warnings([format!("flexdaemonset: {}", foreign_daemon_set(group))]),
                    (None, Some(DaemonSetReference { name, .. })) => {
                        unchanged(&format!("DaemonSet {namespace}/{name} names no template"))
                    }
                    (None, None) => unchanged("the pod has no DaemonSet, and it names no template"),
                };
            }
            Err(reason) => return undecided(reason),
        };
        let dry_run = request.dry_run == Some(true);
        let templated = TemplatedPod { namespace, daemon_set, template: &template, dry_run };
        let (outcome, decision) = match self.size(pod, &templated, deadline).await {
            Ok(sized) => sized,
            Err((outcome, reason)) => (outcome, undecided(reason)),
        };
        self.facts.record_outcome(&templated, outcome);
        decision
    }

    /// The pod's `DaemonSet`, or the group of another kind of `DaemonSet`, which the webhook may not read.
    fn controller<'p>(&self, pod: &'p Pod<'_>) -> (Option<DaemonSetReference<'p>>, Option<&'p str>) {
        let Some(owner) = pod.controller() else { return (None, None) };
        let group = group_of(&owner.api_version);
        if self.facts.is_daemon_set(group, &owner.kind) {
            let api_version = &*owner.api_version;
            let kind = &*owner.kind;
            (Some(DaemonSetReference { api_version, kind, name: &owner.name, uid: &owner.uid }), None)
        } else {
            (None, (&*owner.kind == "DaemonSet").then_some(group))
        }
    }

    /// The name of the pod's template. The pod's annotation precedes those of its `DaemonSet`.
    async fn template_name(
        &self,
        pod: &Pod<'_>,
        namespace: &str,
        daemon_set: Option<DaemonSetReference<'_>>,
        deadline: Instant,
    ) -> Result<Option<String>, String> {
        if pod.is_mirror() {
            return Ok(None);
        }
        if let Some(name) = named_template(|key| pod.annotation(key)) {
            return Ok(Some(name.to_owned()));
        }
        let Some(reference) = daemon_set else { return Ok(None) };
        match self.facts.daemon_set(namespace, reference, deadline).await {
            Lookup::Found(daemon_set) => Ok(daemon_set.template.as_deref().map(str::to_owned)),
            Lookup::NotFound => Ok(None),
            Lookup::Forbidden | Lookup::Unavailable => {
                Err(format!("DaemonSet {} can't be read in time", reference.name))
            }
        }
    }

    /// The decision about a pod that names a template, or the reason why there is none.
    async fn size(
        &self,
        pod: &Pod<'_>,
        templated: &TemplatedPod<'_>,
        deadline: Instant,
    ) -> Result<(SizingOutcome, Decision), (SizingOutcome, String)> {
        let undecided = |reason| (SizingOutcome::Undecided, reason);
        let name = templated.template;
        let template = match self.facts.template(name, deadline).await {
            Lookup::Found(template) => template,
            Lookup::NotFound => {
                let reason = format!("there is no FlexDaemonsetTemplate {name}");
                return Err((SizingOutcome::TemplateMissing, reason));
            }
            Lookup::Forbidden | Lookup::Unavailable => {
                return Err(undecided(format!("FlexDaemonsetTemplate {name} can't be read in time")));
            }
        };
        let template = template.rules.as_ref().map_err(|error| {
            (SizingOutcome::TemplateInvalid, format!("FlexDaemonsetTemplate {name}: {error}"))
        })?;
        let node_unknown = |reason| (SizingOutcome::NodeUnknown, reason);
        let node_name = pod.node().or(self.default_node.as_deref());
        let node_name = node_name.ok_or_else(|| node_unknown("the pod names no node".to_owned()))?;
        let node = self.facts.node(node_name, deadline).await.found();
        let node = node.ok_or_else(|| node_unknown(format!("node {node_name} isn't known")))?;
        let original = OriginalRequests::from_pod(pod).map_err(undecided)?;
        let limits = self.facts.namespace_limits(templated.namespace);
        let sizing = size(template, &node, &limits, pod, original.as_ref()).map_err(undecided)?;
        let warnings: Vec<_> =
            sizing.warnings.iter().map(|warning| format!("flexdaemonset: {warning}")).collect();
        let (outcome, decision) = if sizing.sizes_anything() {
            (SizingOutcome::Sized, patch(pod, &sizing, name, node_name, original.as_ref()).into())
        } else {
            (SizingOutcome::Unsized, Decision::unchanged())
        };
        Ok((outcome, decision.with_warnings(warnings)))
    }
}

/// Why the pods of another kind of `DaemonSet`, which the webhook may not read, keep their own resources.
pub fn foreign_daemon_set(group: &str) -> String {
    format!(
        "a DaemonSet of {group} isn't read, because flexdaemonset.ownerKinds of the chart doesn't list it: its pods are sized only if the \
         annotation {RESOURCE_TEMPLATE} of the pod template names a template"
    )
}

impl<F: SizingFacts> Webhook for FlexDaemonset<F> {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, deadline: Instant) -> Decision {
        self.decide(request, deadline).await
    }

    fn observe(&self, object: &Value, namespace: &str) {
        self.facts.observe(object, namespace);
    }

    fn not_ready(&self) -> Option<String> {
        self.facts.not_ready()
    }
}
