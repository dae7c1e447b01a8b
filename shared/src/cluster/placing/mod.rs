//! What places pods by the cluster: their owners, and the ledgers.

mod metrics;

pub use metrics::Metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;

use crate::cluster::ledgers::{Ask, Ledgers, Policies, Standing, follow_standings, reconcile};
use crate::cluster::owners::Owners;
use crate::cluster::{Leadership, Store};
use crate::placement::ledger::Answer;
use crate::placement::owners::{Looked, OwnerRef};
use crate::placement::placing::{Asking, Surroundings};

/// Of a request's time so much is left when a pod is placed without its ledger at the latest.
const MARGIN: Duration = Duration::from_millis(500);

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
        let deadline = deadline.checked_sub(MARGIN).unwrap_or(deadline).into();
        let ask = Ask { token, fitting, bears, dry_run, deadline };
        self.ledgers.place(&workload, rules, ask).await
    }
}
