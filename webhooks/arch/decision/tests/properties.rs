//! Properties of the decision about generated pods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;

use podshaper_core::admission::Verdict;
use podshaper_core::pod::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::generated::{every_node, pod_of, pods, settings};
use support::{decide, decide_gated, knowledge, patched, terms_of, webhook};

fn selects(pod: &Value, labels: &BTreeMap<String, String>) -> bool {
    let spec = ["nodeSelector", "affinity"].map(|member| (member, pod["spec"][member].clone()));
    let text = json!({"spec": Value::Object(spec.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())}).to_string();
    let pod: Pod<'_> = serde_json::from_str(&text).unwrap();
    // A label that a node doesn't have is one that it has with no value that anybody names.
    let all = ["kubernetes.io/arch", "pool", "zone"];
    let labels = all
        .iter()
        .map(|key| ((*key).to_owned(), labels.get(*key).cloned().unwrap_or_else(|| "~".to_owned())));
    pod.may_run_on(&labels.collect())
}

fn tolerations(pod: &Value) -> Vec<Value> {
    pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default()
}

fn images(pod: &Value) -> Vec<&str> {
    pod["spec"]["containers"].as_array().unwrap().iter().filter_map(|c| c["image"].as_str()).collect()
}

proptest! {
    /// The nodes allowed after are among those allowed before, and idle passes change nothing.
    #[test]
    fn narrower_and_idempotent(settings in settings(), pod in pods()) {
        let webhook = webhook(settings);
        let decision = decide(&webhook, &pod);
        if decision.verdict != Verdict::Admit {
            return Ok(());
        }
        let after = patched(&pod, &decision);
        for node in every_node() {
            prop_assert!(!selects(&after, &node) || selects(&pod, &node), "{node:?} came in by {after}");
        }
        let again = decide(&webhook, &after);
        prop_assert_eq!(&again.verdict, &Verdict::Admit);
        prop_assert_eq!(patched(&after, &again), after);
        prop_assert!(again.patch.is_empty());
    }

    /// Every term of the pod's own is still there with all its requirements, at its place; copies follow; the empty stays empty.
    #[test]
    fn requirement_is_added_to_every_term(settings in settings(), pod in pods()) {
        let decision = decide(&webhook(settings), &pod);
        let after = patched(&pod, &decision);
        let Some(before) = terms_of(&pod).as_array().cloned() else { return Ok(()) };
        let after = terms_of(&after).as_array().cloned().unwrap();
        let list = |term: &Value, member: &str| term[member].as_array().cloned().unwrap_or_default();
        let grown = |from: &Value, to: &Value| ["matchExpressions", "matchFields"].into_iter()
            .all(|member| list(to, member).starts_with(&list(from, member)));
        let empty = |term: &Value| list(term, "matchExpressions").is_empty() && list(term, "matchFields").is_empty();
        for (from, to) in before.iter().zip(&after) {
            prop_assert!(grown(from, to), "{from} became {to}");
            prop_assert_eq!(empty(from), empty(to));
        }
        for copy in after.iter().skip(before.len()) {
            prop_assert!(before.iter().any(|from| !empty(from) && grown(from, copy) && from != copy), "{copy} came in");
        }
    }

    /// Tolerations are added only where every image is known and runs there.
    #[test]
    fn tolerations_by_complete_knowledge(settings in settings(), pod in pods()) {
        let after = patched(&pod, &decide(&webhook(settings.clone()), &pod));
        for added in tolerations(&after).into_iter().skip(tolerations(&pod).len()) {
            let configured = settings["architectures"].as_object().unwrap();
            let (name, _) = configured.iter().find(|(_, nodes)| {
                nodes["taintsToTolerate"].as_array().into_iter().flatten().any(|taint| taint["key"] == added["key"] && taint["value"] == added["value"])
            }).unwrap();
            for image in images(&pod) {
                let arch_decision::images::Knowledge::Known(platforms) = knowledge(image) else { panic!("{image} isn't known") };
                prop_assert!(platforms.run_on("linux", &name.parse().unwrap()), "{image} on {name}");
            }
        }
    }

    /// A restriction excludes all nodes in the table that an image does not support.
    #[test]
    fn allowed_nodes_run_every_image(settings in settings(), pod in pods()) {
        let webhook = webhook(settings.clone());
        let decision = decide(&webhook, &pod);
        if decision.verdict != Verdict::Admit || decision.patch.is_empty() || settings["onUnknown"] == "gate" {
            return Ok(());
        }
        let after = patched(&pod, &decision);
        let table = settings["architectures"].as_object().cloned().unwrap_or_default();
        for name in ["amd64", "arm64", "s390x"].into_iter().filter(|name| table.is_empty() || table.contains_key(*name)) {
            let runs = images(&pod).iter().all(|image| match knowledge(image) {
                arch_decision::images::Knowledge::Known(platforms) => platforms.run_on("linux", &name.parse().unwrap()),
                arch_decision::images::Knowledge::Unknown(_) => true,
            });
            let own = table.get(name).and_then(|nodes| nodes["requireNodeLabels"].as_array()).is_some();
            if !runs && !own {
                let node = BTreeMap::from([("kubernetes.io/arch".to_owned(), name.to_owned())]);
                prop_assert!(!selects(&after, &node), "{name}: {after}");
            }
        }
    }

    /// A gated pod, once its images are known, is tightened as the API server allows it and ends where it would have without.
    #[test]
    fn gate_does_not_change_the_outcome(mut settings in settings(), pod in pods(), answer in support::generated::known_image()) {
        let Some(waiting) = images(&pod).iter().position(|image| matches!(knowledge(image), arch_decision::images::Knowledge::Unknown(_)))
            else { return Ok(()) };
        settings["onUnknown"] = json!("gate");
        settings["defaultArchitectures"] = json!([]);
        let gate = webhook(settings);
        let decision = decide(&gate, &pod);
        let gated = patched(&pod, &decision);
        if gated["spec"]["schedulingGates"] == Value::Null {
            return Ok(());
        }
        let answered = |mut pod: Value| { pod["spec"]["containers"][waiting]["image"] = json!(answer); pod };
        if !images(&answered(pod.clone())).iter().all(|image| matches!(knowledge(image), arch_decision::images::Knowledge::Known(_))) {
            return Ok(());
        }
        let direct = decide(&gate, &answered(pod.clone()));
        let before = answered(gated);
        let lifted = decide_gated(&gate, &before);
        prop_assert_eq!(std::mem::discriminant(&direct.verdict), std::mem::discriminant(&lifted.verdict));
        if direct.verdict != Verdict::Admit {
            return Ok(());
        }
        let direct = patched(&answered(pod.clone()), &direct);
        let lifted = patched(&before, &lifted);
        if let Some(shaped) = terms_of(&before).as_array() {
            prop_assert_eq!(terms_of(&lifted).as_array().unwrap().len(), shaped.len());
        }
        for node in every_node() {
            // A pod with terms for several kinds of nodes does not run on nodes without the labels of any kind.
            if selects(&lifted, &node) {
                prop_assert!(selects(&direct, &node), "{node:?}: {lifted}");
            }
        }
        prop_assert_eq!(&direct["spec"]["tolerations"], &lifted["spec"]["tolerations"]);
    }
}

#[test]
fn generated_pods_are_of_all_kinds() {
    // The properties say little if no generated pod changes.
    let mut patched = 0;
    let mut denied = 0;
    let mut unchanged = 0;
    for seed in 0..2000 {
        let (settings, pod) = pod_of(seed);
        let decision = decide(&webhook(settings), &pod);
        match decision.verdict {
            Verdict::Deny(_) => denied += 1,
            _ if decision.patch.is_empty() => unchanged += 1,
            _ => patched += 1,
        }
    }
    assert!(patched > 500 && denied > 50 && unchanged > 200, "{patched} {denied} {unchanged}");
}
