//! The webhook: from a pod to its size.

use std::time::Instant;

use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::lookup::Lookup;
use podshaper_core::pod::Pod;

use crate::daemon_set::named_template;
use crate::facts::{Facts, Outcome, Subject};
use crate::original_requests::OriginalRequests;
use crate::patch::patch;
use crate::sizing::size;

/// The flexdaemonset webhook.
#[derive(Debug)]
pub struct FlexDaemonset<F> {
    facts: F,
    /// The node of pods that name none: what an offline run supposes.
    node: Option<String>,
}

impl<F: Facts> FlexDaemonset<F> {
    /// A webhook that decides by these facts.
    pub fn new(facts: F) -> Self {
        Self { facts, node: None }
    }

    /// The same, but a pod that names no node counts as one for `node`.
    #[must_use]
    pub fn supposing(self, node: Option<String>) -> Self {
        Self { node, ..self }
    }

    /// Decides about one request.
    pub async fn decide(&self, request: &Request<'_, Pod<'_>>, deadline: Instant) -> Decision {
        let Some(pod) = request.object.as_ref().filter(|_| request.creates_pod()) else {
            return Decision::unchanged();
        };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let daemon_set = pod.controller().filter(|owner| &*owner.kind == "DaemonSet");
        let daemon_set = daemon_set.map(|owner| (&*owner.name, &*owner.uid));
        let template = match self.template_of(pod, namespace, daemon_set, deadline).await {
            Ok(Some(template)) => template,
            Ok(None) => return Decision::unchanged(),
            Err(reason) => return Decision::undecided(format!("flexdaemonset: {reason}")),
        };
        let dry_run = request.dry_run == Some(true);
        let subject = Subject { namespace, daemon_set, template: &template, dry_run };
        let (outcome, decision) = match self.size(pod, &subject, deadline).await {
            Ok(decided) => decided,
            Err((outcome, reason)) => (outcome, Decision::undecided(format!("flexdaemonset: {reason}"))),
        };
        self.facts.heard(&subject, outcome);
        decision
    }

    /// The name of the pod's template: its own word counts before its `DaemonSet`'s.
    async fn template_of(
        &self,
        pod: &Pod<'_>,
        namespace: &str,
        daemon_set: Option<(&str, &str)>,
        deadline: Instant,
    ) -> Result<Option<String>, String> {
        if pod.is_mirror() {
            return Ok(None);
        }
        if let Some(name) = named_template(|key| pod.annotation(key)) {
            return Ok(Some(name.to_owned()));
        }
        let Some((name, uid)) = daemon_set else { return Ok(None) };
        match self.facts.owner(namespace, name, uid, deadline).await {
            Lookup::Found(owner) => Ok(owner.template.as_deref().map(str::to_owned)),
            Lookup::NotFound => Ok(None),
            Lookup::Forbidden | Lookup::Unavailable => {
                Err(format!("DaemonSet {name} can't be read in time: the pod keeps its resources"))
            }
        }
    }

    async fn size(
        &self,
        pod: &Pod<'_>,
        subject: &Subject<'_>,
        deadline: Instant,
    ) -> Result<(Outcome, Decision), (Outcome, String)> {
        let name = subject.template;
        let keeps = "the pod keeps the resources of its own template";
        let template = match self.facts.template(name, deadline).await {
            Lookup::Found(template) => template,
            Lookup::NotFound => {
                let reason = format!("there is no FlexDaemonsetTemplate {name}: {keeps}");
                return Err((Outcome::TemplateMissing, reason));
            }
            Lookup::Forbidden | Lookup::Unavailable => {
                let reason = format!("FlexDaemonsetTemplate {name} can't be read in time: {keeps}");
                return Err((Outcome::Undecided, reason));
            }
        };
        let template = template.rules.as_ref().map_err(|error| {
            (Outcome::TemplateInvalid, format!("FlexDaemonsetTemplate {name}: {error}: {keeps}"))
        })?;
        let node_name = pod.node().or(self.node.as_deref()).ok_or_else(|| {
            (Outcome::NodeUnknown, format!("the pod names no node, so there is no size to take: {keeps}"))
        })?;
        let Some(node) = self.facts.node(node_name, deadline).await.found() else {
            return Err((Outcome::NodeUnknown, format!("node {node_name} isn't known: {keeps}")));
        };
        let original = OriginalRequests::from_pod(pod).map_err(|reason| (Outcome::Undecided, reason))?;
        let range = self.facts.range(subject.namespace);
        let sizing = size(template, &node, &range, pod, original.as_ref())
            .map_err(|reason| (Outcome::Undecided, format!("{reason}: {keeps}")))?;
        let warnings: Vec<_> =
            sizing.warnings.iter().map(|warning| format!("flexdaemonset: {warning}")).collect();
        let (outcome, decision) = if sizing.sizes_anything() {
            (Outcome::Sized, patch(pod, &sizing, name, node_name, original.as_ref()).into())
        } else {
            (Outcome::Unsized, Decision::unchanged())
        };
        Ok((outcome, decision.with_warnings(warnings)))
    }
}

impl<F: Facts> Webhook for FlexDaemonset<F> {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, deadline: Instant) -> Decision {
        self.decide(request, deadline).await
    }

    fn not_ready(&self) -> Option<String> {
        self.facts.not_ready()
    }
}
