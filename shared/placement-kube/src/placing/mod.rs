//! What places pods by the cluster: their owners, and the ledgers.

mod metrics;

pub use metrics::Metrics;

use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use tokio::time::timeout_at;

use crate::ledgers::{Ledgers, Policies, Standing, follow_standings, reconcile};
use crate::owners::Owners;
use podshaper_core::lookup::Lookup;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_kube::lease::Leadership;
use podshaper_kube::store::Store;
use podshaper_placement::admit::{PlaceRequest, PlacementBackend};
use podshaper_placement::ledger::SlotReply;
use podshaper_placement::owners::OwnerObject;

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

impl PlacementBackend for Placing {
    async fn owner(&self, namespace: &str, owner: &OwnerReference, deadline: Instant) -> Lookup<OwnerObject> {
        self.owners.look(namespace, owner, deadline).await
    }

    async fn place(&self, pod: PlaceRequest<'_>, deadline: Instant) -> Option<SlotReply> {
        let workload = self.owners.workload(self.webhook, pod.namespace, pod.chain);
        let workload = match timeout_at(deadline.into(), workload).await {
            Ok(Ok(workload)) => Arc::new(workload?),
            Ok(Err(error)) => {
                tracing::warn!(namespace = pod.namespace, %error, "can't tell where an owner is");
                return None;
            }
            Err(_) => return None,
        };
        let now = Instant::now();
        let deadline = (now + deadline.saturating_duration_since(now).mul_f64(SHARE)).into();
        self.ledgers.place(&workload, pod.allocator, pod.slot, deadline).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use podshaper_placement::allocator::SlotAllocator;
    use podshaper_placement::ledger::{SlotRequest, Token};
    use podshaper_placement::owners::OwnerChain;
    use podshaper_placement::policy::{Group, Policy, Tie};
    use podshaper_testing::MockApiServer;

    /// Its kind is one of so many that its plural isn't remembered, and the API server doesn't tell it any more.
    #[tokio::test(start_paused = true)]
    async fn an_owner_of_a_strange_kind_is_not_waited_for_past_the_deadline() {
        let (client, _server) = MockApiServer::start();
        let placing = Placing::start(&client, "webhook", &[]);
        let mut chain = OwnerChain::from(Some(OwnerReference::new("example.com/v1", "Thing", "web", "u")));
        chain.looked(Lookup::Found(Arc::new(OwnerObject { uid: "u".to_owned(), ..OwnerObject::default() })));
        let node_labels = [("type".to_owned(), "default".to_owned())].into();
        let group = Group { name: "default".into(), weight: 1, node_labels, ..Group::default() };
        let policy = Policy::new(vec![group], Tie::First).unwrap();
        let allocator = Arc::new(SlotAllocator::new(policy));
        let pod = PlaceRequest {
            namespace: "ns",
            chain: &chain,
            allocator: &allocator,
            slot: SlotRequest {
                token: Token(1),
                fitting: allocator.policy().all(),
                existing: None,
                dry_run: false,
            },
        };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        let placed = placing.place(pod, deadline.into_std());
        assert_eq!(timeout_at(deadline + Duration::from_secs(1), placed).await, Ok(None));
    }
}
