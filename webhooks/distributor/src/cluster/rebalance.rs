//! Evictions that give groups their pods back: a few at a time, and none for a while if they don't help.

use std::time::Duration;

use kube::Client;
use podshaper_kube::error::describe;
use podshaper_placement::policy::GroupSet;
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::{Health, LedgerInventory};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::eviction::{EvictionLog, EvictionSettings, evict};
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::rebalance::{PlacedPod, eviction_budget, return_budget, select_evictions};

/// Between two evictions of a distributor.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long no pod is evicted after evictions that didn't help.
const HOLD: Duration = Duration::from_mins(10);

pub(super) struct Rebalancer {
    client: Client,
    enabled: bool,
    evictions: Family<EvictionLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictionLabels {
    result: &'static str,
}

/// Pods that are not in the groups to which they belong.
#[derive(Clone, Copy)]
pub(super) struct Imbalance<'i> {
    pub(super) inventory: &'i LedgerInventory,
    pub(super) spread: &'i Spread,
    /// The groups that have too few pods, and take the successors of evicted pods.
    pub(super) behind: GroupSet,
}

/// The last evictions of one distributor.
#[derive(Clone)]
pub(super) struct EvictionHistory {
    last: Instant,
    /// Pods outside their group when the last one was evicted.
    misplaced: u32,
    /// Since when no pod is evicted.
    held_since: Option<Instant>,
}

impl EvictionHistory {
    fn new(misplaced: u32) -> Self {
        Self { last: Instant::now(), misplaced, held_since: None }
    }

    /// Whether it still matters: not if no pod is outside its group, so that the next evictions are others.
    pub(super) fn is_current(&self, misplaced: u32) -> bool {
        misplaced > 0 || self.last.elapsed() < INTERVAL
    }

    /// Whether pods may be evicted now, given how many aren't ready and how many are outside their group.
    fn allows(&mut self, unready: usize, misplaced: u32) -> bool {
        if self.last.elapsed() < INTERVAL {
            return false;
        }
        match self.held_since {
            Some(since) if since.elapsed() < HOLD => false,
            Some(_) => {
                self.held_since = None;
                true
            }
            // The pods that replace the evicted ones are ready, and none of them went to another group.
            None if unready == 0 && misplaced >= self.misplaced => {
                self.held_since = Some(Instant::now());
                false
            }
            None => true,
        }
    }

    /// Why no pod is evicted, if so.
    pub(super) fn held(&self) -> Option<String> {
        let reason = || "evicting pods didn't help, so none is evicted for ten minutes".to_owned();
        self.held_since.map(|_| reason())
    }
}

impl Rebalancer {
    pub(super) fn new(client: Client, settings: &EvictionSettings, registry: &mut Registry) -> Self {
        let evictions = Family::default();
        registry.register(
            "distributor_evictions",
            "Evictions of pods that take the place of another group, by result: evicted or refused",
            evictions.clone(),
        );
        Self { client, enabled: settings.enabled, evictions }
    }

    /// Evicts pods of groups that have too many, so that pods that replace them go to the groups that have too few.
    pub(super) async fn rebalance(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        imbalance: Imbalance<'_>,
        history: &mut Option<EvictionHistory>,
        log: &mut EvictionLog,
    ) {
        let Imbalance { inventory, spread, behind } = imbalance;
        if behind.is_empty() || !self.enabled {
            return;
        }
        let unready = inventory.pods.iter().filter(|pod| pod.health != Health::Ready).count();
        if history.as_mut().is_some_and(|history| !history.allows(unready, spread.misplaced())) {
            return;
        }
        let policy = spec.allocator.policy();
        let ready = inventory.pods.iter().filter(|pod| pod.health == Health::Ready);
        let placed = ready.filter_map(|pod| {
            Some(PlacedPod { name: &pod.name, slot: pod.slot?, group: policy.index(pod.group.as_deref()?)? })
        });
        let budget = eviction_budget(&spec.options.rebalance, inventory.pods.len(), unready);
        let budget = return_budget(budget, unready, behind, &distributor.status, policy);
        let evictions = select_evictions(placed.collect(), spread, &spec.allocator, behind);
        for pod in evictions.into_iter().take(budget) {
            let version =
                inventory.pods.iter().find(|listed| &*listed.name == pod).map(|listed| listed.version);
            let error =
                match evict(&self.client, &distributor.namespace, pod, None, version.unwrap_or_default())
                    .await
                {
                    Ok(()) => None,
                    Err(error) => Some(describe(&error)),
                };
            let refused = error.is_some();
            let message = match error {
                None => format!("evicted {pod}, so that its place goes to a group that has too few"),
                Some(reason) => format!("can't evict {pod}: {reason}"),
            };
            let namespace = &distributor.namespace;
            tracing::info!(namespace, distributor = distributor.name, message, "rebalance");
            let result = if refused { "refused" } else { "evicted" };
            self.evictions.get_or_create(&EvictionLabels { result }).inc();
            log.add("Rebalance", refused, message);
            if refused {
                // A PodDisruptionBudget that rejects one eviction rejects the others too. They are tried again after the interval.
                history.get_or_insert(EvictionHistory::new(u32::MAX)).last = Instant::now();
                return;
            }
            *history = Some(EvictionHistory::new(spread.misplaced()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn evictions_that_do_not_help_are_held() {
        let mut history = EvictionHistory::new(3);
        assert!(!history.allows(0, 2), "too soon");
        advance(INTERVAL).await;
        assert!(history.allows(0, 2), "the last eviction has helped");
        assert!(history.allows(1, 3), "the replacement isn't ready yet");
        assert!(!history.allows(0, 3) && history.held().is_some());
        advance(HOLD.saturating_sub(Duration::from_secs(1))).await;
        assert!(!history.allows(0, 1));
        advance(Duration::from_secs(1)).await;
        assert!(history.allows(0, 3) && history.held().is_none());
        assert!(history.is_current(3) && !history.is_current(0), "later evictions are others");
    }
}
