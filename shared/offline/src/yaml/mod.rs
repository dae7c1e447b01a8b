//! YAML as Kubernetes' own tools take it: what is read means what it means to kubectl, and what is written means the same
//! to readers of YAML 1.1 and 1.2.
//!
//! kubectl, Helm and the API server read YAML with sigs.k8s.io/yaml, that is go-yaml v2: mostly YAML 1.1 (`yes` is a
//! boolean, `010` is eight), with exceptions of its own.

mod locate;
mod read;
mod scalar;
mod write;

pub use locate::line_of;
pub use read::{SyntaxError, parse};
pub use write::to_string;
