//! Metrics of distributor.

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

/// The replica that leads exports those about pods.
#[derive(Clone, Debug)]
pub(super) struct DistributorMetrics {
    placement: PlacementMetrics,
    evictions: Family<EvictionLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EvictionLabels {
    result: &'static str,
}

impl DistributorMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let placement = PlacementMetrics::register(registry, WEBHOOK);
        let evictions = Family::default();
        registry.register(
            format!("{WEBHOOK}_evictions"),
            "Evictions of pods that take the place of another group, by result: evicted or refused",
            evictions.clone(),
        );
        Self { placement, evictions }
    }

    pub(super) fn count_decision(&self, outcome: PlaceOutcome) {
        self.placement.decided(outcome);
    }

    pub(super) fn set_leading(&self, leads: bool) {
        self.placement.set_leader(leads);
    }

    pub(super) fn count_eviction(&self, evicted: bool) {
        let result = if evicted { "evicted" } else { "refused" };
        self.evictions.get_or_create(&EvictionLabels { result }).inc();
    }

    /// Exports the pods of these distributors, and of no others.
    pub(super) fn export_pods(&self, distributors: &[(Arc<Distributor>, Spread)]) {
        self.placement.clear_pods();
        for (distributor, spread) in distributors {
            let Ok(spec) = &distributor.spec else { continue };
            let labels = [("namespace", &*distributor.namespace), ("distributor", &*distributor.name)];
            self.placement.add_pods(&labels, spec.allocator.policy(), spread);
        }
    }
}
