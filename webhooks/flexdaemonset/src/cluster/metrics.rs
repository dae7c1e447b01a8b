//! What Prometheus scrapes of this webhook.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::status::Counts;
use flexdaemonset_decision::facts::Outcome;

/// Metrics of flexdaemonset. Those about pods are the leader's.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    decisions: Family<OutcomeLabel, Counter>,
    refits: Family<ActionLabel, Counter>,
    pods: Family<PodsLabel, Gauge>,
    nodes_short: Family<TemplateLabel, Gauge>,
    /// Whether this replica leads.
    pub(super) leads: Gauge,
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

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let name = |what: &str| format!("flexdaemonset_{what}");
        registry.register(
            name("decisions"),
            "Pods that name a template, by what became of them",
            metrics.decisions.clone(),
        );
        registry.register(
            name("refits"),
            "Running pods that were resized or evicted to follow their template, or couldn't be",
            metrics.refits.clone(),
        );
        registry.register(name("pods"), "Running pods by template and state", metrics.pods.clone());
        registry.register(
            name("nodes_short"),
            "Nodes that are too small for the pod of a template",
            metrics.nodes_short.clone(),
        );
        registry.register(
            name("leads"),
            "1 on the replica that refits and writes status",
            metrics.leads.clone(),
        );
        metrics
    }

    pub(super) fn decided(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Sized => "sized",
            Outcome::Unsized => "unsized",
            Outcome::TemplateMissing => "template_missing",
            Outcome::TemplateInvalid => "template_invalid",
            Outcome::NodeUnknown => "node_unknown",
            Outcome::Undecided => "undecided",
        };
        self.decisions.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn refitted(&self, action: &'static str) {
        self.refits.get_or_create(&ActionLabel { action }).inc();
    }

    /// What is known of the pods of these templates, and of no others any more.
    pub(super) fn counted<'t>(&self, templates: impl IntoIterator<Item = (&'t str, &'t Counts)>) {
        self.pods.clear();
        self.nodes_short.clear();
        for (template, counts) in templates {
            for (state, count) in [
                ("sized", counts.sized),
                ("pending", counts.pending),
                ("outdated", counts.outdated),
                ("infeasible", counts.infeasible),
            ] {
                let label = PodsLabel { template: template.to_owned(), state };
                self.pods.get_or_create(&label).set(count.into());
            }
            let label = TemplateLabel { template: template.to_owned() };
            self.nodes_short.get_or_create(&label).set(counts.nodes_short.into());
        }
    }
}
