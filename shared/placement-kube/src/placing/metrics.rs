//! What Prometheus scrapes of a webhook that places pods.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use podshaper_placement::admit::PlaceOutcome;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::spread::Spread;

/// Names and values.
type Labels = Vec<(&'static str, String)>;

/// Metrics of placed pods. Those that count them are the leader's.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    decisions: Family<Labels, Counter>,
    pods: Family<Labels, Gauge>,
    unplaced: Family<Labels, Gauge>,
    /// Whether this replica leads.
    pub leads: Gauge,
}

impl Metrics {
    /// Registers those of `webhook`.
    pub fn register(registry: &mut Registry, webhook: &str) -> Self {
        let metrics = Self::default();
        let name = |what: &str| format!("{}_{what}", webhook.replace('-', "_"));
        registry.register(
            name("decisions"),
            "Pods that are to be placed, by what became of them",
            metrics.decisions.clone(),
        );
        registry.register(
            name("pods"),
            "Pods by group: desired, actual, and pending, which are those of them that aren't ready",
            metrics.pods.clone(),
        );
        registry.register(
            name("unplaced_pods"),
            "Pods that have no place: created before there were allocator, or while no webhook answered, or no group was left for them",
            metrics.unplaced.clone(),
        );
        registry.register(
            name("leads"),
            "1 on the replica that puts ledgers in order, and counts",
            metrics.leads.clone(),
        );
        metrics
    }

    /// What became of a pod.
    pub fn decided(&self, outcome: PlaceOutcome) {
        self.decisions.get_or_create(&vec![("outcome", outcome.name().to_owned())]).inc();
    }

    /// Forgets all counts of pods.
    pub fn clear(&self) {
        self.pods.clear();
        self.unplaced.clear();
    }

    /// Adds pods: `whose` they are, and how they are spread.
    pub fn count(&self, whose: &[(&'static str, &str)], allocator: &SlotAllocator, spread: &Spread) {
        let whose: Labels = whose.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        for (group, tally) in allocator.policy().groups().iter().zip(&spread.groups) {
            for (state, count) in
                [("desired", tally.desired), ("actual", tally.actual), ("pending", tally.pending)]
            {
                let more = [("group", group.name.to_string()), ("state", state.to_owned())];
                let labels = whose.iter().cloned().chain(more).collect();
                self.pods.get_or_create(&labels).inc_by(count.into());
            }
        }
        self.unplaced.get_or_create(&whose).inc_by(spread.unplaced.into());
    }
}
