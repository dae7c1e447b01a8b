//! Metrics of groups.

use podshaper_crd::ConditionStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use distributor_decision::distributor::Distributor;
use distributor_decision::findings::FINDINGS;
use distributor_decision::status::{GroupState, GroupStatus};
use podshaper_placement_kube::PodSeries;

/// Whether groups take pods. Only the leader has series.
#[derive(Clone, Default)]
pub(super) struct GroupMetrics {
    groups: Family<StateLabels, Gauge>,
    open: Family<GroupLabels, Gauge>,
    kept: Family<KeptLabels, Gauge>,
    problems: Family<ProblemLabels, Gauge>,
    series: PodSeries,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    namespace: String,
    distributor: String,
    group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeptLabels {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    condition: String,
    reason: String,
}

impl GroupMetrics {
    pub(super) fn register(registry: &mut Registry, series: PodSeries) -> Self {
        let metrics = Self { series, ..Self::default() };
        let groups = "Groups of PodDistributors, by state: open or closed";
        registry.register("distributor_groups", groups, metrics.groups.clone());
        let open = "1 if new pods go to the group, 0 if it is closed or only one pod tries it";
        registry.register("distributor_group_open", open, metrics.open.clone());
        let kept = "Pods that wait for nodes of closed groups and are not taken back, by reason";
        registry.register("distributor_not_taken_back_pods", kept, metrics.kept.clone());
        let problems = "PodDistributors with a condition that is not as it should be";
        registry.register("distributor_problems", problems, metrics.problems.clone());
        metrics
    }

    /// Removes all series.
    pub(super) fn clear(&self) {
        self.groups.clear();
        self.open.clear();
        self.kept.clear();
        self.problems.clear();
    }

    /// Adds the conditions of a distributor that are not as they should be.
    pub(super) fn add_problems(&self, distributor: &Distributor) {
        for condition in distributor.status.conditions.iter() {
            let good = if FINDINGS.contains(&&*condition.kind) {
                ConditionStatus::False
            } else {
                ConditionStatus::True
            };
            if condition.status != good {
                let labels =
                    ProblemLabels { condition: condition.kind.clone(), reason: condition.reason.clone() };
                self.problems.get_or_create(&labels).inc();
            }
        }
    }

    /// Adds the series of one distributor. `statuses` are in the order of its groups.
    pub(super) fn add<'n>(
        &self,
        distributor: &Distributor,
        names: impl Iterator<Item = &'n str>,
        statuses: &[GroupStatus],
    ) {
        for (name, status) in names.zip(statuses) {
            let is_open = status.state == Some(GroupState::Open);
            let state = if is_open { "open" } else { "closed" };
            self.groups.get_or_create(&StateLabels { state }).inc();
            if self.series == PodSeries::PerObject {
                let labels = GroupLabels {
                    namespace: distributor.namespace.clone(),
                    distributor: distributor.name.clone(),
                    group: name.to_owned(),
                };
                self.open.get_or_create(&labels).set(is_open.into());
            }
            for (reason, pods) in status.not_taken_back.iter().flatten() {
                self.kept.get_or_create(&KeptLabels { reason: reason.clone() }).inc_by((*pods).into());
            }
        }
    }
}
