//! One leader among the replicas, by a Lease (coordination.k8s.io/v1), as client-go's leader election does it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Who hasn't renewed for so long leads no more (client-go's defaults).
const DURATION: Duration = Duration::from_secs(15);
/// Who couldn't renew for so long stops by itself, before another may begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks at the Lease.
const RETRY: Duration = Duration::from_secs(2);

/// Whether this replica leads, as it changes.
pub type Leadership = watch::Receiver<bool>;

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

/// What another's record looked like, and when it was first seen so: clocks of others aren't trusted.
struct Observed {
    record: Option<LeaseSpec>,
    since: Instant,
}

impl Lease {
    /// Contends for the Lease until `ending`, and gives it back then. Needs a runtime.
    ///
    /// Rights: `create` Leases in the namespace; `get` and `update` this one.
    pub fn contend(self, client: Client, mut ending: watch::Receiver<bool>) -> Leadership {
        let (leads, leadership) = watch::channel(false);
        tokio::spawn(async move {
            let leases = Api::namespaced(client, &self.namespace);
            let mut observed = Observed { record: None, since: Instant::now() };
            let mut renewed = Instant::now();
            loop {
                match timeout(RENEW_DEADLINE, self.attempt(&leases, &mut observed)).await {
                    Ok(Ok(held)) => {
                        renewed = Instant::now();
                        if leads.send_replace(held) != held {
                            tracing::info!(lease = self.name, leads = held, "leadership");
                        }
                    }
                    Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "can't renew the Lease"),
                    Err(_) => tracing::warn!(lease = self.name, "the API server doesn't answer"),
                }
                if renewed.elapsed() > RENEW_DEADLINE && leads.send_replace(false) {
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
                && let Err(error) = self.release(&leases).await
            {
                tracing::debug!(%error, "the Lease runs out by itself");
            }
        });
        leadership
    }

    /// Takes or renews the Lease where that is possible; whether it is ours then.
    async fn attempt(&self, leases: &Api<LeaseObject>, observed: &mut Observed) -> kube::Result<bool> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = leases.get_opt(&self.name).await? else {
            let mut lease = LeaseObject::default();
            lease.metadata.name = Some(self.name.clone());
            lease.spec = Some(self.spec(None, &now));
            return won(leases.create(&PostParams::default(), &lease).await);
        };
        if observed.record != lease.spec {
            *observed = Observed { record: lease.spec.clone(), since: Instant::now() };
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && observed.since.elapsed() < DURATION {
            return Ok(false);
        }
        lease.spec = Some(self.spec(lease.spec.as_ref(), &now));
        won(leases.replace(&self.name, &PostParams::default(), &lease).await)
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: &MicroTime) -> LeaseSpec {
        let held = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: held.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now.clone()),
            lease_transitions: Some(transitions + i32::from(held.is_none() && before.is_some())),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self, leases: &Api<LeaseObject>) -> kube::Result<()> {
        let mut lease = leases.get(&self.name).await?;
        let ours = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        if let Some(spec) = ours {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            leases.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}

/// Somebody else may have written first: then it is theirs.
fn won(written: kube::Result<LeaseObject>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}
