//! What a pod requests at once, by Kubernetes' own formula.

use super::member::Role;

/// `PodRequests` of k8s.io/component-helpers/resource, without overhead: containers and sidecars run together; an
/// init container runs beside the sidecars before it; the larger counts.
pub fn effective(members: impl IntoIterator<Item = (Role, i64)>) -> i64 {
    let (mut together, mut sidecars, mut starting) = (0_i64, 0_i64, 0_i64);
    for (role, request) in members {
        match role {
            Role::Container => together = together.saturating_add(request),
            Role::Sidecar => {
                together = together.saturating_add(request);
                sidecars = sidecars.saturating_add(request);
                starting = starting.max(sidecars);
            }
            Role::Init => starting = starting.max(sidecars.saturating_add(request)),
        }
    }
    together.max(starting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_own_examples() {
        use Role::{Container, Init, Sidecar};
        assert_eq!(effective([(Container, 3), (Container, 4), (Init, 5)]), 7);
        assert_eq!(effective([(Container, 3), (Init, 9)]), 9);
        assert_eq!(effective([(Container, 3), (Sidecar, 2), (Init, 9), (Sidecar, 5)]), 11);
        assert_eq!(effective([(Container, 3), (Init, 4), (Sidecar, 2)]), 5);
    }
}
