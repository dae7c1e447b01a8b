//! Owners of pods that no distributor counts: those that may not be read, and those that run pods in place of a target.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use podshaper_core::object::{Lookup, OwnerReference};
use podshaper_core::pod::SKIP;
use podshaper_kube::error::describe;
use podshaper_placement::owners::{ChainEnd, OwnerChain};
use podshaper_placement_kube::ClusterBackend;
use tokio::time::Instant;

use distributor_decision::distributor::Distributor;

/// How long the answer about a namespace counts. It takes a list of pods.
const FRESH: Duration = Duration::from_mins(5);
/// Namespaces with an answer.
const MAX_NAMESPACES: usize = 1024;
/// Controllers with owners that are read for one answer.
const MAX_READS: usize = 16;

/// Finds owners of pods that no webhook has placed.
pub(super) struct ForeignOwners {
    backend: ClusterBackend,
    unreadable: Mutex<HashMap<String, (Instant, Option<String>)>>,
}

impl ForeignOwners {
    pub(super) fn new(backend: ClusterBackend) -> Self {
        Self { backend, unreadable: Mutex::default() }
    }

    /// An owner of pods of the namespace that RBAC does not allow to read.
    pub(super) async fn unreadable(&self, namespace: &str) -> Option<String> {
        {
            let mut known = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_NAMESPACES {
                known.retain(|_, (at, _)| at.elapsed() < FRESH);
            }
            if let Some((_, owner)) = known.get(namespace).filter(|(at, _)| at.elapsed() < FRESH) {
                return owner.clone();
            }
        }
        let chains = self.chains(namespace, &format!("{SKIP}!=true")).await;
        let mut forbidden = chains.iter().filter(|chain| chain.end() == Some(ChainEnd::Forbidden));
        let owner = forbidden.find_map(OwnerChain::unread).map(name);
        let mut known = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX_NAMESPACES {
            known.insert(namespace.to_owned(), (Instant::now(), owner.clone()));
        }
        owner
    }

    /// The object that runs pods in place of a target that has none: the Rollout of Argo with a `workloadRef` creates pods with the labels of
    /// the Deployment, and Flagger creates a Deployment `NAME-primary`.
    pub(super) async fn in_place_of(&self, distributor: &Distributor, selector: &str) -> Option<String> {
        let namespace = &distributor.namespace;
        let chains = self.chains(namespace, selector).await;
        let mut others =
            chains.iter().filter(|chain| !chain.owners().iter().any(|owner| distributor.targets(owner)));
        if let Some(owner) = others.find_map(|chain| chain.owners().last()) {
            return Some(name(owner));
        }
        let target = &distributor.target;
        let primary = format!("{}-primary", target.name());
        let found = self
            .backend
            .owners()
            .read_by_name(namespace, target.api_version(), target.kind(), &primary)
            .await;
        matches!(found, Lookup::Found(_)).then(|| format!("{} {primary}", target.kind()))
    }

    /// The owners of the pods of a selector that no webhook has placed, for some of their controllers.
    async fn chains(&self, namespace: &str, selector: &str) -> Vec<OwnerChain> {
        let unplaced = match self.backend.ledgers().list_unplaced(namespace, selector).await {
            Ok(unplaced) => unplaced,
            Err(error) => {
                tracing::warn!(
                    namespace,
                    error = describe(&error),
                    "cannot list pods that no webhook has placed"
                );
                return Vec::new();
            }
        };
        let mut chains = Vec::new();
        for controller in unplaced.unmarked.into_keys().take(MAX_READS) {
            let mut chain = OwnerChain::from(Some(controller));
            self.backend.owners().read_chain(namespace, &mut chain, |_| false).await;
            chains.push(chain);
        }
        chains
    }
}

/// `KIND NAME of API-VERSION`.
fn name(owner: &OwnerReference) -> String {
    format!("{} {} of {}", owner.kind, owner.name, owner.api_version)
}
