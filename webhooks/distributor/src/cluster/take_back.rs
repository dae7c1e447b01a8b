//! Evictions of pods that wait for nodes of a closed group, so that the pods that replace them go to groups that are open.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use podshaper_core::object::Lookup;
use podshaper_kube::error::describe;
use podshaper_placement::ledger::{PodName, ResourceVersion};
use podshaper_placement::pod_object::WaitingPod;
use podshaper_placement::policy::{GroupSet, Policy};
use podshaper_placement_kube::{InventoryPod, LedgerId, LedgerInventory, OwnerReader};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::claims::Claims;
use super::eviction::{EvictionLog, EvictionSettings, evict};
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::spec::TakeBack;
use distributor_decision::status::{GroupState, GroupStatus};
use distributor_decision::take_back::{KeptReason, Replacement, WaitingFacts, kept, kept_by_pod, select};

/// Evictions within a minute: of one distributor, and of all.
const PER_DISTRIBUTOR: usize = 20;
const IN_ALL: usize = 120;
const WINDOW: Duration = Duration::from_mins(1);
/// How long the state of a group must have been published, so that all replicas admit pods by it.
const SETTLE: Duration = Duration::from_secs(5);
/// How long after an eviction a new pod of the same owner in the same closed group counts as the successor.
const SUCCESSOR: Duration = Duration::from_mins(1);
/// How long no pod is evicted after a successor has returned to the closed group.
const HOLD: Duration = Duration::from_mins(10);
/// How long the template of a controller counts, and templates that are kept.
const FRESH: Duration = Duration::from_mins(1);
const MAX_TEMPLATES: usize = 4096;
/// Reads of controllers in one reconciliation of a distributor. The other pods wait for the next one.
const MAX_READS: usize = 16;

/// Takes waiting pods back.
pub(super) struct TakeBacks {
    client: Client,
    owners: Arc<OwnerReader>,
    claims: Arc<Claims>,
    settings: EvictionSettings,
    results: Family<TakeBackLabels, Counter>,
    templates: Mutex<HashMap<TemplateKey, (Instant, TemplateFacts)>>,
    sent: Mutex<VecDeque<Instant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TakeBackLabels {
    result: &'static str,
}

/// Uid and generation of a distributor, and the uid of a controller.
type TemplateKey = (String, i64, String);

/// The facts about the controller of a pod.
#[derive(Clone, Copy)]
struct TemplateFacts {
    replacement: Option<Replacement>,
    fitting: GroupSet,
}

/// A pod that may be taken back.
pub(super) struct Candidate {
    distributor: Arc<Distributor>,
    ledger: LedgerId,
    group: usize,
    name: PodName,
    pod: Arc<WaitingPod>,
    version: ResourceVersion,
}

/// The evictions of one distributor.
#[derive(Default)]
pub(super) struct TakeBackHistory {
    /// The pods that had no node at the last look, by uid.
    known: HashSet<Box<str>>,
    /// When a pod of this ledger and group was evicted.
    evicted: Vec<(Instant, LedgerId, usize)>,
    sent: VecDeque<Instant>,
    held_since: Option<Instant>,
    /// When this leader first saw each group closed in the published status.
    closed_since: HashMap<usize, Instant>,
}

impl TakeBackHistory {
    /// Observes the pods without a node and the groups that the published status shows as closed.
    pub(super) fn observe(
        &mut self,
        pods: &[(LedgerId, usize, Arc<WaitingPod>)],
        closed: impl Fn(usize) -> bool,
    ) {
        self.evicted.retain(|(at, ..)| at.elapsed() < SUCCESSOR);
        for (ledger, group, pod) in pods.iter().filter(|(_, group, _)| closed(*group)) {
            let has_returned = self.evicted.iter().any(|(_, of, from)| of == ledger && from == group);
            if has_returned && !self.known.contains(&*pod.uid) {
                self.held_since = Some(Instant::now());
            }
        }
        self.known = pods.iter().map(|(.., pod)| pod.uid.as_str().into()).collect();
        self.closed_since.retain(|group, _| closed(*group));
        for (_, group, _) in pods.iter().filter(|(_, group, _)| closed(*group)) {
            self.closed_since.entry(*group).or_insert_with(Instant::now);
        }
        if self.held_since.is_some_and(|since| since.elapsed() >= HOLD) {
            self.held_since = None;
        }
    }

    fn may_take_from(&self, group: usize) -> bool {
        self.held_since.is_none()
            && self.closed_since.get(&group).is_some_and(|since| since.elapsed() >= SETTLE)
    }

    /// Why no pod is taken back, if so.
    pub(super) fn held(&self) -> Option<String> {
        self.held_since.map(|_| {
            "a pod that replaced one that was taken back waits for the same group, so none is taken back for ten minutes".to_owned()
        })
    }
}

/// The pods with a slot that have no node, each with its ledger and its group.
fn waiting_pods<'i>(
    inventories: &[&'i LedgerInventory],
    policy: &Policy,
) -> Vec<(LedgerId, usize, Arc<WaitingPod>, &'i InventoryPod)> {
    let mut waiting = Vec::new();
    for inventory in inventories {
        for pod in inventory.pods.iter().filter(|pod| pod.slot.is_some()) {
            let group = pod.group.as_deref().and_then(|group| policy.index(group));
            if let (Some(group), Some(waits)) = (group, &pod.waiting) {
                waiting.push((inventory.ledger.clone(), group, Arc::clone(waits), pod));
            }
        }
    }
    waiting
}

fn is_closed(group: &GroupStatus) -> bool {
    group.is_closed() && group.state == Some(GroupState::Closed)
}

/// Removes what is older than the window, and returns how many more may be sent.
fn left(sent: &mut VecDeque<Instant>, most: usize) -> usize {
    while sent.front().is_some_and(|at| at.elapsed() >= WINDOW) {
        sent.pop_front();
    }
    most.saturating_sub(sent.len())
}

impl TakeBacks {
    pub(super) fn new(
        client: Client,
        owners: Arc<OwnerReader>,
        claims: Arc<Claims>,
        settings: EvictionSettings,
        registry: &mut Registry,
    ) -> Self {
        let results = Family::default();
        registry.register(
            "distributor_take_backs",
            "Evictions of pods that waited for nodes of a closed group, by result: evicted or refused",
            results.clone(),
        );
        let templates = Mutex::default();
        let sent = Mutex::default();
        Self { client, owners, claims, settings, results, templates, sent }
    }

    /// Finds the waiting pods of closed groups that may be taken back, and counts the others in the statuses of the groups, by reason.
    pub(super) async fn candidates(
        &self,
        distributor: &Arc<Distributor>,
        spec: &ValidSpec,
        inventories: &[&LedgerInventory],
        groups: &mut [GroupStatus],
        history: &mut TakeBackHistory,
    ) -> Vec<Candidate> {
        let policy = spec.allocator.policy();
        let waiting = waiting_pods(inventories, policy);
        let closed = |index: usize| {
            let published = distributor.status.group(policy, index);
            groups.get(index).is_some_and(is_closed) && published.is_some_and(is_closed)
        };
        let closed: GroupSet = (0..policy.groups().len()).filter(|index| closed(*index)).collect();
        let pods: Vec<_> = waiting
            .iter()
            .map(|(ledger, group, waits, _)| (ledger.clone(), *group, Arc::clone(waits)))
            .collect();
        history.observe(&pods, |group| closed.contains(group));
        let open: GroupSet = (0..policy.groups().len())
            .filter(|index| groups.get(*index).is_some_and(|group| group.state == Some(GroupState::Open)))
            .collect();
        // If all groups are closed, all count as open: the pods wait in their groups.
        if open.is_empty() || closed.is_empty() {
            return Vec::new();
        }
        let mut candidates = Vec::new();
        let mut reads = MAX_READS;
        for (ledger, group, pod, listed) in waiting {
            if !closed.contains(group) {
                continue;
            }
            match self.kept(distributor, spec, &pod, open, &mut reads).await {
                Some(Some(reason)) => {
                    if let Some(status) = groups.get_mut(group) {
                        let kept = status.not_taken_back.get_or_insert_with(BTreeMap::new);
                        *kept.entry(reason.name().to_owned()).or_default() += 1;
                    }
                }
                Some(None) if history.may_take_from(group) => candidates.push(Candidate {
                    distributor: Arc::clone(distributor),
                    ledger,
                    group,
                    name: Arc::clone(&listed.name),
                    pod,
                    version: listed.version,
                }),
                Some(None) | None => {}
            }
        }
        candidates
    }

    /// Why a pod is not taken back; `None` if that needs more reads than are left.
    async fn kept(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        pod: &WaitingPod,
        open: GroupSet,
        reads: &mut usize,
    ) -> Option<Option<KeptReason>> {
        let take_back = spec.options.take_back;
        if take_back == TakeBack::Never || !self.settings.enabled {
            return Some(Some(KeptReason::Disabled));
        }
        if self.settings.excluded_namespaces.contains(&distributor.namespace) {
            return Some(Some(KeptReason::ExcludedNamespace));
        }
        if let Some(reason) = kept_by_pod(pod) {
            return Some(Some(reason));
        }
        let template = self.template(distributor, spec, pod, reads).await?;
        let claims = self.claims.state(&distributor.namespace, &pod.claims).await;
        let facts = WaitingFacts { replacement: template.replacement, claims, fitting: template.fitting };
        Some(kept(&facts, take_back, open))
    }

    async fn template(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        pod: &WaitingPod,
        reads: &mut usize,
    ) -> Option<TemplateFacts> {
        let policy = spec.allocator.policy();
        // Nothing replaces a pod without a controller.
        let Some(owner) = &pod.controller else {
            return Some(TemplateFacts { replacement: Some(Replacement::Unknown), fitting: policy.all() });
        };
        let key = (distributor.uid.clone(), distributor.generation, owner.uid.clone());
        {
            let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
            if templates.len() >= MAX_TEMPLATES {
                templates.retain(|_, (at, _)| at.elapsed() < FRESH);
            }
            if let Some((_, facts)) = templates.get(&key).filter(|(at, _)| at.elapsed() < FRESH) {
                return Some(*facts);
            }
        }
        *reads = reads.checked_sub(1)?;
        let facts = match self.owners.read_template(&distributor.namespace, owner).await {
            Lookup::Found(template) => {
                let built_in = Replacement::of_built_in(owner, template.ignores_disruptions());
                let replaces = self.settings.replacing.contains(&template.resource);
                let custom = if replaces { Replacement::Replaced } else { Replacement::Unknown };
                TemplateFacts {
                    replacement: Some(built_in.unwrap_or(custom)),
                    fitting: template.fitting_groups(policy),
                }
            }
            Lookup::NotFound | Lookup::Forbidden | Lookup::Unavailable => TemplateFacts {
                // A controller of a known kind that harms its pods is named as such.
                replacement: Replacement::of_built_in(owner, false)
                    .filter(|replacement| *replacement != Replacement::Replaced),
                fitting: policy.all(),
            },
        };
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if templates.len() < MAX_TEMPLATES {
            templates.insert(key, (Instant::now(), facts));
        }
        Some(facts)
    }

    /// Evicts as many of the candidates as the rates allow, in a fair order over namespaces. `memory` has what is known of a distributor, by uid,
    /// and `histories` its evictions.
    pub(super) async fn run<M>(
        &self,
        candidates: Vec<Candidate>,
        memory: &mut HashMap<String, M>,
        histories: impl Fn(&mut M) -> (&mut TakeBackHistory, &mut EvictionLog),
    ) {
        let most = left(&mut self.sent.lock().unwrap_or_else(PoisonError::into_inner), IN_ALL);
        let mut budgets: HashMap<String, usize> = HashMap::new();
        for candidate in &candidates {
            let uid = &candidate.distributor.uid;
            if let Some(memory) = memory.get_mut(uid).filter(|_| !budgets.contains_key(uid)) {
                budgets.insert(uid.clone(), left(&mut histories(memory).0.sent, PER_DISTRIBUTOR));
            }
        }
        let allows = |candidate: &Candidate| {
            let budget = budgets.get_mut(&candidate.distributor.uid).filter(|left| **left > 0);
            budget.map(|left| *left -= 1).is_some()
        };
        let selected = select(candidates, |candidate| &candidate.distributor.namespace, most, allows);
        for candidate in selected {
            if let Some(memory) = memory.get_mut(&candidate.distributor.uid) {
                let (history, log) = histories(memory);
                self.take_back(candidate, history, log).await;
            }
        }
    }

    async fn take_back(&self, candidate: Candidate, history: &mut TakeBackHistory, log: &mut EvictionLog) {
        let Candidate { distributor, ledger, group, name, pod, version } = candidate;
        let namespace = &distributor.namespace;
        let now = Instant::now();
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push_back(now);
        history.sent.push_back(now);
        let (result, message) = match evict(&self.client, namespace, &name, Some(&pod.uid), version).await {
            Ok(()) => {
                history.evicted.push((now, ledger, group));
                ("evicted", format!("took back {name}, which waited for a closed group"))
            }
            // It has changed or is gone: the next look decides anew.
            Err(kube::Error::Api(failure)) if matches!(failure.code, 404 | 409) => return,
            Err(error) => ("refused", format!("cannot take back {name}: {}", describe(&error))),
        };
        tracing::info!(namespace, distributor = distributor.name, message, "take back");
        self.results.get_or_create(&TakeBackLabels { result }).inc();
        log.add("TakeBack", result == "refused", message);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn pod(uid: &str) -> (LedgerId, usize, Arc<WaitingPod>) {
        let pod = WaitingPod { uid: uid.to_owned(), ..WaitingPod::default() };
        (LedgerId::new("shop", "web"), 1, Arc::new(pod))
    }

    #[tokio::test(start_paused = true)]
    async fn successor_in_the_same_closed_group_stops_taking_back() {
        let mut history = TakeBackHistory::default();
        history.observe(&[pod("a"), pod("b")], |_| true);
        assert!(!history.may_take_from(1), "not every replica knows yet that the group is closed");
        advance(SETTLE).await;
        assert!(history.may_take_from(1) && !history.may_take_from(0));
        history.evicted.push((Instant::now(), LedgerId::new("shop", "web"), 1));
        history.observe(&[pod("b")], |_| true);
        assert!(history.held().is_none(), "the pod was known before");
        history.observe(&[pod("b"), pod("c")], |_| true);
        assert!(history.held().is_some() && !history.may_take_from(1));
        advance(HOLD).await;
        history.observe(&[pod("b"), pod("c")], |_| true);
        assert!(history.held().is_none() && history.may_take_from(1));
    }

    #[tokio::test(start_paused = true)]
    async fn rate_counts_the_last_minute() {
        let mut sent: VecDeque<Instant> = [Instant::now(); 3].into();
        assert_eq!(left(&mut sent, 5), 2);
        advance(WINDOW).await;
        assert_eq!(left(&mut sent, 5), 5);
    }
}
