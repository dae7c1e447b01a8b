//! The calls that a ledger asks for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Error};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::object::{self, Spec, collection, version};
use super::pods::{Others, of_owner};
use super::{Standing, Told, Workload};
use crate::owners::OwnerSpec;
use podshaper_core::object::Object;
use podshaper_kube::pages::pages;
use podshaper_kube::request::{Media, get, send};
use podshaper_kube::watch::encoded;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::{
    DELETION_COST, ESTIMATED, GROUP, LOWEST_DELETION_COST, OWNER, PLACED, SLOT, TOKEN, deletion_cost,
};
use podshaper_placement::ledger::{
    Assignment, Call, Event, LedgerContent, PodName, PodPlacement, PodRecord, PodState, ResourceVersion,
};

/// Pods of a list that are read at a time.
const PAGE: usize = 500;
/// A page that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(5);
/// After what failed so long is waited, twice as long the next time: the ledger tries again at once.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, so that who asks when the API server is back needn't wait for long.
const LONGEST: Duration = Duration::from_secs(1);

/// The pods of an owner.
#[derive(Default)]
pub(super) struct Listing {
    /// As of this version.
    pub(super) version: ResourceVersion,
    pub(super) pods: BTreeMap<PodName, PodRecord>,
    /// Those that have no place, nor tell a group, and that no webhook has marked; whether each has a deletion cost of its own.
    pub(super) unplaced: Vec<(PodName, bool)>,
}

/// Calls in the name of one webhook.
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) webhook: &'static str,
}

impl Api {
    /// Makes the call, and returns its response. So many calls before it have `failed`.
    pub(super) async fn call(
        &self,
        workload: &Workload,
        allocator: &Arc<SlotAllocator>,
        failed: u32,
        call: Call,
    ) -> Event {
        let done = match call {
            Call::Read => self.read(workload).await.map(Event::Read),
            Call::Write(at, content) => self.write(workload, at, &content).await,
            Call::Delete(at) => self.remove(workload, at).await,
            Call::List(None) => self.list_now(workload, allocator).await,
            Call::List(at_least) => {
                let list = self.list(workload, allocator, at_least).await;
                list.map(|Listing { version, pods, .. }| Event::Listed { version, pods, max_pods: None })
            }
        };
        match done {
            Ok(event) => event,
            Err(error) => {
                let (kind, owner) = (&workload.owner.kind, &workload.owner.name);
                tracing::warn!(namespace = workload.namespace, kind, owner, %error, "a ledger can't be read or written");
                sleep((PAUSE * 2u32.saturating_pow(failed)).min(LONGEST)).await;
                Event::Failed
            }
        }
    }

    fn path(&self, workload: &Workload) -> String {
        format!("{}/{}", collection(&workload.namespace), object::name(self.webhook, &workload.owner))
    }

    async fn read(&self, workload: &Workload) -> kube::Result<Option<(ResourceVersion, LedgerContent)>> {
        let object: Option<Object<Spec, serde::de::IgnoredAny>> =
            get(&self.client, &self.path(workload)).await?;
        let Some(object) = object else { return Ok(None) };
        let content = object.spec.unwrap_or_default().content();
        Ok(Some((checked(&object.metadata.resource_version)?, content)))
    }

    async fn write(
        &self,
        workload: &Workload,
        at: Option<ResourceVersion>,
        content: &LedgerContent,
    ) -> kube::Result<Event> {
        let written = if let Some(at) = at {
            let body = object::changed(at, content);
            send(&self.client, "PATCH", &self.path(workload), Media::MergePatch, &body).await
        } else {
            let body = object::created(self.webhook, workload, content);
            send(&self.client, "POST", &collection(&workload.namespace), Media::Json, &body).await
        };
        match written {
            Ok(text) => {
                let object: Object<serde::de::IgnoredAny, serde::de::IgnoredAny> =
                    serde_json::from_str(&text).map_err(Error::SerdeError)?;
                Ok(Event::Written(Some(checked(&object.metadata.resource_version)?)))
            }
            // It was written, created or removed by another meanwhile. (Nothing is created where the kind isn't known.)
            Err(Error::Api(status)) if status.code == 409 => Ok(Event::Conflict),
            Err(Error::Api(status)) if status.code == 404 && at.is_some() => Ok(Event::Conflict),
            Err(error) => Err(error),
        }
    }

    async fn remove(&self, workload: &Workload, at: ResourceVersion) -> kube::Result<Event> {
        let body = json!({"preconditions": {"resourceVersion": at.to_string()}});
        match send(&self.client, "DELETE", &self.path(workload), Media::Json, &body).await {
            Ok(_) => Ok(Event::Written(None)),
            Err(Error::Api(status)) if status.code == 404 => Ok(Event::Written(None)),
            Err(Error::Api(status)) if status.code == 409 => Ok(Event::Conflict),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn tell(&self, standing: &Standing, told: &Told) -> kube::Result<()> {
        let path = format!("{}/{}/status", collection(&standing.namespace), standing.name);
        send(&self.client, "PATCH", &path, Media::MergePatch, &json!({"status": told})).await.map(drop)
    }

    /// The pods as they are, and then the owner.
    async fn list_now(&self, workload: &Workload, allocator: &Arc<SlotAllocator>) -> kube::Result<Event> {
        let Listing { version, pods, .. } = self.list(workload, allocator, None).await?;
        Ok(Event::Listed { version, pods, max_pods: self.bound(workload).await? })
    }

    /// How many pods the owner may have at a time; none if that can't be told.
    pub(super) async fn bound(&self, workload: &Workload) -> kube::Result<Option<u32>> {
        let owner: Option<Object<OwnerSpec, serde::de::IgnoredAny>> =
            get(&self.client, &workload.path).await?;
        let Some(owner) = owner.filter(|owner| owner.metadata.uid == workload.owner.uid) else {
            return Ok(Some(0));
        };
        Ok(owner.spec.unwrap_or_default().pods(&workload.owner))
    }

    /// The pods of the owner.
    pub(super) async fn list(
        &self,
        workload: &Workload,
        allocator: &Arc<SlotAllocator>,
        at_least: Option<ResourceVersion>,
    ) -> kube::Result<Listing> {
        let Workload { namespace, selector, owner, .. } = workload;
        let policy = allocator.policy().clone();
        let mut listing = Listing::default();
        listing.version = self
            .pages(namespace, selector, at_least, &mut |items| {
                for owned in of_owner(items, &owner.uid, &policy, self.webhook)? {
                    if let (PodPlacement::Unknown, PodState::Active, None) =
                        (&owned.pod.placement, owned.pod.state, &owned.marked)
                    {
                        listing.unplaced.push((Arc::clone(&owned.name), owned.costed));
                    }
                    listing.pods.insert(owned.name, owned.pod);
                }
                Ok(())
            })
            .await?;
        Ok(listing)
    }

    /// Those of a selector's pods that this webhook hasn't placed.
    pub(super) async fn others(&self, namespace: &str, selector: &str) -> kube::Result<Others> {
        let mut others = Others::default();
        // One without the label doesn't equal it either.
        let selector = format!("{selector},{PLACED}!={}", self.webhook);
        self.pages(namespace, &selector, None, &mut |items| others.add(items)).await?;
        Ok(others)
    }

    /// Lists pods page by page, and returns the version at which they were so.
    async fn pages(
        &self,
        namespace: &str,
        selector: &str,
        at_least: Option<ResourceVersion>,
        each: &mut (dyn FnMut(&[&RawValue]) -> serde_json::Result<()> + Send),
    ) -> kube::Result<ResourceVersion> {
        let base = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", encoded(selector));
        let since =
            at_least.map(|version| format!("&resourceVersion={version}&resourceVersionMatch=NotOlderThan"));
        let since = since.unwrap_or_default();
        let uri = |limit: usize, next: &str| match next {
            "" => format!("{base}&limit={limit}{since}"),
            next => format!("{base}&limit={limit}&continue={}", encoded(next)),
        };
        checked(&pages(&self.client, PATIENCE, PAGE, uri, each).await?)
    }

    /// Marks a pod that nobody placed: the watch shows it from now on, and of its owner's it is the first to go, unless its author
    /// has said otherwise.
    pub(super) async fn mark_unplaced(
        &self,
        workload: &Workload,
        pod: &str,
        costed: bool,
    ) -> kube::Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", workload.namespace);
        let cost = (!costed).then_some((DELETION_COST, LOWEST_DELETION_COST));
        let annotations: BTreeMap<_, _> = [(OWNER, &*workload.owner.uid)].into_iter().chain(cost).collect();
        let body = json!({"metadata": {"labels": {PLACED: self.webhook}, "annotations": annotations}});
        match send(&self.client, "PATCH", &path, Media::MergePatch, &body).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            marked => marked.map(drop),
        }
    }

    /// Gives a pod another place, if it is still at this version; a deletion cost only where it isn't `costed` by its author.
    pub(super) async fn stamp(
        &self,
        workload: &Workload,
        pod: &str,
        at: ResourceVersion,
        stamp: &Assignment,
        costed: bool,
    ) {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", workload.namespace);
        let mut annotations = BTreeMap::from([
            (OWNER, Some(workload.owner.uid.clone())),
            (TOKEN, Some(stamp.token.to_string())),
            (SLOT, Some(stamp.slot.to_string())),
            (GROUP, Some(stamp.group.to_string())),
            (ESTIMATED, None),
        ]);
        if !costed {
            annotations.insert(DELETION_COST, Some(deletion_cost(stamp.slot)));
        }
        let body = json!({"metadata": {
            "resourceVersion": at.to_string(),
            "labels": {PLACED: self.webhook},
            "annotations": annotations,
        }});
        match send(&self.client, "PATCH", &path, Media::MergePatch, &body).await {
            Ok(_) => {}
            // It has changed or gone: whoever tends looks again.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => {
                tracing::warn!(namespace = workload.namespace, pod, %error, "a pod can't be given its slot");
            }
        }
    }
}

/// Versions are numbers, or nothing can be said about what is older.
fn checked(text: &str) -> kube::Result<ResourceVersion> {
    version(text).ok_or_else(|| {
        Error::Service(format!("the API server's resourceVersion {text:?} is no number").into())
    })
}
