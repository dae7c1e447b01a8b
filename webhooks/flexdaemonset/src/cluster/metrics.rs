//! The metrics of flexdaemonset.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::status::TemplateCounts;
use flexdaemonset_decision::facts::SizingOutcome;

/// The metrics. Only the leader sets those about running pods.
#[derive(Clone, Debug, Default)]
pub(super) struct FlexDaemonsetMetrics {
    decisions: Family<OutcomeLabel, Counter>,
    refits: Family<ActionLabel, Counter>,
    pods: Family<PodsLabel, Gauge>,
    nodes_short: Family<TemplateLabel, Gauge>,
    leads: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabel {
    action: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TemplateLabel {
    template: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodsLabel {
    template: String,
    state: &'static str,
}

impl FlexDaemonsetMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let name = |suffix: &str| format!("flexdaemonset_{suffix}");
        registry.register(
            name("decisions"),
            "Pods that name a template, by the outcome of their admission",
            metrics.decisions.clone(),
        );
        registry.register(name("refits"), "Refits of running pods, by action", metrics.refits.clone());
        registry.register(name("pods"), "Running pods by template and state", metrics.pods.clone());
        registry.register(
            name("nodes_short"),
            "Nodes that have less than the pod of a template requests",
            metrics.nodes_short.clone(),
        );
        registry.register(
            name("leads"),
            "1 on the leader, which refits pods and writes status",
            metrics.leads.clone(),
        );
        metrics
    }

    pub(super) fn count_decision(&self, outcome: SizingOutcome) {
        let outcome = match outcome {
            SizingOutcome::Sized => "sized",
            SizingOutcome::Unsized => "unsized",
            SizingOutcome::TemplateMissing => "template_missing",
            SizingOutcome::TemplateInvalid => "template_invalid",
            SizingOutcome::NodeUnknown => "node_unknown",
            SizingOutcome::Undecided => "undecided",
        };
        self.decisions.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn count_refit(&self, action: &'static str) {
        self.refits.get_or_create(&ActionLabel { action }).inc();
    }

    pub(super) fn set_leader(&self, leads: bool) {
        self.leads.set(leads.into());
    }

    /// Sets the counts of these templates, and removes those of all others.
    pub(super) fn set_counts<'t>(&self, templates: impl IntoIterator<Item = (&'t str, &'t TemplateCounts)>) {
        self.pods.clear();
        self.nodes_short.clear();
        for (template, counts) in templates {
            let status = counts.status();
            for (state, count) in [
                ("sized", status.pods_sized),
                ("pending", status.pods_pending),
                ("outdated", status.pods_outdated),
                ("infeasible", status.pods_infeasible),
                ("failed", status.pods_failed),
            ] {
                let label = PodsLabel { template: template.to_owned(), state };
                self.pods.get_or_create(&label).set(count.into());
            }
            let label = TemplateLabel { template: template.to_owned() };
            self.nodes_short.get_or_create(&label).set(status.nodes_short.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_documented() {
        let mut registry = Registry::with_prefix("podshaper");
        let metrics = FlexDaemonsetMetrics::register(&mut registry);
        metrics.count_decision(SizingOutcome::Sized);
        metrics.count_refit("resized");
        metrics.set_counts([("template", &TemplateCounts::default())]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        podshaper_testing::metrics::assert_documented("flexdaemonset", &text);
    }
}
