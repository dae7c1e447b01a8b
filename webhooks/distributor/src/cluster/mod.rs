//! The cluster: facts from watches, and the controller that one of the replicas runs.

mod claims;
mod controller;
mod distributor_index;
mod distributor_watch;
mod eviction;
mod foreign_owners;
mod group_metrics;
mod group_observer;
mod nodes;
mod policies;
mod probe_claims;
mod rebalance;
mod selected_pods;
mod status_writer;
mod take_back;
mod volumes;

use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use podshaper_core::object::Lookup;
use podshaper_core::pod::{Pod, Toleration};
use podshaper_kube::events::Events;
use podshaper_kube::replica::Replica;
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, spawn_reflector};
use podshaper_placement::admit::PlaceOutcome;
use podshaper_placement::annotations::{GROUP, GROUP_HASH};
use podshaper_placement::ledger::Token;
use podshaper_placement::namespace::NamespaceRestrictions;
use podshaper_placement::policy::{GroupSet, Policy};
use podshaper_placement_kube::{ClusterBackend, PlacementMetrics, PodSeries};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::page::Page;
use claims::Claims;
use controller::{DistributorController, Evictors};
use distributor_decision::WEBHOOK;
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::facts::DistributorFacts;
use distributor_decision::volumes::VolumeNodes;
pub use eviction::EvictionSettings;
use group_metrics::GroupMetrics;
use nodes::Nodes;
use policies::DistributorPolicies;
use probe_claims::ProbeClaims;
use rebalance::Rebalancer;
use selected_pods::SelectedPods;
use status_writer::{DistributorEvents, StatusWriter};
use take_back::TakeBacks;
use volumes::VolumeReader;

/// The annotations of a leader that show its group.
const LEADER_ANNOTATIONS: &[&str] = &[GROUP, GROUP_HASH];

/// The state of the cluster.
pub struct DistributorCluster {
    distributors: Arc<Store<Distributor>>,
    nodes: Arc<Nodes>,
    backend: ClusterBackend,
    probes: Arc<ProbeClaims>,
    volumes: VolumeReader,
    /// `None` if the administrator does not allow to read them.
    namespaces: Option<Arc<Store<NamespaceRestrictions>>>,
    metrics: PlacementMetrics,
}

/// The permissions that the administrator gives.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// Which pods are evicted.
    pub evictions: EvictionSettings,
    /// Whether the annotations of namespaces are read.
    pub reads_namespaces: bool,
    /// The labels by which the series count pods.
    pub series: PodSeries,
    /// Whether the API server calls the webhook for pods without a controller.
    pub bare_pods: bool,
}

impl DistributorCluster {
    /// Starts the watches and the controller. Needs a runtime.
    pub fn start(
        client: &Client,
        replica: &Replica,
        settings: ClusterSettings,
        registry: &mut Registry,
        terminating: watch::Receiver<bool>,
    ) -> Self {
        let ClusterSettings { evictions, reads_namespaces, series, bare_pods } = settings;
        let nodes = Arc::new(Nodes::new(spawn_reflector(client, WatchScope::default())));
        let cluster = Self {
            distributors: distributor_watch::spawn(client),
            backend: ClusterBackend::start(client, WEBHOOK, LEADER_ANNOTATIONS, Arc::clone(&nodes) as _),
            nodes,
            probes: Arc::new(ProbeClaims::new(client.clone())),
            volumes: VolumeReader::new(client.clone()),
            namespaces: reads_namespaces.then(|| spawn_reflector(client, WatchScope::default())),
            metrics: PlacementMetrics::register(registry, WEBHOOK, series),
        };
        let leadership = replica.contend(client.clone(), WEBHOOK, terminating);
        let owners = Arc::clone(cluster.backend.owners());
        let policies = DistributorPolicies::new(Arc::clone(&cluster.distributors), owners);
        cluster.backend.reconcile(policies.clone(), leadership.clone());
        let selected = SelectedPods::new(cluster.backend.clone(), policies.clone(), bare_pods);
        let events = Events::start(client.clone(), WEBHOOK, replica.name().to_owned());
        let client = leadership.fence(client);
        let rebalancer = Rebalancer::new(client.clone(), &evictions, registry);
        let status = StatusWriter::new(client.clone(), DistributorEvents::new(events));
        let claims = Arc::new(Claims::new(client.clone()));
        let owners = Arc::clone(cluster.backend.owners());
        let take_backs = TakeBacks::new(client, owners, Arc::clone(&claims), evictions, registry);
        let evictors = Evictors { take_backs, rebalancer };
        let groups = GroupMetrics::register(registry, series);
        let controller =
            DistributorController::new(&cluster, policies, selected, claims, evictors, status, groups);
        tokio::spawn(controller.run(leadership));
        cluster
    }

    /// The web page, also at the names in `hosts`.
    pub fn page(&self, hosts: Vec<String>) -> Page {
        Page::new(Arc::clone(&self.distributors), hosts)
    }
}

impl DistributorFacts for DistributorCluster {
    type Backend = ClusterBackend;

    fn backend(&self) -> &ClusterBackend {
        &self.backend
    }

    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>> {
        self.distributors.in_namespace(namespace)
    }

    fn groups_with_nodes(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        tolerations: &[Toleration],
    ) -> GroupSet {
        self.nodes.groups_with_nodes(distributor, spec, tolerations)
    }

    async fn claim_probe(
        &self,
        distributor: &Distributor,
        group: usize,
        token: Token,
        deadline: Instant,
    ) -> bool {
        let spec = distributor.spec.as_ref().ok();
        match spec.and_then(|spec| distributor.status.position(spec.allocator.policy(), group)) {
            Some(index) => self.probes.claim(distributor, index, token, deadline).await,
            None => false,
        }
    }

    async fn volume_nodes(&self, namespace: &str, claim: &str, deadline: Instant) -> Lookup<VolumeNodes> {
        self.volumes.nodes(namespace, claim, deadline).await
    }

    fn namespace_restrictions(&self, namespace: &str) -> Option<Arc<NamespaceRestrictions>> {
        self.namespaces.as_ref()?.get(namespace)
    }

    fn groups_without_volume(&self, volume: &VolumeNodes, policy: &Policy) -> GroupSet {
        self.nodes.groups_without_volume(volume, policy)
    }

    fn suitable_groups(&self, pod: &Pod<'_>, policy: &Policy) -> GroupSet {
        self.nodes.suitable_groups(policy, pod)
    }

    fn record(&self, outcome: PlaceOutcome) {
        self.metrics.decided(outcome);
    }

    fn not_ready(&self) -> Option<String> {
        let watches = [
            ("poddistributors", self.distributors.has_synced()),
            ("nodes", self.nodes.has_synced()),
            ("placed pods", self.backend.ledgers().has_synced()),
            ("namespaces", self.namespaces.as_ref().is_none_or(|namespaces| namespaces.has_synced())),
        ];
        let (missing, _) = watches.into_iter().find(|(_, synced)| !synced)?;
        Some(format!("{missing} are not listed yet"))
    }
}
