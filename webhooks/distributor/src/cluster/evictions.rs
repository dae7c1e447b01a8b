//! How the leader gives groups their own back: by evictions, a few at a time, and none for a while where they don't help.

use std::time::Duration;

use podshaper_kube::request::{Media, send};
use podshaper_placement::policy::GroupSet;
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::{Health, InventoryPod, LedgerInventory};
use serde_json::json;
use tokio::time::Instant;

use super::controller::Controller;
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::rebalance::{Placed, surplus};
use distributor_decision::spec::{Rebalance, RebalanceMode};

/// Between two evictions for a distributor.
const PAUSE: Duration = Duration::from_secs(5);
/// Where evictions changed nothing, none is tried for so long.
const HOLD: Duration = Duration::from_mins(10);

/// The last evictions for one distributor.
#[derive(Clone)]
pub(super) struct Evicted {
    at: Instant,
    /// How many pods weren't where they belong.
    misplaced: u32,
    /// Why no more are tried, and since when.
    held: Option<(String, Instant)>,
}

impl Evicted {
    fn now(misplaced: u32) -> Self {
        Self { at: Instant::now(), misplaced, held: None }
    }

    /// Whether they still tell something, with so many pods not where they belong: not of the next time that some aren't.
    pub(super) fn counts(&self, misplaced: u32) -> bool {
        misplaced > 0 || self.at.elapsed() < PAUSE
    }

    /// Whether more may be evicted, with so many pods not ready and so many not where they belong.
    fn may_go_on(&mut self, unready: usize, misplaced: u32) -> bool {
        if self.at.elapsed() < PAUSE {
            return false;
        }
        match &self.held {
            Some((_, since)) if since.elapsed() < HOLD => false,
            Some(_) => {
                self.held = None;
                true
            }
            // All are back, and it is as it was.
            None if unready == 0 && misplaced >= self.misplaced => {
                let why = "evicting pods didn't help, so none is evicted for ten minutes".to_owned();
                self.held = Some((why, Instant::now()));
                false
            }
            None => true,
        }
    }

    /// Why no more are tried.
    pub(super) fn held(&self) -> Option<String> {
        self.held.as_ref().map(|(why, _)| why.clone())
    }
}

impl Controller {
    /// Evicts some pods of groups that have too many.
    pub(super) async fn rebalance(
        &self,
        distributor: &Distributor,
        spec: &ValidSpec,
        census: &LedgerInventory,
        spread: &Spread,
        behind: GroupSet,
        evicted: &mut Option<Evicted>,
    ) {
        let unready = unready(census);
        let budget = budget(&spec.fields.rebalance, census);
        if evicted.as_mut().is_some_and(|before| !before.may_go_on(unready, spread.misplaced())) {
            return;
        }
        let names: Vec<String> = {
            let allocator = &spec.allocator;
            let placed = |pod: &'_ InventoryPod| -> Option<(usize, u32)> {
                Some((allocator.policy().index(pod.group.as_deref()?)?, pod.slot?))
            };
            let ready = census.pods.iter().filter(|pod| pod.health == Health::Ready);
            let placed = ready.filter_map(|pod| {
                let (group, slot) = placed(pod)?;
                Some(Placed { name: &pod.name, slot, group })
            });
            let placed = placed.collect();
            surplus(placed, spread, allocator, behind).into_iter().take(budget).map(str::to_owned).collect()
        };
        for pod in names {
            let refused = match self.evict(&distributor.namespace, &pod).await {
                Ok(()) => {
                    *evicted = Some(Evicted::now(spread.misplaced()));
                    None
                }
                Err(kube::Error::Api(status)) => Some(status.message.clone()),
                Err(error) => Some(error.to_string()),
            };
            let warning = refused.is_some();
            let message = match refused {
                None => format!("evicted {pod}, so that its place goes to a group that has too few"),
                Some(reason) => format!("can't evict {pod}: {reason}"),
            };
            tracing::info!(distributor = distributor.name, message, "rebalance");
            self.metrics.evicted(!warning);
            self.note(distributor, warning, "Rebalance", message);
            if warning {
                // Who refuses one, such as a disruption budget, refuses the others too: they are tried again after the pause.
                evicted.get_or_insert(Evicted::now(u32::MAX)).at = Instant::now();
                return;
            }
        }
    }

    async fn evict(&self, namespace: &str, pod: &str) -> kube::Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": pod},
        });
        send(&self.client, "POST", &path, Media::Json, &eviction).await.map(drop)
    }
}

/// How many pods aren't ready, whether or not they have a place.
fn unready(census: &LedgerInventory) -> usize {
    census.pods.iter().filter(|pod| pod.health != Health::Ready).count()
}

/// How many pods more may be missing.
fn budget(rebalance: &Rebalance, census: &LedgerInventory) -> usize {
    let pods = u32::try_from(census.pods.len()).unwrap_or(u32::MAX);
    let most = rebalance.max_unavailable.as_ref().map_or(Some(1), |max| max.of(pods)).unwrap_or(1);
    (most as usize).saturating_sub(unready(census))
}

/// The groups with too few pods that are to get their own back.
pub(super) fn behind(
    distributor: &Distributor,
    rebalance: &Rebalance,
    names: &[String],
    spread: &Spread,
    available: GroupSet,
) -> GroupSet {
    let due = |index: usize, name: &str| match rebalance.mode {
        RebalanceMode::Never => false,
        RebalanceMode::OnRecovery => distributor.status.is_recovering(name) && available.contains(index),
        RebalanceMode::Always => available.contains(index),
    };
    let few = |index: usize| spread.groups.get(index).is_some_and(|tally| tally.deviation() < 0);
    names
        .iter()
        .enumerate()
        .filter(|(index, name)| few(*index) && due(*index, name))
        .map(|(index, _)| index)
        .collect()
}

#[cfg(test)]
mod tests {
    use distributor_decision::spec::MaxUnavailable;
    use podshaper_core::owner_reference::OwnerReference;
    use podshaper_placement_kube::{LedgerId, NamespacedOwner};
    use tokio::time::advance;

    use super::*;

    #[test]
    fn a_pod_without_a_place_that_is_not_ready_is_missing_too() {
        let pod = |(group, health): (Option<&str>, Health)| InventoryPod {
            name: "a".into(),
            slot: None,
            group: group.map(Into::into),
            health,
        };
        let census = |pods: &[(Option<&str>, Health)]| LedgerInventory {
            ledger: LedgerId::new("ns", "uid"),
            controller: NamespacedOwner { namespace: "ns".to_owned(), owner: OwnerReference::default() },
            pods: pods.iter().copied().map(pod).collect(),
            reserved: 0,
        };
        let rebalance = |max| Rebalance { max_unavailable: max, ..Rebalance::default() };
        let (ready, waits) = ((Some("spot"), Health::Ready), (None, Health::Unschedulable(1)));
        let one = census(&[ready, ready, ready, waits]);
        let most = |text: &str| Some(serde_json::from_value::<MaxUnavailable>(text.into()).unwrap());
        assert_eq!(budget(&rebalance(None), &one), 0, "one may be missing, and is");
        assert_eq!(budget(&rebalance(most("50%")), &one), 1);
        assert_eq!(budget(&rebalance(None), &census(&[ready])), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn evictions_that_do_not_help_end() {
        let mut evicted = Evicted::now(3);
        assert!(!evicted.may_go_on(0, 2), "too soon");
        advance(PAUSE).await;
        assert!(evicted.may_go_on(0, 2), "it has helped");
        assert!(evicted.may_go_on(1, 3), "nobody can tell yet");
        assert!(!evicted.may_go_on(0, 3) && evicted.held().is_some());
        advance(HOLD.saturating_sub(Duration::from_secs(1))).await;
        assert!(!evicted.may_go_on(0, 1));
        advance(Duration::from_secs(1)).await;
        assert!(evicted.may_go_on(0, 3) && evicted.held().is_none());
        assert!(evicted.counts(3) && !evicted.counts(0), "the next time is another");
    }
}
