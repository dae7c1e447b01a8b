//! Containers, their resources, and what all containers of a pod need at once.

use serde::{Deserialize, Serialize};

use crate::json::{Entries, Scalar, Text, bounded_list};

/// More claims than a container can name.
const MAX_CLAIMS: usize = 1024;

/// `v1.Container`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container<'a> {
    /// `name`, unique among containers and init containers.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// `image`.
    #[serde(borrow)]
    pub image: Option<Text<'a>>,
    /// `imagePullPolicy`. The API server defaults it before it calls a webhook.
    #[serde(borrow)]
    pub image_pull_policy: Option<Text<'a>>,
    /// `resources`.
    #[serde(borrow)]
    pub resources: Option<Resources<'a>>,
    /// `restartPolicy`. An init container with `Always` is a sidecar.
    #[serde(borrow)]
    pub restart_policy: Option<Text<'a>>,
}

/// `v1.ResourceRequirements`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Resources<'a> {
    /// `requests`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceList<'a>>,
    /// `limits`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceList<'a>>,
    /// `claims`.
    #[serde(
        borrow,
        default,
        deserialize_with = "bounded_list::<_, _, MAX_CLAIMS>",
        skip_serializing_if = "Option::is_none"
    )]
    pub claims: Option<Vec<ResourceClaim<'a>>>,
}

/// `v1.ResourceClaim`, as a container names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ResourceClaim<'a> {
    /// `name`.
    #[serde(borrow, default)]
    pub name: Text<'a>,
    /// `request`, one of those in the claim.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub request: Option<Text<'a>>,
}

/// `v1.ResourceList`: quantities, as text, by resource name.
pub type ResourceList<'a> = Entries<'a, Scalar<'a>>;

/// One of a pod's lists of containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerList {
    /// `spec.containers`.
    Containers,
    /// `spec.initContainers`.
    InitContainers,
}

impl ContainerList {
    /// The list's name in `spec`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::InitContainers => "initContainers",
        }
    }
}

/// One of the lists in [`Resources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceField {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl ResourceField {
    /// The list's name in `resources`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }

    /// The list in `resources`.
    pub fn of<'r, 'a>(self, resources: &'r Resources<'a>) -> Option<&'r ResourceList<'a>> {
        match self {
            Self::Requests => resources.requests.as_ref(),
            Self::Limits => resources.limits.as_ref(),
        }
    }
}

/// When a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerRole {
    /// One of `spec.containers`: beside all others, for as long as the pod runs.
    App,
    /// A restartable init container: from its turn on, beside all that follow.
    Sidecar,
    /// An init container: in its turn, beside the sidecars before it.
    Init,
}

impl Container<'_> {
    /// When the container runs if it is in this list.
    pub fn role(&self, list: ContainerList) -> ContainerRole {
        match list {
            ContainerList::Containers => ContainerRole::App,
            ContainerList::InitContainers if self.restart_policy.as_deref() == Some("Always") => {
                ContainerRole::Sidecar
            }
            ContainerList::InitContainers => ContainerRole::Init,
        }
    }
}

impl Resources<'_> {
    /// Whether there are no requests, limits and claims.
    pub fn is_empty(&self) -> bool {
        self.requests.as_ref().is_none_or(Entries::is_empty)
            && self.limits.as_ref().is_none_or(Entries::is_empty)
            && self.claims.as_ref().is_none_or(Vec::is_empty)
    }
}

/// The amount of one resource that a pod of these containers needs: all app containers and sidecars together, or the init container
/// that needs most beside the sidecars before it (`AggregateContainerRequests` and `AggregateContainerLimits` of
/// k8s.io/component-helpers/resource; pod-level resources and overhead are the caller's).
///
/// Init containers come in their order. No amount is negative, so a sidecar that starts needs no more than all that run later.
pub fn aggregate<A: Copy + Default + Ord, E>(
    containers: impl IntoIterator<Item = Result<(ContainerRole, A), E>>,
    add: impl Fn(A, A) -> Result<A, E>,
) -> Result<A, E> {
    let mut running = A::default();
    let mut sidecars = A::default();
    let mut starting = A::default();
    for container in containers {
        let (role, amount) = container?;
        match role {
            ContainerRole::App => running = add(running, amount)?,
            ContainerRole::Sidecar => {
                running = add(running, amount)?;
                sidecars = add(sidecars, amount)?;
            }
            ContainerRole::Init => starting = starting.max(add(sidecars, amount)?),
        }
    }
    Ok(running.max(starting))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_of_running_and_starting_counts() {
        use ContainerRole::{App, Init, Sidecar};
        let total = |containers: &[(ContainerRole, i64)]| {
            aggregate(containers.iter().copied().map(Ok), |a, b| a.checked_add(b).ok_or("overflow"))
        };
        assert_eq!(total(&[(App, 3), (App, 4), (Init, 5)]), Ok(7));
        assert_eq!(total(&[(App, 3), (Init, 9)]), Ok(9));
        assert_eq!(total(&[(App, 3), (Sidecar, 2), (Init, 9), (Sidecar, 5)]), Ok(11));
        assert_eq!(total(&[(App, 3), (Init, 4), (Sidecar, 2)]), Ok(5));
        assert_eq!(total(&[(Sidecar, i64::MAX), (Init, 1)]), Err("overflow"));
    }
}
