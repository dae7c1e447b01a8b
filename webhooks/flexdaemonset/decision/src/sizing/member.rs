//! A pod's containers with what each has and what its author asked for.

use podshaper_core::pod::{ContainerRole, Pod, ResourceField, ResourceTarget, Resources};

use crate::memory::Memory;
use crate::resource::{Each, Resource};

/// One container or init container.
#[derive(Debug)]
pub struct Member<'p> {
    /// Its place.
    pub holder: ResourceTarget,
    /// Its name.
    pub name: &'p str,
    /// When it runs.
    pub role: ContainerRole,
    /// What its author asked for.
    pub own: Each<Ask>,
    /// What it has now.
    pub has: Each<Ask>,
}

/// A request and a limit, in millicores or bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The request.
    pub request: Option<i64>,
    /// The limit.
    pub limit: Option<i64>,
}

/// The pod's members: containers first, then init containers in their order.
///
/// # Errors
/// A quantity that the API server wouldn't have let in.
pub(super) fn members<'p>(pod: &'p Pod<'p>, memory: Option<&Memory<'_>>) -> Result<Vec<Member<'p>>, String> {
    pod.containers()
        .map(|(list, index, container)| {
            let role = container.role(list);
            let has = asks(container.resources.as_ref(), &container.name)?;
            let own = match memory.and_then(|memory| memory.containers.get(&container.name)) {
                Some(remembered) => asks(Some(remembered), &container.name)?,
                None => has,
            };
            Ok(Member {
                holder: ResourceTarget::Container(list, index),
                name: &container.name,
                role,
                own,
                has,
            })
        })
        .collect()
}

/// What `resources` ask for; where there is a limit alone, as much as that (`SetDefaults_Pod`).
pub fn asks(resources: Option<&Resources<'_>>, name: &str) -> Result<Each<Ask>, String> {
    let mut asks = Each::<Ask>::default();
    let Some(resources) = resources else { return Ok(asks) };
    for resource in Resource::ALL {
        let read = |field: ResourceField| {
            let Some(text) = field.of(resources).and_then(|list| list.get(resource.name())) else {
                return Ok(None);
            };
            let place = || format!("resources.{}[{}] of {name}", field.field(), resource.name());
            match resource.read(text) {
                Ok(amount) if amount >= 0 => Ok(Some(amount)),
                Ok(_) => Err(format!("{} must not be negative", place())),
                Err(error) => Err(format!("{}: {error}", place())),
            }
        };
        let limit = read(ResourceField::Limits)?;
        *asks.get_mut(resource) = Ask { request: read(ResourceField::Requests)?.or(limit), limit };
    }
    Ok(asks)
}
