//! Reads the owners of pods as admission needs them.
//!
//! Any client can write any owner reference into a pod, so each owner is read with a GET, of whatever kind it is. The result counts for a
//! second, and requests for the same owner meanwhile share one GET. A watch would lag behind the first pod of a rollout.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use kube::{Client, Error};
use moka::sync::Cache;
use podshaper_core::object::{Lookup, MAX_KIND, Object, OwnerReference, api_path, is_name};
use podshaper_kube::discovery::plural;
use podshaper_kube::error::describe;
use podshaper_kube::request::get;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::PLACED;
use podshaper_placement::owner_object::{OwnerObject, OwnerSpec, OwnerStatus};
use podshaper_placement::owners::OwnerChain;
use tokio::time::{timeout, timeout_at};

use crate::placement_object::PlacedWorkload;

/// The longest that admission waits for one owner.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The part of the request's time that a wait leaves.
const MARGIN: Duration = Duration::from_millis(250);
/// How long a GET may take. It continues after the requests that wait for it have been answered without its result.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a result counts.
const FRESH: Duration = Duration::from_secs(1);
/// How long a result counts while the API server is unavailable. An object with the same uid changes its size at most.
const STALE: Duration = Duration::from_mins(10);
/// Owners that are remembered.
const MAX_OWNERS: u64 = 4096;
/// Kinds with a cached plural, and kinds without one.
const MAX_KINDS: u64 = 256;
/// How long a kind that does not exist is not discovered again.
const ABSENT_KIND: Duration = Duration::from_secs(10);

/// Kinds that every cluster has.
const BUILT_IN: [(&str, &str, &str); 7] = [
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("batch/v1", "Job", "jobs"),
    ("batch/v1", "CronJob", "cronjobs"),
    ("v1", "ReplicationController", "replicationcontrollers"),
    ("v1", "Pod", "pods"),
];

/// Reads owners, and remembers them for a short time.
pub struct OwnerReader {
    client: Client,
    annotations: &'static [&'static str],
    /// By path and uid: a read for another uid may have begun before this owner existed.
    owners: Cache<(String, String), Arc<CachedOwner>>,
    /// By `apiVersion` and kind.
    plurals: Cache<(String, String), String>,
    absent_kinds: Cache<(String, String), ()>,
}

#[derive(Default)]
struct CachedOwner(Mutex<OwnerReads>);

#[derive(Default)]
struct OwnerReads {
    pending: Option<PendingRead>,
    last: Option<(Instant, Lookup<OwnerObject>)>,
}

type PendingRead = Shared<BoxFuture<'static, Lookup<OwnerObject>>>;

impl OwnerReader {
    /// Reads through `client`, and keeps these annotations of owners.
    ///
    /// Rights: `get` the kinds that are to be read. Any other kind is [`Lookup::Forbidden`].
    pub fn new(client: Client, annotations: &'static [&'static str]) -> Self {
        Self {
            client,
            annotations,
            owners: Cache::builder().max_capacity(MAX_OWNERS).time_to_idle(STALE).build(),
            plurals: Cache::new(MAX_KINDS),
            absent_kinds: Cache::builder().max_capacity(MAX_KINDS).time_to_live(ABSENT_KIND).build(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Reads a chain to its end, or until `is_enough`, outside admission.
    pub async fn read_chain(
        &self,
        namespace: &str,
        chain: &mut OwnerChain,
        is_enough: impl Fn(&OwnerChain) -> bool,
    ) {
        while let Some(owner) = chain.next_to_read().filter(|_| !is_enough(chain)) {
            let found = self.read(namespace, owner, Instant::now() + READ_TIMEOUT).await;
            chain.record_read(found);
        }
    }

    /// Reads the object that `owner` names, by the deadline. It may have another uid.
    pub async fn read(
        &self,
        namespace: &str,
        owner: &OwnerReference,
        deadline: Instant,
    ) -> Lookup<OwnerObject> {
        if !owner.is_valid() {
            return Lookup::NotFound;
        }
        let started = tokio::time::Instant::now();
        let wait = deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN).min(MAX_WAIT);
        let path = match timeout(wait, self.path(namespace, owner)).await {
            Ok(Ok(Some(path))) => path,
            Ok(Ok(None)) => return Lookup::NotFound,
            Ok(Err(error)) => return unavailable(&error, namespace, owner),
            Err(_) => return Lookup::Unavailable,
        };
        let cached = self.owners.get_with((path.clone(), owner.uid.clone()), Arc::default);
        if let Some(last) = cached.last(FRESH) {
            return last;
        }
        match timeout_at(started + wait, self.shared_read(path, owner, &cached)).await {
            Ok(Lookup::Unavailable) | Err(_) => cached.last(STALE).unwrap_or(Lookup::Unavailable),
            Ok(found) => found,
        }
    }

    /// Reads the object of this name, whatever its uid, such as the target of a policy.
    pub async fn read_by_name(
        &self,
        namespace: &str,
        api_version: &str,
        kind: &str,
        name: &str,
    ) -> Lookup<OwnerObject> {
        let owner = OwnerReference::new(api_version, kind, name, "");
        match self.path(namespace, &owner).await {
            Ok(Some(path)) => read(&self.client, &path, &owner, self.annotations).await,
            Ok(None) => Lookup::NotFound,
            Err(error) => unavailable(&error, namespace, &owner),
        }
    }

    /// Returns the workload that shares a sequence of slots with the pods of this chain, if the chain was read that far.
    pub async fn workload(
        &self,
        webhook: &str,
        namespace: &str,
        chain: &OwnerChain,
        allocator: &Arc<SlotAllocator>,
    ) -> kube::Result<Option<Arc<PlacedWorkload>>> {
        let Some((owner, object)) = chain.sequence_owner() else { return Ok(None) };
        let path = if chain.is_selected() {
            None
        } else {
            let Some(path) = self.path(namespace, owner).await? else { return Ok(None) };
            Some(path)
        };
        // Without a selector, at least the placed pods are found.
        let selector = object.and_then(|object| object.selector.clone());
        Ok(Some(Arc::new(PlacedWorkload {
            namespace: namespace.to_owned(),
            owner: owner.clone(),
            path,
            selector: selector.unwrap_or_else(|| format!("{PLACED}={webhook}")),
            pods: object.filter(|_| !chain.is_shared()).and_then(|object| object.pods),
            shared: chain.is_shared(),
            created: object.and_then(|object| object.created),
            version: object.map_or(0, |object| object.version),
            allocator: Arc::clone(allocator),
        })))
    }

    /// The read that is pending, or a new one.
    fn shared_read(&self, path: String, owner: &OwnerReference, cached: &Arc<CachedOwner>) -> PendingRead {
        let mut reads = cached.lock();
        if let Some(pending) = reads.pending.as_ref().filter(|pending| pending.peek().is_none()) {
            return pending.clone();
        }
        let client = self.client.clone();
        let annotations = self.annotations;
        let owner = owner.clone();
        let cached = Arc::clone(cached);
        let read = tokio::spawn(async move {
            let found = timeout(READ_TIMEOUT, read(&client, &path, &owner, annotations)).await;
            let found = found.unwrap_or(Lookup::Unavailable);
            let mut reads = cached.lock();
            if !matches!(found, Lookup::Unavailable) {
                reads.last = Some((Instant::now(), found.clone()));
            }
            reads.pending = None;
            found
        });
        let pending = read.map(|found| found.unwrap_or(Lookup::Unavailable)).boxed().shared();
        reads.pending.insert(pending).clone()
    }

    /// The path of `owner`; `None` if there can be no such object.
    pub(crate) async fn path(&self, namespace: &str, owner: &OwnerReference) -> kube::Result<Option<String>> {
        let OwnerReference { api_version, kind, name, .. } = owner;
        let is_valid = is_name(name) && is_name(namespace) && kind.len() <= MAX_KIND;
        let Some(base) = api_path(api_version).filter(|_| is_valid) else { return Ok(None) };
        let plural = self.plural(&base, api_version, kind).await?;
        Ok(plural.map(|plural| format!("{base}/namespaces/{namespace}/{plural}/{name}")))
    }

    /// The plural of a kind, if the API server has it.
    async fn plural(&self, base: &str, api_version: &str, kind: &str) -> kube::Result<Option<String>> {
        let built_in =
            BUILT_IN.iter().find(|(version, built_in, _)| (*version, *built_in) == (api_version, kind));
        if let Some((.., plural)) = built_in {
            return Ok(Some((*plural).to_owned()));
        }
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(plural) = self.plurals.get(&key) {
            return Ok(Some(plural));
        }
        if self.absent_kinds.contains_key(&key) {
            return Ok(None);
        }
        let found = plural(&self.client, base, kind).await?;
        match &found {
            Some(plural) => self.plurals.insert(key, plural.clone()),
            None => self.absent_kinds.insert(key, ()),
        }
        Ok(found)
    }
}

impl CachedOwner {
    fn lock(&self) -> MutexGuard<'_, OwnerReads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last result, if it is younger than `max_age`.
    fn last(&self, max_age: Duration) -> Option<Lookup<OwnerObject>> {
        let (at, found) = self.lock().last.clone()?;
        (at.elapsed() < max_age).then_some(found)
    }
}

async fn read(
    client: &Client,
    path: &str,
    owner: &OwnerReference,
    annotations: &[&str],
) -> Lookup<OwnerObject> {
    match get::<Object<OwnerSpec, OwnerStatus>>(client, path).await {
        Ok(Some(object)) => {
            let keeps = |key: &str| annotations.contains(&key);
            Lookup::Found(Arc::new(OwnerObject::from_object(object, owner, keeps)))
        }
        Ok(None) => Lookup::NotFound,
        Err(Error::Api(status)) if status.code == 403 => Lookup::Forbidden,
        Err(error) => unavailable(&error, path, owner),
    }
}

/// Logs an error about an owner in this namespace, or with this path.
fn unavailable(error: &Error, place: &str, owner: &OwnerReference) -> Lookup<OwnerObject> {
    let kind = &owner.kind;
    let name = &owner.name;
    tracing::warn!(place, kind, name, error = describe(error), "cannot read the owner of a pod");
    Lookup::Unavailable
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use podshaper_placement::policy::{Group, Policy, Tie};
    use podshaper_testing::{MockApiServer, MockResponse};
    use serde_json::{Value, json};

    use super::*;

    const SET: &str = "/apis/apps/v1/namespaces/ns/replicasets/web-1";

    fn owner(api_version: &str, kind: &str, name: &str) -> OwnerReference {
        OwnerReference::new(api_version, kind, name, "u")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    fn replica_set(replicas: u32) -> Value {
        json!({
            "metadata": {"name": "web-1", "uid": "u", "resourceVersion": "7", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}},
        })
    }

    fn found(lookup: &Lookup<OwnerObject>) -> &OwnerObject {
        let Lookup::Found(owner) = lookup else { panic!("{lookup:?}") };
        owner
    }

    #[tokio::test]
    async fn simultaneous_reads_of_one_owner_share_one_request() {
        let (client, mut server) = MockApiServer::start();
        let owners = OwnerReader::new(client, &[]);
        let set = owner("apps/v1", "ReplicaSet", "web-1");
        let reads = join_all((0..50).map(|_| owners.read("ns", &set, soon())));
        let ((), reads) = tokio::join!(async { server.next(SET).await.answer(200, &replica_set(3)) }, reads);
        for read in &reads {
            let owner = found(read);
            assert_eq!((&*owner.uid, owner.version, owner.pods), ("u", 7, Some(3)));
            assert_eq!(owner.selector.as_deref(), Some("app=web"));
            assert_eq!(owner.controller.as_ref().unwrap().name, "web");
        }
        let node_labels = [("type".to_owned(), "default".to_owned())].into();
        let group = Group { name: "default".into(), weight: 1, node_labels, ..Group::default() };
        let allocator = Arc::new(SlotAllocator::new(Policy::new(vec![group], Tie::First).unwrap()));
        let mut chain = OwnerChain::from(Some(set));
        chain.record_read(reads[0].clone());
        let workload = owners.workload("webhook", "ns", &chain, &allocator).await.unwrap().unwrap();
        assert_eq!(
            (workload.path.as_deref(), &*workload.selector, workload.pods),
            (Some(SET), "app=web", Some(3))
        );
    }

    #[tokio::test]
    async fn owner_with_another_uid_is_read_again() {
        let (client, mut server) = MockApiServer::start();
        let owners = OwnerReader::new(client, &[]);
        let set = owner("apps/v1", "ReplicaSet", "web-1");
        let recreated = OwnerReference { uid: "v".to_owned(), ..set.clone() };
        for (owner, replicas) in [(&set, 3), (&recreated, 4)] {
            let serve = async { server.next(SET).await.answer(200, &replica_set(replicas)) };
            let (read, ()) = tokio::join!(owners.read("ns", owner, soon()), serve);
            assert_eq!(found(&read).pods, Some(replicas));
        }
    }

    #[tokio::test]
    async fn custom_kind_is_discovered() {
        let (client, mut server) = MockApiServer::start();
        let owners = OwnerReader::new(client, &[]);
        let resources = json!({"resources": [
            {"name": "clonesets/status", "kind": "CloneSet", "namespaced": true},
            {"name": "nodesets", "kind": "CloneSet", "namespaced": false},
            {"name": "clonesets", "kind": "CloneSet", "namespaced": true},
        ]});
        let clone_set = owner("apps.kruise.io/v1alpha1", "CloneSet", "web");
        let serve = async {
            server.next("/apis/apps.kruise.io/v1alpha1").await.answer(200, &resources);
            let clone_set =
                json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"replicas": 2, "selector": "odd"}});
            server
                .next("/apis/apps.kruise.io/v1alpha1/namespaces/ns/clonesets/web")
                .await
                .answer(200, &clone_set);
        };
        let (read, ()) = tokio::join!(owners.read("ns", &clone_set, soon()), serve);
        assert_eq!((found(&read).pods, &found(&read).selector), (Some(2), &None));

        let odd = owner("apps.kruise.io/v1alpha1", "CloneSet", "odd");
        let serve = async {
            let odd = json!({
                "metadata": {"name": "odd", "uid": "u"}, "status": {"replicas": {}},
                "spec": {
                    "replicas": "10%", "parallelism": -1, "ordinals": [], "selector": {"matchLabels": 3},
                    "template": "small", "jobTemplate": {"spec": []},
                },
            });
            server.next("/apis/apps.kruise.io/v1alpha1/namespaces/ns/clonesets/odd").await.answer(200, &odd);
        };
        let (read, ()) = tokio::join!(owners.read("ns", &odd, soon()), serve);
        assert_eq!(
            (found(&read).pods, found(&read).created),
            (None, None),
            "fields of other types are ignored"
        );
        let job = owner("batch.volcano.sh/v1alpha1", "Job", "web");
        assert_eq!(
            OwnerSpec::default().pods(&job),
            None,
            "only batch/v1 defines parallelism, and its default"
        );
    }

    #[tokio::test]
    async fn owner_that_cannot_exist_is_not_requested() {
        let (client, mut server) = MockApiServer::start();
        let owners = OwnerReader::new(client, &[]);
        let unknown = owner("example.com/v1", "Nothing", "web");
        let none = async { server.next("/apis/example.com/v1").await.answer(200, &json!({"resources": []})) };
        assert_eq!(tokio::join!(owners.read("ns", &unknown, soon()), none).0, Lookup::NotFound);
        let paths =
            [owner("../v1", "Pod", "a"), owner("apps/v1", "ReplicaSet", "../a"), owner("a/b/c", "X", "a")];
        for owner in paths.iter().chain([&unknown]) {
            assert_eq!(owners.read("ns", owner, soon()).await, Lookup::NotFound);
        }
        assert!(server.is_idle(), "the absent kind is remembered");
    }

    #[tokio::test]
    async fn failed_read_says_why() {
        let (client, mut server) = MockApiServer::start();
        let owners = OwnerReader::new(client, &[]);
        let set = owner("apps/v1", "ReplicaSet", "web-1");
        for (code, reason, expected) in [
            (403, "Forbidden", Lookup::Forbidden),
            (404, "NotFound", Lookup::NotFound),
            (500, "InternalError", Lookup::Unavailable),
        ] {
            let set = OwnerReference { uid: code.to_string(), ..set.clone() };
            let serve = async { server.next(SET).await.respond(MockResponse::failure(code, reason)) };
            assert_eq!(tokio::join!(owners.read("ns", &set, soon()), serve).0, expected);
        }
        let late = Instant::now() + MARGIN;
        assert_eq!(owners.read("ns", &set, late).await, Lookup::Unavailable, "no wait past the deadline");
    }

    /// Each request waits for less time than the GET takes.
    #[tokio::test(start_paused = true)]
    async fn slow_read_is_requested_once() {
        let (client, mut server) = MockApiServer::start();
        let owners = OwnerReader::new(client, &[]);
        let set = owner("apps/v1", "ReplicaSet", "web-1");
        let reads = join_all((0..200u64).map(|number| {
            let owners = &owners;
            let set = &set;
            async move {
                tokio::time::sleep(Duration::from_millis(5 * number)).await;
                owners.read("ns", set, Instant::now() + Duration::from_secs(2)).await
            }
        }));
        let mut requests = 0;
        let count = async {
            let mut pending = Vec::new();
            loop {
                pending.push(server.next(SET).await);
                requests += 1;
            }
        };
        tokio::select! { _ = reads => {}, () = count => {} }
        assert_eq!(requests, 1);
    }
}
