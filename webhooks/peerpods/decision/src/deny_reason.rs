//! Reasons to deny a peer pod.

use podshaper_core::pod::AnnotationsTooLarge;

use crate::sizing::VmSize;

/// A reason to deny a peer pod. The message names what the pod's author must change.
#[derive(Debug, thiserror::Error)]
pub enum DenyReason {
    /// A quantity of the record that the API server would refuse in a container.
    #[error("{field} is {text:?}: {problem}")]
    Quantity {
        /// The quantity's place in the pod.
        field: String,
        /// The first 64 characters as written.
        text: String,
        /// The rule that it breaks.
        problem: String,
    },
    /// A total beyond 63 bits, in the unit of its annotation.
    #[error("the pod requests more {0} than an annotation can hold: lower its resources")]
    Overflow(String),
    /// No machine of the catalogue is large enough for this size.
    #[error(
        "no machine in the catalogue has {0}: lower the pod's resources, or add a machine to the catalogue"
    )]
    NoMachine(String),
    /// An annotation of the webhook's own that isn't its JSON.
    #[error("annotation {key} can't be read: {error}; remove it, the webhook writes it itself")]
    Annotation {
        /// The annotation's key.
        key: &'static str,
        /// The parser's error.
        error: serde_json::Error,
    },
    /// The webhook's annotations would exceed the API server's limit.
    #[error(transparent)]
    AnnotationsTooLarge(#[from] AnnotationsTooLarge),
}

impl DenyReason {
    /// No machine has `size`, with GPUs of each of `gpu_resources`.
    pub(crate) fn no_machine(size: VmSize, gpu_resources: &[&str]) -> Self {
        let of = if gpu_resources.is_empty() { "" } else { " of " };
        Self::NoMachine(format!("{size}{of}{}", gpu_resources.join(" and ")))
    }
}
