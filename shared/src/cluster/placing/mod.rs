//! What places pods by the cluster: their owners, and the ledgers.

mod metrics;

pub use metrics::Metrics;

use std::sync::Arc;
use std::time::Instant;

use kube::Client;

use crate::cluster::ledgers::{Ask, Ledgers, Policies, Standing, follow_standings, reconcile};
use crate::cluster::owners::Owners;
use crate::cluster::{Leadership, Store};
use crate::placement::ledger::Answer;
use crate::placement::owners::{Looked, OwnerRef};
use crate::placement::placing::{Asking, Surroundings};

/// So much of what is left of a request's time the ledger may take. The rest is the API server's: one that is busy with hundreds of pods
/// needs it to send the request, and to read the answer. A pod that is placed without its ledger is better than one that isn't placed.
const SHARE: f64 = 0.5;

/// The surroundings of the pods that one webhook places.
#[derive(Clone)]
pub struct Placing {
    webhook: &'static str,
    /// Whose pods are.
    pub owners: Arc<Owners>,
    /// Which places are taken.
    pub ledgers: Arc<Ledgers>,
}

impl Placing {
    /// Begins to watch the pods that `webhook` has placed. Of owners these annotations are read. Needs a runtime.
    pub fn start(client: &Client, webhook: &'static str, annotations: &'static [&'static str]) -> Self {
        let owners = Owners::new(client.clone()).with_annotations(annotations);
        Self { webhook, owners: Arc::new(owners), ledgers: Ledgers::start(client.clone(), webhook) }
    }

    /// Has ledgers put in order while this replica leads; returns those that there are. Needs a runtime.
    pub fn reconcile(
        &self,
        client: &Client,
        policies: impl Policies,
        leadership: Leadership,
    ) -> Arc<Store<Standing>> {
        let standings = Arc::new(Store::default());
        tokio::spawn(follow_standings(client.clone(), Arc::clone(&self.ledgers), Arc::clone(&standings)));
        tokio::spawn(reconcile(Arc::clone(&self.ledgers), Arc::clone(&standings), policies, leadership));
        standings
    }
}

impl Surroundings for Placing {
    async fn owner(&self, namespace: &str, owner: &OwnerRef, deadline: Instant) -> Looked {
        self.owners.look(namespace, owner, deadline).await
    }

    async fn place(&self, pod: Asking<'_>, deadline: Instant) -> Option<Answer> {
        let workload = match self.owners.workload(self.webhook, pod.namespace, pod.chain).await {
            Ok(workload) => Arc::new(workload?),
            Err(error) => {
                tracing::warn!(namespace = pod.namespace, %error, "can't tell where an owner is");
                return None;
            }
        };
        let Asking { token, fitting, bears, dry_run, rules, .. } = pod;
        let now = Instant::now();
        let deadline = (now + deadline.saturating_duration_since(now).mul_f64(SHARE)).into();
        let ask = Ask { token, fitting, bears, dry_run, deadline };
        self.ledgers.place(&workload, rules, ask).await
    }
}
