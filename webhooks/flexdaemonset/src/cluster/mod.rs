//! The cluster: facts for decisions from watches, and what one of the replicas does about running pods.

mod attempts;
mod controller;
mod metrics;
mod pace;
mod pods;
mod refit;
mod state;
mod status;

pub use controller::RefitOptions;

use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use podshaper_core::lookup::Lookup;
use podshaper_kube::events::{Events, Note, Regarding};
use podshaper_kube::point_read::PointReader;
use podshaper_kube::replica::Replica;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{Scope, watched};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use controller::Controller;
use flexdaemonset_decision::facts::{Facts, Outcome, Owner, Subject, TemplateFact};
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::range::Range;
use metrics::Metrics;

/// What the API server says.
pub struct Cluster {
    nodes: PointReader<Node>,
    templates: PointReader<TemplateFact>,
    owners: PointReader<Owner>,
    ranges: Arc<Store<Range>>,
    events: Events,
    metrics: Metrics,
}

impl Cluster {
    /// Begins to watch, and to contend for the leadership. Needs a runtime.
    pub fn start(
        client: &Client,
        replica: &Replica,
        refit: RefitOptions,
        registry: &mut Registry,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let events = Events::start(client.clone(), "flexdaemonset", replica.name().to_owned());
        let metrics = Metrics::register(registry);
        let cluster = Self {
            nodes: PointReader::new(watched(client, Scope::default()), client.clone()),
            templates: PointReader::new(watched(client, Scope::default()), client.clone()),
            owners: PointReader::new(watched(client, Scope::default()), client.clone()),
            ranges: watched(client, Scope::default()),
            events: events.clone(),
            metrics: metrics.clone(),
        };
        let controller = Controller {
            client: client.clone(),
            nodes: Arc::clone(cluster.nodes.store()),
            templates: Arc::clone(cluster.templates.store()),
            owners: Arc::clone(cluster.owners.store()),
            ranges: Arc::clone(&cluster.ranges),
            events,
            metrics,
            options: refit,
        };
        tokio::spawn(controller.run(replica.contend(client.clone(), "flexdaemonset", ending)));
        cluster
    }
}

/// The bounds of a namespace.
fn range(ranges: &Store<Range>, namespace: &str) -> Range {
    ranges.in_namespace(namespace).iter().fold(Range::default(), |all, range| all.and(range))
}

impl Facts for Cluster {
    async fn node(&self, name: &str, deadline: Instant) -> Lookup<Node> {
        self.nodes.find(None, name, deadline, |_| true).await
    }

    async fn template(&self, name: &str, deadline: Instant) -> Lookup<TemplateFact> {
        self.templates.find(None, name, deadline, |_| true).await
    }

    async fn owner(&self, namespace: &str, name: &str, uid: &str, deadline: Instant) -> Lookup<Owner> {
        self.owners.find(Some(namespace), name, deadline, |owner| &*owner.uid == uid).await
    }

    fn range(&self, namespace: &str) -> Range {
        range(&self.ranges, namespace)
    }

    fn heard(&self, pod: &Subject<'_>, outcome: Outcome) {
        self.metrics.decided(outcome);
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
        let regarding = Regarding {
            api_version: "apps/v1".into(),
            kind: "DaemonSet".into(),
            namespace: pod.namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        self.events.send(Note { regarding, warning: true, reason, action: "Admit", message });
    }

    fn not_ready(&self) -> Option<String> {
        let caches = [
            ("nodes", self.nodes.store().filled()),
            ("flexdaemonsettemplates", self.templates.store().filled()),
            ("daemonsets", self.owners.store().filled()),
            ("limitranges", self.ranges.filled()),
        ];
        let (missing, _) = caches.into_iter().find(|(_, filled)| !filled)?;
        Some(format!("the {missing} of the cluster haven't been read yet"))
    }
}
