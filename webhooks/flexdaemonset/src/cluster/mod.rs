//! The webhook in a cluster: it decides by watched objects, and the leader refits running pods.

mod controller;
mod drift;
mod metrics;
mod refit;
mod refit_history;
mod refusals;
mod resize_support;
mod running_pods;
mod shared_text;
mod status;
mod watches;

pub use refit::RefitOptions;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use kube::Client;
use podshaper_core::object::{Lookup, group_of};
use podshaper_kube::events::{EventType, Events, ObjectReference};
use podshaper_kube::point_reader::PointReader;
use podshaper_kube::replica::Replica;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use controller::TemplateController;
use flexdaemonset_decision::daemon_set::DaemonSet;
use flexdaemonset_decision::facts::{SizingFacts, SizingOutcome, TemplatedPod};
use flexdaemonset_decision::namespace_limits::NamespaceLimits;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::owner_kind::{DaemonSetReference, OwnerKind};
use flexdaemonset_decision::selection::Selection;
use flexdaemonset_decision::template_object::TemplateObject;
use metrics::FlexDaemonsetMetrics;
use watches::{DaemonSets, Watches};

/// Events about admissions, of all namespaces together.
const EVENTS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

/// The facts of a cluster, from watches and point reads.
pub struct FlexDaemonsetCluster {
    nodes: PointReader<Node>,
    templates: PointReader<TemplateObject>,
    /// Those of `apps/v1` first.
    daemon_sets: Vec<(OwnerKind, PointReader<DaemonSet>)>,
    watches: Watches,
    events: Events,
    metrics: FlexDaemonsetMetrics,
    event_limiter: DefaultDirectRateLimiter,
}

impl FlexDaemonsetCluster {
    /// Starts the watches, and contends for the leadership until `ending`. Needs a runtime.
    pub fn start(
        client: &Client,
        replica: &Replica,
        refit: RefitOptions,
        selection: Selection,
        registry: &mut Registry,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let events = Events::start(client.clone(), "flexdaemonset", replica.name().to_owned());
        let metrics = FlexDaemonsetMetrics::register(registry);
        let watches = Watches::start(client, &selection.owner_kinds);
        let leadership = replica.contend(client.clone(), "flexdaemonset", ending);
        let fenced = leadership.fence(client);
        let controller = TemplateController::new(
            fenced,
            watches.clone(),
            events.clone(),
            metrics.clone(),
            refit,
            selection,
        );
        tokio::spawn(controller.run(leadership));
        Self {
            nodes: PointReader::new(Arc::clone(watches.nodes()), client.clone()),
            templates: PointReader::new(Arc::clone(watches.templates()), client.clone()),
            daemon_sets: watches
                .daemon_sets()
                .iter()
                .filter_map(|DaemonSets { kind, store }| {
                    let reader = PointReader::new(Arc::clone(store), client.clone());
                    Some((kind.clone(), reader.at(kind.api_path()?, kind.resource.clone())))
                })
                .collect(),
            watches,
            events,
            metrics,
            event_limiter: RateLimiter::direct(Quota::per_minute(EVENTS_PER_MINUTE)),
        }
    }
}

impl SizingFacts for FlexDaemonsetCluster {
    async fn node(&self, name: &str, deadline: Instant) -> Lookup<Node> {
        self.nodes.find(None, name, deadline, |_| true).await
    }

    async fn template(&self, name: &str, deadline: Instant) -> Lookup<TemplateObject> {
        self.templates.find(None, name, deadline, |_| true).await
    }

    async fn daemon_set(
        &self,
        namespace: &str,
        reference: DaemonSetReference<'_>,
        deadline: Instant,
    ) -> Lookup<DaemonSet> {
        let DaemonSetReference { api_version, kind, name, uid } = reference;
        let mut readers = self.daemon_sets.iter();
        let Some((_, reader)) = readers.find(|(own, _)| own.is(group_of(api_version), kind)) else {
            return Lookup::NotFound;
        };
        reader.find(Some(namespace), name, deadline, |daemon_set| &*daemon_set.uid == uid).await
    }

    fn is_daemon_set(&self, group: &str, kind: &str) -> bool {
        self.daemon_sets.iter().any(|(own, _)| own.is(group, kind))
    }

    fn namespace_limits(&self, namespace: &str) -> NamespaceLimits {
        self.watches.namespace_limits(namespace)
    }

    fn record_outcome(&self, pod: &TemplatedPod<'_>, outcome: SizingOutcome) {
        self.metrics.count_decision(outcome);
        let (Some(reference), false) = (pod.daemon_set, pod.dry_run) else { return };
        let DaemonSetReference { api_version, kind, name, uid } = reference;
        // A pod can name any owner, and may be refused afterwards.
        let mut kinds = self.watches.daemon_sets().iter();
        let Some(known) = kinds.find(|known| known.kind.is(group_of(api_version), kind)) else { return };
        let owner = known.store.get(&format!("{}/{name}", pod.namespace));
        if owner.is_none_or(|owner| *owner.uid != *uid) || self.event_limiter.check().is_err() {
            return;
        }
        let (reason, problem) = match outcome {
            SizingOutcome::TemplateMissing => ("TemplateMissing", "doesn't exist"),
            SizingOutcome::TemplateInvalid => ("TemplateInvalid", "is invalid"),
            SizingOutcome::NodeUnknown => ("NodeUnknown", "has no size for a pod of an unknown node"),
            SizingOutcome::Sized | SizingOutcome::Unsized | SizingOutcome::Undecided => return,
        };
        let template = pod.template;
        let message =
            format!("FlexDaemonsetTemplate {template} {problem}: pods are created with their own resources");
        let regarding = ObjectReference {
            api_version: Some(known.kind.api_version.clone()),
            kind: Some(known.kind.kind.clone()),
            namespace: Some(pod.namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        self.events.publish(regarding, EventType::Warning, reason, "Admit", message);
    }

    fn not_ready(&self) -> Option<String> {
        let missing = self.watches.unsynced()?;
        Some(format!("the watch of {missing} hasn't synced yet"))
    }
}
