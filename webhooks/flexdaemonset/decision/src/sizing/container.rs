//! A container with its original, its current and its new requests and limits.

use podshaper_core::pod::{Container, ContainerRole, Pod, ResourceField, ResourceTarget, Resources};

use crate::original_requests::OriginalRequests;
use crate::resource::{PerResource, RequestAndLimit, SizedResource};

/// One container or init container.
#[derive(Debug)]
pub struct SizedContainer<'p> {
    /// Its place in the pod.
    pub place: ResourceTarget,
    /// The container as it is now.
    pub container: &'p Container<'p>,
    /// When it runs.
    pub role: ContainerRole,
    /// The requests of its author.
    pub original: PerResource<RequestAndLimit>,
    /// The current requests.
    pub current: PerResource<RequestAndLimit>,
    /// The new requests; `None` for a resource that stays as it is.
    pub sized: PerResource<Option<RequestAndLimit>>,
}

/// The resources of the pod as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLevel {
    /// Those of its author.
    pub original: PerResource<RequestAndLimit>,
    /// The current ones.
    pub current: PerResource<RequestAndLimit>,
    /// The new ones; `None` for a resource that stays as it is.
    pub sized: PerResource<Option<RequestAndLimit>>,
}

impl PodLevel {
    pub(super) fn of(pod: &Pod<'_>, original: Option<&OriginalRequests<'_>>) -> Result<Self, String> {
        let resources = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        let current = requests_and_limits(resources, "the pod")?;
        let original = match original.and_then(|original| original.pod.as_ref()) {
            Some(original) => requests_and_limits(Some(original), "the pod")?,
            None => current,
        };
        Ok(Self { original, current, sized: PerResource::default() })
    }

    /// The new amounts, or the current ones of a resource that stays as it is.
    pub fn target(&self, resource: SizedResource) -> RequestAndLimit {
        self.sized.get(resource).unwrap_or(*self.current.get(resource))
    }
}

impl<'p> SizedContainer<'p> {
    /// All containers of `pod`, init containers last, not sized yet.
    pub(super) fn all(
        pod: &'p Pod<'p>,
        original: Option<&OriginalRequests<'_>>,
    ) -> Result<Vec<Self>, String> {
        let mut containers = Vec::new();
        for (list, index, container) in pod.containers() {
            let current = requests_and_limits(container.resources.as_ref(), &container.name)?;
            let original = match original.and_then(|original| original.containers.get(&container.name)) {
                Some(original) => requests_and_limits(Some(original), &container.name)?,
                None => current,
            };
            let place = ResourceTarget::Container(list, index);
            let role = container.role(list);
            let sized = PerResource::default();
            containers.push(Self { place, container, role, original, current, sized });
        }
        Ok(containers)
    }

    /// The new requests, or the current ones of a resource that stays as it is.
    pub fn target(&self, resource: SizedResource) -> RequestAndLimit {
        self.sized.get(resource).unwrap_or(*self.current.get(resource))
    }
}

/// Parses the sized resources of `owner`.
pub(crate) fn requests_and_limits(
    resources: Option<&Resources<'_>>,
    owner: &str,
) -> Result<PerResource<RequestAndLimit>, String> {
    let Some(resources) = resources else { return Ok(PerResource::default()) };
    PerResource::try_from_fn(|resource| {
        let parse = |field: ResourceField| {
            let Some(text) = field.of(resources).and_then(|list| list.get(resource.name())) else {
                return Ok(None);
            };
            let place = || format!("resources.{}[{}] of {owner}", field.field(), resource.name());
            match resource.parse(text) {
                Ok(amount) if amount >= 0 => Ok(Some(amount)),
                Ok(_) => Err(format!("{} must not be negative", place())),
                Err(error) => Err(format!("{}: {error}", place())),
            }
        };
        let limit = parse(ResourceField::Limits)?;
        Ok(RequestAndLimit { request: parse(ResourceField::Requests)?.or(limit), limit })
    })
}
