//! The status of a template.

use podshaper_crd::{ConditionStatus, NewCondition};

use flexdaemonset_decision::facts::TemplateFact;
use flexdaemonset_decision::template::{Refit, TemplateStatus};

/// What is counted for a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) daemon_sets: u32,
    pub(super) sized: u32,
    pub(super) pending: u32,
    pub(super) outdated: u32,
    pub(super) infeasible: u32,
    pub(super) nodes_short: u32,
    /// Pods that differ, and not in what can be resized in place.
    pub(super) anew: u32,
    /// What one of those says that can't be resized, or differ.
    pub(super) example: Option<String>,
    /// Whether running pods may be touched at all.
    pub(super) refits: bool,
    /// Whether this cluster can resize pods in place.
    pub(super) resizable: bool,
}

/// The status that `template` is to have at `now` (RFC 3339).
pub(super) fn status(template: &TemplateFact, counts: &Counts, now: &str) -> TemplateStatus {
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
        daemon_sets: counts.daemon_sets,
        pods_sized: counts.sized,
        pods_pending: counts.pending,
        pods_outdated: counts.outdated,
        pods_infeasible: counts.infeasible,
        nodes_short: counts.nodes_short,
        conditions: template.status.conditions.replaced_by([ready, progressing], template.generation, now),
    }
}

/// Whether pods are being resized, and why.
fn progress(refit: Refit, counts: &Counts) -> (bool, &'static str, String) {
    let differing = counts.outdated + counts.pending;
    let example = counts.example.as_ref().map(|example| format!("; {example}")).unwrap_or_default();
    if counts.infeasible > 0 {
        let message = format!("{} pods can't be resized now{example}", counts.infeasible);
        return (false, "ResizeHeld", message);
    }
    if differing == 0 {
        return (false, "Settled", "every pod has its size".to_owned());
    }
    match refit {
        Refit::Off => {
            (false, "RefitOff", format!("{differing} pods get their size when they are created anew"))
        }
        Refit::DryRun => (false, "DryRun", format!("{differing} pods would follow{example}")),
        Refit::InPlace | Refit::InPlaceOrRecreate if !counts.refits => {
            (false, "RefitOff", format!("{differing} pods would follow if the webhook were let to{example}"))
        }
        Refit::InPlace if !counts.resizable => {
            (false, "ResizeUnsupported", "this cluster can't resize pods in place (pods/resize)".to_owned())
        }
        Refit::InPlace if counts.anew >= differing => {
            (false, "NewPodsNeeded", format!("{differing} pods follow when they are created anew{example}"))
        }
        Refit::InPlace | Refit::InPlaceOrRecreate => {
            (true, "Refitting", format!("{differing} pods are to follow{example}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexdaemonset_decision::rules::Template;
    use serde_json::json;

    #[test]
    fn refit_decides_progressing() {
        let rules = Template::from_spec(&json!({"cpuPercentage": 1, "refit": "InPlace"}));
        let status_before = TemplateStatus::default();
        let mut template = TemplateFact { uid: "".into(), generation: 3, rules, status: status_before };
        let mut counts = Counts { sized: 2, refits: true, resizable: true, ..Counts::default() };
        let first = status(&template, &counts, "then");
        template.status = first.clone();
        assert_eq!(status(&template, &counts, "now"), first, "nothing changed");
        counts.outdated = 1;
        let second = status(&template, &counts, "now");
        assert_eq!(second.conditions.get("Ready"), first.conditions.get("Ready"));
        let progressing = second.conditions.get("Progressing").unwrap();
        assert_eq!((&*progressing.reason, &*progressing.last_transition_time), ("Refitting", "now"));
        let reason = |counts: &Counts| {
            status(&template, counts, "now").conditions.get("Progressing").unwrap().reason.clone()
        };
        counts.anew = 1;
        assert_eq!(reason(&counts), "NewPodsNeeded");
        counts.refits = false;
        assert_eq!(reason(&counts), "RefitOff");
    }
}
