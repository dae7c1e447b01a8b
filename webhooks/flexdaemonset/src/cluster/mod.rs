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

use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use podshaper_core::lookup::Lookup;
use podshaper_kube::events::{EventType, Events, ObjectReference};
use podshaper_kube::point_reader::PointReader;
use podshaper_kube::replica::Replica;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use controller::TemplateController;
use flexdaemonset_decision::daemon_set::Owner;
use flexdaemonset_decision::facts::{Facts, Outcome, Subject};
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::range::Range;
use flexdaemonset_decision::template_object::TemplateFact;
use metrics::FlexDaemonsetMetrics;
use watches::Watches;

/// The facts of a cluster, from watches and point reads.
pub struct Cluster {
    nodes: PointReader<Node>,
    templates: PointReader<TemplateFact>,
    daemon_sets: PointReader<Owner>,
    watches: Watches,
    events: Events,
    metrics: FlexDaemonsetMetrics,
}

impl Cluster {
    /// Starts the watches, and contends for the leadership until `ending`. Needs a runtime.
    pub fn start(
        client: &Client,
        replica: &Replica,
        refit: RefitOptions,
        registry: &mut Registry,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let events = Events::start(client.clone(), "flexdaemonset", replica.name().to_owned());
        let metrics = FlexDaemonsetMetrics::register(registry);
        let watches = Watches::start(client);
        let controller =
            TemplateController::new(client.clone(), watches.clone(), events.clone(), metrics.clone(), refit);
        tokio::spawn(controller.run(replica.contend(client.clone(), "flexdaemonset", ending)));
        Self {
            nodes: PointReader::new(Arc::clone(watches.nodes()), client.clone()),
            templates: PointReader::new(Arc::clone(watches.templates()), client.clone()),
            daemon_sets: PointReader::new(Arc::clone(watches.daemon_sets()), client.clone()),
            watches,
            events,
            metrics,
        }
    }
}

impl Facts for Cluster {
    async fn node(&self, name: &str, deadline: Instant) -> Lookup<Node> {
        self.nodes.find(None, name, deadline, |_| true).await
    }

    async fn template(&self, name: &str, deadline: Instant) -> Lookup<TemplateFact> {
        self.templates.find(None, name, deadline, |_| true).await
    }

    async fn owner(&self, namespace: &str, name: &str, uid: &str, deadline: Instant) -> Lookup<Owner> {
        self.daemon_sets.find(Some(namespace), name, deadline, |owner| &*owner.uid == uid).await
    }

    fn range(&self, namespace: &str) -> Range {
        self.watches.range(namespace)
    }

    fn heard(&self, pod: &Subject<'_>, outcome: Outcome) {
        self.metrics.count_decision(outcome);
        let (Some((name, uid)), false) = (pod.daemon_set, pod.dry_run) else { return };
        let template = pod.template;
        let (reason, message) = match outcome {
            Outcome::TemplateMissing => (
                "TemplateMissing",
                format!(
                    "there is no FlexDaemonsetTemplate {template}: pods are created with their own resources"
                ),
            ),
            Outcome::TemplateInvalid => (
                "TemplateInvalid",
                format!(
                    "FlexDaemonsetTemplate {template} can't be used: pods are created with their own resources"
                ),
            ),
            Outcome::NodeUnknown => (
                "NodeUnknown",
                format!("pods were created before their node was known, without a size of {template}"),
            ),
            Outcome::Sized | Outcome::Unsized | Outcome::Undecided => return,
        };
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
        let missing = self.watches.incomplete()?;
        Some(format!("the {missing} of the cluster haven't been read yet"))
    }
}
