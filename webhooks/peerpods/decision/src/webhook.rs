//! The admission decision: from a pod to the patch that makes it a peer pod.

use std::time::Instant;

use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::json::Entries;
use podshaper_core::patch::Patch;
use podshaper_core::pod::{ContainerList, Pod, PodPatch, ResourceField, ResourceTarget, Resources};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::annotations::{SizeAnnotations, author_values, size_annotations};
use crate::config::{Config, ConfigError};
use crate::deny_reason::DenyReason;
use crate::original_requests::{self, ContainerRequests, OriginalRequests};
use crate::remaining_resources::{CLAIMS, PodFields, equivalent, later_change};
use crate::runtime_class::{Mode, RuntimeClass};
use crate::validation::{self, Violation};

/// Resources that warnings name; more get one line together. The API server truncates warnings beyond 4 KiB.
const MAX_RESOURCES: usize = 8;
/// Containers that a warning names; more are counted.
const MAX_CONTAINERS: usize = 3;

/// The peerpods webhook.
#[derive(Debug)]
pub struct PeerPods {
    classes: Vec<RuntimeClass>,
    deny_unreadable: bool,
}

impl PeerPods {
    /// The webhook for the runtime classes of `config` and for those of `names`.
    ///
    /// `resource` is the VM's resource of a class for which `config` sets none.
    pub fn new<'n>(
        config: Config,
        names: impl IntoIterator<Item = &'n str>,
        resource: &str,
    ) -> Result<Self, ConfigError> {
        Ok(Self { classes: config.into_classes(names, resource)?, deny_unreadable: false })
    }

    /// The webhook that denies a peer pod which it can't read or would make too large, instead of admitting it unchanged.
    #[must_use]
    pub fn denying_unreadable(self, deny_unreadable: bool) -> Self {
        Self { deny_unreadable, ..self }
    }

    /// Decides about one request.
    pub fn decide(&self, request: &Request<'_, Pod<'_>>) -> Decision {
        if !request.creates_pod() {
            let kind = &request.kind;
            if kind.group.is_empty() && &*kind.kind == "Pod" {
                return Decision::unchanged();
            }
            let warning = format!(
                "peerpods changes pods when they are created: take {} {} out of the webhook's rules",
                kind.group, kind.kind
            );
            return Decision::unchanged().with_warnings([warning]);
        }
        let Some(pod) = &request.object else {
            return Decision::undecided("peerpods: the request has no object");
        };
        let Some(class) = self.class_of(pod) else { return Decision::unchanged() };
        if pod.list(ContainerList::Containers).is_empty() {
            return Decision::undecided("peerpods: the pod has no containers");
        }
        match (class.mode, Change::of(pod, class)) {
            (Mode::Enforce, Ok(change)) => {
                Decision::patched(change.patch).with_warnings(prefixed("peerpods", change.warnings))
            }
            (Mode::Enforce, Err(NoChange::Invalid(violation))) => {
                Decision::unchanged().with_warnings([format!("peerpods: {UNCHANGED}: {violation}")])
            }
            (Mode::Enforce, Err(NoChange::Denied(reason))) => Decision::denied(format!("peerpods: {reason}")),
            (Mode::Audit, Ok(change)) => {
                let warnings = [vec![change.summary], change.warnings].concat();
                Decision::unchanged().with_warnings(prefixed(AUDIT, warnings))
            }
            (Mode::Audit, Err(NoChange::Invalid(violation))) => {
                Decision::unchanged().with_warnings([format!("{AUDIT}: {UNCHANGED}: {violation}")])
            }
            (Mode::Audit, Err(NoChange::Denied(reason))) => {
                Decision::unchanged().with_warnings([format!("{AUDIT}: would refuse the pod: {reason}")])
            }
        }
    }

    fn class_of(&self, pod: &Pod<'_>) -> Option<&RuntimeClass> {
        if pod.is_mirror() {
            return None;
        }
        let name = pod.spec.as_ref()?.runtime_class_name.as_deref()?;
        self.classes.iter().find(|class| class.name == name)
    }
}

impl Webhook for PeerPods {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, _deadline: Instant) -> Decision {
        self.decide(request)
    }

    fn unreadable(&self, request: &Request<'_, &RawValue>, problem: String) -> Decision {
        let class = request.object.as_ref().filter(|_| request.creates_pod()).and_then(|pod| {
            let name = runtime_class_name(pod)?;
            self.classes.iter().find(|class| class.name == name)
        });
        match class {
            Some(class) if self.deny_unreadable && class.mode == Mode::Enforce => {
                Decision::denied(format!("peerpods: {problem}"))
            }
            _ => Decision::undecided(problem),
        }
    }

    fn oversized(&self, problem: String) -> Decision {
        if self.deny_unreadable {
            Decision::denied(format!("peerpods: {problem}"))
        } else {
            Decision::undecided(problem)
        }
    }
}

/// `spec.runtimeClassName` of a pod with other fields that can't be read.
fn runtime_class_name(pod: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct ClassOnly {
        spec: Option<Spec>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        runtime_class_name: Option<String>,
    }
    serde_json::from_str::<ClassOnly>(pod.get()).ok()?.spec?.runtime_class_name
}

const AUDIT: &str = "peerpods (audit)";
const UNCHANGED: &str = "the pod keeps its resources and its VM is not sized";

fn prefixed(prefix: &str, warnings: Vec<String>) -> impl Iterator<Item = String> {
    warnings.into_iter().map(move |warning| format!("{prefix}: {warning}"))
}

/// The change of one peer pod.
struct Change {
    patch: Patch,
    /// The patch in one line, for audits.
    summary: String,
    warnings: Vec<String>,
}

/// A reason for no change.
#[derive(Debug)]
enum NoChange {
    /// The pod breaks a rule of Kubernetes, so the API server refuses it.
    Invalid(Violation),
    /// The webhook denies the pod.
    Denied(DenyReason),
}

impl From<Violation> for NoChange {
    fn from(violation: Violation) -> Self {
        Self::Invalid(violation)
    }
}

impl<E: Into<DenyReason>> From<E> for NoChange {
    fn from(reason: E) -> Self {
        Self::Denied(reason.into())
    }
}

impl Change {
    /// The change depends on the original requests alone, not on what an earlier pass or LimitRanger wrote into the pod. So
    /// another pass has the same result.
    fn of(pod: &Pod<'_>, class: &RuntimeClass) -> Result<Self, NoChange> {
        let requests = OriginalRequests::from_pod(pod, &class.resource)?;
        validation::check(pod, &requests)?;
        let vm_size = class.sizing.vm_size(&requests)?;
        let gpu_resources = class.sizing.gpu_resources(&requests)?;
        let author_values = author_values(class, pod, requests.annotations());
        let annotations = size_annotations(class, &author_values, vm_size, &gpu_resources)?;
        let remaining = remaining(class, &requests);
        let fields = PodFields::new(&class.remaining, &remaining);

        let mut patch = PodPatch::new(pod);
        for (key, value) in &annotations {
            match value {
                Some(value) => patch.set_annotation(key, value),
                None => patch.remove_annotation(key),
            }
        }
        let record = requests.record(&author_values, fields.removes_claims());
        patch.set_annotation_json(original_requests::ANNOTATION, &record);
        for (container, wanted) in requests.containers().iter().zip(&remaining) {
            let (list, index) = container.place();
            match &container.container().resources {
                Some(current) if equivalent(wanted, current) => {}
                None if wanted.is_empty() => {}
                _ if wanted.is_empty() => patch.remove_resources(ResourceTarget::Container(list, index)),
                _ => patch.set_resources(ResourceTarget::Container(list, index), wanted),
            }
        }
        fields.patch(&mut patch);

        let mut warnings = warnings(class, &requests);
        warnings.extend(fields.warnings(pod, &requests));
        for (container, wanted) in requests.containers().iter().zip(&remaining) {
            warnings.extend(later_change(pod, container, wanted, &class.resource));
        }
        warnings.extend(
            class
                .sizing
                .small_memory_warning(vm_size)
                .filter(|_| class.catalogue.is_none() && !requests.is_recorded()),
        );
        let summary = summary(class, &annotations);
        Ok(Self { patch: patch.finish()?, summary, warnings })
    }
}

/// The resources that each container has after the patch.
fn remaining<'r>(class: &'r RuntimeClass, requests: &'r OriginalRequests<'_>) -> Vec<Resources<'r>> {
    let containers = requests.containers().iter().map(|container| {
        let requests_vm = container.place() == (ContainerList::Containers, 0);
        class.remaining.of_container(container.requested(), requests_vm.then_some(&*class.resource))
    });
    containers.collect()
}

fn summary(class: &RuntimeClass, annotations: &SizeAnnotations<'_>) -> String {
    let mut summary = format!("would replace the containers' resources by one {}", class.resource);
    for (key, value) in annotations {
        if let Some(value) = value {
            let name = key.rsplit('.').next().unwrap_or(key);
            summary.extend([", ", name, " ", value]);
        }
    }
    summary
}

/// A line for each resource that this pass removes and no annotation passes on.
///
/// An earlier pass has warned about the containers that it recorded.
fn warnings(class: &RuntimeClass, requests: &OriginalRequests<'_>) -> Vec<String> {
    let mut dropped = DroppedResources::default();
    for container in requests.containers().iter().filter(|container| !container.is_recorded()) {
        let requested = container.requested();
        for (resource, _) in lists(requested) {
            if !class.sizing.counts(resource) && !class.remaining.keeps(resource) {
                dropped.add(resource, container);
            }
        }
        if requested.claims.as_ref().is_some_and(|c| !c.is_empty()) && !class.remaining.keeps(CLAIMS) {
            dropped.add(CLAIMS, container);
        }
    }
    let mut lines: Vec<String> = dropped.resources.iter().map(DroppedResource::line).collect();
    if dropped.more {
        lines.push("not given to the VM: more resources than are named here".into());
    }
    if !requests.is_recorded() {
        lines.extend(pod_level(class, requests));
    }
    lines
}

fn pod_level(class: &RuntimeClass, requests: &OriginalRequests<'_>) -> Option<String> {
    let pod = requests.pod().filter(|pod| !pod.is_empty())?;
    let (first, _) = lists(pod).find(|(resource, _)| !class.sizing.counts(resource))?;
    Some(format!("not given to the VM: {first} of spec.resources"))
}

fn lists<'r>(resources: &'r Resources<'_>) -> impl Iterator<Item = (&'r str, &'r str)> {
    let lists = [ResourceField::Requests.of(resources), ResourceField::Limits.of(resources)];
    lists.into_iter().flatten().flat_map(Entries::iter).map(|(resource, quantity)| (resource, &**quantity))
}

#[derive(Default)]
struct DroppedResources<'r> {
    resources: Vec<DroppedResource<'r>>,
    more: bool,
}

struct DroppedResource<'r> {
    name: &'r str,
    containers: Vec<&'r str>,
    more: usize,
    /// The container added last: it may have both a request and a limit.
    last: (ContainerList, usize),
}

impl<'r> DroppedResources<'r> {
    fn add(&mut self, name: &'r str, container: &'r ContainerRequests<'_>) {
        let place = container.place();
        let container = &*container.container().name;
        if let Some(resource) = self.resources.iter_mut().find(|resource| resource.name == name) {
            if resource.last == place {
                return;
            }
            resource.last = place;
            if resource.containers.len() < MAX_CONTAINERS {
                resource.containers.push(container);
            } else {
                resource.more += 1;
            }
        } else if self.resources.len() < MAX_RESOURCES {
            self.resources.push(DroppedResource { name, containers: vec![container], more: 0, last: place });
        } else {
            self.more = true;
        }
    }
}

impl DroppedResource<'_> {
    fn line(&self) -> String {
        let more = if self.more > 0 { format!(" and {} more", self.more) } else { String::new() };
        format!("not given to the VM: {} of {}{more}", self.name, self.containers.join(", "))
    }
}
