//! The API calls of a ledger: its `Placement` object, the pods of its owner, and the owner.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::{Client, Error};
use podshaper_core::object::Object;
use podshaper_kube::error::describe;
use podshaper_kube::pages;
use podshaper_kube::request::{MediaType, get, send, with_query};
use podshaper_placement::annotations::{
    CONTROLLER, DELETION_COST, ESTIMATED, GROUP, GROUP_HASH, LOWEST_DELETION_COST, OWNER, PLACED, SLOT,
    TOKEN, deletion_cost,
};
use podshaper_placement::ledger::{Assignment, Event, LedgerContent, PodName, ResourceVersion};
use podshaper_placement::owner_object::OwnerSpec;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::observed_pod::{ObservedPod, SelectedPod, UnplacedPods};
use crate::placement_object::{
    PlacedWorkload, PlacementObject, PlacementSpec, PlacementStatus, collection_path, create_body,
    object_name, parse_version, update_body,
};

/// Pods in one page of a list.
const PAGE_SIZE: usize = 500;
/// How long one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pod that another webhook is to place.
pub(crate) struct HandedOverPod {
    pub(crate) name: PodName,
    pub(crate) version: ResourceVersion,
    /// Whether its author has given it a deletion cost.
    pub(crate) costed: bool,
}

/// Calls of one webhook.
pub(crate) struct LedgerClient {
    client: Client,
    webhook: &'static str,
}

impl LedgerClient {
    pub(crate) fn new(client: Client, webhook: &'static str) -> Self {
        Self { client, webhook }
    }

    pub(crate) fn webhook(&self) -> &'static str {
        self.webhook
    }

    fn path(&self, workload: &PlacedWorkload) -> String {
        format!("{}/{}", collection_path(&workload.namespace), object_name(self.webhook, &workload.owner))
    }

    /// Reads the ledger.
    pub(crate) async fn read(
        &self,
        workload: &PlacedWorkload,
    ) -> kube::Result<Option<(ResourceVersion, LedgerContent)>> {
        let object: Option<Object<PlacementSpec, IgnoredAny>> =
            get(&self.client, &self.path(workload)).await?;
        let Some(object) = object else { return Ok(None) };
        let content = object.spec.unwrap_or_default().content();
        Ok(Some((require_version(&object.metadata.resource_version)?, content)))
    }

    /// Writes the ledger where its version is `at`, or creates it.
    pub(crate) async fn write(
        &self,
        workload: &PlacedWorkload,
        at: Option<ResourceVersion>,
        content: &LedgerContent,
    ) -> kube::Result<Event> {
        let written = if let Some(at) = at {
            self.patch(&self.path(workload), &update_body(at, content)).await
        } else {
            let body = create_body(self.webhook, workload, content);
            send(&self.client, "POST", &collection_path(&workload.namespace), MediaType::Json, &body).await
        };
        match written {
            Ok(text) => {
                let object: Object<IgnoredAny, IgnoredAny> =
                    serde_json::from_str(&text).map_err(Error::SerdeError)?;
                Ok(Event::Written(Some(require_version(&object.metadata.resource_version)?)))
            }
            Err(Error::Api(status)) if status.code == 409 => Ok(Event::Conflict),
            // Another replica has deleted it. A POST gets 404 if the kind does not exist, and that is an error.
            Err(Error::Api(status)) if status.code == 404 && at.is_some() => Ok(Event::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Deletes the ledger where its version is `at`.
    pub(crate) async fn delete(&self, workload: &PlacedWorkload, at: ResourceVersion) -> kube::Result<Event> {
        let body = json!({"preconditions": {"resourceVersion": at.to_string()}});
        match send(&self.client, "DELETE", &self.path(workload), MediaType::Json, &body).await {
            Ok(_) => Ok(Event::Written(None)),
            Err(Error::Api(status)) if status.code == 404 => Ok(Event::Written(None)),
            Err(Error::Api(status)) if status.code == 409 => Ok(Event::Conflict),
            Err(error) => Err(error),
        }
    }

    /// Deletes a Placement, if it still has its version.
    pub(crate) async fn delete_placement(&self, placement: &PlacementObject) -> kube::Result<()> {
        let path = format!("{}/{}", collection_path(&placement.owner.namespace), placement.name);
        let body = json!({"preconditions": {"resourceVersion": placement.version.to_string()}});
        match send(&self.client, "DELETE", &path, MediaType::Json, &body).await {
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    /// Labels a pod, if it still has its version, as one that the webhook `to` is to place. It keeps its group, and gets a slot there.
    pub(crate) async fn hand_over(&self, namespace: &str, pod: &HandedOverPod, to: &str) {
        let mut annotations = BTreeMap::from([(TOKEN, None), (SLOT, None), (ESTIMATED, None)]);
        if !pod.costed {
            annotations.insert(DELETION_COST, Some(LOWEST_DELETION_COST));
        }
        let labels = json!({PLACED: to});
        let metadata =
            json!({"resourceVersion": pod.version.to_string(), "labels": labels, "annotations": annotations});
        self.patch_pod(namespace, &pod.name, metadata).await;
    }

    pub(crate) async fn patch_status(
        &self,
        placement: &PlacementObject,
        status: &PlacementStatus,
    ) -> kube::Result<()> {
        let path = format!("{}/{}/status", collection_path(&placement.owner.namespace), placement.name);
        self.patch(&path, &json!({"status": status})).await.map(drop)
    }

    /// Reads how many pods the owner may have at a time: 0 if it no longer exists, `None` if it does not say.
    pub(crate) async fn pod_limit(&self, workload: &PlacedWorkload) -> kube::Result<Option<u32>> {
        let Some(path) = &workload.path else { return Ok(None) };
        let owner: Option<Object<OwnerSpec, IgnoredAny>> = match get(&self.client, path).await {
            // A Job names its owner, so that the owner of a sequence need not be readable.
            Err(Error::Api(status)) if status.code == 403 && workload.shared => return Ok(None),
            owner => owner?,
        };
        let Some(owner) = owner.filter(|owner| owner.metadata.uid == workload.owner.uid) else {
            return Ok(Some(0));
        };
        Ok(owner.spec.unwrap_or_default().pods(&workload.owner).filter(|_| !workload.shared))
    }

    /// Lists the pods of the owner as of `at_least` or later; `None` reads the latest.
    pub(crate) async fn list_pods(
        &self,
        workload: &PlacedWorkload,
        at_least: Option<ResourceVersion>,
    ) -> kube::Result<(ResourceVersion, Vec<ObservedPod>)> {
        let PlacedWorkload { namespace, selector, owner, .. } = workload;
        let mut pods = Vec::new();
        let mut add = |items: &[&RawValue]| {
            for item in items {
                let pod = ObservedPod::parse(item)?;
                pods.extend(pod.filter(|pod| pod.counts_for(&owner.uid, self.webhook)));
            }
            Ok(())
        };
        let version = self.list_pages(namespace, selector, at_least, &mut add).await?;
        Ok((version, pods))
    }

    /// Lists the pods of a selector that this webhook has not placed.
    pub(crate) async fn list_unplaced(&self, namespace: &str, selector: &str) -> kube::Result<UnplacedPods> {
        let mut unplaced = UnplacedPods::default();
        // `!=` also selects pods without the label.
        let selector = format!("{selector},{PLACED}!={}", self.webhook);
        let mut add = |items: &[&RawValue]| items.iter().try_for_each(|item| unplaced.add(item));
        self.list_pages(namespace, &selector, None, &mut add).await?;
        Ok(unplaced)
    }

    /// Lists the pods of a selector, whoever has placed them. Pods that webhooks are to skip and pods that have ended are left out.
    pub(crate) async fn list_selected(
        &self,
        namespace: &str,
        selector: &str,
        keeps_label: impl Fn(&str) -> bool + Send + Sync,
    ) -> kube::Result<Vec<SelectedPod>> {
        let mut pods = Vec::new();
        let mut add = |items: &[&RawValue]| {
            for item in items {
                pods.extend(SelectedPod::parse(item, &keeps_label)?);
            }
            Ok(())
        };
        self.list_pages(namespace, selector, None, &mut add).await?;
        Ok(pods)
    }

    /// Moves a pod into the ledger of this owner, if it still has its version; `None` moves it into the ledger of its controller, or out of all.
    /// Returns whether it was moved.
    pub(crate) async fn set_sequence_owner(
        &self,
        namespace: &str,
        pod: &SelectedPod,
        owner: Option<&str>,
    ) -> bool {
        let controller = owner.map(|_| pod.controller.as_ref().map_or("", |controller| &*controller.uid));
        let mut annotations = BTreeMap::from([(CONTROLLER, controller)]);
        let mut labels = BTreeMap::new();
        if let Some(owner) = owner {
            annotations.insert(OWNER, Some(owner));
            labels.insert(PLACED, self.webhook);
            if pod.needs_deletion_cost {
                annotations.insert(DELETION_COST, Some(LOWEST_DELETION_COST));
            }
        }
        let version = pod.version.to_string();
        let metadata = json!({"resourceVersion": version, "labels": labels, "annotations": annotations});
        self.patch_pod(namespace, &pod.name, metadata).await
    }

    /// Lists pods page by page. Returns the version of the list.
    async fn list_pages(
        &self,
        namespace: &str,
        selector: &str,
        at_least: Option<ResourceVersion>,
        add: &mut (dyn FnMut(&[&RawValue]) -> serde_json::Result<()> + Send),
    ) -> kube::Result<ResourceVersion> {
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let version = at_least.map(|version| version.to_string());
        let uri = |limit: usize, next: &str| {
            let limit = limit.to_string();
            // A continue token contains the version.
            let version = version.as_deref().filter(|_| next.is_empty());
            let version = version
                .map(|version| [("resourceVersion", version), ("resourceVersionMatch", "NotOlderThan")]);
            let query = [("labelSelector", selector), ("limit", &*limit), ("continue", next)];
            with_query(&path, query.into_iter().chain(version.into_iter().flatten()))
        };
        require_version(&pages::list_pages(&self.client, PAGE_TIMEOUT, PAGE_SIZE, uri, add).await?)
    }

    /// Labels a pod that was never placed, so that the watch delivers it. It gets the lowest deletion cost, unless its author gave it one:
    /// then it is `costed`.
    pub(crate) async fn label_unplaced(&self, workload: &PlacedWorkload, pod: &str, costed: bool) {
        let mut annotations = BTreeMap::from([(OWNER, &*workload.owner.uid)]);
        if !costed {
            annotations.insert(DELETION_COST, LOWEST_DELETION_COST);
        }
        let metadata = json!({"labels": {PLACED: self.webhook}, "annotations": annotations});
        self.patch_pod(&workload.namespace, pod, metadata).await;
    }

    /// Writes another slot into a pod, if it still has version `at`; the deletion cost too, unless its author gave it one.
    pub(crate) async fn assign(
        &self,
        workload: &PlacedWorkload,
        pod: &str,
        at: ResourceVersion,
        assignment: &Assignment,
        costed: bool,
    ) {
        let policy = workload.allocator.policy();
        let definition = policy.index(&assignment.group).and_then(|index| policy.definitions().get(index));
        let mut annotations = BTreeMap::from([
            (GROUP_HASH, definition.map(|definition| definition.hash().to_string())),
            (OWNER, Some(workload.owner.uid.clone())),
            (TOKEN, Some(assignment.token.to_string())),
            (SLOT, Some(assignment.slot.to_string())),
            (GROUP, Some(assignment.group.to_string())),
            (ESTIMATED, None),
        ]);
        if !costed {
            annotations.insert(DELETION_COST, Some(deletion_cost(assignment.slot)));
        }
        let labels = json!({PLACED: self.webhook});
        let metadata =
            json!({"resourceVersion": at.to_string(), "labels": labels, "annotations": annotations});
        self.patch_pod(&workload.namespace, pod, metadata).await;
    }

    /// A pod that is deleted or has changed stays as it is: the next reconciliation decides again. Returns whether the pod was patched.
    async fn patch_pod(&self, namespace: &str, pod: &str, metadata: Value) -> bool {
        let (path, body) =
            (format!("/api/v1/namespaces/{namespace}/pods/{pod}"), json!({"metadata": metadata}));
        match self.patch(&path, &body).await {
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => false,
            Err(error) => {
                tracing::warn!(namespace, pod, error = describe(&error), "cannot write the slot of a pod");
                false
            }
            Ok(_) => true,
        }
    }

    async fn patch(&self, path: &str, body: &Value) -> kube::Result<String> {
        send(&self.client, "PATCH", path, MediaType::MergePatch, body).await
    }
}

/// Without a number, no version is known to be older than another.
fn require_version(text: &str) -> kube::Result<ResourceVersion> {
    parse_version(text).ok_or_else(|| {
        Error::Service(format!("the resourceVersion {text:?} of the API server is not a number").into())
    })
}
