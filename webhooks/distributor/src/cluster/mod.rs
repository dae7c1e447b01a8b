//! The cluster: facts for decisions from watches, and what one of the replicas does about running pods.

mod controller;
mod kinds;
mod metrics;
mod nodes;
mod policies;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper::cluster::ledgers::{Ask, Ledgers, Standing, reconcile};
use podshaper::cluster::owners::Owners;
use podshaper::cluster::{Events, Lease, Scope, Store, Trim, follow};
use podshaper::placement::ledger::Answer;
use podshaper::placement::marks::PLACED;
use podshaper::placement::owners::{Chain, Looked, OwnerRef};
use podshaper::placement::policy::GroupSet;
use podshaper::placement::rules::locked;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::distributor::{Distributor, Plan};
use crate::facts::{Asking, Facts, Outcome};
use crate::page::Page;
use crate::webhook::WEBHOOK;
use controller::Controller;
use metrics::Metrics;
use nodes::Nodes;
use policies::Governed;

/// Of a request's time so much is left when a pod is placed without its ledger at the latest.
const MARGIN: Duration = Duration::from_millis(300);

/// What the API server says.
pub struct Cluster {
    distributors: Arc<Store<Distributor>>,
    nodes: Arc<Nodes>,
    owners: Arc<Owners>,
    ledgers: Arc<Ledgers>,
    metrics: Metrics,
}

/// Where this replica runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The pod's namespace, for the Lease.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The Lease that replicas contend for.
    pub lease: String,
}

impl Cluster {
    /// Begins to watch, and to contend for the leadership. Needs a runtime.
    pub fn start(
        client: &Client,
        place: Place,
        registry: &mut Registry,
        ending: watch::Receiver<bool>,
    ) -> Self {
        let cluster = Self {
            distributors: watched(client, Scope::default()),
            nodes: Arc::new(Nodes::new(watched(client, Scope::default()))),
            owners: Arc::new(Owners::new(client.clone())),
            ledgers: Ledgers::start(client.clone(), WEBHOOK),
            metrics: Metrics::register(registry),
        };
        let events = Events::start(client.clone(), WEBHOOK, place.pod.clone());
        let lease = Lease { namespace: place.namespace, name: place.lease, identity: place.pod };
        let leadership = lease.contend(client.clone(), ending);
        let standings: Arc<Store<Standing>> =
            watched(client, Scope { namespace: None, labels: format!("{PLACED}={WEBHOOK}") });
        let governed =
            Governed { distributors: Arc::clone(&cluster.distributors), owners: Arc::clone(&cluster.owners) };
        let controller = Controller {
            client: client.clone(),
            governed: governed.clone(),
            distributors: Arc::clone(&cluster.distributors),
            nodes: Arc::clone(&cluster.nodes),
            owners: Arc::clone(&cluster.owners),
            ledgers: Arc::clone(&cluster.ledgers),
            standings: Arc::clone(&standings),
            events,
            metrics: cluster.metrics.clone(),
        };
        tokio::spawn(controller.run(leadership.clone()));
        tokio::spawn(reconcile(Arc::clone(&cluster.ledgers), standings, governed, leadership));
        cluster
    }

    /// The page about this cluster's distributors.
    pub fn page(&self) -> Page {
        Page::new(Arc::clone(&self.distributors))
    }
}

/// A store that is kept true from now on.
fn watched<T: Trim>(client: &Client, scope: Scope) -> Arc<Store<T>> {
    let store = Arc::new(Store::default());
    tokio::spawn(follow(client.clone(), scope, Arc::clone(&store)));
    store
}

impl Facts for Cluster {
    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>> {
        self.distributors.in_namespace(namespace)
    }

    async fn owner(&self, namespace: &str, owner: &OwnerRef, deadline: Instant) -> Looked {
        self.owners.look(namespace, owner, deadline).await
    }

    fn available(&self, chain: &Chain, plan: &Plan) -> GroupSet {
        let stuck = plan.unschedulable_after.zip(chain.sharer()).map(|(after, (owner, _))| {
            let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
            self.ledgers.stuck(&owner.uid, Timestamp::now().as_second().saturating_sub(after))
        });
        let rules = locked(&plan.rules);
        let policy = rules.policy();
        let stuck = stuck.iter().flatten().filter_map(|group| policy.index(group)).collect();
        self.nodes.available(policy).without(stuck)
    }

    async fn place(&self, pod: Asking<'_>, deadline: Instant) -> Option<Answer> {
        let workload = match self.owners.workload(WEBHOOK, pod.namespace, pod.chain).await {
            Ok(workload) => Arc::new(workload?),
            Err(error) => {
                tracing::warn!(namespace = pod.namespace, %error, "can't tell where an owner is");
                return None;
            }
        };
        let Asking { token, fitting, bears, dry_run, .. } = pod;
        let deadline = deadline.checked_sub(MARGIN).unwrap_or(deadline).into();
        let ask = Ask { token, fitting, bears, dry_run, deadline };
        self.ledgers.place(&workload, &pod.plan.rules, ask).await
    }

    fn heard(&self, _: &Distributor, outcome: Outcome) {
        self.metrics.decided(outcome);
    }

    fn not_ready(&self) -> Option<String> {
        let caches = [
            ("poddistributors", self.distributors.filled()),
            ("nodes", self.nodes.filled()),
            ("placed pods", self.ledgers.filled()),
        ];
        let (missing, _) = caches.into_iter().find(|(_, filled)| !filled)?;
        Some(format!("the {missing} of the cluster haven't been read yet"))
    }
}
