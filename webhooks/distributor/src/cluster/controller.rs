//! What the leader does: it looks at every distributor's pods, takes in those that nobody placed, and has the others put right.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper_core::lookup::Lookup;
use podshaper_core::object::key;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_kube::events::Events;
use podshaper_kube::lease::{Leadership, while_leading};
use podshaper_kube::store::Store;
use podshaper_placement::owners::{ChainEnd, OwnerChain, OwnerObject};
use podshaper_placement::policy::GroupSet;
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::{
    Health, InventoryPod, LedgerId, LedgerInventory, Ledgers, OwnerReader, PlacementObject, UnplacedPods,
};
use tokio::time::{Instant, sleep};

use super::evictions::{Evicted, behind};
use super::metrics::Metrics;
use super::nodes::Nodes;
use super::policies::Governed;
use distributor_decision::distributor::{Distributor, ValidSpec, governing};
use distributor_decision::spec::RebalanceMode;
use distributor_decision::status::{Observation, Readiness};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// Without a change a distributor is looked at again after this.
const LONGEST: Duration = Duration::from_secs(30);
/// So many chains of owners are remembered.
const MAX_CHAINS: usize = 16_384;
/// They are read again after this, so many of them in one look: an owner may be orphaned and adopted, and rights be given.
const CHAIN_LASTS: Duration = Duration::from_mins(2);
const CHAINS_AGAIN: usize = 16;

pub(super) struct Controller {
    pub(super) client: Client,
    pub(super) governed: Governed,
    pub(super) distributors: Arc<Store<Distributor>>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) owners: Arc<OwnerReader>,
    pub(super) ledgers: Arc<Ledgers>,
    pub(super) standings: Arc<Store<PlacementObject>>,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Run {
    /// By the namespace and uid of the owner that pods share a sequence by.
    chains: HashMap<LedgerId, Known>,
    /// By the uid of the distributor.
    looks: HashMap<String, Look>,
    /// The ledgers that there are, by the namespace and uid of their owner.
    standings: HashMap<LedgerId, Arc<PlacementObject>>,
}

/// A chain of owners, as it was read.
struct Known {
    at: Instant,
    /// The controller that it begins at.
    from: OwnerReference,
    chain: OwnerChain,
}

/// The last look at one distributor.
struct Look {
    at: Instant,
    /// How many pods without a place were found that no ledger knows.
    unseen: u32,
    /// What was seen: nothing is done where it is the same.
    seen: Seen,
    evicted: Option<Evicted>,
}

/// Pods of a target that the ledgers don't know.
#[derive(Default)]
struct Strangers {
    /// How many nobody has placed.
    unplaced: u32,
    /// How many aren't to be placed.
    elsewhere: u32,
    /// Another webhook that has placed some.
    placed_by: Option<String>,
}

/// Generation, pods by owner, groups with nodes, and the distributor that counts instead.
type Seen = (i64, Vec<(LedgerId, Spread)>, GroupSet, Option<String>);

impl Controller {
    /// Works while this replica leads.
    pub(super) async fn run(self, leadership: Leadership) {
        while_leading(leadership, || self.lead(), |leads| self.metrics.leads(leads)).await;
    }

    async fn lead(&self) {
        let mut run = Run::default();
        loop {
            if self.distributors.filled() && self.nodes.filled() && self.ledgers.filled() {
                self.look(&mut run).await;
            }
            sleep(PERIOD).await;
        }
    }

    /// Looks at everything once.
    async fn look(&self, run: &mut Run) {
        let mut by_distributor = self.sorted(run).await;
        let all = self.distributors.all();
        run.looks.retain(|uid, _| all.iter().any(|(_, distributor)| distributor.uid == *uid));
        run.standings =
            self.standings.all().into_iter().map(|(_, one)| (one.owner.ledger_id(), one)).collect();
        let mut counted = Vec::new();
        for (key, distributor) in all {
            let census = by_distributor.remove(&*key).unwrap_or_default();
            if let Some(spread) = self.one(run, &distributor, &census).await {
                counted.push((distributor, spread));
            }
        }
        self.metrics.counted(&counted);
    }

    /// What is known of pods, by the key of the distributor that governs them.
    async fn sorted(&self, run: &mut Run) -> BTreeMap<String, Vec<(OwnerChain, LedgerInventory)>> {
        let mut sorted: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let mut again = CHAINS_AGAIN;
        for census in self.ledgers.inventory() {
            let namespace = &census.controller.namespace;
            let distributors = self.distributors.in_namespace(namespace);
            if distributors.is_empty() || census.pods.is_empty() {
                continue;
            }
            // Of one that is gone another of its pods tells more.
            let stands = |known: &&Known| {
                known.chain.end() != Some(ChainEnd::Gone) || known.from == census.controller.owner
            };
            let known = run.chains.get(&census.ledger).filter(stands);
            let enough = |known: &&Known| again == 0 || known.at.elapsed() < CHAIN_LASTS;
            let chain = if let Some(known) = known.filter(enough) {
                known.chain.clone()
            } else {
                again -= usize::from(known.is_some());
                self.chain(run, namespace, &census).await
            };
            if let Some(distributor) = governing(&distributors, &chain) {
                let key = key(Some(namespace), &distributor.name);
                sorted.entry(key).or_default().push((chain, census));
            }
        }
        sorted
    }

    async fn chain(&self, run: &mut Run, namespace: &str, census: &LedgerInventory) -> OwnerChain {
        let mut chain = OwnerChain::from(Some(census.controller.owner.clone()));
        self.owners.read_chain(namespace, &mut chain, |_| false).await;
        if chain.end() != Some(ChainEnd::Unknown) {
            if run.chains.len() >= MAX_CHAINS {
                run.chains.clear();
            }
            let from = census.controller.owner.clone();
            run.chains
                .insert(census.ledger.clone(), Known { at: Instant::now(), from, chain: chain.clone() });
        }
        chain
    }

    /// Looks at one distributor, and returns how its pods are spread, if it makes sense.
    async fn one(
        &self,
        run: &mut Run,
        distributor: &Arc<Distributor>,
        census: &[(OwnerChain, LedgerInventory)],
    ) -> Option<Spread> {
        let spec = match &distributor.spec {
            Ok(spec) => spec,
            Err(problem) => {
                self.senseless(distributor, problem).await;
                return None;
            }
        };
        let rivals = self.distributors.in_namespace(&distributor.namespace).into_iter().filter(|other| {
            other.uid != distributor.uid && other.has_target_of(distributor) && other.precedes(distributor)
        });
        let rival = rivals.reduce(|oldest, other| if other.precedes(&oldest) { other } else { oldest });
        let (policy, spreads, with_nodes, stuck) = {
            let allocator = &spec.allocator;
            let spreads: Vec<(LedgerId, Spread)> =
                census.iter().map(|(_, census)| (census.ledger.clone(), census.spread(allocator))).collect();
            let policy = allocator.policy();
            let pods = census.iter().flat_map(|(_, census)| &census.pods);
            let stuck = pods.filter(|pod| is_stuck(pod, spec));
            let stuck = stuck.filter_map(|pod| policy.index(pod.group.as_deref()?)).collect();
            (policy.clone(), spreads, self.nodes.available(policy), stuck)
        };
        let available = with_nodes.without(stuck);
        let mut whole = Spread::none(&policy);
        for (_, spread) in &spreads {
            whole.add(spread);
        }
        let names: Vec<String> = policy.groups().iter().map(|group| group.name.to_string()).collect();
        let seen = (
            distributor.generation,
            spreads.clone(),
            available,
            rival.as_ref().map(|other| other.uid.clone()),
        );
        let before = run.looks.get(&distributor.uid);
        let busy = whole.misplaced() > 0 && spec.fields.rebalance.mode != RebalanceMode::Never;
        let same = before.is_some_and(|look| look.seen == seen);
        if same {
            self.tell_ledgers(run, &spreads).await;
        }
        if let Some(look) = before.filter(|look| same && !busy && look.at.elapsed() < LONGEST) {
            whole.unplaced += look.unseen;
            return Some(whole);
        }
        let evicted = before.and_then(|look| look.evicted.clone());
        let mut evicted = evicted.filter(|evicted| evicted.counts(whole.misplaced()));
        let (mut readiness, target) = match rival {
            None => self.target(distributor).await,
            Some(rival) => (Readiness::SupersededByOlder(rival.name.clone()), None),
        };
        let known = whole.placed() + whole.unplaced;
        let (replicas, created) =
            target.as_ref().map_or((None, None), |target| (target.pods, target.created));
        let unknown = created.map_or(0, |created| created.saturating_sub(known));
        let mut strangers = Strangers { unplaced: unknown, ..Strangers::default() };
        if let Some(selector) = target.and_then(|target| target.selector.clone()).filter(|_| unknown > 0) {
            strangers = self.adopt(distributor, spec, &selector).await.unwrap_or(strangers);
        }
        let unseen = strangers.unplaced.min(unknown.saturating_sub(strangers.elsewhere));
        whole.unplaced += unseen;
        if let Some(webhook) = strangers.placed_by {
            readiness = Readiness::SupersededByWebhook(webhook);
        }
        if let ([(chain, one)], true, Some(replicas)) = (census, busy, replicas) {
            // What runs to its end isn't begun anew elsewhere.
            let ends = chain.controller().is_some_and(|(owner, _)| owner.is_kind("batch", "Job"));
            let settled = one.reserved == 0 && known + strangers.elsewhere == replicas && !ends;
            let rebalance = &spec.fields.rebalance;
            let behind = behind(distributor, rebalance, &names, &whole, available);
            if settled && !behind.is_empty() {
                self.rebalance(distributor, spec, one, &whole, behind, &mut evicted).await;
            }
        }
        let revisions = census.iter().zip(&spreads);
        let revisions = revisions.filter_map(|((chain, _), (_, spread))| {
            let (owner, _) = chain.sequence_owner()?;
            Some((owner.kind.clone(), owner.name.clone(), spread.clone()))
        });
        let revisions = revisions.collect();
        let held = evicted.as_ref().and_then(Evicted::held);
        let observation = Observation {
            readiness,
            replicas,
            total: whole.clone(),
            revisions,
            available,
            unschedulable: with_nodes.without(available),
            rebalance_held: held,
        };
        let now = format!("{:.0}", Timestamp::now());
        let status = distributor.status.observed(distributor.generation, &policy, &observation, &now);
        self.write(distributor, status, spec).await;
        let look = Look { at: Instant::now(), unseen, seen, evicted };
        run.looks.insert(distributor.uid.clone(), look);
        Some(whole)
    }

    /// The workload, and whether its pods are placed.
    async fn target(&self, distributor: &Distributor) -> (Readiness, Option<Arc<OwnerObject>>) {
        let (api_version, kind) = (distributor.target.api_version(), &distributor.target.kind);
        let name = &distributor.target.name;
        let workload = format!("{kind} {name} of {api_version}");
        match self.owners.read_by_name(&distributor.namespace, api_version, kind, name).await {
            Lookup::Found(owner) => (Readiness::Placing, Some(owner)),
            Lookup::NotFound => (Readiness::TargetNotFound(workload), None),
            Lookup::Forbidden => (Readiness::TargetForbidden(workload), None),
            Lookup::Unavailable => (Readiness::TargetUnknown(workload), None),
        }
    }

    /// Writes into ledgers, for people, how the pods are spread that they are about; not while that changes.
    async fn tell_ledgers(&self, run: &Run, spreads: &[(LedgerId, Spread)]) {
        for (ledger, spread) in spreads {
            if let Some(standing) = run.standings.get(ledger) {
                self.ledgers.patch_status(standing, spread).await;
            }
        }
    }

    /// Takes in pods of the target that no webhook has seen, and returns what was found; none where they can't be listed now.
    async fn adopt(&self, distributor: &Distributor, spec: &ValidSpec, selector: &str) -> Option<Strangers> {
        let namespace = &distributor.namespace;
        let others = self.ledgers.list_unplaced(namespace, selector).await;
        let others = others.inspect_err(|error| {
            tracing::warn!(namespace, %error, "can't list pods that nobody placed");
        });
        let UnplacedPods { unmarked, excluded: elsewhere, placed_by } = others.ok()?;
        let mut unplaced = 0;
        for (owner, pods) in unmarked {
            match self.take_in(distributor, spec, &owner).await {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => tracing::warn!(namespace, %error, "can't take in pods that nobody placed"),
            }
            unplaced += pods;
        }
        Some(Strangers { unplaced, elsewhere, placed_by })
    }

    /// Takes in the pods of this controller, if the distributor governs them.
    async fn take_in(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        controller: &OwnerReference,
    ) -> kube::Result<bool> {
        let namespace = &distributor.namespace;
        let governing = self.governed.of(namespace, controller).await;
        let Some((_, chain)) = governing.filter(|(governing, _)| governing.uid == distributor.uid) else {
            return Ok(false);
        };
        if let Some(workload) = self.owners.workload(distributor_decision::WEBHOOK, namespace, &chain).await?
        {
            self.ledgers.reconcile(&Arc::new(workload), &spec.allocator).await?;
        }
        Ok(true)
    }
}

/// Whether no node has taken the pod for longer than its distributor has patience.
fn is_stuck(pod: &InventoryPod, spec: &ValidSpec) -> bool {
    let (Some(after), Health::Unschedulable(since)) = (spec.unschedulable_after, pod.health) else {
        return false;
    };
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    u64::try_from(since).is_ok_and(|since| since.saturating_add(after.as_secs()) <= now)
}
