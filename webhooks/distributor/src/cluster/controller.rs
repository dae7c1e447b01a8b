//! What the leader does: it counts, writes status, takes in pods that nobody placed, and rebalances.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper::api_server::{Media, send};
use podshaper::cluster::ledgers::{
    Census, Counted, Health, LedgerId, Ledgers, Others, Standing as LedgerStanding,
};
use podshaper::cluster::owners::Owners;
use podshaper::cluster::{Events, Leadership, Note, Regarding, Store, key};
use podshaper::placement::distribution::{Rebalance, RebalanceMode, Target, WhenUnavailable};
use podshaper::placement::owners::{Chain, End, Looked, OwnerRef};
use podshaper::placement::policy::GroupSet;
use podshaper::placement::rules::locked;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::metrics::Metrics;
use super::nodes::Nodes;
use super::policies::Governed;
use super::status::{Standing, State, stands, status, was_recovering};
use crate::distributor::{Distributor, GROUP, KIND, PLURAL, Plan, VERSION, governing};
use crate::rebalance::{Placed, surplus};
use podshaper::placement::spread::Spread;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// Without a change a distributor is looked at again after this.
const LONGEST: Duration = Duration::from_secs(30);
/// Between two evictions for a distributor.
const PAUSE: Duration = Duration::from_secs(5);
/// Where evictions changed nothing, none is tried for so long.
const HOLD: Duration = Duration::from_mins(10);
/// So many chains of owners are remembered.
const MAX_CHAINS: usize = 16_384;

pub(super) struct Controller {
    pub(super) client: Client,
    pub(super) governed: Governed,
    pub(super) distributors: Arc<Store<Distributor>>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) owners: Arc<Owners>,
    pub(super) ledgers: Arc<Ledgers>,
    pub(super) standings: Arc<Store<LedgerStanding>>,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Run {
    /// By the namespace and uid of the owner that pods share a sequence by. Whose an owner is doesn't change.
    chains: HashMap<LedgerId, Chain>,
    /// By the uid of the distributor.
    looks: HashMap<String, Look>,
    /// The ledgers that there are, by the namespace and uid of their owner.
    standings: HashMap<LedgerId, Arc<LedgerStanding>>,
}

/// The last look at one distributor.
struct Look {
    at: Instant,
    /// What was seen: nothing is done where it is the same.
    seen: Seen,
    evicted: Option<Evicted>,
}

/// Generation, pods by owner, groups with nodes, and the distributor that counts instead.
type Seen = (i64, Vec<(LedgerId, Spread)>, GroupSet, Option<String>);

/// The last evictions for one distributor.
#[derive(Clone)]
struct Evicted {
    at: Instant,
    /// How many pods weren't where they belong.
    misplaced: u32,
    /// Why no more are tried, and since when.
    held: Option<(String, Instant)>,
}

impl Controller {
    /// Works while this replica leads.
    pub(super) async fn run(self, mut leadership: Leadership) {
        loop {
            if leadership.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            self.metrics.leads(true);
            tokio::select! {
                () = self.lead() => {},
                _ = leadership.wait_for(|leads| !*leads) => {},
            }
            self.metrics.leads(false);
        }
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
        run.standings = self.standings.all().into_iter().map(|(_, one)| (one.ledger(), one)).collect();
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
    async fn sorted(&self, run: &mut Run) -> BTreeMap<String, Vec<(Chain, Census)>> {
        let mut sorted: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for census in self.ledgers.census() {
            let namespace = &census.origin.namespace;
            let distributors = self.distributors.in_namespace(namespace);
            if distributors.is_empty() || census.pods.is_empty() {
                continue;
            }
            let chain = match run.chains.get(&census.ledger) {
                Some(chain) => chain.clone(),
                None => self.chain(run, namespace, &census).await,
            };
            if let Some(distributor) = governing(&distributors, &chain) {
                let key = key(Some(namespace), &distributor.name);
                sorted.entry(key).or_default().push((chain, census));
            }
        }
        sorted
    }

    async fn chain(&self, run: &mut Run, namespace: &str, census: &Census) -> Chain {
        let mut chain = Chain::from(Some(census.origin.controller.clone()));
        self.owners.climb(namespace, &mut chain, |_| false).await;
        if chain.end() != Some(End::Unknown) {
            if run.chains.len() >= MAX_CHAINS {
                run.chains.clear();
            }
            run.chains.insert(census.ledger.clone(), chain.clone());
        }
        chain
    }

    /// Looks at one distributor, and returns how its pods are spread, if it makes sense.
    async fn one(
        &self,
        run: &mut Run,
        distributor: &Arc<Distributor>,
        census: &[(Chain, Census)],
    ) -> Option<Spread> {
        let plan = match &distributor.plan {
            Ok(plan) => plan,
            Err(problem) => {
                self.senseless(distributor, problem).await;
                return None;
            }
        };
        let rival = self.distributors.in_namespace(&distributor.namespace).into_iter().find(|other| {
            other.uid != distributor.uid && other.rivals(distributor) && other.precedes(distributor)
        });
        let (policy, spreads, available) = {
            let mut rules = locked(&plan.rules);
            let spreads: Vec<(LedgerId, Spread)> =
                census.iter().map(|(_, census)| (census.ledger.clone(), census.spread(&mut rules))).collect();
            let policy = rules.policy();
            let pods = census.iter().flat_map(|(_, census)| &census.pods);
            let stuck = pods.filter(|pod| is_stuck(pod, plan));
            let stuck = stuck.filter_map(|pod| policy.index(pod.group.as_deref()?)).collect();
            (policy.clone(), spreads, self.nodes.available(policy).without(stuck))
        };
        let mut whole = Spread::none(&policy);
        for (_, spread) in &spreads {
            whole.add(spread);
        }
        let names: Vec<String> = policy.groups().iter().map(|group| group.name.to_string()).collect();
        let counted = whole.clone();
        let seen = (
            distributor.generation,
            spreads.clone(),
            available,
            rival.as_ref().map(|other| other.uid.clone()),
        );
        let before = run.looks.get(&distributor.uid);
        let busy = whole.misplaced() > 0 && plan.distribution.rebalance.mode != RebalanceMode::Never;
        let same = before.is_some_and(|look| look.seen == seen);
        if same {
            self.tell_ledgers(run, &spreads).await;
        }
        if same && !busy && before.is_some_and(|look| look.at.elapsed() < LONGEST) {
            return Some(counted);
        }
        let mut evicted = before.and_then(|look| look.evicted.clone());
        let Target { api_version, kind, name } = &distributor.target;
        let target = self.owners.find(&distributor.namespace, api_version, kind, name).await;
        let workload = format!("{kind} {name}");
        let (mut standing, target) = match (rival, target) {
            (Some(rival), _) => {
                (Standing::Superseded(format!("PodDistributor {}, which is older,", rival.name)), None)
            }
            (None, Looked::Object(owner)) => (Standing::Placing, Some(owner)),
            (None, Looked::Nothing) => (Standing::TargetNotFound(workload), None),
            (None, Looked::Forbidden) => (Standing::TargetForbidden(workload), None),
            (None, Looked::Unknown) => (Standing::TargetUnknown(workload), None),
        };
        let known = whole.placed() + whole.unplaced;
        let (replicas, created) =
            target.as_ref().map_or((None, None), |target| (target.pods, target.created));
        if let Some(unknown) = created.and_then(|created| created.checked_sub(known)) {
            whole.unplaced += unknown;
            let selector = target.as_ref().and_then(|target| target.selector.clone());
            if let Some(selector) = selector.filter(|_| unknown > 0) {
                let placed_by = self.adopt(distributor, plan, &selector).await;
                standing = placed_by.map_or(standing, Standing::Superseded);
            }
        }
        if let ([(_, one)], true, Some(replicas)) = (census, busy, replicas) {
            let settled = one.reserved == 0 && known == replicas && whole.unplaced == 0;
            let rebalance = &plan.distribution.rebalance;
            let behind = behind(distributor, rebalance, &names, &whole, available);
            if settled && !behind.is_empty() {
                self.rebalance(distributor, plan, one, &whole, behind, &mut evicted).await;
            }
        }
        let revisions = census.iter().zip(&spreads);
        let revisions = revisions.filter_map(|((chain, _), (_, spread))| {
            let (owner, _) = chain.sharer()?;
            Some((owner.kind.clone(), owner.name.clone(), spread.clone()))
        });
        let revisions = revisions.collect();
        let held = evicted.as_ref().and_then(|evicted| Some(evicted.held.as_ref()?.0.clone()));
        let state = State { standing, replicas, whole, revisions, available, held };
        self.write(distributor, status(distributor, &policy, &state), plan).await;
        run.looks.insert(distributor.uid.clone(), Look { at: Instant::now(), seen, evicted });
        Some(counted)
    }

    /// Writes into ledgers, for people, how the pods are spread that they are about; not while that changes.
    async fn tell_ledgers(&self, run: &Run, spreads: &[(LedgerId, Spread)]) {
        for (ledger, spread) in spreads {
            if let Some(standing) = run.standings.get(ledger) {
                self.ledgers.tell(standing, spread).await;
            }
        }
    }

    /// Takes in pods of the target that no webhook has seen, and returns which other webhook has placed some.
    async fn adopt(&self, distributor: &Distributor, plan: &Plan, selector: &str) -> Option<String> {
        let namespace = &distributor.namespace;
        let others = self.ledgers.others(namespace, selector).await;
        let others = others.inspect_err(|error| {
            tracing::warn!(namespace, %error, "can't list pods that nobody placed");
        });
        let Others { unmarked, placed_by } = others.ok()?;
        for owner in unmarked {
            if let Err(error) = self.take_in(distributor, plan, owner).await {
                tracing::warn!(namespace, %error, "can't take in pods that nobody placed");
            }
        }
        placed_by
    }

    async fn take_in(&self, distributor: &Distributor, plan: &Plan, owner: OwnerRef) -> kube::Result<()> {
        let namespace = &distributor.namespace;
        let Some((governing, chain)) = self.governed.of(namespace, &owner).await else { return Ok(()) };
        if governing.uid != distributor.uid {
            return Ok(());
        }
        match self.owners.workload(crate::WEBHOOK, namespace, &chain).await? {
            Some(workload) => self.ledgers.tend(&Arc::new(workload), &plan.rules).await,
            None => Ok(()),
        }
    }

    /// Evicts some pods of groups that have too many.
    async fn rebalance(
        &self,
        distributor: &Distributor,
        plan: &Plan,
        census: &Census,
        spread: &Spread,
        behind: GroupSet,
        evicted: &mut Option<Evicted>,
    ) {
        let pods = spread.placed();
        let unready: u32 = spread.groups.iter().map(|tally| tally.pending).sum();
        let allowed =
            plan.distribution.rebalance.max_unavailable.as_ref().map_or(Some(1), |max| max.of(pods));
        let budget = allowed.unwrap_or(1).saturating_sub(unready) as usize;
        if let Some(before) = evicted {
            if before.at.elapsed() < PAUSE {
                return;
            }
            match &before.held {
                Some((_, since)) if since.elapsed() < HOLD => return,
                Some(_) => before.held = None,
                // All are back, and it is as it was.
                None if unready == 0 && spread.misplaced() >= before.misplaced => {
                    let why = "evicting pods didn't help, so none is evicted for ten minutes".to_owned();
                    before.held = Some((why, Instant::now()));
                    return;
                }
                None => {}
            }
        }
        let names: Vec<String> = {
            let mut rules = locked(&plan.rules);
            let placed = |pod: &'_ Counted| -> Option<(usize, u32)> {
                Some((rules.policy().index(pod.group.as_deref()?)?, pod.slot?))
            };
            let ready = census.pods.iter().filter(|pod| pod.health == Health::Ready);
            let placed = ready.filter_map(|pod| {
                let (group, slot) = placed(pod)?;
                Some(Placed { name: &pod.name, slot, group })
            });
            let placed = placed.collect();
            surplus(placed, spread, &mut rules, behind).into_iter().take(budget).map(str::to_owned).collect()
        };
        for pod in names {
            let refused = match self.evict(&distributor.namespace, &pod).await {
                Ok(()) => {
                    *evicted =
                        Some(Evicted { at: Instant::now(), misplaced: spread.misplaced(), held: None });
                    None
                }
                Err(kube::Error::Api(status)) => Some(status.message.clone()),
                Err(error) => Some(error.to_string()),
            };
            let warning = refused.is_some();
            let message = match refused {
                None => format!("evicted {pod}, so that its place goes to a group that has too few"),
                Some(reason) => format!("can't evict {pod}: {reason}"),
            };
            tracing::info!(distributor = distributor.name, message, "rebalance");
            self.metrics.evicted(!warning);
            self.note(distributor, warning, "Rebalance", message);
            if warning {
                // Who refuses one, such as a disruption budget, refuses the others too: they are tried again after the pause.
                let now = Instant::now();
                evicted.get_or_insert(Evicted { at: now, misplaced: u32::MAX, held: None }).at = now;
                return;
            }
        }
    }

    async fn evict(&self, namespace: &str, pod: &str) -> kube::Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": pod},
        });
        send(&self.client, "POST", &path, Media::Json, &eviction).await.map(drop)
    }

    /// Of a distributor without a policy there is nothing to count.
    async fn senseless(&self, distributor: &Distributor, problem: &str) {
        let before = stands(&distributor.status, "Ready");
        if before.is_some_and(|before| before["message"] == problem) {
            return;
        }
        let since = format!("{:.0}", Timestamp::now());
        let condition = json!({
            "type": "Ready", "status": "False", "observedGeneration": distributor.generation, "lastTransitionTime": since,
            "reason": "Invalid", "message": problem,
        });
        self.put(
            distributor,
            &json!({"observedGeneration": distributor.generation, "conditions": [condition]}),
        )
        .await;
        self.note(distributor, true, "Invalid", problem.to_owned());
    }

    /// Writes the status, where it has changed, and tells of what is new in it.
    async fn write(&self, distributor: &Distributor, status: Value, plan: &Plan) {
        if status == distributor.status {
            return;
        }
        self.put(distributor, &status).await;
        for (kind, good) in [("Ready", "True"), ("Available", "True")] {
            let (before, after) = (stands(&distributor.status, kind), stands(&status, kind));
            let Some(after) = after else { continue };
            let news = before.map_or(after["status"] != good, |before| before["status"] != after["status"]);
            if news {
                let text = |field: &str| after[field].as_str().unwrap_or_default();
                let lent = plan.distribution.when_unavailable == WhenUnavailable::UseOthers;
                let what = match (kind, after["status"] == good) {
                    ("Available", false) if lent => "; new pods go to the other groups meanwhile",
                    ("Available", false) => "; its new pods wait",
                    _ => "",
                };
                let reason = match (kind, after["status"] == good) {
                    ("Ready", true) => "Ready",
                    ("Ready", false) => "NotReady",
                    (_, true) => "GroupsAvailable",
                    (_, false) => "GroupUnavailable",
                };
                self.note(distributor, after["status"] != good, reason, format!("{}{what}", text("message")));
            }
        }
    }

    async fn put(&self, distributor: &Distributor, status: &Value) {
        let Distributor { namespace, name, .. } = distributor;
        let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status");
        let body = json!({"status": status});
        if let Err(error) = send(&self.client, "PATCH", &path, Media::MergePatch, &body).await {
            tracing::warn!(namespace, name, %error, "can't write the status, trying again");
        }
    }

    fn note(&self, distributor: &Distributor, warning: bool, reason: &'static str, message: String) {
        let regarding = Regarding {
            api_version: "versprei.versprei.io/v1beta1".into(),
            kind: KIND.into(),
            namespace: distributor.namespace.clone(),
            name: distributor.name.clone(),
            uid: distributor.uid.clone(),
        };
        self.events.send(Note { regarding, warning, reason, action: "Distribute", message });
    }
}

/// Whether no node has taken the pod for longer than its distributor has patience.
fn is_stuck(pod: &Counted, plan: &Plan) -> bool {
    let (Some(after), Health::Unschedulable(since)) = (plan.unschedulable_after, pod.health) else {
        return false;
    };
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
    u64::try_from(since).is_ok_and(|since| since.saturating_add(after.as_secs()) <= now)
}

/// The groups with too few pods that are to get their own back.
fn behind(
    distributor: &Distributor,
    rebalance: &Rebalance,
    names: &[String],
    spread: &Spread,
    available: GroupSet,
) -> GroupSet {
    let due = |index: usize, name: &str| match rebalance.mode {
        RebalanceMode::Never => false,
        RebalanceMode::OnRecovery => was_recovering(distributor, name) && available.contains(index),
        RebalanceMode::Always => available.contains(index),
    };
    let few = |index: usize| spread.groups.get(index).is_some_and(|tally| tally.deviation() < 0);
    names
        .iter()
        .enumerate()
        .filter(|(index, name)| few(*index) && due(*index, name))
        .map(|(index, _)| index)
        .collect()
}
