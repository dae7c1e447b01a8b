//! The webhook in a cluster: it decides by watched objects, and the leader refits running pods.

mod controller;
mod drift;
mod metrics;
mod refit;
mod refit_history;
mod running_pods;
mod status;
mod watches;

pub use refit::RefitOptions;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use kube::Client;
use podshaper_core::object::Lookup;
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
use flexdaemonset_decision::selection::Selection;
use flexdaemonset_decision::template_object::TemplateObject;
use metrics::FlexDaemonsetMetrics;
use watches::Watches;

/// Events about admissions, of all namespaces together.
const EVENTS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

/// The facts of a cluster, from watches and point reads.
pub struct FlexDaemonsetCluster {
    nodes: PointReader<Node>,
    templates: PointReader<TemplateObject>,
    daemon_sets: PointReader<DaemonSet>,
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
        let watches = Watches::start(client);
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
            daemon_sets: PointReader::new(Arc::clone(watches.daemon_sets()), client.clone()),
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
        name: &str,
        uid: &str,
        deadline: Instant,
    ) -> Lookup<DaemonSet> {
        self.daemon_sets.find(Some(namespace), name, deadline, |daemon_set| &*daemon_set.uid == uid).await
    }

    fn namespace_limits(&self, namespace: &str) -> NamespaceLimits {
        self.watches.namespace_limits(namespace)
    }

    fn record_outcome(&self, pod: &TemplatedPod<'_>, outcome: SizingOutcome) {
        self.metrics.count_decision(outcome);
        let (Some((name, uid)), false) = (pod.daemon_set, pod.dry_run) else { return };
        // A pod can name any owner, and may be refused afterwards.
        let owner = self.watches.daemon_sets().get(&format!("{}/{name}", pod.namespace));
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
            api_version: Some("apps/v1".to_owned()),
            kind: Some("DaemonSet".to_owned()),
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
