//! One leader among the replicas, by a Lease (coordination.k8s.io/v1), as client-go's leader election does it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Client, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::request::{Media, get, send};

/// Who hasn't renewed for so long leads no more (client-go's defaults).
const DURATION: Duration = Duration::from_secs(15);
/// Who couldn't renew for so long stops by itself, before another may begin: there is time for one more [`RETRY`].
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at the Lease.
const RETRY: Duration = Duration::from_secs(2);

/// Whether this replica leads, as it changes.
pub type Leadership = watch::Receiver<bool>;

/// Does `work` while this replica leads, from its beginning each time, and tells `changed` when it begins to lead and no longer does.
/// Comes back when there is nobody to lead.
pub async fn while_leading<W: Future<Output = ()>>(
    mut leadership: Leadership,
    work: impl Fn() -> W,
    changed: impl Fn(bool),
) {
    while leadership.wait_for(|leads| *leads).await.is_ok() {
        changed(true);
        tokio::select! {
            () = work() => {},
            _ = leadership.wait_for(|leads| !*leads) => {},
        }
        changed(false);
    }
}

/// The Lease that replicas contend for.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The namespace it is in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who contends: the pod's name.
    pub identity: String,
}

/// `coordinationv1.Lease`.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: String,
    kind: String,
    metadata: Value,
    spec: Option<Record>,
}

/// `coordinationv1.LeaseSpec`, as far as leaders use it. Times are opaque: clocks of others aren't trusted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<i32>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<i32>,
}

/// What another's record looked like, and when it was first seen so.
struct Observed {
    record: Option<Record>,
    since: Instant,
}

impl Lease {
    /// Contends for the Lease until `ending`, and gives it back then. Needs a runtime.
    ///
    /// Rights: `create` Leases in the namespace; `get` and `update` this one.
    pub fn contend(self, client: Client, mut ending: watch::Receiver<bool>) -> Leadership {
        let (leads, leadership) = watch::channel(false);
        tokio::spawn(async move {
            let mut observed = Observed { record: None, since: Instant::now() };
            let mut renewed = Instant::now();
            loop {
                let begun = Instant::now();
                let spent = if *leads.borrow() { renewed.elapsed() } else { Duration::ZERO };
                match timeout(RENEW_DEADLINE.saturating_sub(spent), self.attempt(&client, &mut observed))
                    .await
                {
                    Ok(Ok(held)) => {
                        // When the answer took its time, others may have seen the renewal long ago.
                        renewed = begun;
                        if leads.send_replace(held) != held {
                            tracing::info!(lease = self.name, leads = held, "leadership");
                        }
                    }
                    Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "can't renew the Lease"),
                    Err(_) => tracing::warn!(lease = self.name, "the API server doesn't answer"),
                }
                if renewed.elapsed() >= RENEW_DEADLINE && leads.send_replace(false) {
                    tracing::warn!(lease = self.name, "lost the leadership: the Lease couldn't be renewed");
                }
                let end = async {
                    // An error is the end as well.
                    let _ = ending.wait_for(|ending| *ending).await;
                };
                tokio::select! {
                    () = sleep(RETRY) => {},
                    () = end => break,
                }
            }
            if leads.send_replace(false)
                && let Err(error) = self.release(&client).await
            {
                tracing::debug!(%error, "the Lease runs out by itself");
            }
        });
        leadership
    }

    /// Takes or renews the Lease where that is possible; whether it is ours then.
    async fn attempt(&self, client: &Client, observed: &mut Observed) -> kube::Result<bool> {
        // `metav1.MicroTime` takes six digits, and no others.
        let now = format!("{:.6}", Timestamp::now());
        let Some(mut lease) = get::<Object>(client, &self.path()).await? else {
            let lease = Object {
                api_version: "coordination.k8s.io/v1".to_owned(),
                kind: "Lease".to_owned(),
                metadata: json!({"name": self.name}),
                spec: Some(self.record(None, now)),
            };
            return won(send(client, "POST", &self.collection(), Media::Json, &lease).await);
        };
        if observed.record != lease.spec {
            *observed = Observed { record: lease.spec.clone(), since: Instant::now() };
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && observed.since.elapsed() < DURATION {
            return Ok(false);
        }
        lease.spec = Some(self.record(lease.spec.as_ref(), now));
        won(send(client, "PUT", &self.path(), Media::Json, &lease).await)
    }

    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    fn record(&self, before: Option<&Record>, now: String) -> Record {
        let held = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        Record {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: held.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(held.is_none() && before.is_some())),
        }
    }

    async fn release(&self, client: &Client) -> kube::Result<()> {
        let Some(mut lease) = get::<Object>(client, &self.path()).await? else { return Ok(()) };
        let ours = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        if let Some(spec) = ours {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            send(client, "PUT", &self.path(), Media::Json, &lease).await?;
        }
        Ok(())
    }
}

/// Somebody else may have written first: then it is theirs.
fn won(written: kube::Result<String>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request};

    use super::*;
    use podshaper_testing::{MockApiServer, MockResponse};

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l";

    /// An API server that stores one Lease.
    fn api_server(stored: &Arc<Mutex<Option<Value>>>) -> Client {
        let stored = Arc::clone(stored);
        podshaper_testing::client(move |request: Request<Value>| {
            let (head, body) = request.into_parts();
            let name = if head.method == Method::POST { "/l" } else { "" };
            assert_eq!(format!("{}{name}", head.uri), LEASE);
            let mut stored = stored.lock().unwrap();
            if head.method != Method::GET {
                *stored = Some(body);
            }
            let response = match &*stored {
                Some(lease) => MockResponse::json(200, lease),
                None => MockResponse::failure(404, "NotFound"),
            };
            std::future::ready(response)
        })
    }

    fn lease(identity: &str) -> Lease {
        Lease { namespace: "ns".into(), name: "l".into(), identity: identity.into() }
    }

    /// The API server takes the first Lease, then errs slowly, then doesn't answer at all.
    #[tokio::test(start_paused = true)]
    async fn who_can_not_renew_stops_before_another_may_begin() {
        let (client, mut server) = MockApiServer::start();
        let (_ending, ending) = watch::channel(false);
        let mut leadership = lease("a").contend(client, ending);
        server.next(LEASE).await.respond(MockResponse::failure(404, "NotFound"));
        server.next_request().await.answer(201, &json!({}));
        leadership.wait_for(|leads| *leads).await.unwrap();
        let renewed = Instant::now();
        let slow = server.next(LEASE).await;
        sleep(Duration::from_millis(7_900)).await;
        slow.respond(MockResponse::failure(500, "InternalError"));
        let _silent = server.next(LEASE).await;
        leadership.wait_for(|leads| !*leads).await.unwrap();
        assert!(renewed.elapsed() < DURATION, "{:?}", renewed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_renew_loses_it() {
        let kept = Arc::default();
        let client = api_server(&kept);
        let spec = |field: &str| kept.lock().unwrap().as_ref().unwrap()["spec"][field].clone();
        let (a, b) = (lease("a"), lease("b"));
        let mut by_a = Observed { record: None, since: Instant::now() };
        let mut by_b = Observed { record: None, since: Instant::now() };
        assert!(a.attempt(&client, &mut by_a).await.unwrap(), "there was none");
        let (acquired, renewed) = (spec("acquireTime"), spec("renewTime"));
        assert_eq!(acquired.as_str().unwrap().len(), "2006-01-02T15:04:05.000000Z".len());
        assert!(!b.attempt(&client, &mut by_b).await.unwrap());
        tokio::time::advance(DURATION * 2 / 3).await;
        assert!(a.attempt(&client, &mut by_a).await.unwrap());
        assert_eq!(spec("acquireTime"), acquired);
        assert_ne!(spec("renewTime"), renewed);
        assert!(!b.attempt(&client, &mut by_b).await.unwrap());
        tokio::time::advance(DURATION * 2 / 3).await;
        assert!(!b.attempt(&client, &mut by_b).await.unwrap(), "renewed, however long ago it was acquired");
        tokio::time::advance(DURATION).await;
        assert!(b.attempt(&client, &mut by_b).await.unwrap());
        assert_eq!([spec("holderIdentity"), spec("leaseTransitions")], [json!("b"), json!(1)]);
        assert!(!a.attempt(&client, &mut by_a).await.unwrap());
        b.release(&client).await.unwrap();
        assert!(a.attempt(&client, &mut by_a).await.unwrap(), "given back");
    }
}
