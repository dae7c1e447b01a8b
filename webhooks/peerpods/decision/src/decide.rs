//! From a peer pod to the patch that makes it one VM.

use podshaper_core::admission::Decision;
use podshaper_core::patch::Patch;
use podshaper_core::pod::{ContainerList, Pod, PodPatch};

use crate::annotations;
use crate::annotations::Annotations;
use crate::class::{Class, Mode};
use crate::demand::Demand;
use crate::dropped;
use crate::originals;
use crate::originals::Remembered;
use crate::refusal::Refusal;
use crate::size;
use crate::size::Size;
use crate::sizing::Resource;
use crate::standing::stands;

/// What becomes of a peer pod.
#[derive(Debug)]
struct Plan {
    patch: Patch,
    /// What its author should know, each a line.
    warnings: Vec<String>,
}

/// Decides about a pod of `class`.
pub(crate) fn decide(class: &Class, pod: &Pod<'_>) -> Decision {
    match (class.mode, plan(class, pod)) {
        (Mode::Enforce, Ok(plan)) => {
            Decision::patched(plan.patch).with_warnings(lines("peerpods", plan.warnings))
        }
        (Mode::Enforce, Err(refusal)) => Decision::denied(format!("peerpods: {refusal}")),
        (Mode::Audit, Ok(plan)) => Decision::unchanged().with_warnings(lines(AUDIT, plan.warnings)),
        (Mode::Audit, Err(refusal)) => {
            Decision::unchanged().with_warnings([format!("{AUDIT}: would refuse the pod: {refusal}")])
        }
    }
}

const AUDIT: &str = "peerpods (audit)";

fn lines(prefix: &str, warnings: Vec<String>) -> impl Iterator<Item = String> {
    warnings.into_iter().map(move |warning| format!("{prefix}: {warning}"))
}

/// The outcome depends on what the pod's author asked for, and on containers that were added since: never on what an
/// earlier pass made of it, nor on what filled the gaps afterwards.
fn plan(class: &Class, pod: &Pod<'_>) -> Result<Plan, Refusal> {
    let demand = Demand::of(pod, &class.resource)?;
    let own = annotations::authors_own(class, pod, demand.annotations.as_ref());
    let annotations = annotations::settle(class, &own, size(class, &demand)?)?;
    let remembered = Remembered {
        containers: &demand.members,
        pod: demand.pod.as_deref().filter(|_| class.moves_pod_resources()),
        annotations: &own,
    };

    let mut patch = PodPatch::new(pod);
    for (key, value) in &annotations {
        match value {
            Some(value) => patch.set_annotation(key, value),
            None => patch.remove_annotation(key),
        }
    }
    patch.set_annotation_to_json(originals::ANNOTATION, &remembered);
    for member in &demand.members {
        let first = member.list == ContainerList::Containers && member.index == 0;
        let wanted = class.standing.resources(member, first.then_some(&*class.resource));
        match member.has {
            Some(has) if stands(&wanted, has) => {}
            None if wanted.is_empty() => {}
            _ if wanted.is_empty() => patch.remove_resources(member.list, member.index),
            _ => patch.set_resources(member.list, member.index, &wanted),
        }
    }
    if class.moves_pod_resources() {
        patch.remove_pod_resources();
    }
    let mut warnings = dropped::warnings(class, &demand);
    if class.mode == Mode::Audit {
        warnings.insert(0, in_words(class, &annotations));
    }
    Ok(Plan { patch: patch.finish()?, warnings })
}

/// The size that the containers come to, before the author's own annotations are looked at.
fn size(class: &Class, demand: &Demand<'_>) -> Result<Size, Refusal> {
    let total = |resource| class.sizing.total(demand, resource);
    let or = |size, fallback| if size == 0 { fallback } else { size };
    let mut gpus = 0_i64;
    for (name, weight) in &class.gpus {
        let more =
            total(Resource::Device(name))?.value().and_then(|devices| devices.checked_mul((*weight).into()));
        gpus = more.and_then(|more| gpus.checked_add(more)).ok_or(Refusal::TooMuch("number of GPUs"))?;
    }
    Ok(Size {
        vcpus: or(size::vcpus(total(Resource::Compute("cpu"))?, class.vcpu_headroom)?, class.fallback.vcpus),
        memory: or(
            size::mebibytes(total(Resource::Compute("memory"))?, class.memory_headroom)?,
            class.fallback.memory,
        ),
        gpus: gpus.unsigned_abs(),
    })
}

fn in_words(class: &Class, annotations: &Annotations<'_>) -> String {
    let mut words = format!("would replace the containers' resources by one {}", class.resource);
    for (key, value) in annotations {
        if let Some(value) = value {
            words.push_str(", ");
            words.push_str(key.rsplit('.').next().unwrap_or(key));
            words.push(' ');
            words.push_str(value);
        }
    }
    words
}
