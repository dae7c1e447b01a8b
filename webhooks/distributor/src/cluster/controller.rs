//! Reconciliation of `PodDistributor`s by the replica that leads: it counts their pods, finds those that no webhook has placed, evicts some
//! if the spec says so, and writes the status.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::label::excerpt;
use podshaper_core::object::{Lookup, OwnerReference, key};
use podshaper_core::pod::Toleration;
use podshaper_kube::error::describe;
use podshaper_kube::lease::{Leadership, while_leading};
use podshaper_kube::store::Store;
use podshaper_placement::availability::GroupAvailability;
use podshaper_placement::namespace::NamespaceRestrictions;
use podshaper_placement::owner_object::OwnerObject;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::GroupSet;
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::{
    ChainCache, ClusterBackend, LedgerId, LedgerInventory, PlacementMetrics, UnplacedPods,
};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::DistributorCluster;
use super::claims::Claims;
use super::distributor_index::DistributorIndex;
use super::eviction::EvictionLog;
use super::foreign_owners::ForeignOwners;
use super::group_metrics::GroupMetrics;
use super::group_observer::{GroupObserver, OverduePod, describe_group, placed_pods};
use super::nodes::Nodes;
use super::policies::DistributorPolicies;
use super::rebalance::{EvictionHistory, Imbalance, Rebalancer};
use super::selected_pods::{SelectedPods, SelectionHistory, UncountedPods};
use super::status_writer::StatusWriter;
use super::take_back::{Candidate, TakeBackHistory, TakeBacks};
use distributor_decision::WEBHOOK;
use distributor_decision::distributor::{Distributor, UNSCHEDULABLE_AFTER, ValidSpec, set_target};
use distributor_decision::findings::Findings;
use distributor_decision::rebalance::{groups_behind, may_evict};
use distributor_decision::spec::{Availability, RebalanceMode};
use distributor_decision::status::{
    ClosedReason, GroupState, GroupStatus, Observation, PodDistributorStatus, Readiness,
};

/// Time between two reconciliations.
const PERIOD: Duration = Duration::from_secs(2);
/// A PodDistributor that has not changed is reconciled after this time, and `RESYNC_EACH` more for each other one. This reads its target once.
const RESYNC: Duration = Duration::from_secs(30);
const RESYNC_EACH: Duration = Duration::from_millis(400);
/// Number of such reconciliations between two searches for the object that runs pods in place of a target without pods.
const SEARCH_RESYNCS: u32 = 10;
/// After this time the owners of pods are read again, those of `MAX_CHAIN_REFRESHES` ledgers in a reconciliation. A ReplicaSet and its
/// Deployment cause one request a second.
const CHAIN_LIFETIME: Duration = Duration::from_mins(2);
const MAX_CHAIN_REFRESHES: usize = 1;

pub(super) struct DistributorController {
    distributors: Arc<Store<Distributor>>,
    policies: DistributorPolicies,
    selected: SelectedPods,
    nodes: Arc<Nodes>,
    namespaces: Option<Arc<Store<NamespaceRestrictions>>>,
    backend: ClusterBackend,
    claims: Arc<Claims>,
    foreign_owners: ForeignOwners,
    evictors: Evictors,
    status: StatusWriter,
    metrics: PlacementMetrics,
    group_metrics: GroupMetrics,
}

/// Evict pods, for two reasons.
pub(super) struct Evictors {
    pub(super) take_backs: TakeBacks,
    pub(super) rebalancer: Rebalancer,
}

/// The last reconciliation of one distributor.
struct Reconciled {
    at: Instant,
    inputs: Inputs,
    /// Pods that no ledger knows.
    unknown: u32,
    evictions: Option<EvictionHistory>,
    memory: Memory,
}

/// The memory of a leader about one distributor.
#[derive(Default)]
struct Memory {
    observer: GroupObserver,
    take_backs: TakeBackHistory,
    selection: SelectionHistory,
    log: EvictionLog,
    /// The tolerations in the pod template of the target, once it was read.
    tolerations: Option<Vec<Toleration>>,
    /// The object that runs pods in place of a target without pods, and when it was searched.
    in_place_of: Option<(Instant, Option<String>)>,
}

/// A distributor is reconciled when one of these changes.
#[derive(PartialEq)]
struct Inputs {
    generation: i64,
    spreads: Vec<(LedgerId, Spread)>,
    /// The state of each group.
    groups: Vec<GroupStatus>,
    /// Uid of the distributor that applies instead.
    older: Option<String>,
    /// Why no waiting pods are taken back.
    held: Option<String>,
    findings: Findings,
}

impl Inputs {
    fn has_states_of(&self, other: &Self) -> bool {
        self.groups.iter().map(|group| group.state).eq(other.groups.iter().map(|group| group.state))
    }
}

impl Reconciled {
    fn take_backs(&mut self) -> (&mut TakeBackHistory, &mut EvictionLog) {
        (&mut self.memory.take_backs, &mut self.memory.log)
    }
}

/// One distributor in one reconciliation.
#[derive(Clone, Copy)]
struct Pass<'p> {
    distributor: &'p Distributor,
    spec: &'p ValidSpec,
    pods: &'p [OwnedPods],
    /// The distributor that applies instead.
    older: Option<&'p Distributor>,
}

/// The owners of pods, and the pods.
type OwnedPods = (OwnerChain, LedgerInventory);

/// The pods that a distributor governs.
struct PodCounts {
    spreads: Vec<(LedgerId, Spread)>,
    total: Spread,
}

impl DistributorController {
    pub(super) fn new(
        cluster: &DistributorCluster,
        policies: DistributorPolicies,
        selected: SelectedPods,
        claims: Arc<Claims>,
        evictors: Evictors,
        status: StatusWriter,
        group_metrics: GroupMetrics,
    ) -> Self {
        Self {
            distributors: Arc::clone(&cluster.distributors),
            policies,
            selected,
            nodes: Arc::clone(&cluster.nodes),
            namespaces: cluster.namespaces.clone(),
            backend: cluster.backend.clone(),
            claims,
            foreign_owners: ForeignOwners::new(cluster.backend.clone()),
            evictors,
            status,
            metrics: cluster.metrics.clone(),
            group_metrics,
        }
    }

    /// Reconciles while this replica leads.
    pub(super) async fn run(self, leadership: Leadership) {
        let changed = |leads| {
            self.metrics.set_leader(leads);
            self.group_metrics.clear();
        };
        while_leading(leadership, || self.lead(), changed).await;
    }

    async fn lead(&self) {
        let mut chains =
            ChainCache::new(Arc::clone(self.backend.owners()), CHAIN_LIFETIME, MAX_CHAIN_REFRESHES);
        let mut reconciled = HashMap::new();
        loop {
            if self.distributors.has_synced()
                && self.nodes.has_synced()
                && self.backend.ledgers().has_synced()
            {
                self.reconcile_all(&mut chains, &mut reconciled).await;
            }
            sleep(PERIOD).await;
        }
    }

    /// Reconciles every distributor. `reconciled` has the last reconciliation of each, by uid.
    async fn reconcile_all(&self, chains: &mut ChainCache, reconciled: &mut HashMap<String, Reconciled>) {
        let distributors = self.distributors.all();
        let index = DistributorIndex::new(distributors.iter().map(|(_, distributor)| distributor));
        let mut governed = self.governed_pods(&index, chains).await;
        let uids: HashSet<&str> = distributors.iter().map(|(_, distributor)| &*distributor.uid).collect();
        reconciled.retain(|uid, _| uids.contains(&**uid));
        let mut counted = Vec::new();
        let mut candidates = Vec::new();
        for (key, distributor) in &distributors {
            // Reviews of other namespaces are answered in between.
            yield_now().await;
            let spec = match &distributor.spec {
                Ok(spec) => spec,
                Err(problem) => {
                    self.report_invalid(distributor, problem).await;
                    continue;
                }
            };
            let pods = governed.remove(&**key).unwrap_or_default();
            let older = index.older(distributor);
            let before = reconciled.remove(&distributor.uid);
            let (after, total, waiting) =
                self.reconcile_if_changed(distributor, spec, &pods, older, before).await;
            reconciled.insert(distributor.uid.clone(), after);
            candidates.extend(waiting);
            counted.push((Arc::clone(distributor), Arc::clone(&spec.allocator), total));
        }
        self.evictors.take_backs.run(candidates, reconciled, Reconciled::take_backs).await;
        for (_, distributor) in &distributors {
            if let Some(reconciled) = reconciled.get_mut(&distributor.uid) {
                self.status.flush(&mut reconciled.memory.log, distributor);
            }
        }
        self.group_metrics.clear();
        for (distributor, allocator, _) in &counted {
            if let Some(reconciled) = reconciled.get(&distributor.uid) {
                let names = allocator.policy().groups().iter().map(|group| &*group.name);
                self.group_metrics.add(distributor, names, &reconciled.inputs.groups);
            }
        }
        for (_, distributor) in &distributors {
            self.group_metrics.add_problems(distributor);
        }
        self.metrics.set_pods(counted.iter().map(|(distributor, allocator, total)| {
            let labels = [("namespace", &*distributor.namespace), ("distributor", &*distributor.name)];
            (labels, allocator.policy(), total)
        }));
    }

    /// Known pods, by the key of the distributor that governs them.
    async fn governed_pods(
        &self,
        index: &DistributorIndex,
        chains: &mut ChainCache,
    ) -> BTreeMap<String, Vec<OwnedPods>> {
        let mut governed: BTreeMap<String, Vec<OwnedPods>> = BTreeMap::new();
        let all = self.backend.ledgers().inventory();
        chains.start_pass(&all);
        for mut inventory in all {
            let namespace = &inventory.controller.namespace;
            if inventory.pods.is_empty() || !index.has_namespace(namespace) {
                continue;
            }
            let Some((distributor, chain)) = governing_of(&inventory, index, chains).await else { continue };
            let key = key(Some(namespace), &distributor.name);
            if let Ok(spec) = &distributor.spec {
                inventory.regroup(spec.allocator.policy(), &*self.nodes);
            }
            governed.entry(key).or_default().push((chain, inventory));
        }
        governed
    }

    async fn report_invalid(&self, distributor: &Distributor, problem: &str) {
        self.status
            .update(distributor, |before, now| before.invalid(distributor.generation, problem, now))
            .await;
    }

    async fn write_status(&self, distributor: &Distributor, spec: &ValidSpec, observation: &Observation) {
        let generation = distributor.generation;
        let policy = spec.allocator.policy();
        self.status
            .update(distributor, |before, now| before.observed(generation, policy, observation, now))
            .await;
    }

    /// Observes one distributor and reconciles it if something has changed. Returns the distribution of all its pods, and the waiting pods
    /// that may be taken back.
    async fn reconcile_if_changed(
        &self,
        distributor: &Arc<Distributor>,
        spec: &ValidSpec,
        pods: &[OwnedPods],
        older: Option<&Arc<Distributor>>,
        mut before: Option<Reconciled>,
    ) -> (Reconciled, Spread, Vec<Candidate>) {
        let PodCounts { spreads, mut total } = count(spec, pods);
        let mut memory = before.as_mut().map(|before| std::mem::take(&mut before.memory)).unwrap_or_default();
        let inventories: Vec<&LedgerInventory> = pods.iter().map(|(_, inventory)| inventory).collect();
        let mut groups = self.observe_groups(distributor, spec, &inventories, &total, &mut memory).await;
        let findings = find(spec, &inventories, &memory.observer);
        let history = &mut memory.take_backs;
        let candidates =
            self.evictors.take_backs.candidates(distributor, spec, &inventories, &mut groups, history).await;
        let inputs = Inputs {
            generation: distributor.generation,
            spreads,
            groups,
            older: older.map(|older| older.uid.clone()),
            held: memory.take_backs.held(),
            findings,
        };
        let unchanged = before.as_ref().is_some_and(|before| before.inputs == inputs);
        if unchanged {
            // While pods change, a write of the status would conflict with writes of the ledger.
            for (ledger, spread) in &inputs.spreads {
                self.backend.ledgers().patch_status(ledger, spread).await;
            }
        }
        let rebalances = total.misplaced() > 0 && spec.options.rebalance.mode != RebalanceMode::Never;
        // Whether evictions help depends on the groups that are open.
        let same_groups = before.as_ref().is_some_and(|before| before.inputs.has_states_of(&inputs));
        let evictions = match before {
            Some(before)
                if unchanged
                    && !rebalances
                    && !memory.selection.has_moved()
                    && before.at.elapsed() < self.resync() =>
            {
                total.unplaced += before.unknown;
                return (Reconciled { memory, ..before }, total, candidates);
            }
            before => before.and_then(|before| before.evictions),
        };
        let evictions = evictions.filter(|history| same_groups && history.is_current(total.misplaced()));
        let pass = Pass { distributor, spec, pods, older: older.map(|older| &**older) };
        let (reconciled, total) = self.reconcile_one(pass, inputs, total, evictions, memory).await;
        (reconciled, total, candidates)
    }

    /// Reconciles one distributor, and returns the distribution of all its pods.
    async fn reconcile_one(
        &self,
        pass: Pass<'_>,
        inputs: Inputs,
        mut total: Spread,
        mut evictions: Option<EvictionHistory>,
        mut memory: Memory,
    ) -> (Reconciled, Spread) {
        let Pass { distributor, spec, pods, older } = pass;
        let (mut readiness, target) = self.read_target(distributor, older).await;
        let known = total.placed() + total.unplaced;
        let unknown = match &distributor.target.selector {
            Some(_) => self.selected.take_in(distributor, spec, &mut memory.selection).await,
            None => self.find_unknown_pods(distributor, spec, target.as_deref(), known).await,
        };
        total.unplaced += unknown.unplaced;
        let mut findings = inputs.findings.clone();
        if readiness == Readiness::Placing {
            let target = target.as_deref();
            readiness = self.find_obstacles(distributor, target, known, &mut memory, &mut findings).await;
        }
        readiness = self.readiness(distributor, readiness, &unknown);
        if let Some(target) = &target {
            memory.tolerations = Some(target.tolerations.clone());
        }
        let replicas = target.and_then(|target| target.pods);
        if let [(chain, inventory)] = pods
            && total.misplaced() > 0
            && replicas == Some(known + unknown.excluded)
            && may_evict(chain, inventory.reserved)
        {
            let mode = spec.options.rebalance.mode;
            let policy = spec.allocator.policy();
            let receiving = receiving_groups(&distributor.status, spec, pods, &inputs.groups);
            let behind = groups_behind(mode, &distributor.status, policy, &total, receiving);
            let log = &mut memory.log;
            let imbalance = Imbalance { inventory, spread: &total, behind };
            self.evictors.rebalancer.rebalance(distributor, spec, imbalance, &mut evictions, log).await;
        }
        let observation = Observation {
            target: match &distributor.target.selector {
                Some(_) => excerpt(&distributor.target.text()),
                None => distributor.target.text(),
            },
            is_selector: distributor.target.selector.is_some(),
            over_time: pods.iter().any(|(chain, inventory)| chain.is_over_time() || inventory.over_time),
            readiness,
            replicas,
            total,
            revisions: revisions(pods, &inputs.spreads),
            groups: inputs.groups.clone(),
            take_back_held: inputs.held.clone(),
            rebalance_held: evictions.as_ref().and_then(EvictionHistory::held),
            findings,
        };
        self.write_status(distributor, spec, &observation).await;
        let at = Instant::now();
        let unknown = unknown.unplaced;
        (Reconciled { at, inputs, unknown, evictions, memory }, observation.total)
    }

    fn resync(&self) -> Duration {
        let distributors = u32::try_from(self.distributors.len()).unwrap_or(u32::MAX);
        RESYNC.max(RESYNC_EACH.saturating_mul(distributors))
    }

    /// The obstacle to the placement of a valid distributor with a readable target, if any. `known` is the number of pods that are known. Owners that
    /// cannot be read become a finding.
    async fn find_obstacles(
        &self,
        distributor: &Distributor,
        target: Option<&OwnerObject>,
        known: u32,
        memory: &mut Memory,
        findings: &mut Findings,
    ) -> Readiness {
        let created = target.and_then(|target| target.created);
        if distributor.has_custom_target() && created.is_none_or(|created| created > known) {
            findings.unreadable_owner = self.foreign_owners.unreadable(&distributor.namespace).await;
        }
        let other = self.in_place_of(distributor, target, known, memory).await;
        if self.backend.ledgers().has_listed_placements() {
            other.map_or(Readiness::Placing, Readiness::NoOwnPods)
        } else {
            Readiness::NoLedgers
        }
    }

    /// The object that runs pods in place of the target, if that has none.
    async fn in_place_of(
        &self,
        distributor: &Distributor,
        target: Option<&OwnerObject>,
        known: u32,
        memory: &mut Memory,
    ) -> Option<String> {
        let selector =
            target.filter(|target| known == 0 && target.created.is_none_or(|created| created == 0));
        let Some(selector) = selector.and_then(|target| target.selector.as_deref()) else {
            memory.in_place_of = None;
            return None;
        };
        if let Some((at, other)) = &memory.in_place_of
            && at.elapsed() < self.resync().saturating_mul(SEARCH_RESYNCS)
        {
            return other.clone();
        }
        let other = self.foreign_owners.in_place_of(distributor, selector).await;
        memory.in_place_of = Some((Instant::now(), other.clone()));
        other
    }

    /// Whether new pods are placed, given those that don't count.
    fn readiness(
        &self,
        distributor: &Distributor,
        of_target: Readiness,
        unknown: &UncountedPods,
    ) -> Readiness {
        let is_selector = distributor.target.selector.is_some();
        match (&unknown.placed_by, of_target) {
            (Some(webhook), _) => Readiness::SupersededByWebhook(webhook.clone()),
            (None, Readiness::Placing) if is_selector && !self.selected.sees_bare_pods() => {
                Readiness::PlacingOwned(unknown.bare)
            }
            (None, of_target) => of_target,
        }
    }

    /// The tolerations that the pods of the target have of their own. Only nodes of `availability: Nodes` are compared with them.
    async fn tolerations(&self, distributor: &Distributor, memory: &mut Memory) -> Vec<Toleration> {
        if memory.tolerations.is_none() {
            let (_, target) = self.read_target(distributor, None).await;
            memory.tolerations = target.map(|target| target.tolerations.clone());
        }
        memory.tolerations.clone().unwrap_or_default()
    }

    /// The state of each group, by the evidence of its pods and nodes.
    async fn observe_groups(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        inventories: &[&LedgerInventory],
        total: &Spread,
        memory: &mut Memory,
    ) -> Vec<GroupStatus> {
        let policy = spec.allocator.policy();
        let with_nodes = match spec.options.availability {
            Availability::Nodes => {
                let tolerations = self.tolerations(distributor, memory).await;
                self.nodes.groups_with_nodes(distributor, spec, &tolerations)
            }
            Availability::Pods => policy.all(),
        };
        let observer = &mut memory.observer;
        let states = if let Some(after) = spec.options.unschedulable_after {
            let mut overdue = HashSet::new();
            for OverduePod { group, pod } in observer.overdue_pods(policy, inventories, after) {
                let namespace = &distributor.namespace;
                if !overdue.contains(&group) && self.claims.are_bound(namespace, &pod.claims).await {
                    overdue.insert(group);
                }
            }
            observer.next(policy, inventories, &distributor.status, total, &overdue, &self.nodes)
        } else {
            // No pod closes a group, but the status says which ones wait for long.
            observer.overdue_pods(policy, inventories, Duration::MAX);
            vec![GroupAvailability::OPEN; policy.groups().len()]
        };
        let restrictions =
            self.namespaces.as_ref().and_then(|namespaces| namespaces.get(&distributor.namespace));
        let excluded =
            restrictions.map(|restrictions| restrictions.excluded_groups(policy)).unwrap_or_default();
        let mut waiting = vec![0; policy.groups().len()];
        for (group, _) in placed_pods(policy, inventories).filter(|(_, pod)| pod.waiting.is_some()) {
            if let Some(count) = waiting.get_mut(group) {
                *count += 1;
            }
        }
        let mut described = Vec::new();
        for (index, ((group, state), waiting)) in policy.groups().iter().zip(&states).zip(waiting).enumerate()
        {
            let mut group_status =
                GroupStatus { waiting: Some(waiting).filter(|pods| *pods > 0), ..GroupStatus::default() };
            let problem = if excluded.contains(index) {
                Some(ClosedReason::ExcludedByNamespace)
            } else {
                (!group.preferred && !with_nodes.contains(index)).then_some(ClosedReason::NoNodes)
            };
            describe_group(state, problem, distributor.status.group(policy, index), &mut group_status);
            described.push(group_status);
        }
        described
    }

    /// Reads the workload, unless an older distributor selects it, too.
    async fn read_target(
        &self,
        distributor: &Distributor,
        older: Option<&Distributor>,
    ) -> (Readiness, Option<Arc<OwnerObject>>) {
        if let Some(older) = older {
            return (Readiness::SupersededByOlder(older.name.clone()), None);
        }
        let target = &distributor.target;
        if target.selector.is_some() {
            return (Readiness::Placing, None);
        }
        let api_version = target.api_version();
        let kind = target.kind();
        let name = target.name();
        let workload = format!("{kind} {name} of {api_version}");
        match self.backend.owners().read_by_name(&distributor.namespace, api_version, kind, name).await {
            Lookup::Found(owner) => (Readiness::Placing, Some(owner)),
            Lookup::NotFound => (Readiness::TargetNotFound(workload), None),
            Lookup::Forbidden => (Readiness::TargetForbidden(workload), None),
            Lookup::Unavailable => (Readiness::TargetUnknown(workload), None),
        }
    }

    /// Finds the pods of the target beyond the `known` ones, and has ledgers take them in.
    async fn find_unknown_pods(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        target: Option<&OwnerObject>,
        known: u32,
    ) -> UncountedPods {
        let created = target.and_then(|target| target.created);
        let unknown = created.map_or(0, |created| created.saturating_sub(known));
        let all = UncountedPods { unplaced: unknown, ..UncountedPods::default() };
        let Some(selector) = target.and_then(|target| target.selector.as_deref()).filter(|_| unknown > 0)
        else {
            return all;
        };
        let namespace = &distributor.namespace;
        let UnplacedPods { unmarked, excluded, placed_by } =
            match self.backend.ledgers().list_unplaced(namespace, selector).await {
                Ok(others) => others,
                Err(error) => {
                    tracing::warn!(
                        namespace,
                        error = describe(&error),
                        "can't list pods that no webhook has placed"
                    );
                    return all;
                }
            };
        let mut unplaced = 0;
        for (owner, pods) in unmarked {
            match self.take_in(distributor, spec, &owner).await {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => {
                    tracing::warn!(
                        namespace,
                        error = describe(&error),
                        "can't take in pods that no webhook has placed"
                    );
                }
            }
            unplaced += pods;
        }
        let unplaced = unplaced.min(unknown.saturating_sub(excluded));
        UncountedPods { unplaced, excluded, placed_by, ..UncountedPods::default() }
    }

    /// Has the ledger take in the pods of this controller, and returns whether the distributor governs them.
    async fn take_in(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        controller: &OwnerReference,
    ) -> kube::Result<bool> {
        let namespace = &distributor.namespace;
        let governing = self.policies.governing(namespace, controller).await;
        let Some((_, chain)) = governing.filter(|(governing, _)| governing.uid == distributor.uid) else {
            return Ok(false);
        };
        let workload = self.backend.owners().workload(WEBHOOK, namespace, &chain, &spec.allocator).await?;
        if let Some(workload) = workload {
            self.backend.ledgers().reconcile(&workload).await?;
        }
        Ok(true)
    }
}

/// The problems of pods beside their shares.
fn find(spec: &ValidSpec, inventories: &[&LedgerInventory], observer: &GroupObserver) -> Findings {
    let after = spec.options.unschedulable_after.unwrap_or(UNSCHEDULABLE_AFTER);
    // A StatefulSet deletes by ordinal, and a Job deletes no pod.
    let by_cost = inventories.iter().filter(|inventory| {
        let owner = &inventory.controller.owner;
        owner.kind != "StatefulSet" && !owner.is_kind("batch", "Job")
    });
    let pods = by_cost.flat_map(|inventory| &inventory.pods);
    let without_cost = pods.filter(|pod| pod.lacks_cost && pod.slot.is_some()).count();
    Findings {
        unschedulable: observer.unschedulable_for(
            spec.allocator.policy(),
            inventories,
            after.saturating_mul(2),
        ),
        without_cost: u32::try_from(without_cost).unwrap_or(u32::MAX),
        unreadable_owner: None,
    }
}

/// The distributor that governs the pods of an inventory, and their chain with its target.
async fn governing_of(
    inventory: &LedgerInventory,
    index: &DistributorIndex,
    chains: &mut ChainCache,
) -> Option<(Arc<Distributor>, OwnerChain)> {
    if let Some(distributor) = index.selecting(&inventory.ledger) {
        let mut chain = OwnerChain::from(None);
        chain.set_selecting(distributor.sequence_owner());
        return Some((Arc::clone(distributor), chain));
    }
    let (mut chain, was_read) = chains.get(inventory).await;
    if !was_read {
        yield_now().await;
    }
    let distributor = index.governing(&inventory.controller.namespace, &chain)?;
    set_target(&distributor, &mut chain);
    Some((distributor, chain))
}

fn count(spec: &ValidSpec, pods: &[OwnedPods]) -> PodCounts {
    let spreads =
        pods.iter().map(|(_, inventory)| (inventory.ledger.clone(), inventory.spread(&spec.allocator)));
    let spreads: Vec<(LedgerId, Spread)> = spreads.collect();
    let mut total = Spread::none(spec.allocator.policy());
    for (_, spread) in &spreads {
        total.add(spread);
    }
    PodCounts { spreads, total }
}

/// The groups to which the successor of an evicted pod goes: they are open or wait for the pod that tries them, replicas know it, and none of
/// their pods waits for a node.
fn receiving_groups(
    published: &PodDistributorStatus,
    spec: &ValidSpec,
    pods: &[OwnedPods],
    groups: &[GroupStatus],
) -> GroupSet {
    let policy = spec.allocator.policy();
    let inventories: Vec<&LedgerInventory> = pods.iter().map(|(_, inventory)| inventory).collect();
    let waiting: GroupSet = placed_pods(policy, &inventories)
        .filter_map(|(group, pod)| pod.waiting.is_some().then_some(group))
        .collect();
    let receives = |status: Option<&GroupStatus>| {
        let wants_probe = |status: &GroupStatus| {
            status.state == Some(GroupState::Probing) && status.probe.as_deref() == Some("")
        };
        status.is_some_and(|status| status.state == Some(GroupState::Open) || wants_probe(status))
    };
    let receiving = groups
        .iter()
        .enumerate()
        .filter(|(index, status)| receives(Some(status)) && receives(published.group(policy, *index)));
    receiving.map(|(index, _)| index).collect::<GroupSet>().difference(waiting)
}

/// Kind and name of the owners of pods, such as the `ReplicaSet`s of a Deployment, and their pods.
fn revisions(pods: &[OwnedPods], spreads: &[(LedgerId, Spread)]) -> Vec<(String, String, Spread)> {
    let revision = |((chain, _), (_, spread)): (&OwnedPods, &(LedgerId, Spread))| {
        let (owner, _) = chain.sequence_owner()?;
        Some((owner.kind.clone(), owner.name.clone(), spread.clone()))
    };
    pods.iter().zip(spreads).filter_map(revision).collect()
}
