//! Placed pods, from their watch or from lists, as ledgers see them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::LedgerId;
use super::driver::Ledgers;
use super::object::version;
use podshaper_core::object::lenient;
use podshaper_core::object::{Object, ObjectMeta};
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::pod::SKIP;
use podshaper_kube::watch::Scope;
use podshaper_kube::watch::{Sink, follow_into};
use podshaper_placement::annotations::{
    DELETION_COST, LOWEST_DELETION_COST, OWNER, PLACED, deletion_cost, infer_group, parse, sequence_owner,
};
use podshaper_placement::ledger::{PodName, PodPlacement, PodRecord, PodState, ResourceVersion};
use podshaper_placement::policy::Policy;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_selector: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
    /// Perhaps a time that is none: no place depends on it.
    #[serde(deserialize_with = "lenient")]
    last_transition_time: Option<Timestamp>,
}

/// How a pod is getting on, for people and for those who look after groups: no place depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is ready, or has succeeded.
    Ready,
    /// It isn't yet, or not any more.
    Unready,
    /// No node takes it, since then (seconds since 1970).
    Unschedulable(i64),
}

/// Where the chain of a pod's owners begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The namespace.
    pub namespace: String,
    /// The pod's controller.
    pub controller: OwnerReference,
}

/// A pod, and the uid of the owner whose ledger it counts in.
pub(super) struct Owned {
    pub(super) owner: Box<str>,
    pub(super) name: PodName,
    pub(super) pod: PodRecord,
    pub(super) health: Health,
    pub(super) origin: Origin,
    /// The webhook that has marked it.
    pub(super) marked: Option<String>,
    /// Whether it has a deletion cost.
    pub(super) costed: bool,
    /// Whether it is to be left alone.
    skipped: bool,
}

/// Reads a pod; none where no ledger is about it. By `policy` it is told where pods are that nobody placed.
pub(super) fn read(object: &RawValue, policy: Option<&Policy>) -> serde_json::Result<Option<Owned>> {
    Ok(read_any(object, policy)?.filter(|pod| !pod.skipped))
}

/// The same, also of pods that are to be left alone; none where it has no controller.
fn read_any(object: &RawValue, policy: Option<&Policy>) -> serde_json::Result<Option<Owned>> {
    let object: Object<PodSpec, PodStatus> = serde_json::from_str(object.get())?;
    let metadata = &object.metadata;
    let controller = metadata.controller().map(OwnerReference::coordinates).filter(OwnerReference::is_valid);
    let (Some(controller), Some(version)) = (controller, version(&metadata.resource_version)) else {
        return Ok(None);
    };
    let label = |key| metadata.labels.as_ref()?.get(key);
    let stamped = parse(|key| metadata.annotation(key));
    let owner = sequence_owner(|key| metadata.annotation(key), &controller.uid).into();
    let status = object.status.as_ref();
    let deleted = metadata.deletion_timestamp.is_some();
    let phase = PodState::of(status.map_or("", |status| &*status.phase), deleted, &controller.kind);
    let selector = object.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let group = || infer_group(|key| selector?.get(key).map(String::as_str), policy?);
    let ours =
        stamped.as_ref().map_or_else(|| LOWEST_DELETION_COST.to_owned(), |stamp| deletion_cost(stamp.slot));
    let costed =
        metadata.annotation(DELETION_COST).is_some_and(|cost| cost != ours && cost != LOWEST_DELETION_COST);
    let marked = label(PLACED).cloned();
    let place = match stamped {
        Some(stamp) => PodPlacement::Assigned(stamp),
        None => group().map_or(PodPlacement::Unknown, PodPlacement::Inferred),
    };
    Ok(Some(Owned {
        owner,
        name: metadata.name.as_str().into(),
        health: match phase {
            PodState::Succeeded => Health::Ready,
            PodState::Active | PodState::Gone => {
                health(status.and_then(|status| status.conditions.as_deref()))
            }
        },
        pod: PodRecord { version, state: phase, placement: place, costed, marked: marked.is_some() },
        origin: Origin { namespace: metadata.namespace.clone().unwrap_or_default(), controller },
        marked,
        costed: metadata.annotation(DELETION_COST).is_some(),
        skipped: label(SKIP).is_some_and(|skip| skip == "true"),
    }))
}

fn health(conditions: Option<&[Condition]>) -> Health {
    let find = |kind: &str| conditions.unwrap_or_default().iter().find(|one| one.kind == kind);
    if find("Ready").is_some_and(|one| one.status == "True") {
        return Health::Ready;
    }
    let scheduled = find("PodScheduled").filter(|one| one.reason.as_deref() == Some("Unschedulable"));
    let since = scheduled.and_then(|one| one.last_transition_time);
    since.map_or(Health::Unready, |since| Health::Unschedulable(since.as_second()))
}

/// Follows all placed pods, and tells their ledgers; comes back never.
pub(super) async fn follow(client: Client, ledgers: Arc<Ledgers>) {
    let labels = format!("{PLACED}={}", ledgers.webhook());
    let scope = Scope { namespace: None, labels };
    let mut pods = Pods::new(ledgers);
    follow_into(client, scope, "/api/v1", "pods", &mut pods).await;
}

pub(super) struct Pods {
    ledgers: Arc<Ledgers>,
    /// While a list comes in.
    listed: HashMap<LedgerId, Listed>,
}

/// The pods of one owner, as a list shows them.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) pods: BTreeMap<PodName, PodRecord>,
    pub(super) unready: BTreeMap<PodName, Health>,
    /// That of the newest pod: of a `CronJob`'s Jobs the first are gone.
    pub(super) origin: Option<Origin>,
    newest: ResourceVersion,
}

impl Pods {
    pub(super) fn new(ledgers: Arc<Ledgers>) -> Self {
        Self { ledgers, listed: HashMap::new() }
    }
}

impl Sink for Pods {
    fn restart(&mut self) {
        self.listed.clear();
    }

    fn listed(&mut self, object: &RawValue) -> serde_json::Result<()> {
        if let Some(Owned { owner, name, pod, health, origin, .. }) = read(object, None)? {
            let of = self.listed.entry(LedgerId::new(&origin.namespace, &owner)).or_default();
            if health != Health::Ready {
                of.unready.insert(Arc::clone(&name), health);
            }
            if pod.version > of.newest {
                (of.newest, of.origin) = (pod.version, Some(origin));
            }
            of.pods.insert(name, pod);
        }
        Ok(())
    }

    fn complete(&mut self, at: &str) {
        self.ledgers.relisted(version(at).unwrap_or(0), std::mem::take(&mut self.listed));
    }

    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String> {
        let owned = read(object, None)?;
        let object: Object<IgnoredAny, IgnoredAny> = serde_json::from_str(object.get())?;
        let ObjectMeta { name, namespace, resource_version, .. } = &object.metadata;
        let placed_for = object.metadata.annotation(OWNER);
        // One that its controller has released, or that another has taken over, isn't its owner's any more.
        let released = placed_for.filter(|owner| owned.as_ref().is_none_or(|owned| &*owned.owner != *owner));
        if let (Some(owner), Some(at)) = (released, version(resource_version)) {
            self.ledgers.released(&LedgerId::new(namespace.as_deref().unwrap_or_default(), owner), name, at);
        }
        if let Some(mut owned) = owned {
            if gone {
                owned.pod.state = PodState::Gone;
            }
            self.ledgers.watched(owned);
        }
        self.reached(resource_version);
        Ok(object.metadata.resource_version)
    }

    fn reached(&mut self, at: &str) {
        self.ledgers.reached(version(at).unwrap_or(0));
    }
}

/// The pods of one owner among those of a list, but for those that another webhook than this has placed.
pub(super) fn of_owner(
    items: &[&RawValue],
    owner: &str,
    policy: &Policy,
    webhook: &str,
) -> serde_json::Result<Vec<Owned>> {
    let read = |item: &&RawValue| read(item, Some(policy)).transpose();
    let mut pods = items.iter().filter_map(read).collect::<Result<Vec<_>, _>>()?;
    pods.retain(|pod| &*pod.owner == owner && pod.marked.as_ref().is_none_or(|marked| marked == webhook));
    Ok(pods)
}

/// Pods that a webhook hasn't placed.
#[derive(Debug, Default)]
pub struct Others {
    /// How many nobody has marked, by their controller.
    pub unmarked: BTreeMap<OwnerReference, u32>,
    /// How many aren't to be placed: another webhook has placed them, or they are to be left alone.
    pub elsewhere: u32,
    /// Another webhook that has placed some.
    pub placed_by: Option<String>,
}

impl Others {
    /// Takes in those of a list.
    pub(super) fn add(&mut self, items: &[&RawValue]) -> serde_json::Result<()> {
        for item in items {
            match read_any(item, None)?.filter(|pod| pod.pod.state != PodState::Gone) {
                Some(Owned { skipped: true, .. }) => self.elsewhere += 1,
                Some(Owned { marked: Some(webhook), .. }) => {
                    self.elsewhere += 1;
                    self.placed_by = Some(webhook);
                }
                Some(pod) => *self.unmarked.entry(pod.origin.controller).or_default() += 1,
                None => {}
            }
        }
        Ok(())
    }
}
