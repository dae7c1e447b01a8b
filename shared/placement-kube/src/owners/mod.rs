//! A pod's owners, read as a decision needs them: what [`podshaper_placement::owners`] asks for.
//!
//! Which owner a pod names is anybody's word, so each is read: by GET, of whatever kind, once a second at most. Those who ask
//! for the same one meanwhile wait for one answer. (A watch could lag behind the first pod of a rollout.)

mod object;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use kube::{Client, Error};
use tokio::time::{timeout, timeout_at};

pub(super) use self::object::OwnerSpec;
use self::object::OwnerStatus;
use super::ledgers::Workload;
use podshaper_core::lookup::Lookup;
use podshaper_core::object::{Object, is_name};
use podshaper_core::owner_reference::{MAX_KIND, OwnerReference};
use podshaper_kube::discovery::{base, plural};
use podshaper_kube::request::get;
use podshaper_placement::annotations::PLACED;
use podshaper_placement::owners::{OwnerChain, OwnerObject};

/// The longest that a decision waits for one read, however patient the API server is.
const LONGEST: Duration = Duration::from_secs(1);
/// What is left of the request's time for everything else.
const MARGIN: Duration = Duration::from_millis(250);
/// Where nobody waits, a read may take so long.
const LEISURE: Duration = Duration::from_secs(5);
/// What was read counts for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Where the API server can't be reached, what was found counts for so long: of an object of one uid only its size changes.
const STALE: Duration = Duration::from_mins(10);
/// So many owners are remembered.
const MAX_KNOWN: usize = 4096;
/// Of an annotation so much is kept: whoever reads it can tell that it isn't whole, as none that makes sense is so long.
const LONGEST_ANNOTATION: usize = 32 << 10;
/// Kinds whose plural is remembered, and for how long a kind that there isn't is not asked for again.
const MAX_KINDS: usize = 256;
const ABSENT: Duration = Duration::from_secs(10);

/// Kinds that every cluster has.
const KINDS: [(&str, &str, &str); 6] = [
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("batch/v1", "Job", "jobs"),
    ("batch/v1", "CronJob", "cronjobs"),
    ("v1", "ReplicationController", "replicationcontrollers"),
];

/// Reads owners.
pub struct Owners {
    client: Client,
    annotations: &'static [&'static str],
    kinds: Mutex<HashMap<(String, String), Kind>>,
    /// By path.
    known: Mutex<HashMap<String, Arc<Known>>>,
}

/// The plural of a kind, or when there was none.
#[derive(Clone)]
enum Kind {
    Plural(String),
    Absent(Instant),
}

/// An owner, as last read.
#[derive(Default)]
struct Known {
    /// The read that is under way, and for whose uid.
    reading: Mutex<Option<(String, Reading)>>,
    last: Mutex<Option<Last>>,
}

/// One read, for all who wait for it: it goes on when they leave, so that the next who asks needn't begin anew.
type Reading = Shared<BoxFuture<'static, Lookup<OwnerObject>>>;

#[derive(Clone)]
struct Last {
    at: Instant,
    /// Of the owner that was wanted.
    uid: String,
    looked: Lookup<OwnerObject>,
}

impl Owners {
    /// Reads through `client`.
    ///
    /// Rights: `get` the kinds that are to be read; of another kind [`Lookup::Forbidden`] is found.
    pub fn new(client: Client) -> Self {
        Self { client, annotations: &[], kinds: Mutex::default(), known: Mutex::default() }
    }

    /// The same, which also keeps these annotations of what it reads.
    #[must_use]
    pub fn with_annotations(self, annotations: &'static [&'static str]) -> Self {
        Self { annotations, ..self }
    }

    /// Reads a chain to its end, or until it is `enough`. Nobody waits.
    pub async fn climb(&self, namespace: &str, chain: &mut OwnerChain, enough: impl Fn(&OwnerChain) -> bool) {
        while let Some(wanted) = chain.wants().filter(|_| !enough(chain)) {
            let found = self.look(namespace, wanted, Instant::now() + LEISURE).await;
            chain.looked(found);
        }
    }

    /// What is where `owner` should be.
    pub async fn look(
        &self,
        namespace: &str,
        owner: &OwnerReference,
        deadline: Instant,
    ) -> Lookup<OwnerObject> {
        if !owner.is_valid() {
            return Lookup::NotFound;
        }
        let begun = tokio::time::Instant::now();
        let patience = deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN).min(LONGEST);
        let path = match timeout(patience, self.path(namespace, owner)).await {
            Ok(Ok(Some(path))) => path,
            Ok(Ok(None)) => return Lookup::NotFound,
            Ok(Err(error)) => return unknown(owner, &error),
            Err(_) => return Lookup::Unavailable,
        };
        let known = self.known(&path);
        if let Some(last) = known.last(owner, FRESH) {
            return last;
        }
        let reading = self.reading(path, owner, &known);
        let looked = timeout_at(begun + patience, reading).await.unwrap_or(Lookup::Unavailable);
        let before = || known.last(owner, STALE);
        if looked == Lookup::Unavailable { before().unwrap_or(looked) } else { looked }
    }

    /// The workload of `webhook` whose pods share a sequence, by a chain that tells; none where it doesn't, or nobody can.
    pub async fn workload(
        &self,
        webhook: &str,
        namespace: &str,
        chain: &OwnerChain,
    ) -> kube::Result<Option<Workload>> {
        let Some((owner, read)) = chain.sequence_owner() else { return Ok(None) };
        let Some(path) = self.path(namespace, owner).await? else { return Ok(None) };
        // Where no selector tells, at least those that were placed are found.
        let selector =
            read.and_then(|read| read.selector.clone()).unwrap_or_else(|| format!("{PLACED}={webhook}"));
        Ok(Some(Workload {
            namespace: namespace.to_owned(),
            owner: owner.clone(),
            path,
            selector,
            pods: read.and_then(|read| read.pods),
            created: read.and_then(|read| read.created),
            version: read.map_or(0, |read| read.version),
        }))
    }

    /// What there is of this name, whatever its uid: the target of a policy, which names none.
    pub async fn find(
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
            Err(error) => unknown(&owner, &error),
        }
    }

    /// The read that is under way for this very owner, or a new one. (One for another uid may have begun before this owner was there.)
    fn reading(&self, path: String, owner: &OwnerReference, known: &Arc<Known>) -> Reading {
        let mut reading = lock(&known.reading);
        if let Some((uid, under_way)) = &*reading
            && *uid == owner.uid
            && under_way.peek().is_none()
        {
            return under_way.clone();
        }
        let (client, annotations) = (self.client.clone(), self.annotations);
        let (of, known) = (owner.clone(), Arc::clone(known));
        let read = tokio::spawn(async move {
            let looked =
                timeout(LEISURE, read(&client, &path, &of, annotations)).await.unwrap_or(Lookup::Unavailable);
            if looked != Lookup::Unavailable {
                let last = Last { at: Instant::now(), uid: of.uid.clone(), looked: looked.clone() };
                *lock(&known.last) = Some(last);
            }
            lock(&known.reading).take_if(|(uid, _)| *uid == of.uid);
            looked
        });
        let begun = read.map(|looked| looked.unwrap_or(Lookup::Unavailable)).boxed().shared();
        *reading = Some((owner.uid.clone(), begun.clone()));
        begun
    }

    /// Where the API server has `owner`; none if there can't be such a thing.
    async fn path(&self, namespace: &str, owner: &OwnerReference) -> kube::Result<Option<String>> {
        let OwnerReference { api_version, kind, name, .. } = owner;
        let named = is_name(name) && is_name(namespace) && kind.len() <= MAX_KIND;
        let Some(base) = base(api_version).filter(|_| named) else { return Ok(None) };
        let at = |plural: &str| Some(format!("{base}/namespaces/{namespace}/{plural}/{name}"));
        if let Some((.., plural)) = KINDS.iter().find(|known| (known.0, known.1) == (api_version, kind)) {
            return Ok(at(plural));
        }
        let key = (api_version.clone(), kind.clone());
        let known = lock(&self.kinds).get(&key).cloned();
        match known {
            Some(Kind::Plural(plural)) => return Ok(at(&plural)),
            Some(Kind::Absent(since)) if since.elapsed() < ABSENT => return Ok(None),
            _ => {}
        }
        let found = plural(&self.client, &base, kind).await?;
        let mut kinds = lock(&self.kinds);
        if kinds.len() >= MAX_KINDS {
            kinds.retain(|_, kind| matches!(kind, Kind::Plural(_)));
        }
        if kinds.len() < MAX_KINDS {
            kinds.insert(key, found.clone().map_or_else(|| Kind::Absent(Instant::now()), Kind::Plural));
        }
        Ok(found.and_then(|plural| at(&plural)))
    }

    fn known(&self, path: &str) -> Arc<Known> {
        let mut all = lock(&self.known);
        if let Some(known) = all.get(path) {
            return Arc::clone(known);
        }
        if all.len() >= MAX_KNOWN {
            let young = |last: &Last| last.at.elapsed() < FRESH;
            all.retain(|_, known| {
                Arc::strong_count(known) > 1 || lock(&known.last).as_ref().is_some_and(young)
            });
        }
        let known = Arc::<Known>::default();
        if all.len() < MAX_KNOWN {
            all.insert(path.to_owned(), Arc::clone(&known));
        }
        known
    }
}

impl Known {
    /// What was found of this very owner, if that isn't older.
    fn last(&self, owner: &OwnerReference, than: Duration) -> Option<Lookup<OwnerObject>> {
        let last = lock(&self.last).clone()?;
        (last.uid == owner.uid && last.at.elapsed() < than).then_some(last.looked)
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
            let mut spec = object.spec.unwrap_or_default();
            let controller = object.metadata.controller().map(OwnerReference::coordinates);
            let kept = |mut all: BTreeMap<String, String>| {
                all.retain(|key, _| annotations.contains(&&**key));
                for text in all.values_mut() {
                    text.truncate(text.floor_char_boundary(LONGEST_ANNOTATION));
                }
                all
            };
            Lookup::Found(Arc::new(OwnerObject {
                version: object.metadata.resource_version.parse().unwrap_or(0),
                uid: object.metadata.uid,
                controller: controller.filter(OwnerReference::is_valid),
                pods: spec.pods(owner),
                created: object.status.and_then(|status| status.replicas),
                selector: spec.selector(),
                template: kept(spec.template()),
                annotations: kept(object.metadata.annotations.unwrap_or_default()),
                first_ordinal: spec.ordinals.unwrap_or_default().start,
            }))
        }
        Ok(None) => Lookup::NotFound,
        Err(Error::Api(status)) if status.code == 403 => Lookup::Forbidden,
        Err(error) => unknown(owner, &error),
    }
}

fn unknown(owner: &OwnerReference, error: &Error) -> Lookup<OwnerObject> {
    tracing::warn!(kind = owner.kind, name = owner.name, %error, "can't read the owner of a pod");
    Lookup::Unavailable
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use podshaper_testing::MockApiServer;

    const SET: &str = "/apis/apps/v1/namespaces/ns/replicasets/web-1";

    fn owner(api_version: &str, kind: &str, name: &str) -> OwnerReference {
        OwnerReference::new(api_version, kind, name, "u")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    fn set(replicas: u32) -> Value {
        json!({
            "metadata": {"name": "web-1", "uid": "u", "resourceVersion": "7", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}},
        })
    }

    fn found(looked: &Lookup<OwnerObject>) -> &OwnerObject {
        let Lookup::Found(owner) = looked else { panic!("{looked:?}") };
        owner
    }

    #[tokio::test]
    async fn many_pods_read_their_owner_once() {
        let (client, mut server) = MockApiServer::start();
        let owners = Owners::new(client);
        let set_ref = owner("apps/v1", "ReplicaSet", "web-1");
        let looks = futures::future::join_all((0..50).map(|_| owners.look("ns", &set_ref, soon())));
        let ((), looks) = tokio::join!(async { server.next(SET).await.answer(200, &set(3)) }, looks);
        for looked in &looks {
            let owner = found(looked);
            assert_eq!((&*owner.uid, owner.version, owner.pods), ("u", 7, Some(3)));
            assert_eq!(owner.selector.as_deref(), Some("app=web"));
            assert_eq!(owner.controller.as_ref().unwrap().name, "web");
        }
        // Another of that name is another: it is read at once.
        let another = OwnerReference { uid: "v".to_owned(), ..set_ref.clone() };
        let (looked, ()) = tokio::join!(owners.look("ns", &another, soon()), async {
            server.next(SET).await.answer(200, &set(4));
        });
        assert_eq!(found(&looked).uid, "u");
        let mut chain = OwnerChain::from(Some(set_ref));
        chain.looked(looks[0].clone());
        let workload = owners.workload("webhook", "ns", &chain).await.unwrap().unwrap();
        assert_eq!((&*workload.path, &*workload.selector, workload.pods), (SET, "app=web", Some(3)));
    }

    #[tokio::test]
    async fn a_kind_that_nobody_has_heard_of() {
        let (client, mut server) = MockApiServer::start();
        let owners = Owners::new(client);
        let clones = owner("apps.kruise.io/v1alpha1", "CloneSet", "web");
        let resources = json!({"resources": [
            {"name": "clonesets/status", "kind": "CloneSet", "namespaced": true},
            {"name": "nodesets", "kind": "CloneSet", "namespaced": false},
            {"name": "clonesets", "kind": "CloneSet", "namespaced": true},
        ]});
        let serve = async {
            server.next("/apis/apps.kruise.io/v1alpha1").await.answer(200, &resources);
            let clones =
                json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"replicas": 2, "selector": "odd"}});
            let path = "/apis/apps.kruise.io/v1alpha1/namespaces/ns/clonesets/web";
            server.next(path).await.answer(200, &clones);
        };
        let (looked, ()) = tokio::join!(owners.look("ns", &clones, soon()), serve);
        assert_eq!((found(&looked).pods, &found(&looked).selector), (Some(2), &None));
        // Its fields are its own business.
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
        let (looked, ()) = tokio::join!(owners.look("ns", &odd, soon()), serve);
        assert_eq!((found(&looked).pods, found(&looked).created), (None, None));
        let job = owner("batch.volcano.sh/v1alpha1", "Job", "web");
        assert_eq!(
            OwnerSpec::default().pods(&job),
            None,
            "only batch/v1 says parallelism, and means 1 by none"
        );
        let unheard = owner("example.com/v1", "Nothing", "web");
        let none = async { server.next("/apis/example.com/v1").await.answer(200, &json!({"resources": []})) };
        let (looked, ()) = tokio::join!(owners.look("ns", &unheard, soon()), none);
        assert_eq!(looked, Lookup::NotFound);
        assert_eq!(owners.look("ns", &unheard, soon()).await, Lookup::NotFound, "and isn't asked for again");
        for elsewhere in
            [owner("../v1", "Pod", "a"), owner("apps/v1", "ReplicaSet", "../a"), owner("a/b/c", "X", "a")]
        {
            assert_eq!(owners.look("ns", &elsewhere, soon()).await, Lookup::NotFound);
        }
    }

    #[tokio::test]
    async fn what_can_not_be_read() {
        let (client, mut server) = MockApiServer::start();
        let owners = Owners::new(client);
        let set_ref = owner("apps/v1", "ReplicaSet", "web-1");
        for (code, reason, looked) in [
            (403, "Forbidden", Lookup::Forbidden),
            (404, "NotFound", Lookup::NotFound),
            (500, "InternalError", Lookup::Unavailable),
        ] {
            let status =
                json!({"kind": "Status", "status": "Failure", "message": "", "reason": reason, "code": code});
            let another = OwnerReference { uid: code.to_string(), ..set_ref.clone() };
            let serve = async { server.next(SET).await.answer(code, &status) };
            let (found, ()) = tokio::join!(owners.look("ns", &another, soon()), serve);
            assert_eq!(found, looked);
        }
        let late = Instant::now() + MARGIN;
        assert_eq!(owners.look("ns", &set_ref, late).await, Lookup::Unavailable, "not past the deadline");
    }

    /// Each pod waits for less long than the API server takes, and the next asks for the same.
    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_slow_is_asked_once_at_a_time() {
        let (client, mut server) = MockApiServer::start();
        let owners = Owners::new(client);
        let set = owner("apps/v1", "ReplicaSet", "web-1");
        let looks = futures::future::join_all((0..200u64).map(|number| {
            let (owners, set) = (&owners, &set);
            async move {
                tokio::time::sleep(Duration::from_millis(5 * number)).await;
                owners.look("ns", set, Instant::now() + Duration::from_secs(2)).await
            }
        }));
        let mut asked = 0;
        let count = async {
            let mut held = Vec::new();
            loop {
                held.push(server.next(SET).await);
                asked += 1;
            }
        };
        tokio::select! { _ = looks => {}, () = count => {} }
        assert_eq!(asked, 1, "200 pods within two seconds");
    }
}
