//! What a pod's author asked for, container by container.

use std::borrow::Cow;

use podshaper_core::json::{Entries, Scalar, TextMap};
use podshaper_core::pod::{Container, ContainerList, Pod, ResourceField, ResourceList, Resources};
use podshaper_core::quantity::Quantity;

use crate::originals::Originals;
use crate::refusal::Refusal;

/// What a pod's author asked for, whatever stands in the pod by now.
#[derive(Debug)]
pub(crate) struct Demand<'p> {
    /// `spec.containers`, then `spec.initContainers`.
    pub(crate) members: Vec<Member<'p>>,
    /// `spec.resources`.
    pub(crate) pod: Option<Cow<'p, Resources<'p>>>,
    /// `spec.overhead`.
    pub(crate) overhead: Option<&'p ResourceList<'p>>,
    /// The author's own values of annotations that this webhook sets, where an earlier pass has overwritten them.
    pub(crate) annotations: Option<TextMap<'p>>,
    /// Whether an earlier pass has seen the pod.
    pub(crate) remembered: bool,
}

/// One container, or init container.
#[derive(Debug)]
pub(crate) struct Member<'p> {
    pub(crate) list: ContainerList,
    pub(crate) index: usize,
    pub(crate) name: &'p str,
    pub(crate) sidecar: bool,
    /// What its author asked for, without the resource that stands for the VM.
    pub(crate) asked: Cow<'p, Resources<'p>>,
    /// What it has now.
    pub(crate) has: Option<&'p Resources<'p>>,
    /// Whether an earlier pass has seen it.
    pub(crate) remembered: bool,
}

impl<'p> Demand<'p> {
    /// Reads `pod`, whose VM is asked for by `vm_resource`.
    pub(crate) fn of(pod: &'p Pod<'p>, vm_resource: &str) -> Result<Self, Refusal> {
        let mut originals = Originals::of(pod)?;
        let remembered = originals.is_some();
        let mut known = originals.as_mut().map(Originals::take_containers).unwrap_or_default();
        let (known_pod, annotations) = originals.map(|o| (o.pod, o.annotations)).unwrap_or_default();

        let members = pod
            .containers()
            .map(|(list, index, container)| {
                let known = known.get_mut(&container.name).and_then(Vec::pop);
                Member::of(list, index, container, known, vm_resource)
            })
            .collect();
        let spec = pod.spec.as_ref();
        Ok(Self {
            members,
            pod: known_pod.map(Cow::Owned).or(spec.and_then(|s| s.resources.as_ref()).map(Cow::Borrowed)),
            overhead: spec.and_then(|s| s.overhead.as_ref()),
            annotations,
            remembered,
        })
    }
}

impl<'p> Member<'p> {
    fn of(
        list: ContainerList,
        index: usize,
        container: &'p Container<'p>,
        known: Option<Resources<'p>>,
        vm_resource: &str,
    ) -> Self {
        let has = container.resources.as_ref();
        let remembered = known.is_some();
        let asked = known.map(Cow::Owned).or(has.map(Cow::Borrowed)).unwrap_or_default();
        Self {
            list,
            index,
            name: &container.name,
            sidecar: container.is_sidecar(),
            asked: without(asked, vm_resource),
            has,
            remembered,
        }
    }

    /// How much of a resource its author asked for.
    pub(crate) fn asked(&self, side: ResourceField, resource: &str) -> Result<Quantity, Refusal> {
        quantity(&self.asked, side, resource, || format!("container {}", self.name))
            .map(|asked| asked.unwrap_or(Quantity::ZERO))
    }
}

/// How much of a resource is written down, if it is.
pub(crate) fn quantity(
    resources: &Resources<'_>,
    side: ResourceField,
    resource: &str,
    owner: impl FnOnce() -> String,
) -> Result<Option<Quantity>, Refusal> {
    let Some(text) = side.of(resources).and_then(|list| list.get(resource)) else { return Ok(None) };
    let field = || format!("resources.{}[{resource}] of {}", side.field(), owner());
    parse(text, field).map(Some)
}

/// Reads a quantity that stands in `field`.
///
/// One below zero is refused here: the API server checks what a pod ends up with, and this won't be there any more.
pub(crate) fn parse(text: &str, field: impl FnOnce() -> String) -> Result<Quantity, Refusal> {
    match text.parse::<Quantity>() {
        Ok(quantity) if quantity >= Quantity::ZERO => Ok(quantity),
        Ok(_) => Err(refused(text, field(), "must not be negative".into())),
        Err(error) => Err(refused(text, field(), error.to_string())),
    }
}

#[cold]
fn refused(text: &str, field: String, problem: String) -> Refusal {
    Refusal::Quantity { field, text: text.chars().take(64).collect(), problem }
}

/// `resources` without one of them. Copies only where that one is there.
fn without<'p>(resources: Cow<'p, Resources<'p>>, name: &str) -> Cow<'p, Resources<'p>> {
    let has = |list: &Option<ResourceList<'p>>| list.as_ref().is_some_and(|l| l.get(name).is_some());
    if !has(&resources.requests) && !has(&resources.limits) {
        return resources;
    }
    let strip = |list: Option<ResourceList<'p>>| {
        let kept: Vec<_> = list?.0.into_iter().filter(|(key, _): &(_, Scalar<'_>)| &**key != name).collect();
        if kept.is_empty() { None } else { Some(Entries(kept)) }
    };
    let Resources { requests, limits, claims } = resources.into_owned();
    Cow::Owned(Resources { requests: strip(requests), limits: strip(limits), claims })
}
