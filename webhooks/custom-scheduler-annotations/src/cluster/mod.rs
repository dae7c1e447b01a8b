//! The cluster: where decisions have their facts from, and what one of the replicas does about running pods.

mod controller;
mod policies;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use podshaper_cli::ServeContext;
use podshaper_kube::events::{EventType, Events, ObjectReference};
use podshaper_kube::replica::Replica;
use podshaper_placement::admit::PlaceOutcome;
use podshaper_placement::annotations::{GROUP, GROUP_HASH};
use podshaper_placement::identity::UnknownNodes;
use podshaper_placement_kube::{ClusterBackend, PlacementMetrics, PodSeries};

use controller::StrategyController;
use custom_scheduler_annotations_decision::WEBHOOK;
use custom_scheduler_annotations_decision::annotations::{ENABLED, OLDER, STRATEGY};
use custom_scheduler_annotations_decision::facts::{Facts, PodOutcome};
use custom_scheduler_annotations_decision::strategies::Strategies;
use policies::StrategyPolicies;

/// The annotations that are kept of owners: strategies, and the group of a leader.
const OWNER_ANNOTATIONS: &[&str] = &[STRATEGY, OLDER, ENABLED, GROUP, GROUP_HASH];

/// Facts from the API server.
pub struct StrategyCluster {
    placing: ClusterBackend,
    events: Events,
    metrics: PlacementMetrics,
}

impl StrategyCluster {
    /// Begins to watch, and to contend for the leadership. Needs a runtime.
    pub fn start(
        client: &Client,
        replica: &Replica,
        (strategies, blocklist): (Arc<Strategies>, Arc<[String]>),
        period: Duration,
        (context, series): (ServeContext<'_>, PodSeries),
    ) -> Self {
        let placing = ClusterBackend::start(client, WEBHOOK, OWNER_ANNOTATIONS, Arc::new(UnknownNodes));
        let metrics = PlacementMetrics::register(context.metrics, WEBHOOK, series);
        let leadership = replica.contend(client.clone(), WEBHOOK, context.terminating);
        let policies = StrategyPolicies::new(Arc::clone(placing.owners()), strategies, blocklist);
        placing.reconcile(policies.clone(), leadership.clone());
        let controller = StrategyController::new(policies, placing.clone(), metrics.clone(), period);
        tokio::spawn(controller.run(leadership));
        let events = Events::start(client.clone(), WEBHOOK, replica.name().to_owned());
        Self { placing, events, metrics }
    }
}

impl Facts for StrategyCluster {
    type Backend = ClusterBackend;

    fn backend(&self) -> &ClusterBackend {
        &self.placing
    }

    fn record_outcome(&self, outcome: &PodOutcome<'_>) {
        self.metrics.decided(outcome.outcome);
        let (Some(workload), false) = (outcome.workload, outcome.dry_run) else { return };
        let reason = match outcome.outcome {
            PlaceOutcome::Invalid => "InvalidStrategy",
            PlaceOutcome::Superseded => "Superseded",
            PlaceOutcome::Full => "GroupsFull",
            PlaceOutcome::Unfitting => "NoGroupFits",
            PlaceOutcome::Placed | PlaceOutcome::Estimated | PlaceOutcome::Kept | PlaceOutcome::Undecided => {
                return;
            }
        };
        let regarding = ObjectReference {
            api_version: Some(workload.api_version.clone()),
            kind: Some(workload.kind.clone()),
            namespace: Some(outcome.namespace.to_owned()),
            name: Some(workload.name.clone()),
            uid: Some(workload.uid.clone()),
            ..ObjectReference::default()
        };
        self.events.publish(regarding, EventType::Warning, reason, "Admit", outcome.reason.to_owned());
    }

    fn not_ready(&self) -> Option<String> {
        let filled = self.placing.ledgers().has_synced();
        (!filled).then(|| "the placed pods of the cluster haven't been read yet".to_owned())
    }
}
