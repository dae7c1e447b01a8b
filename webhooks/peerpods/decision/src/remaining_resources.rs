//! The resources that containers still have after the patch, and the fields of the pod that depend on them.

use podshaper_core::json::{Entries, Scalar, Text};
use podshaper_core::pod::{
    ContainerList, Pod, PodPatch, ResourceField, ResourceList, ResourceTarget, Resources,
};
use podshaper_core::quantity::Quantity;

use crate::original_requests::{ContainerRequests, OriginalRequests};
use crate::validation::HUGEPAGES;

/// The name of `resources.claims` in `keepResources`.
pub(crate) const CLAIMS: &str = "claims";
/// The prefix of `emptyDir.medium` for hugepages. A size may follow: `HugePages-2Mi`.
const HUGEPAGES_MEDIUM: &str = "HugePages";
/// Names that one warning lists.
const MAX_NAMES: usize = 3;
/// The annotation in which LimitRanger names the defaults that it has set.
const LIMIT_RANGER: &str = "kubernetes.io/limit-ranger";

/// The resources that containers have beside the VM's. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemainingResources {
    /// Resources that containers keep.
    pub keep: Vec<String>,
    /// Resources that every container gets, for a ResourceQuota or LimitRange that requires them.
    pub placeholders: Vec<Placeholder>,
}

/// A resource that every container gets unless it keeps its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The resource's name.
    pub resource: String,
    /// The quantity of the request.
    pub request: String,
    /// The quantity of the limit, if there is one.
    pub limit: Option<String>,
}

impl RemainingResources {
    /// Whether containers keep `resource`.
    pub(crate) fn keeps(&self, resource: &str) -> bool {
        self.keep.iter().any(|kept| kept == resource)
    }

    /// The resources of a container that requested `requested`. `vm_resource` is for the one container that requests
    /// the VM.
    pub(crate) fn of_container<'r>(
        &'r self,
        requested: &'r Resources<'_>,
        vm_resource: Option<&'r str>,
    ) -> Resources<'r> {
        let mut requests = List::default();
        let mut limits = List::default();
        for resource in &self.keep {
            let quantity = |field: ResourceField| field.of(requested).and_then(|list| list.get(resource));
            let limit = quantity(ResourceField::Limits);
            if let Some(limit) = limit {
                limits.add(resource, limit);
            }
            // SetDefaults_Pod: a request defaults to its limit.
            if let Some(request) = quantity(ResourceField::Requests).or(limit) {
                requests.add(resource, request);
            }
        }
        for placeholder in &self.placeholders {
            if requests.lacks(&placeholder.resource) {
                requests.add(&placeholder.resource, &placeholder.request);
                if let Some(limit) = &placeholder.limit {
                    limits.add(&placeholder.resource, limit);
                }
            }
        }
        if let Some(vm_resource) = vm_resource {
            requests.add(vm_resource, "1");
            limits.add(vm_resource, "1");
        }
        let claims = if self.keeps(CLAIMS) { requested.claims.clone() } else { None };
        Resources { requests: requests.into_resource_list(), limits: limits.into_resource_list(), claims }
    }
}

/// Whether both mean the same. The API server respells quantities between passes.
pub(crate) fn equivalent(a: &Resources<'_>, b: &Resources<'_>) -> bool {
    let same_list = |field: ResourceField| match (field.of(a), field.of(b)) {
        (Some(a), Some(b)) => {
            let same_quantity = |(resource, quantity): (&str, &Scalar<'_>)| {
                a.get(resource).is_some_and(|other| same_quantity(other, quantity))
            };
            a.iter().all(|(resource, _)| b.get(resource).is_some()) && b.iter().all(same_quantity)
        }
        (list, None) | (None, list) => list.is_none_or(Entries::is_empty),
    };
    same_list(ResourceField::Requests)
        && same_list(ResourceField::Limits)
        && a.claims.as_deref().unwrap_or_default() == b.claims.as_deref().unwrap_or_default()
}

/// Whether both are the same amount.
pub(crate) fn same_quantity(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<Quantity>(), b.parse::<Quantity>()), (Ok(a), Ok(b)) if a == b)
}

#[derive(Default)]
struct List<'r>(Vec<(Text<'r>, Scalar<'r>)>);

impl<'r> List<'r> {
    fn add(&mut self, resource: &'r str, quantity: &'r str) {
        self.0.push((resource.into(), Scalar(quantity.into())));
    }

    fn lacks(&self, resource: &str) -> bool {
        self.0.iter().all(|(name, _)| &**name != resource)
    }

    fn into_resource_list(self) -> Option<ResourceList<'r>> {
        if self.0.is_empty() { None } else { Some(Entries(self.0)) }
    }
}

/// The fields of the pod that depend on resources of its containers, and follow them:
///
/// - `spec.resources` moves to the VM and is removed. Containers keep what they keep.
/// - `spec.resourceClaims` is removed together with the containers' claims. The scheduler would otherwise still allocate
///   the devices on the node.
/// - A volume with the medium `HugePages` becomes an ordinary `emptyDir` unless a container keeps hugepages of its size. The
///   kubelet would otherwise not mount it (`getPageSizeMountOption` of k8s.io/kubernetes/pkg/volume/emptydir).
pub(crate) struct PodFields<'r> {
    keeps_claims: bool,
    /// The page sizes that containers keep.
    page_sizes: Vec<&'r str>,
}

impl<'r> PodFields<'r> {
    /// The fields of a pod with these resources left in its containers.
    pub(crate) fn new(rules: &RemainingResources, containers: &'r [Resources<'_>]) -> Self {
        let requests = containers.iter().filter_map(|container| ResourceField::Requests.of(container));
        let names = requests.flat_map(ResourceList::iter).map(|(name, _)| name);
        Self {
            keeps_claims: rules.keeps(CLAIMS),
            page_sizes: names.filter_map(|name| name.strip_prefix(HUGEPAGES)).collect(),
        }
    }

    /// Whether `spec.resourceClaims` is removed.
    pub(crate) fn removes_claims(&self) -> bool {
        !self.keeps_claims
    }

    /// Adds the removals to the patch.
    pub(crate) fn patch(&self, patch: &mut PodPatch<'_, '_>) {
        patch.remove_resources(ResourceTarget::Pod);
        if self.removes_claims() {
            patch.remove_resource_claims();
        }
        patch.remove_empty_dir_media(|medium| self.removes_medium(medium));
    }

    /// A warning for each kind of field that is removed and not given to the VM.
    pub(crate) fn warnings(&self, pod: &Pod<'_>, requests: &OriginalRequests<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        let claims: Vec<&str> = requests.claims().filter(|_| self.removes_claims()).collect();
        if !claims.is_empty() {
            warnings.push(format!("not given to the VM: spec.resourceClaims {}", listed(&claims)));
        }
        let media = pod.empty_dir_media();
        let removed = media.iter().filter(|volume| self.removes_medium(&volume.medium));
        let volumes: Vec<&str> = removed.map(|volume| &*volume.volume).collect();
        if !volumes.is_empty() {
            let volumes = listed(&volumes);
            warnings.push(format!("the VM has no hugepages: volume {volumes} becomes an ordinary emptyDir"));
        }
        warnings
    }

    fn removes_medium(&self, medium: &str) -> bool {
        let Some(rest) = medium.strip_prefix(HUGEPAGES_MEDIUM) else { return false };
        let Some(size) = rest.strip_prefix('-') else {
            // Another medium is refused by the API server.
            return rest.is_empty() && self.page_sizes.is_empty();
        };
        let same = |kept: &&str| {
            *kept == size
                || matches!((Quantity::parse(kept), Quantity::parse(size)), (Ok(a), Ok(b)) if a == b)
        };
        !self.page_sizes.iter().any(same)
    }
}

fn listed(names: &[&str]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let first: Vec<&str> = names.iter().take(MAX_NAMES).copied().collect();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", first.join(", "))
}

/// A warning if another webhook has changed `container` since an earlier pass left it with `expected`.
///
/// Such a change does not count: the patch removes it again. The defaults of a LimitRange are no such change. LimitRanger
/// fills them in again between two passes, because the first pass has removed the container's resources.
pub(crate) fn later_change(
    pod: &Pod<'_>,
    container: &ContainerRequests<'_>,
    expected: &Resources<'_>,
    vm_resource: &str,
) -> Option<String> {
    let current = container.container().resources.as_ref().filter(|_| container.is_recorded())?;
    let defaults = Defaults::of(pod.annotation(LIMIT_RANGER).unwrap_or_default(), container);
    let (field, resource, quantity) = [ResourceField::Requests, ResourceField::Limits]
        .into_iter()
        .flat_map(|field| {
            let list = field.of(current).into_iter().flat_map(ResourceList::iter);
            list.map(move |(resource, quantity)| (field, resource, quantity))
        })
        .find(|(field, resource, quantity)| {
            let expected = field.of(expected).and_then(|list| list.get(resource));
            *resource != vm_resource
                && expected.is_none_or(|expected| !same_quantity(expected, quantity))
                && !defaults.contain(*field, resource)
        })?;
    let name = &*container.container().name;
    let field = field.field();
    Some(format!(
        "container {name}: {field}[{resource}] {} was set after the first call and does not count; \
         let peerpods run after the webhook that sets it",
        &**quantity
    ))
}

/// The defaults that LimitRanger has set, for one container.
struct Defaults<'a> {
    annotation: &'a str,
    /// The container as the annotation names it.
    container: String,
}

impl<'a> Defaults<'a> {
    fn of(annotation: &'a str, container: &ContainerRequests<'_>) -> Self {
        let list = match container.place().0 {
            ContainerList::Containers => "container",
            ContainerList::InitContainers => "init container",
        };
        Self { annotation, container: format!("{list} {}", &*container.container().name) }
    }

    /// `mergeContainerResources` of k8s.io/kubernetes/plugin/pkg/admission/limitranger writes
    /// `LimitRanger plugin set: cpu, memory request for container NAME; cpu limit for init container NAME`.
    fn contain(&self, field: ResourceField, resource: &str) -> bool {
        let Some((_, entries)) = self.annotation.split_once(": ") else { return false };
        let field = match field {
            ResourceField::Requests => "request",
            ResourceField::Limits => "limit",
        };
        let suffix = format!(" {field} for {}", self.container);
        entries
            .split("; ")
            .filter_map(|entry| entry.strip_suffix(&*suffix))
            .any(|resources| resources.split(", ").any(|one| one == resource))
    }
}
