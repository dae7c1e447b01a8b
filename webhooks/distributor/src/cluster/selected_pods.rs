//! The pods that a `PodDistributor` selects by their labels. The leader moves pods from before the distributor, and those that came while no
//! webhook answered, into its ledger, and pods that another distributor governs out of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use podshaper_core::object::OwnerReference;
use podshaper_core::selector::LabelSelector;
use podshaper_kube::error::describe;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement_kube::{ClusterBackend, SelectedPod};
use tokio::time::Instant;

use super::policies::DistributorPolicies;
use distributor_decision::WEBHOOK;
use distributor_decision::distributor::{Distributor, ValidSpec, govern_by_labels, governing};

/// Between two lists of the pods of one distributor, unless the last one has moved pods.
const INTERVAL: Duration = Duration::from_secs(15);
/// The most pods that are moved, and the most controllers with owners that are read, after one list.
const MAX_MOVES: usize = 64;
const MAX_CHAINS: usize = 64;

pub(super) struct SelectedPods {
    backend: ClusterBackend,
    policies: DistributorPolicies,
    /// Whether the API server calls the webhook for pods without a controller.
    bare_pods: bool,
}

/// Selected pods that do not count in the ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct UncountedPods {
    /// Pods that are about to be moved into the ledger, and pods that the webhook does not see.
    pub(super) unplaced: u32,
    /// Those that the webhook does not see, because they have no controller.
    pub(super) bare: u32,
    /// Pods that another webhook has placed, and that webhook.
    pub(super) excluded: u32,
    pub(super) placed_by: Option<String>,
}

/// The memory of a leader about the selected pods of one distributor.
#[derive(Default)]
pub(super) struct SelectionHistory {
    listed: Option<Instant>,
    has_moved: bool,
    uncounted: UncountedPods,
}

impl SelectionHistory {
    /// Whether the last list has moved pods: the next one shows whether more are to be moved.
    pub(super) fn has_moved(&self) -> bool {
        self.has_moved
    }

    fn is_fresh(&self) -> bool {
        !self.has_moved && self.listed.is_some_and(|at| at.elapsed() < INTERVAL)
    }
}

/// The distributor that a pod belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belonging {
    /// The one that is reconciled.
    Own,
    Other,
    /// None, or its owners are not known now.
    Unknown,
}

/// The owners of pods that were read after one list, by the uid of the controller.
type Chains = HashMap<String, OwnerChain>;

impl SelectedPods {
    pub(super) fn new(backend: ClusterBackend, policies: DistributorPolicies, bare_pods: bool) -> Self {
        Self { backend, policies, bare_pods }
    }

    /// Whether the API server calls the webhook for pods without a controller.
    pub(super) fn sees_bare_pods(&self) -> bool {
        self.bare_pods
    }

    /// Lists the pods of a selector, moves them into the ledger of the distributor or out of it, and returns those that don't count there.
    pub(super) async fn take_in(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        history: &mut SelectionHistory,
    ) -> UncountedPods {
        let Some(selector) = distributor.target.selector.as_ref().filter(|_| !history.is_fresh()) else {
            return history.uncounted.clone();
        };
        let namespace = &distributor.namespace;
        let distributors = self.policies.of_namespace(namespace);
        let selectors = distributors.iter().filter_map(|other| other.target.selector.as_ref());
        let keys: BTreeSet<&str> = selectors.flat_map(LabelSelector::keys).collect();
        let keeps_label = |key: &str| keys.contains(key);
        let listed = self.backend.ledgers().list_selected(namespace, &selector.query(), keeps_label).await;
        let pods = match listed {
            Ok(pods) => pods,
            Err(error) => {
                tracing::warn!(namespace, error = describe(&error), "can't list the pods of a selector");
                return history.uncounted.clone();
            }
        };
        let (uncounted, has_moved) = self.move_pods(distributor, &distributors, &pods).await;
        // The watch shows the moved pods by the next time.
        if (has_moved || history.has_moved)
            && let Err(error) = self.reconcile_ledger(distributor, spec).await
        {
            tracing::warn!(namespace, error = describe(&error), "can't take in the pods of a selector");
        }
        *history = SelectionHistory { listed: Some(Instant::now()), has_moved, uncounted: uncounted.clone() };
        uncounted
    }

    /// Returns the pods that don't count, and whether some were moved.
    async fn move_pods(
        &self,
        distributor: &Distributor,
        distributors: &[Arc<Distributor>],
        pods: &[SelectedPod],
    ) -> (UncountedPods, bool) {
        let ledgers = self.backend.ledgers();
        let namespace = &distributor.namespace;
        let own = distributor.sequence_owner().uid;
        let mut uncounted = UncountedPods::default();
        let mut chains = Chains::new();
        let mut moves = 0;
        for pod in pods {
            let counts = pod.sequence_owner == own && pod.placed_by.as_deref() == Some(WEBHOOK);
            let to = match self.belonging(distributor, distributors, pod, &mut chains).await {
                Belonging::Other if counts => None,
                Belonging::Own if counts => continue,
                Belonging::Own => {
                    if let Some(other) = pod.placed_by.as_ref().filter(|other| *other != WEBHOOK) {
                        uncounted.excluded += 1;
                        uncounted.placed_by = Some(other.clone());
                        continue;
                    }
                    uncounted.unplaced += 1;
                    if pod.controller.is_none() && !self.bare_pods {
                        uncounted.bare += 1;
                        continue;
                    }
                    // A pod leaves a ledger before it counts in another one: each replica sees both changes.
                    let natural = pod.controller.as_ref().map_or("", |controller| &controller.uid);
                    Some(&*own).filter(|_| pod.sequence_owner == natural)
                }
                Belonging::Other | Belonging::Unknown => continue,
            };
            if moves < MAX_MOVES && ledgers.set_sequence_owner(namespace, pod, to).await {
                moves += 1;
            }
        }
        (uncounted, moves > 0)
    }

    async fn belonging(
        &self,
        distributor: &Distributor,
        distributors: &[Arc<Distributor>],
        pod: &SelectedPod,
        chains: &mut Chains,
    ) -> Belonging {
        let controller = pod.controller.as_ref();
        let Some(mut chain) = self.chain(&distributor.namespace, distributors, controller, chains).await
        else {
            return Belonging::Unknown;
        };
        if governing(distributors, &chain).is_some() {
            return Belonging::Other;
        }
        match govern_by_labels(distributors, &pod.labels, &mut chain) {
            Some(governing) if governing.uid == distributor.uid => Belonging::Own,
            Some(_) => Belonging::Other,
            None => Belonging::Unknown,
        }
    }

    /// The owners of a pod; `None` if too many were read.
    async fn chain(
        &self,
        namespace: &str,
        distributors: &[Arc<Distributor>],
        controller: Option<&OwnerReference>,
        chains: &mut Chains,
    ) -> Option<OwnerChain> {
        let uid = controller.map_or("", |controller| &controller.uid);
        if let Some(chain) = chains.get(uid) {
            return Some(chain.clone());
        }
        if chains.len() >= MAX_CHAINS {
            return None;
        }
        let chain = self.policies.chain(namespace, distributors, controller).await;
        chains.insert(uid.to_owned(), chain.clone());
        Some(chain)
    }

    async fn reconcile_ledger(&self, distributor: &Distributor, spec: &ValidSpec) -> kube::Result<()> {
        let mut chain = OwnerChain::from(None);
        chain.set_selecting(distributor.sequence_owner());
        let namespace = &distributor.namespace;
        let workload = self.backend.owners().workload(WEBHOOK, namespace, &chain, &spec.allocator).await?;
        match workload {
            Some(workload) => self.backend.ledgers().reconcile(&workload).await,
            None => Ok(()),
        }
    }
}
