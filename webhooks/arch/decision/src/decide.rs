//! The decision about a pod, by the answers for its images.

use std::collections::BTreeSet;

use podshaper_core::admission::Decision;
use podshaper_core::pod::{Pod, PodPatch};
use serde_json::json;

use crate::affinity::{Choice, Stage, narrow, shape};
use crate::assess::{Assessment, LinuxImages, UnknownReason, assess, runnable};
use crate::config::{OnImpossible, OnUnknown, Settings};
use crate::gate;
use crate::images::{Image, Knowledge};
use crate::overrides::Overrides;
use crate::platform::Platforms;
use crate::table::Nodes;
use crate::tolerations::{Tolerations, toleration};
use crate::truncate::listed;

/// The annotation that records the decision.
pub const ANNOTATION: &str = "podshaper.dev/arch";

/// The input of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Case<'c, 'p> {
    /// The pod.
    pub pod: &'c Pod<'p>,
    /// Its images, with the answer for each.
    pub images: &'c [(Image<'c>, Knowledge)],
    /// The annotations of the pod and its namespace.
    pub overrides: &'c Overrides,
    /// The time of the decision.
    pub stage: Stage,
}

/// The decision about a pod if no nodes run all of its images.
#[derive(Debug)]
pub struct Impossible(pub Decision);

/// Decides.
///
/// # Errors
/// No nodes run all images. The answers may be outdated: ask for the tags again before this decision is used.
pub fn decide(settings: &Settings, case: Case<'_, '_>) -> Result<Decision, Impossible> {
    let LinuxImages { known, unknown } = match assess(&settings.table, case.pod, case.images) {
        Assessment::OtherOs(os) => return Ok(other_os(case, &os)),
        Assessment::Linux(images) => images,
    };
    if known.is_empty() && unknown.is_empty() {
        return Ok(finished(case, PodPatch::new(case.pod)));
    }
    let all = settings.table.nodes_for(case.pod);
    let choice = Choice { all: &all, run: runnable(&settings.table, &all, case.pod, &known) };
    let lacking = || unknown.iter().map(|(name, why)| format!("arch: image {name} {why}"));

    let allowed = |nodes: &&Nodes| case.pod.may_run_on(nodes.known_labels());
    if !known.is_empty() && !choice.run.iter().any(&allowed) {
        return Err(Impossible(impossible(settings, case, &known).with_warnings(lacking())));
    }
    if !known.is_empty() && !choice.run.iter().any(|nodes| allowed(nodes) && settings.table.has(nodes)) {
        return Err(Impossible(unlisted(settings, case, &known).with_warnings(lacking())));
    }
    // No later answer changes what an artifact is.
    let may_become_known = unknown.iter().any(|(_, why)| matches!(why, UnknownReason::Lookup(_)));
    let decision = match settings.on_unknown {
        _ if unknown.is_empty() => settled(settings, case, &choice),
        OnUnknown::Deny => {
            let reasons = listed("; ", unknown.iter().map(|(name, why)| format!("image {name} {why}")));
            return Ok(Decision::denied(format!(
                "arch: the architectures of this pod are unknown: {reasons}"
            )));
        }
        OnUnknown::Gate if may_become_known && case.stage == Stage::Creation => {
            gated(case, &choice, &unknown)
        }
        OnUnknown::DefaultArchitectures if may_become_known => {
            settled_in_part(case, &defaulted(settings, &choice, allowed), &unknown)
        }
        OnUnknown::Skip | OnUnknown::Gate | OnUnknown::DefaultArchitectures => {
            settled_in_part(case, &choice, &unknown)
        }
    };
    Ok(decision.with_warnings(lacking()))
}

/// Nodes of other operating systems have one architecture: the pod is annotated and otherwise unchanged.
fn other_os(case: Case<'_, '_>, os: &str) -> Decision {
    let mut patch = PodPatch::new(case.pod);
    patch.set_annotation(ANNOTATION, &listed("", [os]));
    finished(case, patch)
}

/// Everything is known.
fn settled(settings: &Settings, case: Case<'_, '_>, choice: &Choice<'_>) -> Decision {
    let own = Tolerations::of(case.pod);
    let mut patch = PodPatch::new(case.pod);
    narrow(&mut patch, choice, case.stage);
    let mut chosen: Vec<_> =
        choice.run.iter().copied().filter(|nodes| case.pod.may_run_on(nodes.known_labels())).collect();
    let taints = chosen.iter().flat_map(|nodes| &nodes.taints).filter(|taint| !own.tolerate(taint));
    for taint in taints.collect::<BTreeSet<_>>() {
        patch.add_toleration(&toleration(taint));
    }
    if chosen.len() > 1 {
        let preferred = case.overrides.preferred.as_ref().unwrap_or(&settings.preferred);
        for (index, preferred) in preferred.iter().enumerate() {
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
fn settled_in_part(case: Case<'_, '_>, choice: &Choice<'_>, unknown: &[(&str, UnknownReason)]) -> Decision {
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
    // The cluster may have no node of a default architecture.
    let defaults = |nodes: &&Nodes| {
        settings.default_architectures.contains(&nodes.architecture) && settings.table.has(nodes)
    };
    let run: Vec<_> = choice.run.iter().copied().filter(|nodes| defaults(nodes)).collect();
    // The images that are known have the last word.
    let run = if run.iter().any(allowed) { run } else { choice.run.clone() };
    Choice { all: choice.all, run }
}

/// The pod waits.
fn gated(case: Case<'_, '_>, choice: &Choice<'_>, unknown: &[(&str, UnknownReason)]) -> Decision {
    let mut patch = PodPatch::new(case.pod);
    shape(&mut patch, choice.all);
    gate::add_gate(&mut patch);
    patch.set_annotation(ANNOTATION, &format!("waits for: {}", names(unknown)));
    finished(case, patch)
}

fn impossible(settings: &Settings, case: Case<'_, '_>, known: &[(&str, &Platforms)]) -> Decision {
    let nodes = match (settings.table.is_open(), case.pod.required_terms().is_some()) {
        (true, false) => String::new(),
        (true, true) => ", of the nodes that the pod selects".to_owned(),
        (false, _) => format!(", of {}", listed_architectures(settings)),
    };
    let reason = format!("arch: no architecture runs all images{nodes}: {}", supported(known));
    match settings.on_impossible {
        OnImpossible::Deny => Decision::denied(reason),
        OnImpossible::Leave => left(case, reason),
    }
}

/// The images are for architectures that the cluster has shown no node of. A group of nodes without a node may have one of them, so the
/// pod is not refused.
fn unlisted(settings: &Settings, case: Case<'_, '_>, known: &[(&str, &Platforms)]) -> Decision {
    let nodes = listed_architectures(settings);
    let images = supported(known);
    left(
        case,
        format!("arch: no architecture that nodes of the cluster have runs all images, of {nodes}: {images}"),
    )
}

/// The pod is admitted as it is, with a warning.
fn left(case: Case<'_, '_>, reason: String) -> Decision {
    let mut patch = PodPatch::new(case.pod);
    if case.pod.annotation(ANNOTATION).is_some() {
        // The annotation of an earlier call is outdated.
        patch.set_annotation(ANNOTATION, &reason);
    }
    finished(case, patch).with_warnings([reason])
}

fn listed_architectures(settings: &Settings) -> String {
    listed(", ", settings.table.listed().map(|nodes| &nodes.architecture))
}

/// The images, and the architectures of each.
fn supported(known: &[(&str, &Platforms)]) -> String {
    let mut parts: Vec<_> =
        known.iter().map(|(name, platforms)| format!("{name} ({})", platforms.on("linux"))).collect();
    parts.sort();
    listed("; ", parts)
}

fn annotated(case: Case<'_, '_>, mut patch: PodPatch<'_, '_>, choice: &Choice<'_>, note: &str) -> Decision {
    if !patch.is_empty() || case.pod.annotation(ANNOTATION).is_some() {
        let chosen = choice.run.iter().filter(|nodes| case.pod.may_run_on(nodes.known_labels()));
        let chosen: Vec<_> = chosen.map(|nodes| nodes.architecture.to_string()).collect();
        patch.set_annotation(ANNOTATION, &format!("{}{note}", chosen.join(",")));
    }
    finished(case, patch)
}

/// The author or an earlier call may have added the gate. The label lets the controller find and remove it.
fn finished(case: Case<'_, '_>, mut patch: PodPatch<'_, '_>) -> Decision {
    if case.stage == Stage::Creation && gate::is_gated(case.pod) {
        gate::add_gate(&mut patch);
    }
    patch.finish().into()
}

fn names(unknown: &[(&str, UnknownReason)]) -> String {
    listed(", ", unknown.iter().map(|(name, _)| name))
}
