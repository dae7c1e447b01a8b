//! The status of a template.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use flexdaemonset_decision::facts::TemplateFact;
use flexdaemonset_decision::template::Refit;

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

/// The status that `template` is to have; conditions that stay keep their time.
pub(super) fn status(template: &TemplateFact, counts: &Counts) -> Value {
    let (ready, reason, message) = match &template.rules {
        Ok(_) => ("True", "Valid", "pods are created with their size".to_owned()),
        Err(error) => ("False", "Invalid", error.to_string()),
    };
    let refit = template.rules.as_ref().map_or(Refit::Off, |rules| rules.refit);
    let (progressing, why, what) = progress(refit, counts);
    json!({
        "observedGeneration": template.generation,
        "daemonSets": counts.daemon_sets,
        "podsSized": counts.sized,
        "podsPending": counts.pending,
        "podsOutdated": counts.outdated,
        "podsInfeasible": counts.infeasible,
        "nodesShort": counts.nodes_short,
        "conditions": [
            condition(template, "Ready", ready, reason, &message),
            condition(template, "Progressing", progressing, why, &what),
        ],
    })
}

fn progress(refit: Refit, counts: &Counts) -> (&'static str, &'static str, String) {
    let differing = counts.outdated + counts.pending;
    let example = counts.example.as_ref().map(|example| format!("; {example}")).unwrap_or_default();
    if counts.infeasible > 0 {
        let message = format!("{} pods can't be resized now{example}", counts.infeasible);
        return ("False", "ResizeHeld", message);
    }
    if differing == 0 {
        return ("False", "Settled", "every pod has its size".to_owned());
    }
    match refit {
        Refit::Off => {
            ("False", "RefitOff", format!("{differing} pods get their size when they are created anew"))
        }
        Refit::DryRun => ("False", "DryRun", format!("{differing} pods would follow{example}")),
        Refit::InPlace | Refit::InPlaceOrRecreate if !counts.refits => (
            "False",
            "RefitOff",
            format!("{differing} pods would follow if the webhook were let to{example}"),
        ),
        Refit::InPlace if !counts.resizable => {
            ("False", "ResizeUnsupported", "this cluster can't resize pods in place (pods/resize)".to_owned())
        }
        Refit::InPlace if counts.anew >= differing => {
            ("False", "NewPodsNeeded", format!("{differing} pods follow when they are created anew{example}"))
        }
        Refit::InPlace | Refit::InPlaceOrRecreate => {
            ("True", "Refitting", format!("{differing} pods are to follow{example}"))
        }
    }
}

fn condition(template: &TemplateFact, kind: &str, status: &str, reason: &str, message: &str) -> Value {
    let before = template.status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    let same = before
        .filter(|condition| condition["type"] == kind && condition["status"] == status)
        .find_map(|condition| condition["lastTransitionTime"].as_str());
    let since = same.map_or_else(|| format!("{:.0}", Timestamp::now()), str::to_owned);
    json!({
        "type": kind, "status": status, "observedGeneration": template.generation, "lastTransitionTime": since,
        "reason": reason, "message": message.chars().take(1024).collect::<String>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flexdaemonset_decision::rules::Template;

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let rules = Template::from_spec(&json!({"cpuPercentage": 1, "refit": "InPlace"}));
        let mut template = TemplateFact { uid: "".into(), generation: 3, rules, status: Value::Null };
        let mut counts = Counts { sized: 2, refits: true, resizable: true, ..Counts::default() };
        let mut first = status(&template, &counts);
        for condition in first["conditions"].as_array_mut().unwrap() {
            condition["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        }
        template.status = first.clone();
        assert_eq!(status(&template, &counts), first);
        counts.outdated = 1;
        let second = status(&template, &counts);
        assert_eq!(second["conditions"][0], first["conditions"][0]);
        assert_eq!(second["conditions"][1]["reason"], "Refitting");
        counts.anew = 1;
        assert_eq!(status(&template, &counts)["conditions"][1]["reason"], "NewPodsNeeded");
        assert_ne!(second["conditions"][1]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        counts.refits = false;
        assert_eq!(status(&template, &counts)["conditions"][1]["reason"], "RefitOff");
    }
}
