//! The status of a template.

use std::collections::BTreeSet;

use podshaper_crd::{ConditionStatus, NewCondition};

use flexdaemonset_decision::refit::Remedy;
use flexdaemonset_decision::size_range::{REMEDY, SizeRange};
use flexdaemonset_decision::template::{Refit, TemplateStatus};
use flexdaemonset_decision::template_object::TemplateObject;

use super::drift::{Drift, RefitHold};
use super::refit::WaitingPods;

/// The counts for one template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TemplateCounts {
    /// The status, of which only the counts are set.
    status: TemplateStatus,
    short_nodes: BTreeSet<Box<str>>,
    /// Pods that can't be resized in place.
    recreate: u32,
    /// The drift of one pod, preferably of an infeasible one.
    example: Option<String>,
    /// Pods that get a new size only when their users delete them.
    on_delete: u32,
    /// Pods that need a new one while evictions are disabled.
    evictions_disabled: u32,
    /// Pods that the webhook may never have been called for.
    unseen: u32,
    /// Pods that the scheduler finds no place for.
    unschedulable: u32,
    /// DaemonSets without a list of pods.
    unlisted: Vec<String>,
    /// Pods that wait for the refits of others.
    waiting: WaitingPods,
    /// A failed pod, with its reason.
    failure: Option<String>,
    /// A DaemonSet with pods that the API server refuses to create, with the reason.
    refusal: Option<String>,
    /// The DaemonSet with the widest range of sizes among those with a wide one.
    wide_range: Option<String>,
    refit_enabled: bool,
    resize_supported: bool,
}

impl TemplateCounts {
    pub(super) fn new(daemon_sets: usize, refit_enabled: bool, resize_supported: bool) -> Self {
        let daemon_sets = u32::try_from(daemon_sets).unwrap_or(u32::MAX);
        let status = TemplateStatus { daemon_sets, ..TemplateStatus::default() };
        Self { status, refit_enabled, resize_supported, ..Self::default() }
    }

    /// Counts a pod of unknown drift.
    pub(super) fn add_pending(&mut self) {
        self.status.pods_pending += 1;
    }

    /// Counts a DaemonSet without a list of pods.
    pub(super) fn add_unlisted(&mut self, daemon_set: &str, reason: &str) {
        self.unlisted.push(format!("{daemon_set}: {reason}"));
    }

    /// Counts a pod that has failed for `reason`.
    pub(super) fn add_failed(&mut self, key: &str, reason: &str) {
        self.status.pods_failed += 1;
        self.failure.get_or_insert_with(|| format!("{key}: {reason}"));
    }

    /// Records why the API server refuses `missing` pods of a DaemonSet. Returns the message.
    pub(super) fn add_refusal(&mut self, daemon_set: &str, missing: u32, reason: &str) -> &str {
        self.refusal.get_or_insert_with(|| {
            format!("DaemonSet {daemon_set} lacks {missing} pods, which the API server refuses: {reason}")
        })
    }

    /// Records the range of the sizes of a DaemonSet's pods.
    pub(super) fn add_sizes(&mut self, daemon_set: &str, sizes: &SizeRange) {
        if sizes.is_wide() {
            self.wide_range.get_or_insert_with(|| format!("{daemon_set}: {}", sizes.describe()));
        }
    }

    /// Sets the pods that wait for the refits of others.
    pub(super) fn set_waiting(&mut self, waiting: WaitingPods) {
        self.waiting = waiting;
    }

    /// Counts the pod `key` on `node`.
    pub(super) fn add(&mut self, key: &str, node: &str, drift: &Drift) {
        if drift.is_short && self.short_nodes.insert(node.into()) {
            self.status.nodes_short += 1;
        }
        match (drift.is_sized, &drift.difference) {
            (false, _) => self.status.pods_pending += 1,
            (true, None) if drift.infeasible.is_none() => self.status.pods_sized += 1,
            (true, _) => self.status.pods_outdated += 1,
        }
        self.on_delete += u32::from(drift.hold == Some(RefitHold::OnDelete));
        self.evictions_disabled += u32::from(drift.hold == Some(RefitHold::EvictionsDisabled));
        self.unseen += u32::from(drift.hold == Some(RefitHold::NotSeenByWebhook));
        if drift.is_unschedulable {
            self.unschedulable += 1;
            self.example.get_or_insert_with(|| key.to_owned());
        }
        let remedy = drift.difference.as_ref().map(|difference| &difference.remedy);
        self.recreate += u32::from(matches!(remedy, Some(Remedy::Recreate(_))));
        if let Some(reason) = &drift.infeasible {
            self.status.pods_infeasible += 1;
            self.example = Some(format!("{key}: {reason}"));
        } else if let (Some(difference), None) = (&drift.difference, &self.example) {
            let how = match &difference.remedy {
                Remedy::Resize(_) => String::new(),
                Remedy::Recreate(reason) => format!(" (needs a new pod: {reason})"),
            };
            self.example = Some(format!("{key}: {}{how}", difference.summary));
        }
    }

    /// The status, of which only the counts are set.
    pub(super) fn status(&self) -> &TemplateStatus {
        &self.status
    }
}

/// The new status of `template` at `now` (RFC 3339).
pub(super) fn template_status(
    template: &TemplateObject,
    counts: &TemplateCounts,
    now: &str,
) -> TemplateStatus {
    let ready = |status, reason, message| NewCondition { kind: "Ready", status, reason, message };
    let ready = match &template.rules {
        Ok(_) => ready(ConditionStatus::True, "Valid", "pods are created with their size".to_owned()),
        Err(error) => ready(ConditionStatus::False, "Invalid", error.to_string()),
    };
    let refit = template.rules.as_ref().map_or(Refit::Off, |rules| rules.refit);
    let (refits, reason, message) = progress(refit, counts);
    let status = if refits { ConditionStatus::True } else { ConditionStatus::False };
    let progressing = NewCondition { kind: "Progressing", status, reason, message };
    TemplateStatus {
        observed_generation: Some(template.generation),
        conditions: template.status.conditions.replaced_by(
            [ready, progressing, wide_spread(counts)],
            template.generation,
            now,
        ),
        ..counts.status.clone()
    }
}

/// Whether autoscalers, which assume one size, are far from some pods of a DaemonSet.
fn wide_spread(counts: &TemplateCounts) -> NewCondition {
    let kind = "WideSpread";
    match &counts.wide_range {
        Some(range) => NewCondition {
            kind,
            status: ConditionStatus::True,
            reason: "SizesDiffer",
            message: format!(
                "Karpenter assumes the newest pod's requests on every instance type, and the cluster autoscaler the pod template's; {range}; \
                 where nodes are added by one of them, {REMEDY}"
            ),
        },
        None => NewCondition {
            kind,
            status: ConditionStatus::False,
            reason: "SizesSimilar",
            message: "the sizes of a DaemonSet's pods differ by at most a factor of two".to_owned(),
        },
    }
}

/// Whether pods are being refitted, with reason and message.
fn progress(refit: Refit, counts: &TemplateCounts) -> (bool, &'static str, String) {
    let differing = counts.status.pods_outdated + counts.status.pods_pending;
    let example = counts.example.as_ref().map(|example| format!("; {example}")).unwrap_or_default();
    let infeasible = counts.status.pods_infeasible;
    if infeasible > 0 {
        return (false, "ResizeHeld", format!("{infeasible} pods can't be resized now{example}"));
    }
    if let (0, Some(first)) = (differing, counts.unlisted.first()) {
        let message = format!("the pods of {} DaemonSets aren't known; {first}", counts.unlisted.len());
        return (false, "PodsUnknown", message);
    }
    if let (0, Some(refusal)) = (differing, &counts.refusal) {
        return (false, "PodsRefused", refusal.clone());
    }
    if let (0, Some(failure)) = (differing, &counts.failure) {
        let message = format!("{} pods have failed; {failure}", counts.status.pods_failed);
        return (false, "PodsFailed", message);
    }
    if differing == 0 && counts.unschedulable > 0 {
        let message =
            format!("every pod has its size, but {} can't be scheduled{example}", counts.unschedulable);
        return (false, "PodsUnschedulable", message);
    }
    if differing == 0 {
        return (false, "Settled", "every pod has its size".to_owned());
    }
    match refit {
        Refit::Off => (false, "RefitOff", format!("{differing} pods get their size when they are recreated")),
        Refit::DryRun => (false, "DryRun", format!("{differing} pods would be refitted{example}")),
        Refit::InPlace | Refit::InPlaceOrRecreate if !counts.refit_enabled => {
            let message =
                format!("{differing} pods would be refitted, but the webhook's refits are disabled{example}");
            (false, "RefitOff", message)
        }
        Refit::InPlace | Refit::InPlaceOrRecreate if counts.unseen >= differing => {
            let message =
                format!("{differing} pods have no size, and matchConditions may exclude them{example}");
            (false, "NotSeenByWebhook", message)
        }
        Refit::InPlaceOrRecreate if counts.on_delete >= differing => {
            let message = format!(
                "{differing} pods get their size when they are deleted (updateStrategy OnDelete){example}"
            );
            (false, "NewPodsNeeded", message)
        }
        Refit::InPlaceOrRecreate if counts.evictions_disabled >= differing => {
            let message = format!(
                "{differing} pods get their size when they are recreated (evictions are disabled){example}"
            );
            (false, "NewPodsNeeded", message)
        }
        Refit::InPlace if !counts.resize_supported => {
            (false, "ResizeUnsupported", "this cluster can't resize pods in place (pods/resize)".to_owned())
        }
        Refit::InPlace if counts.recreate >= differing => {
            let message = format!("{differing} pods get their size when they are recreated{example}");
            (false, "NewPodsNeeded", message)
        }
        Refit::InPlace | Refit::InPlaceOrRecreate => {
            let WaitingPods { count, example: waiting } = &counts.waiting;
            let waiting =
                if *count > 0 { format!("; {count} of them wait, {waiting}") } else { String::new() };
            (true, "Refitting", format!("{differing} pods are being refitted{waiting}{example}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexdaemonset_decision::resource::{PerResource, SizedResource};
    use flexdaemonset_decision::rules::Template;
    use serde_json::json;

    #[test]
    fn refit_decides_progressing() {
        let rules = Template::from_spec(&json!({"cpuPercentage": 1, "refit": "InPlace"}));
        let status = TemplateStatus::default();
        let mut template = TemplateObject { uid: "".into(), generation: 3, rules, status };
        let mut counts = TemplateCounts::new(1, true, true);
        counts.status.pods_sized = 2;
        let first = template_status(&template, &counts, "then");
        template.status = first.clone();
        assert_eq!(template_status(&template, &counts, "now"), first, "nothing changed");
        counts.status.pods_outdated = 1;
        let second = template_status(&template, &counts, "now");
        assert_eq!(second.conditions.get("Ready"), first.conditions.get("Ready"));
        let progressing = second.conditions.get("Progressing").unwrap();
        assert_eq!((&*progressing.reason, &*progressing.last_transition_time), ("Refitting", "now"));
        let reason = |counts: &TemplateCounts| {
            template_status(&template, counts, "now").conditions.get("Progressing").unwrap().reason.clone()
        };
        counts.recreate = 1;
        assert_eq!(reason(&counts), "NewPodsNeeded");
        counts.unseen = 1;
        assert_eq!(reason(&counts), "NotSeenByWebhook");
        counts.unseen = 0;
        let mut settled = TemplateCounts::new(1, true, true);
        assert_eq!(reason(&settled), "Settled");
        settled.unschedulable = 1;
        assert_eq!(reason(&settled), "PodsUnschedulable");
        settled.add_unlisted("ns/a", "its selector is empty");
        assert_eq!(reason(&settled), "PodsUnknown");
        counts.refit_enabled = false;
        assert_eq!(reason(&counts), "RefitOff");
    }

    #[test]
    fn pods_that_wait_fail_or_are_refused_have_a_reason() {
        let rules = Template::from_spec(&json!({"cpuPercentage": 1, "refit": "InPlace"}));
        let template =
            TemplateObject { uid: "".into(), generation: 3, rules, status: TemplateStatus::default() };
        let condition = |counts: &TemplateCounts, kind: &str| {
            let condition = template_status(&template, counts, "now").conditions.get(kind).cloned().unwrap();
            (condition.reason, condition.message)
        };
        let mut counts = TemplateCounts::new(1, true, true);
        counts.add_failed("ns/a", "TopologyAffinityError: no place");
        let (reason, message) = condition(&counts, "Progressing");
        assert_eq!((&*reason, counts.status().pods_failed), ("PodsFailed", 1));
        assert!(message.contains("ns/a: TopologyAffinityError"), "{message}");
        counts.add_refusal("ns/b", 2, "exceeded quota");
        let (reason, message) = condition(&counts, "Progressing");
        assert_eq!(reason, "PodsRefused");
        assert!(
            message.contains("DaemonSet ns/b lacks 2 pods") && message.contains("exceeded quota"),
            "{message}"
        );
        counts.status.pods_outdated = 2;
        counts.set_waiting(WaitingPods { count: 1, example: "ns/a: its turn".to_owned() });
        let (reason, message) = condition(&counts, "Progressing");
        assert_eq!(reason, "Refitting");
        assert!(message.contains("1 of them wait, ns/a: its turn"), "{message}");
    }

    #[test]
    fn wide_spread_is_a_condition() {
        let rules = Template::from_spec(&json!({"cpuPercentage": 1}));
        let template =
            TemplateObject { uid: "".into(), generation: 3, rules, status: TemplateStatus::default() };
        let spread = |cpus: &[i64]| {
            let mut sizes = SizeRange::default();
            for cpu in cpus {
                sizes.add(&PerResource::from_fn(
                    |resource| if resource == SizedResource::Cpu { *cpu } else { 0 },
                ));
            }
            let mut counts = TemplateCounts::new(1, true, true);
            counts.add_sizes("ns/a", &sizes);
            template_status(&template, &counts, "now").conditions.get("WideSpread").cloned().unwrap()
        };
        let wide = spread(&[100, 9600]);
        assert_eq!(wide.status, ConditionStatus::True);
        assert!(
            wide.message.contains("ns/a: cpu 100m to 9600m") && wide.message.contains("Karpenter"),
            "{wide:?}"
        );
        assert_eq!(spread(&[100, 200]).status, ConditionStatus::False);
    }

    #[test]
    fn infeasible_pod_is_not_sized() {
        let mut counts = TemplateCounts::new(1, true, true);
        counts.add(
            "ns/a",
            "n",
            &Drift { is_sized: true, infeasible: Some("no".to_owned()), ..Drift::default() },
        );
        let status = counts.status();
        assert_eq!((status.pods_sized, status.pods_outdated, status.pods_infeasible), (0, 1, 1));
    }
}
