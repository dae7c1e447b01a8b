//! The cluster: facts for decisions from watches, and what one of the replicas does about running pods.

mod controller;
mod nodes;
mod policies;
mod rebalance;
mod status_writer;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper_kube::events::Events;
use podshaper_kube::replica::Replica;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, spawn_reflector};
use podshaper_placement::admit::PlaceOutcome;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::GroupSet;
use podshaper_placement_kube::{ClusterBackend, PlacementMetrics};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::page::Page;
use controller::DistributorController;
use distributor_decision::WEBHOOK;
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::facts::Facts;
use nodes::Nodes;
use policies::DistributorPolicies;
use rebalance::Rebalancer;
use status_writer::{DistributorEvents, StatusWriter};

/// What the API server says.
pub struct DistributorCluster {
    distributors: Arc<Store<Distributor>>,
    nodes: Arc<Nodes>,
    placing: ClusterBackend,
    metrics: PlacementMetrics,
}

impl DistributorCluster {
    /// Begins to watch, and to contend for the leadership. Needs a runtime.
    pub fn start(
        client: &Client,
        replica: &Replica,
        registry: &mut Registry,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let cluster = Self {
            distributors: spawn_reflector(client, WatchScope::default()),
            nodes: Arc::new(Nodes::new(spawn_reflector(client, WatchScope::default()))),
            placing: ClusterBackend::start(client, WEBHOOK, &[]),
            metrics: PlacementMetrics::register(registry, WEBHOOK),
        };
        let leadership = replica.contend(client.clone(), WEBHOOK, ending);
        let owners = Arc::clone(cluster.placing.owners());
        let policies = DistributorPolicies::new(Arc::clone(&cluster.distributors), owners);
        cluster.placing.reconcile(policies.clone(), leadership.clone());
        let events = Events::start(client.clone(), WEBHOOK, replica.name().to_owned());
        let rebalancer = Rebalancer::new(client.clone(), DistributorEvents::new(events.clone()), registry);
        let status = StatusWriter::new(client.clone(), DistributorEvents::new(events));
        let controller = DistributorController::new(&cluster, policies, status, rebalancer);
        tokio::spawn(controller.run(leadership));
        cluster
    }

    /// The page about this cluster's distributors.
    pub fn page(&self) -> Page {
        Page::new(Arc::clone(&self.distributors))
    }
}

impl Facts for DistributorCluster {
    type Surroundings = ClusterBackend;

    fn surroundings(&self) -> &ClusterBackend {
        &self.placing
    }

    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>> {
        self.distributors.in_namespace(namespace)
    }

    fn available(&self, namespace: &str, chain: &OwnerChain, spec: &ValidSpec) -> GroupSet {
        let stuck = spec.unschedulable_after.zip(chain.sequence_owner()).map(|(after, (owner, _))| {
            let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
            self.placing.ledgers().unschedulable_groups(
                namespace,
                owner,
                Timestamp::now().as_second().saturating_sub(after),
            )
        });
        let policy = spec.allocator.policy();
        let stuck = stuck.iter().flatten().filter_map(|group| policy.index(group)).collect();
        self.nodes.available(policy).difference(stuck)
    }

    fn heard(&self, _: &Distributor, outcome: PlaceOutcome) {
        self.metrics.decided(outcome);
    }

    fn not_ready(&self) -> Option<String> {
        let caches = [
            ("poddistributors", self.distributors.has_synced()),
            ("nodes", self.nodes.has_synced()),
            ("placed pods", self.placing.ledgers().has_synced()),
        ];
        let (missing, _) = caches.into_iter().find(|(_, filled)| !filled)?;
        Some(format!("the {missing} of the cluster haven't been read yet"))
    }
}
