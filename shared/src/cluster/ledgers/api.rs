//! The calls that a ledger asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::{Client, Error};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::Workload;
use super::driver::{SharedRules, locked};
use super::object::{self, Spec, collection, version};
use super::pods::of_owner;
use crate::api_server::{Media, get, read, send};
use crate::cluster::Object;
use crate::cluster::follow::{Page, encoded};
use crate::placement::ledger::{Content, Effect, Event, Pod, PodName, Stamp, Version};
use crate::placement::marks::{DELETION_COST, ESTIMATED, GROUP, OWNER, PLACED, SLOT, TOKEN, deletion_cost};

/// Pods of a list that are read at a time.
const PAGE: usize = 500;
/// A page that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(5);
/// After what failed so long is waited, twice as long the next time: the ledger tries again at once.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, so that who asks when the API server is back needn't wait for long.
const LONGEST: Duration = Duration::from_secs(1);

/// Calls in the name of one webhook.
pub(super) struct Api {
    pub(super) client: Client,
    pub(super) webhook: &'static str,
}

/// As much of an owner's `spec` as bounds its pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct OwnerSpec {
    replicas: Option<u32>,
    parallelism: Option<u32>,
}

impl Api {
    /// Makes the call that `effect` asks for, and returns what it came to. So many calls before it have `failed`.
    pub(super) async fn call(
        &self,
        workload: &Workload,
        rules: &SharedRules,
        failed: u32,
        effect: Effect,
    ) -> Event {
        let done = match effect {
            Effect::Read => self.read(workload).await.map(Event::Read),
            Effect::Write(at, content) => self.write(workload, at, &content).await,
            Effect::Remove(at) => self.remove(workload, at).await,
            Effect::List(None) => self.list_now(workload, rules).await,
            Effect::List(at_least) => {
                let list = self.list(workload, rules, at_least).await;
                list.map(|(version, pods)| Event::Listed { version, pods, owner: None })
            }
            Effect::Answer(..) | Effect::Stamp(..) => return Event::Tick,
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
        format!("{}/{}", collection(&workload.namespace), object::name(self.webhook, workload))
    }

    async fn read(&self, workload: &Workload) -> kube::Result<Option<(Version, Content)>> {
        let object: Option<Object<Spec, serde::de::IgnoredAny>> =
            get(&self.client, &self.path(workload)).await?;
        let Some(object) = object else { return Ok(None) };
        let content = object.spec.unwrap_or_default().content();
        Ok(Some((checked(&object.metadata.resource_version)?, content)))
    }

    async fn write(
        &self,
        workload: &Workload,
        at: Option<Version>,
        content: &Content,
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

    async fn remove(&self, workload: &Workload, at: Version) -> kube::Result<Event> {
        let body = json!({"preconditions": {"resourceVersion": at.to_string()}});
        match send(&self.client, "DELETE", &self.path(workload), Media::Json, &body).await {
            Ok(_) => Ok(Event::Written(None)),
            Err(Error::Api(status)) if status.code == 404 => Ok(Event::Written(None)),
            Err(Error::Api(status)) if status.code == 409 => Ok(Event::Conflict),
            Err(error) => Err(error),
        }
    }

    /// The pods as they are, and then the owner.
    async fn list_now(&self, workload: &Workload, rules: &SharedRules) -> kube::Result<Event> {
        let (version, pods) = self.list(workload, rules, None).await?;
        Ok(Event::Listed { version, pods, owner: self.bound(workload).await? })
    }

    /// How many pods the owner may have at a time; none if that can't be told.
    pub(super) async fn bound(&self, workload: &Workload) -> kube::Result<Option<u32>> {
        let owner: Option<Object<OwnerSpec, serde::de::IgnoredAny>> =
            get(&self.client, &workload.path).await?;
        let Some(owner) = owner.filter(|owner| owner.metadata.uid == workload.owner.uid) else {
            return Ok(Some(0));
        };
        let spec = owner.spec.unwrap_or_default();
        let job = workload.owner.kind == "Job";
        Ok(if job { Some(spec.parallelism.unwrap_or(1)) } else { spec.replicas })
    }

    /// The pods of the owner, as of the version that is returned.
    pub(super) async fn list(
        &self,
        workload: &Workload,
        rules: &SharedRules,
        at_least: Option<Version>,
    ) -> kube::Result<(Version, BTreeMap<PodName, Pod>)> {
        let Workload { namespace, selector, owner, .. } = workload;
        let base =
            format!("/api/v1/namespaces/{namespace}/pods?limit={PAGE}&labelSelector={}", encoded(selector));
        let since =
            at_least.map(|version| format!("&resourceVersion={version}&resourceVersionMatch=NotOlderThan"));
        let mut uri = format!("{base}{}", since.unwrap_or_default());
        let mut pods = BTreeMap::new();
        loop {
            let text = read(&self.client, &uri, PATIENCE).await?;
            let page: Page<'_> = serde_json::from_str(&text).map_err(Error::SerdeError)?;
            let owned = of_owner(&page.items, &owner.uid, locked(rules).policy());
            pods.extend(owned.map_err(Error::SerdeError)?);
            if page.metadata.r#continue.is_empty() {
                return Ok((checked(&page.metadata.resource_version)?, pods));
            }
            uri = format!("{base}&continue={}", encoded(&page.metadata.r#continue));
        }
    }

    /// Gives a pod another place, if it is still at this version.
    pub(super) async fn stamp(&self, workload: &Workload, pod: &str, at: Version, stamp: &Stamp) {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", workload.namespace);
        let body = json!({"metadata": {
            "resourceVersion": at.to_string(),
            "labels": {PLACED: self.webhook},
            "annotations": {
                OWNER: workload.owner.uid,
                TOKEN: stamp.token.to_string(),
                SLOT: stamp.slot.to_string(),
                GROUP: *stamp.group,
                ESTIMATED: null,
                DELETION_COST: deletion_cost(stamp.slot),
            },
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
fn checked(text: &str) -> kube::Result<Version> {
    version(text).ok_or_else(|| {
        Error::Service(format!("the API server's resourceVersion {text:?} is no number").into())
    })
}
