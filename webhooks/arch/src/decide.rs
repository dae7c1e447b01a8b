//! From what is known of a pod's images to what becomes of the pod.

use podshaper::admission::Decision;
use podshaper::pod::{Pod, PodPatch};
use serde_json::json;

use crate::affinity::{Choice, Stage, narrow, shape};
use crate::config::{OnImpossible, OnUnknown, Settings};
use crate::gate;
use crate::images::{Image, Knowledge, Why};
use crate::platform::Platforms;
use crate::table::Nodes;
use crate::tolerations::{Tolerations, toleration};

/// Says what was decided, and that this webhook did.
pub const ANNOTATION: &str = "podshaper.dev/arch";

/// What a decision is made by.
#[derive(Clone, Copy, Debug)]
pub struct Case<'c, 'p> {
    /// The pod.
    pub pod: &'c Pod<'p>,
    /// Its images, with what is known of each.
    pub images: &'c [(Image<'c>, Knowledge)],
    /// When it is decided about.
    pub stage: Stage,
}

/// Decides.
pub fn decide(settings: &Settings, case: Case<'_, '_>) -> Decision {
    let known: Vec<_> = case
        .images
        .iter()
        .filter_map(|(image, knowledge)| Some((image.reference, known(image, knowledge)?)))
        .collect();
    let unknown: Vec<_> = case
        .images
        .iter()
        .filter_map(|(image, knowledge)| Some((image.reference, unknown(image, knowledge)?)))
        .collect();
    if known.is_empty() && unknown.is_empty() {
        return Decision::unchanged();
    }
    let all = settings.table.nodes_for(case.pod, known.iter().map(|(_, platforms)| *platforms));
    let os = os(case.pod);
    let runs = |nodes: &&Nodes| known.iter().all(|(_, platforms)| platforms.run_on(os, &nodes.architecture));
    let run: Vec<_> = all.iter().filter(runs).collect();
    let choice = Choice { all: &all, run };
    let lacking = || unknown.iter().map(|(name, why)| format!("arch: image {name} {why}"));

    let allowed = |nodes: &&Nodes| case.pod.may_run_with(&nodes.labels);
    if !choice.run.iter().any(&allowed) {
        return impossible(settings, case, &known, os).with_warnings(lacking());
    }
    let decision = match settings.on_unknown {
        _ if unknown.is_empty() => settled(settings, case, &choice),
        OnUnknown::Deny => {
            let reasons: Vec<_> = unknown.iter().map(|(name, why)| format!("image {name} {why}")).collect();
            return Decision::denied(format!(
                "arch: nobody knows where this pod can run: {}",
                reasons.join("; ")
            ));
        }
        OnUnknown::Gate if case.stage == Stage::Creation => gated(case, &choice, &unknown),
        OnUnknown::DefaultArchitectures => {
            settled_in_part(case, &defaulted(settings, &choice, allowed), &unknown)
        }
        OnUnknown::Skip | OnUnknown::Gate => settled_in_part(case, &choice, &unknown),
    };
    decision.with_warnings(lacking())
}

fn known<'k>(image: &Image<'_>, knowledge: &'k Knowledge) -> Option<&'k Platforms> {
    match knowledge {
        Knowledge::Known(platforms) if **platforms == Platforms::Any && !image.volume => None,
        Knowledge::Known(platforms) => Some(platforms),
        Knowledge::Unknown(_) => None,
    }
}

fn unknown(image: &Image<'_>, knowledge: &Knowledge) -> Option<Why> {
    match knowledge {
        Knowledge::Known(_) => known(image, knowledge).is_none().then_some(Why::Malformed),
        Knowledge::Unknown(why) => Some(*why),
    }
}

/// The operating system that the pod is for, as it says itself.
fn os<'p>(pod: &'p Pod<'_>) -> &'p str {
    let named = pod.spec.as_ref().and_then(|spec| spec.os.as_ref()).map(|os| &*os.name);
    named.or_else(|| pod.selects("kubernetes.io/os")).filter(|os| !os.is_empty()).unwrap_or("linux")
}

/// Everything is known.
fn settled(settings: &Settings, case: Case<'_, '_>, choice: &Choice<'_>) -> Decision {
    let own = Tolerations::of(case.pod);
    let mut patch = PodPatch::new(case.pod);
    narrow(&mut patch, choice, case.stage);
    let mut chosen: Vec<_> =
        choice.run.iter().copied().filter(|nodes| case.pod.may_run_with(&nodes.labels)).collect();
    for taint in chosen.iter().flat_map(|nodes| &nodes.taints).filter(|taint| !own.tolerate(taint)) {
        patch.tolerate(&toleration(taint));
    }
    if chosen.len() > 1 {
        for (index, preferred) in settings.preferred.iter().enumerate() {
            if let Some(at) = chosen.iter().position(|nodes| nodes.architecture == *preferred) {
                patch.prefer_nodes(&preference(chosen.remove(at), weight(index)));
            }
        }
    }
    annotated(case, patch, choice, "")
}

/// The weight of a preferred architecture: a hundred is the most that there is, and a later one counts less.
fn weight(index: usize) -> usize {
    100_usize.checked_div(index + 1).unwrap_or(1).max(1)
}

fn preference(nodes: &Nodes, weight: usize) -> serde_json::Value {
    let term = crate::table::terms([nodes]).into_iter().next();
    json!({"weight": weight, "preference": term})
}

/// Some images aren't known: the others still say where the pod can't run.
fn settled_in_part(case: Case<'_, '_>, choice: &Choice<'_>, unknown: &[(&str, Why)]) -> Decision {
    let mut patch = PodPatch::new(case.pod);
    narrow(&mut patch, choice, case.stage);
    annotated(case, patch, choice, &format!("; unknown: {}", names(unknown)))
}

/// The same nodes without those that an operator doesn't take images for that nobody knows.
fn defaulted<'n>(
    settings: &Settings,
    choice: &Choice<'n>,
    allowed: impl Fn(&&'n Nodes) -> bool,
) -> Choice<'n> {
    let defaults = |nodes: &&Nodes| settings.default_architectures.contains(&nodes.architecture);
    let run: Vec<_> = choice.run.iter().copied().filter(|nodes| defaults(nodes)).collect();
    // The images that are known have the last word.
    let run = if run.iter().any(allowed) { run } else { choice.run.clone() };
    Choice { all: choice.all, run }
}

/// The pod waits.
fn gated(case: Case<'_, '_>, choice: &Choice<'_>, unknown: &[(&str, Why)]) -> Decision {
    let mut patch = PodPatch::new(case.pod);
    shape(&mut patch, choice.all);
    gate::shut(&mut patch);
    patch.set_annotation(ANNOTATION, &format!("waits for: {}", names(unknown)));
    patch.finish().into()
}

fn impossible(settings: &Settings, case: Case<'_, '_>, known: &[(&str, &Platforms)], os: &str) -> Decision {
    let mut parts: Vec<_> =
        known.iter().map(|(name, platforms)| format!("{name} ({})", platforms.on(os))).collect();
    parts.sort();
    let configured: Vec<_> =
        settings.table.configured().iter().map(|nodes| nodes.architecture.to_string()).collect();
    let nodes = match (configured.is_empty(), case.pod.required_terms().is_some()) {
        (true, false) => String::new(),
        (true, true) => ", of the nodes that the pod selects".to_owned(),
        (false, _) => format!(", of {}", configured.join(", ")),
    };
    let reason = format!("no architecture runs all images{nodes}: {}", parts.join("; "));
    match settings.on_impossible {
        OnImpossible::Deny => Decision::denied(format!("arch: {reason}")),
        OnImpossible::Leave => Decision::unchanged().with_warnings([format!("arch: {reason}")]),
    }
}

fn annotated(case: Case<'_, '_>, mut patch: PodPatch<'_, '_>, choice: &Choice<'_>, note: &str) -> Decision {
    if !patch.is_empty() || case.pod.annotation(ANNOTATION).is_some() {
        let chosen = choice.run.iter().filter(|nodes| case.pod.may_run_with(&nodes.labels));
        let chosen: Vec<_> = chosen.map(|nodes| nodes.architecture.to_string()).collect();
        patch.set_annotation(ANNOTATION, &format!("{}{note}", chosen.join(",")));
    }
    patch.finish().into()
}

fn names(unknown: &[(&str, Why)]) -> String {
    unknown.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
