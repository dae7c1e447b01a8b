//! Elects one leader among the replicas with a Lease (coordination.k8s.io/v1), as client-go's `leaderelection` package does. kube has
//! no leader election.

use std::time::Duration;

use http::{Method, Request};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client, Error};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tower::{BoxError, service_fn};

use crate::error::describe;
use crate::request::{REQUEST_TIMEOUT, get, within};

/// Another replica may acquire a Lease that its holder has not renewed for this time. (This and the next two are client-go's defaults.)
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew the Lease for this time stops, before another replica may acquire it.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The time between two attempts to acquire or renew the Lease.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Whether this replica is the leader: the time until which it holds the Lease, as it changes.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

/// A write of a replica that is no longer the leader.
#[derive(Debug, thiserror::Error)]
#[error("this replica no longer holds the Lease")]
struct LeaseLost;

impl From<watch::Receiver<Option<Instant>>> for Leadership {
    fn from(held_until: watch::Receiver<Option<Instant>>) -> Self {
        Self(held_until)
    }
}

impl Leadership {
    /// Whether this replica holds the Lease now. A process that was stopped may not know yet that it has lost it, but its clock shows it.
    pub fn is_held(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Whether the election has ended, as the process does.
    pub fn has_ended(&self) -> bool {
        self.0.has_changed().is_err()
    }

    /// Waits until this replica is the leader. Returns false when the election has ended.
    pub async fn acquired(&mut self) -> bool {
        self.0.wait_for(Option::is_some).await.is_ok()
    }

    /// Waits until this replica is not the leader.
    pub async fn lost(&mut self) {
        // An error means that the election has ended.
        let _ = self.0.wait_for(Option::is_none).await;
    }

    /// Returns a client for the leader: its writes fail if this replica does not hold the Lease when they begin.
    pub fn fence(&self, client: &Client) -> Client {
        let leadership = self.clone();
        let inner = client.clone();
        let service = service_fn(move |request: Request<Body>| {
            let client = inner.clone();
            let may_send = request.method() == Method::GET || leadership.is_held();
            async move {
                if may_send { Ok::<_, BoxError>(client.send(request).await?) } else { Err(LeaseLost.into()) }
            }
        });
        Client::new(service, client.default_namespace())
    }
}

/// Runs `work` whenever this replica becomes the leader, and cancels it when it no longer is. Calls `changed` at both times. Returns when
/// the election has ended.
pub async fn while_leading<W: Future<Output = ()>>(
    mut leadership: Leadership,
    work: impl Fn() -> W,
    changed: impl Fn(bool),
) {
    while leadership.acquired().await {
        changed(true);
        let mut loss = leadership.clone();
        tokio::select! {
            () = work() => {},
            () = loss.lost() => {},
        }
        changed(false);
    }
}

/// Acquires and renews one Lease.
pub(crate) struct LeaderElector {
    client: Client,
    leases: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    /// The Deployment that owns the Lease.
    deployment: Option<String>,
}

/// An object that owns the Lease.
#[derive(serde::Deserialize)]
struct OwnerObject {
    metadata: ObjectMeta,
}

/// The Lease as another replica wrote it, and when it was first seen so: a time in the Lease is by another clock.
struct Observed {
    spec: Option<LeaseSpec>,
    since: Instant,
}

impl LeaderElector {
    /// `identity` is the name of this pod.
    ///
    /// Rights: `create` Leases in the namespace; `get` and `update` this one.
    pub(crate) fn new(client: Client, namespace: &str, name: String, identity: String) -> Self {
        let leases = Api::namespaced(client.clone(), namespace);
        Self { client, leases, namespace: namespace.to_owned(), name, identity, deployment: None }
    }

    /// The Lease is deleted together with this Deployment of the namespace. Right: `get` it.
    pub(crate) fn owned_by(self, deployment: Option<String>) -> Self {
        Self { deployment, ..self }
    }

    /// Starts a task that keeps acquiring or renewing the Lease until `ending`, and then releases it.
    pub(crate) fn start(self, mut ending: watch::Receiver<bool>) -> Leadership {
        let (leads, leadership) = watch::channel(None);
        tokio::spawn(async move {
            self.run(&leads, &mut ending).await;
            if leads.send_replace(None).is_some()
                && let Err(error) = within(REQUEST_TIMEOUT, self.release()).await
            {
                tracing::debug!(error = describe(&error), "cannot release the Lease, which will expire");
            }
        });
        leadership.into()
    }

    async fn run(&self, leads: &watch::Sender<Option<Instant>>, ending: &mut watch::Receiver<bool>) {
        let mut observed = Observed { spec: None, since: Instant::now() };
        let mut renewed = Instant::now();
        loop {
            let started = Instant::now();
            let spent = if leads.borrow().is_some() { renewed.elapsed() } else { Duration::ZERO };
            let attempt = self.try_acquire_or_renew(&mut observed);
            match within(RENEW_DEADLINE.saturating_sub(spent), attempt).await {
                Ok(held) => {
                    // Other replicas may have seen the renewal long before its response arrived.
                    renewed = started;
                    let until = held.then(|| renewed + RENEW_DEADLINE);
                    if leads.send_replace(until).is_some() != held {
                        tracing::info!(lease = self.name, leads = held, "leadership changed");
                    }
                }
                Err(error) => {
                    tracing::warn!(lease = self.name, error = describe(&error), "cannot renew the Lease");
                }
            }
            if renewed.elapsed() >= RENEW_DEADLINE && leads.send_replace(None).is_some() {
                tracing::warn!(lease = self.name, "leadership lost: the Lease was not renewed in time");
            }
            tokio::select! {
                () = sleep(RETRY_PERIOD) => {},
                _ = ending.wait_for(|ending| *ending) => return,
            }
        }
    }

    /// Acquires or renews the Lease unless another replica holds it. Returns whether this replica holds it now.
    async fn try_acquire_or_renew(&self, observed: &mut Observed) -> kube::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return self.try_create().await;
        };
        if observed.spec != lease.spec {
            *observed = Observed { spec: lease.spec.clone(), since: Instant::now() };
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && observed.since.elapsed() < LEASE_DURATION {
            return Ok(false);
        }
        lease.spec = Some(self.spec(lease.spec.as_ref()));
        is_held(self.leases.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Creates the Lease, unless another replica does. Without its Deployment there is none: a replica that drains after the release was
    /// uninstalled would leave a Lease without an owner.
    async fn try_create(&self) -> kube::Result<bool> {
        let owner_references = match &self.deployment {
            None => None,
            Some(deployment) => match self.owner(deployment).await {
                Ok(Some(owner)) => Some(vec![owner]),
                Ok(None) => return Ok(false),
                // Roles that the user wrote may lack the permission.
                Err(Error::Api(status)) if status.is_forbidden() => None,
                Err(error) => return Err(error),
            },
        };
        let metadata =
            ObjectMeta { name: Some(self.name.clone()), owner_references, ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(self.spec(None)) };
        is_held(self.leases.create(&PostParams::default(), &lease).await)
    }

    /// A reference to the Deployment; none if it does not exist.
    async fn owner(&self, deployment: &str) -> kube::Result<Option<OwnerReference>> {
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/{deployment}", self.namespace);
        let found: Option<OwnerObject> = get(&self.client, &path).await?;
        let uid = found.and_then(|deployment| deployment.metadata.uid);
        Ok(uid.map(|uid| OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: deployment.to_owned(),
            uid,
            ..OwnerReference::default()
        }))
    }

    /// The spec that makes this replica the holder after `last`.
    fn spec(&self, last: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let held = last.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = last.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: held.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(held.is_none() && last.is_some())),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
        let held = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        if let Some(spec) = held {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// A conflict means that another replica wrote first, and holds the Lease.
fn is_held(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use podshaper_testing::{InMemoryApiServer, MockApiServer, MockResponse};
    use serde_json::json;

    use super::*;

    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ns/deployments/d";
    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l";

    fn elector(client: &Client, identity: &str) -> LeaderElector {
        LeaderElector::new(client.clone(), "ns", "l".to_owned(), identity.to_owned())
    }

    fn nothing_observed() -> Observed {
        Observed { spec: None, since: Instant::now() }
    }

    /// The API server accepts the first Lease, then responds slowly with an error, and then not at all.
    #[tokio::test(start_paused = true)]
    async fn leader_without_renewal_stops_before_the_lease_expires() {
        let (client, mut server) = MockApiServer::start();
        let (_ending, ending) = watch::channel(false);
        let mut leadership = elector(&client, "a").start(ending);
        server.next(LEASE).await.respond(MockResponse::failure(404, "NotFound"));
        let create = server.next_request().await;
        let lease = create.request().body().clone();
        create.answer(201, &lease);
        assert!(leadership.acquired().await);
        let renewed = Instant::now();
        let slow = server.next(LEASE).await;
        sleep(Duration::from_millis(7_900)).await;
        slow.respond(MockResponse::failure(500, "InternalError"));
        let _unanswered = server.next(LEASE).await;
        leadership.lost().await;
        assert!(renewed.elapsed() < LEASE_DURATION, "{:?}", renewed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn lease_without_renewal_is_acquired_by_another() {
        let server = InMemoryApiServer::default();
        let spec = |field: &str| server.get(LEASE)["spec"][field].clone();
        let a = elector(&server.client(), "a");
        let b = elector(&server.client(), "b");
        let mut by_a = nothing_observed();
        let mut by_b = nothing_observed();
        assert!(a.try_acquire_or_renew(&mut by_a).await.unwrap(), "there was none");
        let acquired = spec("acquireTime");
        let renewed = spec("renewTime");
        // The API server accepts six digits only.
        assert_eq!(acquired.as_str().unwrap().len(), "2006-01-02T15:04:05.000000Z".len());
        assert!(!b.try_acquire_or_renew(&mut by_b).await.unwrap());
        tokio::time::advance(LEASE_DURATION * 2 / 3).await;
        assert!(a.try_acquire_or_renew(&mut by_a).await.unwrap());
        assert_eq!(spec("acquireTime"), acquired);
        assert_ne!(spec("renewTime"), renewed);
        assert!(!b.try_acquire_or_renew(&mut by_b).await.unwrap());
        tokio::time::advance(LEASE_DURATION * 2 / 3).await;
        assert!(
            !b.try_acquire_or_renew(&mut by_b).await.unwrap(),
            "renewed, however long ago it was acquired"
        );
        tokio::time::advance(LEASE_DURATION).await;
        assert!(b.try_acquire_or_renew(&mut by_b).await.unwrap());
        assert_eq!((spec("holderIdentity"), spec("leaseTransitions")), (json!("b"), json!(1)));
        assert!(!a.try_acquire_or_renew(&mut by_a).await.unwrap());
        b.release().await.unwrap();
        assert!(a.try_acquire_or_renew(&mut by_a).await.unwrap(), "released");
    }

    #[tokio::test(start_paused = true)]
    async fn lease_is_owned_by_the_deployment_and_not_created_without_it() {
        let server = InMemoryApiServer::default();
        let elector = elector(&server.client(), "a").owned_by(Some("d".to_owned()));
        let mut observed = nothing_observed();
        assert!(!elector.try_acquire_or_renew(&mut observed).await.unwrap(), "no Deployment");
        assert!(server.get(LEASE).is_null());
        server.put(DEPLOYMENT, json!({"metadata": {"name": "d", "namespace": "ns", "uid": "u"}}));
        assert!(elector.try_acquire_or_renew(&mut observed).await.unwrap());
        let owners = server.get(LEASE)["metadata"]["ownerReferences"].clone();
        assert_eq!(owners, json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u"}]));

        server.delete(LEASE);
        server.fail(DEPLOYMENT, 403, "Forbidden");
        assert!(elector.try_acquire_or_renew(&mut observed).await.unwrap(), "without an owner");
        assert!(server.get(LEASE)["metadata"]["ownerReferences"].is_null());
    }

    /// The process was stopped for longer than the Lease, and has not processed its loss.
    #[tokio::test(start_paused = true)]
    async fn write_after_the_lease_fails() {
        let (client, mut server) = MockApiServer::start();
        let (_leads, held) = watch::channel(Some(Instant::now() + RENEW_DEADLINE));
        let leadership = Leadership::from(held);
        let fenced = leadership.fence(&client);
        let send = |method: &'static str| {
            let client = fenced.clone();
            let request = Request::builder().method(method).uri("/x").body(b"{}".to_vec()).unwrap();
            tokio::spawn(async move { client.request_text(request).await })
        };
        let written = send("PATCH");
        server.next("/x").await.answer(200, &json!({}));
        written.await.unwrap().unwrap();

        tokio::time::advance(RENEW_DEADLINE).await;
        assert!(!leadership.is_held());
        let error = send("PATCH").await.unwrap().unwrap_err();
        assert!(describe(&error).contains("no longer holds the Lease"), "{error:?}");
        let read = send("GET");
        server.next("/x").await.answer(200, &json!({}));
        read.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn lease_is_released_at_the_end() {
        let server = InMemoryApiServer::default();
        let (end, ending) = watch::channel(false);
        let mut leadership = elector(&server.client(), "a").start(ending);
        assert!(leadership.acquired().await);
        end.send_replace(true);
        leadership.lost().await;
        while server.get(LEASE)["spec"]["holderIdentity"] != "" {
            tokio::task::yield_now().await;
        }
    }
}
