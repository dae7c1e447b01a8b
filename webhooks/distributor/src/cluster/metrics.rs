//! What Prometheus scrapes of this webhook.

use std::sync::Arc;

use podshaper_placement::admit::PlaceOutcome;
use podshaper_placement::spread::Spread;
use podshaper_placement_kube::PlacementMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use distributor_decision::WEBHOOK;
use distributor_decision::distributor::Distributor;

/// Metrics of distributor. Those about pods are the leader's.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    placed: PlacementMetrics,
    evictions: Family<ResultLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let placed = PlacementMetrics::register(registry, WEBHOOK);
        let evictions = Family::default();
        registry.register(
            format!("{WEBHOOK}_evictions"),
            "Pods that were evicted so that others take their places, or couldn't be",
            evictions.clone(),
        );
        Self { placed, evictions }
    }

    pub(super) fn decided(&self, outcome: PlaceOutcome) {
        self.placed.decided(outcome);
    }

    pub(super) fn leads(&self, leads: bool) {
        self.placed.set_leader(leads);
    }

    pub(super) fn evicted(&self, done: bool) {
        let result = if done { "evicted" } else { "refused" };
        self.evictions.get_or_create(&ResultLabel { result }).inc();
    }

    /// How the pods of these distributors are spread, and of no others any more.
    pub(super) fn counted(&self, distributors: &[(Arc<Distributor>, Spread)]) {
        self.placed.clear_pods();
        for (distributor, spread) in distributors {
            let Ok(spec) = &distributor.spec else { continue };
            let whose = [("namespace", &*distributor.namespace), ("distributor", &*distributor.name)];
            self.placed.add_pods(&whose, spec.allocator.policy(), spread);
        }
    }
}
