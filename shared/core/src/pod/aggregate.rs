//! What the containers of a pod need at once.

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
