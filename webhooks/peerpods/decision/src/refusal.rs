//! Why a peer pod can't be admitted.

use podshaper_core::pod::NoRoom;

use crate::originals;
use crate::size::Size;

/// Why a peer pod is refused. Each message is for the one who wrote the pod.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A quantity that Kubernetes couldn't read either.
    #[error("{field} is {text:?}: {problem}")]
    Quantity {
        /// Where it stands.
        field: String,
        /// As written.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A sum that no VM could have, and that wouldn't fit an annotation.
    #[error("the {0} that the pod asks for is more than can be written down: lower its resources")]
    TooMuch(&'static str),
    /// Nothing in the catalogue is large enough.
    #[error("no machine on offer has {0}: lower the pod's resources, or add a machine to the catalogue")]
    NoMachine(Size),
    /// The memory of the first pass, damaged.
    #[error("annotation {key} can't be read: {0}; remove it, the webhook writes it itself", key = originals::ANNOTATION)]
    Originals(#[from] serde_json::Error),
    /// The API server would refuse the pod for what the webhook writes down.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}
