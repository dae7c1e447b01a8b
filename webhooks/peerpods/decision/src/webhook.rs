//! The admission decision: from a pod to the patch that makes it a peer pod.

use std::time::Instant;

use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::patch::Patch;
use podshaper_core::pod::{ContainerList, Pod, PodPatch, ResourceTarget};

use crate::annotations::{SizeAnnotations, author_values, size_annotations};
use crate::config::{Config, ConfigError};
use crate::deny_reason::DenyReason;
use crate::original_requests::{self, OriginalRequests};
use crate::remaining_resources::equivalent;
use crate::runtime_class::{Mode, RuntimeClass};
use crate::warnings::warnings;

/// The peerpods webhook.
#[derive(Debug)]
pub struct PeerPods {
    classes: Vec<RuntimeClass>,
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
        Ok(Self { classes: config.into_classes(names, resource)? })
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
            (Mode::Enforce, Err(reason)) => Decision::denied(format!("peerpods: {reason}")),
            (Mode::Audit, Ok(change)) => {
                let warnings = [vec![change.summary], change.warnings].concat();
                Decision::unchanged().with_warnings(prefixed(AUDIT, warnings))
            }
            (Mode::Audit, Err(reason)) => {
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
}

const AUDIT: &str = "peerpods (audit)";

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

impl Change {
    /// The change depends on the original requests alone, not on what an earlier pass or LimitRanger wrote into the pod. So
    /// another pass has the same result.
    fn of(pod: &Pod<'_>, class: &RuntimeClass) -> Result<Self, DenyReason> {
        let requests = OriginalRequests::from_pod(pod, &class.resource)?;
        let vm_size = class.sizing.vm_size(&requests)?;
        let author_values = author_values(class, pod, requests.annotations());
        let annotations = size_annotations(class, &author_values, vm_size)?;

        let mut patch = PodPatch::new(pod);
        for (key, value) in &annotations {
            match value {
                Some(value) => patch.set_annotation(key, value),
                None => patch.remove_annotation(key),
            }
        }
        let moves_pod_resources = class.sizing.moves_pod_resources();
        let record = requests.record(&author_values, moves_pod_resources);
        patch.set_annotation_json(original_requests::ANNOTATION, &record);
        for container in requests.containers() {
            let (list, index) = container.place();
            let requests_vm = list == ContainerList::Containers && index == 0;
            let vm_resource = requests_vm.then_some(&*class.resource);
            let wanted = class.remaining.of_container(container.requested(), vm_resource);
            match &container.container().resources {
                Some(current) if equivalent(&wanted, current) => {}
                None if wanted.is_empty() => {}
                _ if wanted.is_empty() => patch.remove_resources(ResourceTarget::Container(list, index)),
                _ => patch.set_resources(ResourceTarget::Container(list, index), &wanted),
            }
        }
        if moves_pod_resources {
            patch.remove_resources(ResourceTarget::Pod);
        }
        let summary = summary(class, &annotations);
        Ok(Self { patch: patch.finish()?, summary, warnings: warnings(class, &requests) })
    }
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
