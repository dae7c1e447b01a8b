//! Metrics of a webhook that places pods.

use podshaper_placement::admit::PlaceOutcome;
use podshaper_placement::policy::Policy;
use podshaper_placement::spread::Spread;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The labels by which the series count pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodSeries {
    /// The state of the pods alone. No label has a name that a tenant has chosen.
    #[default]
    Sums,
    /// Namespace, workload and group, too. The names of tenants' objects are visible to everyone who reads the metrics.
    PerObject,
}

/// Names and values.
type Labels = Vec<(&'static str, String)>;

impl From<bool> for PodSeries {
    fn from(per_object: bool) -> Self {
        if per_object { Self::PerObject } else { Self::Sums }
    }
}

/// Metrics of placed pods. Only the leader has series of pods.
#[derive(Clone, Debug, Default)]
pub struct PlacementMetrics {
    decisions: Family<Labels, Counter>,
    pods: Family<Labels, Gauge>,
    unplaced: Family<Labels, Gauge>,
    leads: Gauge,
    series: PodSeries,
}

impl PlacementMetrics {
    /// Registers the metrics with the name of `webhook` as their prefix.
    pub fn register(registry: &mut Registry, webhook: &str, series: PodSeries) -> Self {
        let metrics = Self { series, ..Self::default() };
        let registry = registry.sub_registry_with_prefix(webhook.replace('-', "_"));
        let decisions = "Admission decisions about pods to place, by outcome";
        registry.register("decisions", decisions, metrics.decisions.clone());
        let pods =
            "Pods by group and state: desired, actual, and pending, which are actual pods that are not ready";
        registry.register("pods", pods, metrics.pods.clone());
        let unplaced = "Pods without a group: created before their policy, while no webhook answered, or when no group was left";
        registry.register("unplaced_pods", unplaced, metrics.unplaced.clone());
        let leads = "1 on the replica that leads: it reconciles ledgers and counts pods";
        registry.register("leads", leads, metrics.leads.clone());
        metrics
    }

    /// Counts a decision.
    pub fn decided(&self, outcome: PlaceOutcome) {
        self.decisions.get_or_create(&vec![("outcome", outcome.name().to_owned())]).inc();
    }

    /// Records that this replica leads, or no longer leads, and has counted no pods yet.
    pub fn set_leader(&self, leads: bool) {
        self.leads.set(leads.into());
        self.clear_pods();
    }

    /// Replaces the series of pods by those of these workloads: their labels, policy and pods. Workloads with the same labels add up,
    /// and so do all workloads with [`PodSeries::Sums`].
    pub fn set_pods<'p, const N: usize>(
        &self,
        workloads: impl IntoIterator<Item = ([(&'static str, &'p str); N], &'p Policy, &'p Spread)>,
    ) {
        self.clear_pods();
        for (labels, policy, spread) in workloads {
            let per_object = self.series == PodSeries::PerObject;
            let labels: Labels = labels
                .iter()
                .filter(|_| per_object)
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect();
            for (group, counts) in policy.groups().iter().zip(&spread.groups) {
                for (state, count) in
                    [("desired", counts.desired), ("actual", counts.actual), ("pending", counts.pending)]
                {
                    let group = per_object.then(|| ("group", group.name.to_string()));
                    let more = group.into_iter().chain([("state", state.to_owned())]);
                    let labels = labels.iter().cloned().chain(more).collect();
                    self.pods.get_or_create(&labels).inc_by(count.into());
                }
            }
            self.unplaced.get_or_create(&labels).inc_by(spread.unplaced.into());
        }
    }

    fn clear_pods(&self) {
        self.pods.clear();
        self.unplaced.clear();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn metrics_are_documented() {
        for (webhook, workload) in [
            ("distributor", &["namespace", "distributor"][..]),
            ("custom-scheduler-annotations", &["namespace", "kind", "workload"]),
        ] {
            let mut registry = Registry::with_prefix("podshaper");
            let metrics = PlacementMetrics::register(&mut registry, webhook, PodSeries::PerObject);
            let with = |more: &[&'static str]| -> Labels {
                workload.iter().chain(more).map(|label| (*label, String::new())).collect()
            };
            drop(metrics.decisions.get_or_create(&vec![("outcome", String::new())]));
            drop(metrics.pods.get_or_create(&with(&["group", "state"])));
            drop(metrics.unplaced.get_or_create(&with(&[])));
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            podshaper_testing::metrics::assert_documented(webhook, &text);
        }
    }

    #[test]
    fn name_of_a_metric_begins_with_the_webhook() {
        let mut registry = Registry::with_prefix("podshaper");
        let metrics = PlacementMetrics::register(&mut registry, "custom-scheduler", PodSeries::Sums);
        metrics.decided(PlaceOutcome::Full);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let line = "podshaper_custom_scheduler_decisions_total{outcome=\"full\"} 1";
        assert!(text.lines().any(|encoded| encoded == line), "{text}");
    }

    #[test]
    fn sums_have_no_names_of_objects() {
        use podshaper_placement::policy::{Group, Tie};
        use podshaper_placement::spread::GroupSpread;

        let group = Group {
            name: "spot".into(),
            node_labels: [("type".to_owned(), "spot".to_owned())].into(),
            weight: 1,
            ..Group::default()
        };
        let policy = Policy::new(vec![group], Tie::First).unwrap();
        let counts = GroupSpread { desired: 2, actual: 3, pending: 1 };
        let spread = Spread { groups: vec![counts], unplaced: 4 };
        let encoded = |series| {
            let mut registry = Registry::with_prefix("podshaper");
            let metrics = PlacementMetrics::register(&mut registry, "distributor", series);
            let workload = |name| ([("namespace", "shop"), ("distributor", name)], &policy, &spread);
            metrics.set_pods([workload("a"), workload("b")]);
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let sums = encoded(PodSeries::Sums);
        for line in
            ["podshaper_distributor_pods{state=\"actual\"} 6", "podshaper_distributor_unplaced_pods{} 8"]
        {
            assert!(sums.lines().any(|encoded| encoded == line), "{line}: {sums}");
        }
        assert!(!sums.contains("shop") && !sums.contains("spot"), "{sums}");
        let each = encoded(PodSeries::PerObject);
        let line = "podshaper_distributor_unplaced_pods{namespace=\"shop\",distributor=\"b\"} 4";
        assert!(each.lines().any(|encoded| encoded == line), "{each}");
    }
}
