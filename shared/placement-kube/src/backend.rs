//! The placement backend of a cluster: owners by GET, slots by ledgers.

use std::sync::Arc;
use std::time::Instant;

use kube::Client;
use podshaper_core::object::{Lookup, OwnerReference};
use podshaper_kube::error::describe;
use podshaper_kube::lease::Leadership;
use podshaper_placement::admit::{PlaceRequest, PlacementBackend};
use podshaper_placement::identity::NodeLabels;
use podshaper_placement::ledger::SlotReply;
use podshaper_placement::owner_object::OwnerObject;
use tokio::time::timeout_at;

use crate::ledgers::Ledgers;
use crate::owner_reader::OwnerReader;
use crate::placement_object::LedgerId;
use crate::reconcile::{PolicySource, reconcile};

/// The ledger's share of the request's remaining time. The API server needs the rest: when hundreds of pods are created, it is late in
/// sending requests and in reading responses. A pod that is placed without its ledger is better than a pod that is not placed.
const LEDGER_SHARE: f64 = 0.5;

/// Places the pods of one webhook.
#[derive(Clone)]
pub struct ClusterBackend {
    webhook: &'static str,
    owners: Arc<OwnerReader>,
    ledgers: Arc<Ledgers>,
}

impl ClusterBackend {
    /// Starts the watch of the pods that `webhook` has placed. These annotations of owners are kept. `nodes` shows the groups of pods that no
    /// webhook has placed. Needs a runtime.
    pub fn start(
        client: &Client,
        webhook: &'static str,
        annotations: &'static [&'static str],
        nodes: Arc<dyn NodeLabels>,
    ) -> Self {
        let owners = Arc::new(OwnerReader::new(client.clone(), annotations));
        Self { webhook, owners, ledgers: Ledgers::start(client.clone(), webhook, nodes) }
    }

    /// Reconciles ledgers while this replica leads. Needs a runtime.
    pub fn reconcile(&self, policies: impl PolicySource, leadership: Leadership) {
        tokio::spawn(reconcile(Arc::clone(&self.ledgers), policies, leadership));
    }

    /// The owners.
    pub fn owners(&self) -> &Arc<OwnerReader> {
        &self.owners
    }

    /// The ledgers.
    pub fn ledgers(&self) -> &Arc<Ledgers> {
        &self.ledgers
    }
}

impl PlacementBackend for ClusterBackend {
    async fn owner(&self, namespace: &str, owner: &OwnerReference, deadline: Instant) -> Lookup<OwnerObject> {
        self.owners.read(namespace, owner, deadline).await
    }

    fn superseded_by(&self, namespace: &str, owner: &str) -> Option<String> {
        self.ledgers.superseded_by(&LedgerId::new(namespace, owner))
    }

    async fn place(&self, request: PlaceRequest<'_>, deadline: Instant) -> Option<SlotReply> {
        let PlaceRequest { namespace, chain, allocator, slot } = request;
        let workload = self.owners.workload(self.webhook, namespace, chain, allocator);
        let workload = match timeout_at(deadline.into(), workload).await {
            Ok(Ok(workload)) => workload?,
            Ok(Err(error)) => {
                tracing::warn!(namespace, error = describe(&error), "cannot discover the kind of an owner");
                return None;
            }
            Err(_) => return None,
        };
        let now = Instant::now();
        let deadline = now + deadline.saturating_duration_since(now).mul_f64(LEDGER_SHARE);
        self.ledgers.place(&workload, slot, deadline.into()).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podshaper_placement::allocator::SlotAllocator;
    use podshaper_placement::identity::UnknownNodes;
    use podshaper_placement::ledger::{SlotRequest, Token};
    use podshaper_placement::owners::OwnerChain;
    use podshaper_placement::policy::{Group, Policy, Tie};
    use podshaper_testing::MockApiServer;

    use super::*;

    /// The plural of its kind is no longer cached, and discovery does not answer.
    #[tokio::test(start_paused = true)]
    async fn owner_of_undiscovered_kind_is_not_waited_for_past_the_deadline() {
        let (client, _server) = MockApiServer::start();
        let backend = ClusterBackend::start(&client, "webhook", &[], Arc::new(UnknownNodes));
        let mut chain = OwnerChain::from(Some(OwnerReference::new("example.com/v1", "Thing", "web", "u")));
        chain.record_read(Lookup::Found(Arc::new(OwnerObject {
            uid: "u".to_owned(),
            ..OwnerObject::default()
        })));
        let node_labels = [("type".to_owned(), "default".to_owned())].into();
        let group = Group { name: "default".into(), weight: 1, node_labels, ..Group::default() };
        let policy = Policy::new(vec![group], Tie::First).unwrap();
        let slot = SlotRequest {
            token: Token(1),
            fitting: policy.all(),
            existing: None,
            dry_run: false,
            over_time: false,
        };
        let allocator = Arc::new(SlotAllocator::new(policy));
        let request = PlaceRequest { namespace: "ns", chain: &chain, allocator: &allocator, slot };
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        let placed = backend.place(request, deadline.into_std());
        assert_eq!(timeout_at(deadline + Duration::from_secs(1), placed).await, Ok(None));
    }
}
