//! From what is known of a pod's images to what becomes of the pod.

use std::collections::{BTreeMap, BTreeSet};

use podshaper_core::admission::Decision;
use podshaper_core::pod::{Pod, PodPatch};
use serde_json::json;

use crate::affinity::{Choice, Stage, narrow, shape};
use crate::config::{OnImpossible, OnUnknown, Settings};
use crate::gate;
use crate::images::{Image, Knowledge, LookupError};
use crate::platform::Platforms;
use crate::table::Nodes;
use crate::tolerations::{Tolerations, toleration};
use crate::truncate::listed;

/// Says what was decided, and that this webhook did.
pub const ANNOTATION: &str = "podshaper.dev/arch";

/// The labels that every kubelet gives its node for its operating system.
const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// The input of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Case<'c, 'p> {
    /// The pod.
    pub pod: &'c Pod<'p>,
    /// Its images, with what is known of each.
    pub images: &'c [(Image<'c>, Knowledge)],
    /// When it is decided about.
    pub stage: Stage,
}

/// No nodes run all images of the pod, as far as is known: what becomes of it if that is so.
#[derive(Debug)]
pub struct Impossible(pub Decision);

/// Decides.
///
/// # Errors
/// No nodes run all images. Before that is held against a pod, it should be known how things are now.
pub fn decide(settings: &Settings, case: Case<'_, '_>) -> Result<Decision, Impossible> {
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
        return Ok(finished(case, PodPatch::new(case.pod)));
    }
    let all = settings.table.nodes_for(case.pod, known.iter().map(|(_, platforms)| *platforms));
    let os = os(case.pod);
    let runs = |nodes: &&Nodes| known.iter().all(|(_, platforms)| platforms.run_on(os, &nodes.architecture));
    let run: Vec<_> = all.iter().filter(runs).collect();
    let choice = Choice { all: &all, run };
    let lacking = || unknown.iter().map(|(name, why)| format!("arch: image {name} {why}"));

    let allowed = |nodes: &&Nodes| case.pod.may_run_on(&nodes.labels);
    if !choice.run.iter().any(&allowed) {
        return Err(Impossible(impossible(settings, case, &known, os).with_warnings(lacking())));
    }
    let decision = match settings.on_unknown {
        _ if unknown.is_empty() => settled(settings, case, &choice),
        OnUnknown::Deny => {
            let reasons = listed("; ", unknown.iter().map(|(name, why)| format!("image {name} {why}")));
            return Ok(Decision::denied(format!(
                "arch: the architectures of this pod are unknown: {reasons}"
            )));
        }
        OnUnknown::Gate if case.stage == Stage::Creation => gated(case, &choice, &unknown),
        OnUnknown::DefaultArchitectures => {
            settled_in_part(case, &defaulted(settings, &choice, allowed), &unknown)
        }
        OnUnknown::Skip | OnUnknown::Gate => settled_in_part(case, &choice, &unknown),
    };
    Ok(decision.with_warnings(lacking()))
}

fn known<'k>(image: &Image<'_>, knowledge: &'k Knowledge) -> Option<&'k Platforms> {
    match knowledge {
        Knowledge::Known(platforms) if **platforms == Platforms::Any && !image.volume => None,
        Knowledge::Known(platforms) => Some(platforms),
        Knowledge::Unknown(_) => None,
    }
}

fn unknown(image: &Image<'_>, knowledge: &Knowledge) -> Option<LookupError> {
    match knowledge {
        Knowledge::Known(_) => known(image, knowledge).is_none().then_some(LookupError::Malformed),
        Knowledge::Unknown(why) => Some(*why),
    }
}

/// The operating system of the pod: `spec.os`, or else its node selector and affinity.
fn os<'p>(pod: &'p Pod<'_>) -> &'p str {
    let named = pod.spec.as_ref().and_then(|spec| spec.os.as_ref()).map(|os| &*os.name);
    let labels = |os: &str| BTreeMap::from(OS_LABELS.map(|key| (key.to_owned(), os.to_owned())));
    let may_be = || ["linux", "windows"].into_iter().find(|os| pod.may_run_on(&labels(os)));
    let selected = || OS_LABELS.into_iter().find_map(|key| pod.node_selector(key));
    let os = named.filter(|os| !os.is_empty()).or_else(may_be).or_else(selected);
    os.filter(|os| !os.is_empty()).unwrap_or("linux")
}

/// Everything is known.
fn settled(settings: &Settings, case: Case<'_, '_>, choice: &Choice<'_>) -> Decision {
    let own = Tolerations::of(case.pod);
    let mut patch = PodPatch::new(case.pod);
    narrow(&mut patch, choice, case.stage);
    let mut chosen: Vec<_> =
        choice.run.iter().copied().filter(|nodes| case.pod.may_run_on(&nodes.labels)).collect();
    let taints = chosen.iter().flat_map(|nodes| &nodes.taints).filter(|taint| !own.tolerate(taint));
    for taint in taints.collect::<BTreeSet<_>>() {
        patch.add_toleration(&toleration(taint));
    }
    if chosen.len() > 1 {
        for (index, preferred) in settings.preferred.iter().enumerate() {
            if let Some(at) = chosen.iter().position(|nodes| nodes.architecture == *preferred) {
                patch.add_preferred_term(&preference(chosen.remove(at), weight(index)));
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
fn settled_in_part(case: Case<'_, '_>, choice: &Choice<'_>, unknown: &[(&str, LookupError)]) -> Decision {
    let mut patch = PodPatch::new(case.pod);
    narrow(&mut patch, choice, case.stage);
    annotated(case, patch, choice, &format!("; unknown: {}", names(unknown)))
}

/// The nodes of the architectures that unknown images are assumed to support.
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
fn gated(case: Case<'_, '_>, choice: &Choice<'_>, unknown: &[(&str, LookupError)]) -> Decision {
    let mut patch = PodPatch::new(case.pod);
    shape(&mut patch, choice.all);
    gate::add_gate(&mut patch);
    patch.set_annotation(ANNOTATION, &format!("waits for: {}", names(unknown)));
    finished(case, patch)
}

fn impossible(settings: &Settings, case: Case<'_, '_>, known: &[(&str, &Platforms)], os: &str) -> Decision {
    let mut parts: Vec<_> =
        known.iter().map(|(name, platforms)| format!("{name} ({})", platforms.on(os))).collect();
    parts.sort();
    let configured = listed(", ", settings.table.configured().iter().map(|nodes| &nodes.architecture));
    let nodes = match (configured.is_empty(), case.pod.required_terms().is_some()) {
        (true, false) => String::new(),
        (true, true) => ", of the nodes that the pod selects".to_owned(),
        (false, _) => format!(", of {configured}"),
    };
    let reason = format!("arch: no architecture runs all images{nodes}: {}", listed("; ", parts));
    match settings.on_impossible {
        OnImpossible::Deny => Decision::denied(reason),
        OnImpossible::Leave => {
            let mut patch = PodPatch::new(case.pod);
            if case.pod.annotation(ANNOTATION).is_some() {
                // The annotation of an earlier call is outdated.
                patch.set_annotation(ANNOTATION, &reason);
            }
            finished(case, patch).with_warnings([reason])
        }
    }
}

fn annotated(case: Case<'_, '_>, mut patch: PodPatch<'_, '_>, choice: &Choice<'_>, note: &str) -> Decision {
    if !patch.is_empty() || case.pod.annotation(ANNOTATION).is_some() {
        let chosen = choice.run.iter().filter(|nodes| case.pod.may_run_on(&nodes.labels));
        let chosen: Vec<_> = chosen.map(|nodes| nodes.architecture.to_string()).collect();
        patch.set_annotation(ANNOTATION, &format!("{}{note}", chosen.join(",")));
    }
    finished(case, patch)
}

/// A pod that came with the gate, from its author or an earlier pass, is let go as the others are.
fn finished(case: Case<'_, '_>, mut patch: PodPatch<'_, '_>) -> Decision {
    if case.stage == Stage::Creation && gate::is_gated(case.pod) {
        gate::add_gate(&mut patch);
    }
    patch.finish().into()
}

fn names(unknown: &[(&str, LookupError)]) -> String {
    listed(", ", unknown.iter().map(|(name, _)| name))
}
