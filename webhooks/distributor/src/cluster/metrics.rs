//! What Prometheus scrapes of this webhook.

use std::sync::Arc;

use podshaper::placement::rules::locked;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::distributor::Distributor;
use crate::facts::Outcome;
use crate::spread::Spread;

/// Metrics of distributor. Those about pods are the leader's.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    decisions: Family<OutcomeLabel, Counter>,
    evictions: Family<ResultLabel, Counter>,
    spread: Family<PodsLabel, Gauge>,
    /// Whether this replica leads.
    pub(super) leads: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodsLabel {
    namespace: String,
    distributor: String,
    group: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let name = |what: &str| format!("distributor_{what}");
        registry.register(
            name("decisions"),
            "Pods that a PodDistributor governs, by what became of them",
            metrics.decisions.clone(),
        );
        registry.register(
            name("evictions"),
            "Pods that were evicted so that others take their places, or couldn't be",
            metrics.evictions.clone(),
        );
        registry.register(
            name("pods"),
            "Pods by group: desired, actual, and pending, which are those of them that aren't ready",
            metrics.spread.clone(),
        );
        registry.register(
            name("leads"),
            "1 on the replica that puts ledgers in order and writes status",
            metrics.leads.clone(),
        );
        metrics
    }

    pub(super) fn evicted(&self, done: bool) {
        let result = if done { "evicted" } else { "refused" };
        self.evictions.get_or_create(&ResultLabel { result }).inc();
    }

    /// How the pods of these distributors are spread, and of no others any more.
    pub(super) fn counted(&self, distributors: &[(Arc<Distributor>, Spread)]) {
        self.spread.clear();
        for (distributor, spread) in distributors {
            let Ok(plan) = &distributor.plan else { continue };
            let rules = locked(&plan.rules);
            for (group, tally) in rules.policy().groups().iter().zip(&spread.groups) {
                for (state, count) in
                    [("desired", tally.due), ("actual", tally.actual), ("pending", tally.pending)]
                {
                    let label = PodsLabel {
                        namespace: distributor.namespace.clone(),
                        distributor: distributor.name.clone(),
                        group: group.name.to_string(),
                        state,
                    };
                    self.spread.get_or_create(&label).set(count.into());
                }
            }
        }
    }

    pub(super) fn decided(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Placed => "placed",
            Outcome::Estimated => "estimated",
            Outcome::Kept => "kept",
            Outcome::Full => "full",
            Outcome::Unfitting => "unfitting",
            Outcome::Invalid => "invalid",
            Outcome::Undecided => "undecided",
        };
        self.decisions.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
