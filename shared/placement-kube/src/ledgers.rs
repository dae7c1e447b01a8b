//! All ledgers of one webhook in this process, and the watches of placed pods and of Placements that feed them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Client;
use podshaper_core::object::{Object, ObjectMeta};
use podshaper_kube::error::describe;
use podshaper_kube::watch::{WatchHandler, WatchScope, list_and_watch};
use podshaper_placement::annotations::{OWNER, PLACED};
use podshaper_placement::identity::NodeLabels;
use podshaper_placement::ledger::{PodState, ResourceVersion, SlotReply, SlotRequest};
use podshaper_placement::precedence::{PlacementAge, superseded_by};
use podshaper_placement::spread::Spread;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::inventory::LedgerInventory;
use crate::ledger_client::LedgerClient;
use crate::ledger_driver::{LedgerContext, LedgerDriver, ListedPods};
use crate::observed_pod::{ObservedPod, SelectedPod, UnplacedPods};
use crate::placement_object::{
    API, LedgerId, NamespacedOwner, PLURAL, PlacedWorkload, PlacementObject, PlacementStatus, parse_version,
};

/// The ledgers of one webhook: one for each owner of placed pods.
pub struct Ledgers {
    context: Arc<LedgerContext>,
    filled: AtomicBool,
    placements_listed: AtomicBool,
    drivers: Mutex<HashMap<LedgerId, Arc<LedgerDriver>>>,
    placements: Mutex<HashMap<LedgerId, PlacementObject>>,
    /// The Placements of other webhooks.
    other_placements: Mutex<HashMap<LedgerId, PlacementAge>>,
}

/// Pods that are labelled for another webhook in one pass.
const MAX_HANDOVERS: usize = 64;

impl Ledgers {
    /// Starts the watches of the pods that `webhook` has placed and of its Placements. Needs a runtime.
    ///
    /// Rights: `get`, `list`, `watch`, `create`, `patch`, `delete` Placements; `list`, `watch` and `patch` pods; `get` owners.
    pub fn start(client: Client, webhook: &'static str, nodes: Arc<dyn NodeLabels>) -> Arc<Self> {
        let ledgers = Arc::new(Self::new(client.clone(), webhook, nodes));
        let scope = WatchScope { namespace: None, label_selector: format!("{PLACED}={webhook}") };
        let mut placements = PlacementEvents {
            ledgers: Arc::clone(&ledgers),
            listed: HashMap::new(),
            listed_of_others: HashMap::new(),
        };
        // Those of all webhooks.
        let watch = (client.clone(), WatchScope { namespace: None, label_selector: PLACED.to_owned() });
        tokio::spawn(async move { list_and_watch(watch.0, watch.1, API, PLURAL, &mut placements).await });
        let mut pods = PodEvents { ledgers: Arc::clone(&ledgers), listed: HashMap::new() };
        tokio::spawn(async move { list_and_watch(client, scope, "/api/v1", "pods", &mut pods).await });
        ledgers
    }

    fn new(client: Client, webhook: &'static str, nodes: Arc<dyn NodeLabels>) -> Self {
        Self {
            context: Arc::new(LedgerContext::new(LedgerClient::new(client, webhook), nodes)),
            filled: AtomicBool::new(false),
            placements_listed: AtomicBool::new(false),
            drivers: Mutex::default(),
            placements: Mutex::default(),
            other_placements: Mutex::default(),
        }
    }

    /// Whether the watch has listed all placed pods.
    pub fn has_synced(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Whether the watch has listed the Placements. It cannot before the kind is installed.
    pub fn has_listed_placements(&self) -> bool {
        self.placements_listed.load(Ordering::Acquire)
    }

    /// Requests a slot for a pod of `workload`, and gets a reply by the deadline. `None` if the policy changes meanwhile.
    pub async fn place(
        &self,
        workload: &Arc<PlacedWorkload>,
        request: SlotRequest,
        deadline: Instant,
    ) -> Option<SlotReply> {
        self.driver(workload.ledger_id()).place(workload, request, deadline).await
    }

    /// Drops reservations that are confirmed or have expired, moves pods that share a slot, and gives pods that were never placed a slot.
    /// Pods without a known group are marked to be deleted first.
    pub async fn reconcile(&self, workload: &Arc<PlacedWorkload>) -> kube::Result<()> {
        let ledger = workload.ledger_id();
        let is_reserved = || self.placements().get(&ledger).is_some_and(|placement| placement.reserved > 0);
        if self.superseded_by(&ledger).is_some() && !is_reserved() {
            return Ok(());
        }
        self.driver(workload.ledger_id()).reconcile(workload).await
    }

    /// Lists the pods of a selector that this webhook has not placed.
    pub async fn list_unplaced(&self, namespace: &str, selector: &str) -> kube::Result<UnplacedPods> {
        self.context.client().list_unplaced(namespace, selector).await
    }

    /// Lists the pods of a selector, whoever has placed them, with those of their labels that `keeps_label` accepts.
    pub async fn list_selected(
        &self,
        namespace: &str,
        selector: &str,
        keeps_label: impl Fn(&str) -> bool + Send + Sync,
    ) -> kube::Result<Vec<SelectedPod>> {
        self.context.client().list_selected(namespace, selector, keeps_label).await
    }

    /// Moves a pod into the ledger of the owner with this uid; `None` moves it into the ledger of its controller, or out of all. Returns whether
    /// it was moved. A pod counts in the other ledger once the watch shows it.
    pub async fn set_sequence_owner(&self, namespace: &str, pod: &SelectedPod, owner: Option<&str>) -> bool {
        self.context.client().set_sequence_owner(namespace, pod, owner).await
    }

    /// Writes the status of the ledger's Placement, if there is one and its status differs.
    pub async fn patch_status(&self, ledger: &LedgerId, spread: &Spread) {
        let status = PlacementStatus { pods: spread.pods(), desired: spread.desired() };
        let placement = self.placements().get(ledger).filter(|placement| placement.status != status).cloned();
        if let Some(placement) = placement
            && let Err(error) = self.context.client().patch_status(&placement, &status).await
        {
            let namespace = placement.owner.namespace;
            let error = describe(&error);
            tracing::warn!(namespace, error, "cannot write the status of a Placement");
        }
    }

    /// The pods of each ledger.
    pub fn inventory(&self) -> Vec<LedgerInventory> {
        let over_time: HashSet<LedgerId> = {
            let placements = self.placements();
            let over_time = placements.iter().filter(|(_, placement)| placement.over_time);
            over_time.map(|(ledger, _)| ledger.clone()).collect()
        };
        let inventory = |(ledger, driver): (LedgerId, Arc<LedgerDriver>)| {
            let over_time = over_time.contains(&ledger);
            driver.inventory(ledger, over_time)
        };
        self.all().into_iter().filter_map(inventory).collect()
    }

    /// The ledgers with reservations in their Placement, or with pods that have changed since the last reconciliation, each with its owner; and
    /// those of pods that share a slot, with a controller of the pods: if all of these were placed without the ledger, there is no Placement.
    pub(crate) fn unreconciled(&self) -> Vec<(LedgerId, NamespacedOwner)> {
        let placements: Vec<_> =
            self.placements().iter().map(|(ledger, placement)| (ledger.clone(), placement.clone())).collect();
        let changed = |ledger: &LedgerId| self.existing(ledger).is_none_or(|driver| driver.changed());
        let placements =
            placements.into_iter().filter(|(ledger, placement)| placement.reserved > 0 || changed(ledger));
        let conflicts =
            self.all().into_iter().filter_map(|(ledger, driver)| Some((ledger, driver.slot_conflict()?)));
        placements.map(|(ledger, placement)| (ledger, placement.owner)).chain(conflicts).collect()
    }

    /// The webhook that places the pods of this ledger's owner in place of this one.
    pub fn superseded_by(&self, ledger: &LedgerId) -> Option<String> {
        let others = self.other_placements();
        let other = others.get(ledger)?;
        let placements = self.placements();
        let own = placements.get(ledger).map(|placement| &placement.age);
        superseded_by(own, Some(other)).map(str::to_owned)
    }

    /// Labels pods for another webhook where that one places the pods of their owner, and deletes the Placements that then have no pods.
    pub(crate) async fn hand_over(&self) {
        let contested: Vec<LedgerId> = self.other_placements().keys().cloned().collect();
        let mut moved = 0;
        for ledger in contested {
            let Some(other) = self.superseded_by(&ledger) else { continue };
            let driver = self.existing(&ledger);
            let pods = driver.map(|driver| driver.pods_to_hand_over()).unwrap_or_default();
            for pod in pods.iter().take(MAX_HANDOVERS.saturating_sub(moved)) {
                self.context.client().hand_over(ledger.namespace(), pod, &other).await;
                moved += 1;
            }
            let placement = self.placements().get(&ledger).cloned();
            let placement = placement.filter(|placement| pods.is_empty() && placement.reserved == 0);
            if let Some(placement) = placement
                && let Err(error) = self.context.client().delete_placement(&placement).await
            {
                let namespace = ledger.namespace();
                let name = &placement.name;
                let error = describe(&error);
                tracing::warn!(
                    namespace,
                    name,
                    error,
                    "cannot delete a Placement that another webhook's supersedes"
                );
            }
        }
    }

    /// Removes ledgers that hold nothing.
    pub(crate) fn sweep(&self) {
        self.drivers().retain(|_, driver| Arc::strong_count(driver) > 1 || !driver.can_be_dropped());
    }

    fn pods_listed(&self, version: ResourceVersion, mut listed: HashMap<LedgerId, ListedPods>) {
        for (ledger, driver) in self.all() {
            driver.pods_listed(version, listed.remove(&ledger).unwrap_or_default());
        }
        for (ledger, pods) in listed {
            self.driver(ledger).pods_listed(version, pods);
        }
        self.context.set_watched(version);
        self.filled.store(true, Ordering::Release);
    }

    fn all(&self) -> Vec<(LedgerId, Arc<LedgerDriver>)> {
        self.drivers().iter().map(|(ledger, driver)| (ledger.clone(), Arc::clone(driver))).collect()
    }

    fn existing(&self, ledger: &LedgerId) -> Option<Arc<LedgerDriver>> {
        self.drivers().get(ledger).cloned()
    }

    fn driver(&self, ledger: LedgerId) -> Arc<LedgerDriver> {
        let create = || Arc::new(LedgerDriver::new(Arc::clone(&self.context)));
        Arc::clone(self.drivers().entry(ledger).or_insert_with(create))
    }

    fn drivers(&self) -> MutexGuard<'_, HashMap<LedgerId, Arc<LedgerDriver>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn placements(&self) -> MutexGuard<'_, HashMap<LedgerId, PlacementObject>> {
        self.placements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lock it before [`Self::placements`].
    fn other_placements(&self) -> MutexGuard<'_, HashMap<LedgerId, PlacementAge>> {
        self.other_placements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands the watch of placed pods to their ledgers.
struct PodEvents {
    ledgers: Arc<Ledgers>,
    /// The list so far.
    listed: HashMap<LedgerId, ListedPods>,
}

impl WatchHandler for PodEvents {
    fn list_started(&mut self) {
        self.listed.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        if let Some(pod) = ObservedPod::parse(object)? {
            self.listed.entry(pod.ledger_id()).or_default().add(pod);
        }
        Ok(())
    }

    fn list_completed(&mut self, at: &str) {
        self.ledgers.pods_listed(parse_version(at).unwrap_or(0), std::mem::take(&mut self.listed));
    }

    fn changed(&mut self, object: &RawValue, deleted: bool) -> serde_json::Result<String> {
        let pod = ObservedPod::parse(object)?;
        let object: Object<IgnoredAny, IgnoredAny> = serde_json::from_str(object.get())?;
        let ObjectMeta { name, namespace, resource_version, .. } = &object.metadata;
        // A pod that its controller has released, or that another one has adopted, no longer counts for the owner in its annotation.
        let owner = object.metadata.annotation(OWNER);
        let released = owner.filter(|owner| pod.as_ref().is_none_or(|pod| *pod.sequence_owner != **owner));
        if let (Some(owner), Some(version)) = (released, parse_version(resource_version)) {
            let ledger = LedgerId::new(namespace.as_deref().unwrap_or_default(), owner);
            if let Some(driver) = self.ledgers.existing(&ledger) {
                driver.pod_released(name, version);
            }
        }
        // A pod that counts for its controller's owner, or for a policy that selects it, may have counted for its controller before.
        let controller = pod.as_ref().filter(|pod| *pod.sequence_owner != *pod.controller.owner.uid);
        let controller = controller.map(|pod| pod.controller.ledger_id());
        if let (Some(ledger), Some(version)) = (controller, parse_version(resource_version))
            && let Some(driver) = self.ledgers.existing(&ledger)
        {
            driver.pod_released(name, version);
        }
        if let Some(mut pod) = pod {
            if deleted {
                pod.record.state = PodState::Gone;
            }
            self.ledgers.driver(pod.ledger_id()).pod_changed(pod);
        }
        self.bookmark(resource_version);
        Ok(object.metadata.resource_version)
    }

    fn bookmark(&mut self, at: &str) {
        self.ledgers.context.set_watched(parse_version(at).unwrap_or(0));
    }
}

/// Hands the watch of Placements to their ledgers.
struct PlacementEvents {
    ledgers: Arc<Ledgers>,
    /// The list so far.
    listed: HashMap<LedgerId, PlacementObject>,
    listed_of_others: HashMap<LedgerId, PlacementAge>,
}

impl PlacementEvents {
    /// Hands the object to its ledger. Returns its version, and the object unless it is a copy.
    fn read(
        &self,
        object: &RawValue,
        deleted: bool,
    ) -> serde_json::Result<(String, Option<(LedgerId, PlacementObject)>)> {
        let object: Object<_, _> = serde_json::from_str(object.get())?;
        let at = object.metadata.resource_version.clone();
        let parsed = PlacementObject::parse(object);
        let placement = parsed.map(|(placement, content)| {
            let ledger = placement.owner.ledger_id();
            if self.is_own(&placement)
                && let (Some(driver), Some(version)) = (self.ledgers.existing(&ledger), parse_version(&at))
            {
                driver.object_changed(version, (!deleted).then_some(content));
            }
            (ledger, placement)
        });
        Ok((at, placement))
    }

    fn is_own(&self, placement: &PlacementObject) -> bool {
        placement.age.webhook == self.ledgers.context.client().webhook()
    }
}

impl WatchHandler for PlacementEvents {
    fn list_started(&mut self) {
        self.listed.clear();
        self.listed_of_others.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        match self.read(object, false)?.1 {
            Some((ledger, placement)) if self.is_own(&placement) => {
                self.listed.insert(ledger, placement);
            }
            Some((ledger, placement)) => {
                self.listed_of_others.insert(ledger, placement.age);
            }
            None => {}
        }
        Ok(())
    }

    fn list_completed(&mut self, _version: &str) {
        *self.ledgers.other_placements() = std::mem::take(&mut self.listed_of_others);
        *self.ledgers.placements() = std::mem::take(&mut self.listed);
        self.ledgers.placements_listed.store(true, Ordering::Release);
    }

    fn changed(&mut self, object: &RawValue, deleted: bool) -> serde_json::Result<String> {
        let (version, placement) = self.read(object, deleted)?;
        if let Some((ledger, placement)) = placement {
            if !self.is_own(&placement) {
                let mut others = self.ledgers.other_placements();
                if deleted {
                    others.remove(&ledger)
                } else {
                    others.insert(ledger, placement.age)
                };
                return Ok(version);
            }
            let mut placements = self.ledgers.placements();
            if deleted {
                placements.remove(&ledger)
            } else {
                placements.insert(ledger, placement)
            };
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use podshaper_placement::annotations::{GROUP, SLOT, TOKEN};
    use podshaper_placement::identity::UnknownNodes;
    use podshaper_testing::MockApiServer;
    use serde_json::json;

    use super::*;

    /// Memory of this process in MiB.
    fn resident() -> usize {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096 / (1 << 20)
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn fifty_thousand_pods_take_less_than_48_mib() {
        let (client, _server) = MockApiServer::start();
        let ledgers = Arc::new(Ledgers::new(client, "distributor", Arc::new(UnknownNodes)));
        let mut events = PodEvents { ledgers: Arc::clone(&ledgers), listed: HashMap::new() };
        let before = resident();
        events.list_started();
        for number in 0..50_000 {
            let set = number / 100;
            let slot = number % 100;
            let uid = format!("5f0c2a6e-0000-4000-8000-{set:012}");
            let pod = json!({
                "metadata": {
                    "name": format!("shop-frontend-{set}-5d89b7f6c4-{slot:05}"), "namespace": "shop", "resourceVersion": format!("{number}"),
                    "labels": {PLACED: "distributor"},
                    "annotations": {OWNER: uid, TOKEN: format!("{number:016x}"), SLOT: slot.to_string(), GROUP: "type=spot"},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop", "uid": uid, "controller": true}],
                },
                "spec": {"nodeSelector": {"type": "spot"}},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
            });
            events.listed(&serde_json::value::to_raw_value(&pod).unwrap()).unwrap();
        }
        events.list_completed("50000");
        assert_eq!(ledgers.inventory().iter().map(|inventory| inventory.pods.len()).sum::<usize>(), 50_000);
        let grown = resident().saturating_sub(before);
        assert!(grown <= 48, "{grown} MiB");
        println!("50,000 pods of 500 owners: {grown} MiB");
    }
}
