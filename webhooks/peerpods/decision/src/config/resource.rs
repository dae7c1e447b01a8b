//! What may be the name of a resource.

use crate::standing::CLAIMS;

/// `IsExtendedResourceName` of k8s.io/component-helpers, and that the name is well-formed.
pub(super) fn is_extended(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else { return false };
    let edge = |c: char| c.is_ascii_alphanumeric();
    let part = |part: &str, max: usize, inner: fn(char) -> bool| {
        !part.is_empty()
            && part.len() <= max
            && part.starts_with(edge)
            && part.ends_with(edge)
            && part.chars().all(inner)
    };
    !domain.ends_with("kubernetes.io")
        && !domain.starts_with("requests.")
        && domain.split('.').all(|label| part(label, 63, |c| matches!(c, 'a'..='z' | '0'..='9' | '-')))
        && part(rest, 63, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Whether Kubernetes itself knows it in a container.
pub(super) fn is_native(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage" | CLAIMS) || name.starts_with("hugepages-")
}
