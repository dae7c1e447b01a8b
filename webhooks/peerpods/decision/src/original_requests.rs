//! The requests of a pod's author, which the pod may no longer contain.
//!
//! The first pass removes the containers' resources. Before a second pass, LimitRanger may have filled in defaults and
//! another webhook may have added a container. So the first pass records the resources in an annotation, and every pass
//! starts from it: a container that the annotation names counts with its recorded resources, any other container with
//! the resources that it has.
//!
//! ```json
//! {"containers": {"app": {"requests": {"cpu": "2"}}, "logger": {}}, "annotations": {}}
//! ```
//!
//! Beside them it has `pod`, the author's `spec.resources`, and `resourceClaims`, the names of removed claims.

use std::borrow::Cow;
use std::collections::HashMap;

use podshaper_core::json::{Entries, Scalar, Text, TextMap, bounded_list};
use podshaper_core::pod::{
    Container, ContainerList, Pod, PodResourceClaim, ResourceField, ResourceList, Resources, aggregate,
};
use podshaper_core::quantity::Quantity;
use serde::{Deserialize, Serialize, Serializer};

use crate::deny_reason::DenyReason;

/// The annotation that records the original requests.
pub const ANNOTATION: &str = "podshaper.dev/peerpods-resources";

/// More claims than a pod can have.
const MAX_CLAIMS: usize = 1024;

/// The original requests of a pod.
#[derive(Debug)]
pub(crate) struct OriginalRequests<'p> {
    /// `spec.containers`, then `spec.initContainers`.
    containers: Vec<ContainerRequests<'p>>,
    /// `spec.resources`.
    pod: PodResources<'p>,
    overhead: Option<&'p ResourceList<'p>>,
    annotations: Option<TextMap<'p>>,
    /// The names of claims that an earlier pass removed from `spec.resourceClaims`.
    recorded_claims: Vec<Text<'p>>,
    /// `spec.resourceClaims` as it is now.
    claims: &'p [PodResourceClaim<'p>],
    is_recorded: bool,
}

/// `spec.resources` of the author.
#[derive(Debug)]
enum PodResources<'p> {
    None,
    Recorded(Resources<'p>),
    Current(&'p Resources<'p>),
}

/// The original requests of one container or init container.
#[derive(Debug)]
pub(crate) struct ContainerRequests<'p> {
    list: ContainerList,
    index: usize,
    container: &'p Container<'p>,
    requested: Cow<'p, Resources<'p>>,
    is_recorded: bool,
}

/// The annotation as an earlier pass, or the author of the pod, wrote it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'p> {
    #[serde(borrow, default)]
    containers: Entries<'p, Resources<'p>>,
    #[serde(borrow)]
    pod: Option<Resources<'p>>,
    #[serde(borrow)]
    annotations: Option<TextMap<'p>>,
    #[serde(borrow, default, deserialize_with = "bounded_list::<_, _, MAX_CLAIMS>")]
    resource_claims: Option<Vec<Text<'p>>>,
}

/// The annotation as this pass writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewRecord<'r, 'p> {
    #[serde(serialize_with = "by_name")]
    containers: &'r [ContainerRequests<'p>],
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'r Resources<'p>>,
    annotations: &'r TextMap<'p>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_claims: Vec<&'r str>,
}

impl<'p> OriginalRequests<'p> {
    /// Reads them from `pod`. `vm_resource`, the extended resource of the VM, is the webhook's and not the author's.
    pub(crate) fn from_pod(pod: &'p Pod<'p>, vm_resource: &str) -> Result<Self, DenyReason> {
        let record = pod.annotation(ANNOTATION).map(serde_json::from_str::<Record<'p>>).transpose();
        let record = record.map_err(|error| DenyReason::Annotation { key: ANNOTATION, error })?;
        let is_recorded = record.is_some();
        let record = record.unwrap_or_default();
        // Containers may share a name until the API server validates the pod. Popped from the end, each takes its own.
        let mut by_name = HashMap::<_, Vec<_>>::new();
        for (name, resources) in record.containers.0.into_iter().rev() {
            by_name.entry(name).or_default().push(resources);
        }
        let containers = pod.containers().map(|(list, index, container)| {
            let recorded = by_name.get_mut(&container.name).and_then(Vec::pop);
            let is_recorded = recorded.is_some();
            let requested = recorded
                .map(Cow::Owned)
                .or(container.resources.as_ref().map(Cow::Borrowed))
                .unwrap_or_default();
            ContainerRequests {
                list,
                index,
                container,
                requested: without(requested, vm_resource),
                is_recorded,
            }
        });
        let spec = pod.spec.as_ref();
        let current = spec.and_then(|spec| spec.resources.as_ref());
        Ok(Self {
            containers: containers.collect(),
            pod: match (record.pod, current) {
                (Some(recorded), _) => PodResources::Recorded(recorded),
                (None, Some(current)) => PodResources::Current(current),
                (None, None) => PodResources::None,
            },
            overhead: spec.and_then(|spec| spec.overhead.as_ref()),
            annotations: record.annotations,
            recorded_claims: record.resource_claims.unwrap_or_default(),
            claims: spec.and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default(),
            is_recorded,
        })
    }

    /// All containers, init containers last.
    pub(crate) fn containers(&self) -> &[ContainerRequests<'p>] {
        &self.containers
    }

    /// `spec.resources`.
    pub(crate) fn pod(&self) -> Option<&Resources<'p>> {
        match &self.pod {
            PodResources::None => None,
            PodResources::Recorded(recorded) => Some(recorded),
            PodResources::Current(current) => Some(current),
        }
    }

    /// `spec.resources` if an earlier pass recorded it.
    pub(crate) fn recorded_pod(&self) -> Option<&Resources<'p>> {
        match &self.pod {
            PodResources::Recorded(recorded) => Some(recorded),
            PodResources::None | PodResources::Current(_) => None,
        }
    }

    /// The names of claims that an earlier pass removed from `spec.resourceClaims`.
    pub(crate) fn recorded_claims(&self) -> impl Iterator<Item = &str> {
        self.recorded_claims.iter().map(|name| &**name)
    }

    /// The names of the claims in `spec.resourceClaims`.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &str> {
        self.claims.iter().map(|claim| &*claim.name)
    }

    /// The author's values of annotations that an earlier pass has overwritten. `None` if no pass wrote the record.
    pub(crate) fn annotations(&self) -> Option<&TextMap<'p>> {
        self.annotations.as_ref()
    }

    /// Whether the pod carries a record, so that warnings about the pod were given before.
    pub(crate) fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    /// The value of the annotation. `annotations` are the author's values, and `removes_claims` records the names of
    /// `spec.resourceClaims`.
    pub(crate) fn record<'r>(
        &'r self,
        annotations: &'r TextMap<'p>,
        removes_claims: bool,
    ) -> impl Serialize + 'r {
        let removed = self.claims().filter(|_| removes_claims);
        NewRecord {
            containers: &self.containers,
            pod: self.pod(),
            annotations,
            resource_claims: self.recorded_claims().chain(removed).collect(),
        }
    }

    /// The amount of `spec.resources`, or else the sum over all containers, init containers included.
    pub(crate) fn sum(&self, field: ResourceField, resource: &str) -> Result<Quantity, DenyReason> {
        if let Some(total) = self.pod_level(field, resource)? {
            return Ok(total);
        }
        let mut sum = Quantity::ZERO;
        for container in &self.containers {
            sum = add(sum, container.quantity(field, resource)?, resource)?;
        }
        Ok(sum)
    }

    /// The peak that the pod needs: `PodRequests` and `PodLimits` of k8s.io/component-helpers/resource.
    pub(crate) fn effective(
        &self,
        field: ResourceField,
        resource: &str,
        with_overhead: bool,
    ) -> Result<Quantity, DenyReason> {
        let containers = self.containers.iter().map(|container| {
            let role = container.container.role(container.list);
            Ok((role, container.quantity(field, resource)?))
        });
        let total = match self.pod_level(field, resource)? {
            Some(total) => total,
            None => aggregate(containers, |a, b| add(a, b, resource))?,
        };
        // PodLimits adds the overhead only to a limit that is set.
        if !with_overhead || (field == ResourceField::Limits && total == Quantity::ZERO) {
            return Ok(total);
        }
        let Some(text) = self.overhead.and_then(|list| list.get(resource)) else { return Ok(total) };
        add(total, parse(text, || format!("spec.overhead[{resource}]"))?, resource)
    }

    fn pod_level(&self, field: ResourceField, resource: &str) -> Result<Option<Quantity>, DenyReason> {
        self.pod().map_or(Ok(None), |pod| quantity(pod, field, resource, || "the pod".into()))
    }
}

impl<'p> ContainerRequests<'p> {
    /// Its list in the pod, and its index there.
    pub(crate) fn place(&self) -> (ContainerList, usize) {
        (self.list, self.index)
    }

    /// The container as it is now.
    pub(crate) fn container(&self) -> &'p Container<'p> {
        self.container
    }

    /// The original requests and limits, without the VM's resource.
    pub(crate) fn requested(&self) -> &Resources<'p> {
        &self.requested
    }

    /// Whether an earlier pass recorded it, and so gave the warnings about it.
    pub(crate) fn is_recorded(&self) -> bool {
        self.is_recorded
    }

    fn quantity(&self, field: ResourceField, resource: &str) -> Result<Quantity, DenyReason> {
        let requested =
            quantity(&self.requested, field, resource, || format!("container {}", &*self.container.name));
        Ok(requested?.unwrap_or(Quantity::ZERO))
    }
}

fn by_name<S: Serializer>(containers: &[ContainerRequests<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(containers.iter().map(|one| (&*one.container.name, &one.requested)))
}

fn quantity(
    resources: &Resources<'_>,
    field: ResourceField,
    resource: &str,
    owner: impl FnOnce() -> String,
) -> Result<Option<Quantity>, DenyReason> {
    let Some(text) = field.of(resources).and_then(|list| list.get(resource)) else { return Ok(None) };
    parse(text, || format!("resources.{}[{resource}] of {}", field.field(), owner())).map(Some)
}

/// Parses the quantity in `field`.
///
/// A quantity of the pod itself was validated before. One of the record was not.
fn parse(text: &str, field: impl FnOnce() -> String) -> Result<Quantity, DenyReason> {
    let problem = match Quantity::parse(text.trim()) {
        Ok(quantity) if quantity >= Quantity::ZERO => return Ok(quantity),
        Ok(_) => "must not be negative".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(DenyReason::Quantity { field: field(), text: text.chars().take(64).collect(), problem })
}

fn add(a: Quantity, b: Quantity, resource: &str) -> Result<Quantity, DenyReason> {
    a.checked_add(&b).ok_or_else(|| DenyReason::Overflow(resource.to_owned()))
}

/// `resources` without `name`; copied only if they contain it.
fn without<'p>(resources: Cow<'p, Resources<'p>>, name: &str) -> Cow<'p, Resources<'p>> {
    let contains =
        |list: &Option<ResourceList<'p>>| list.as_ref().is_some_and(|list| list.get(name).is_some());
    if !contains(&resources.requests) && !contains(&resources.limits) {
        return resources;
    }
    let strip = |list: Option<ResourceList<'p>>| {
        let kept: Vec<_> = list?.0.into_iter().filter(|(key, _): &(_, Scalar<'_>)| &**key != name).collect();
        if kept.is_empty() { None } else { Some(Entries(kept)) }
    };
    let Resources { requests, limits, claims } = resources.into_owned();
    Cow::Owned(Resources { requests: strip(requests), limits: strip(limits), claims })
}
