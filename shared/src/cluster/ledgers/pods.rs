//! Placed pods, from their watch or from lists, as ledgers see them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::driver::Ledgers;
use super::object::version;
use crate::cluster::follow::{Sink, follow_into};
use crate::cluster::{Object, Scope};
use crate::placement::ledger::{Phase, Place, Pod, PodName};
use crate::placement::marks::{OWNER, PLACED, stamp, told};
use crate::placement::policy::Policy;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_selector: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

/// A pod, and the uid of the owner whose ledger it counts in.
pub(super) struct Owned {
    pub(super) owner: Box<str>,
    pub(super) name: PodName,
    pub(super) pod: Pod,
}

/// Reads a pod; none where it has no controller, so that no ledger is about it. By `policy` it is told where pods are that
/// nobody placed.
pub(super) fn read(object: &RawValue, policy: Option<&Policy>) -> serde_json::Result<Option<Owned>> {
    let object: Object<PodSpec, PodStatus> = serde_json::from_str(object.get())?;
    let metadata = &object.metadata;
    let (Some(controller), Some(version)) =
        (metadata.controller_reference(), version(&metadata.resource_version))
    else {
        return Ok(None);
    };
    let stamped = stamp(|key| metadata.annotation(key));
    // The pods of a CronJob count in its ledger; it isn't their controller.
    let owner = metadata.annotation(OWNER).filter(|_| stamped.is_some()).unwrap_or(&controller.uid);
    let status = object.status.as_ref().map_or("", |status| &*status.phase);
    let phase = match status {
        _ if metadata.deletion_timestamp.is_some() => Phase::Gone,
        "Succeeded" if controller.kind == "Job" => Phase::Succeeded,
        // For any other controller it is over (`IsPodActive` of k8s.io/kubernetes/pkg/controller).
        "Failed" | "Succeeded" => Phase::Gone,
        _ => Phase::Live,
    };
    let selector = object.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let group = || told(|key| selector?.get(key).map(String::as_str), policy?);
    let place = match stamped {
        Some(stamp) => Place::Stamped(stamp),
        None => group().map_or(Place::Unknown, Place::Told),
    };
    let pod = Pod { version, phase, place };
    Ok(Some(Owned { owner: owner.into(), name: metadata.name.as_str().into(), pod }))
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
    /// By owner, while a list comes in.
    listed: HashMap<Box<str>, BTreeMap<PodName, Pod>>,
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
        if let Some(Owned { owner, name, pod }) = read(object, None)? {
            self.listed.entry(owner).or_default().insert(name, pod);
        }
        Ok(())
    }

    fn complete(&mut self, at: &str) {
        self.ledgers.relisted(version(at).unwrap_or(0), std::mem::take(&mut self.listed));
    }

    fn changed(&mut self, object: &RawValue, gone: bool) -> serde_json::Result<String> {
        let at: Versioned = serde_json::from_str(object.get())?;
        if let Some(Owned { owner, name, mut pod }) = read(object, None)? {
            if gone {
                pod.phase = Phase::Gone;
            }
            self.ledgers.watched(&owner, name, pod);
        }
        self.reached(&at.metadata.resource_version);
        Ok(at.metadata.resource_version)
    }

    fn reached(&mut self, at: &str) {
        self.ledgers.reached(version(at).unwrap_or(0));
    }
}

#[derive(Deserialize)]
struct Versioned {
    metadata: ResourceVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceVersion {
    resource_version: String,
}

/// The pods of one owner among those of a list.
pub(super) fn of_owner(
    items: &[&RawValue],
    owner: &str,
    policy: &Policy,
) -> serde_json::Result<Vec<(PodName, Pod)>> {
    let read = |item: &&RawValue| read(item, Some(policy)).transpose();
    let pods = items.iter().filter_map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(pods.into_iter().filter(|pod| &*pod.owner == owner).map(|pod| (pod.name, pod.pod)).collect())
}
