//! YAML as Kubernetes' own tools take it: what is read means what it means to kubectl, and what is written means the same
//! to readers of YAML 1.1 and 1.2.
//!
//! kubectl, Helm and the API server read YAML with sigs.k8s.io/yaml, that is go-yaml v2: mostly YAML 1.1 (`yes` is a
//! boolean, `010` is eight), with exceptions of its own.
//!
//! The writer is serde-saphyr's. Its reader is of YAML 1.2 with some of 1.1: of 10,000 plain scalars that the tests generate 361
//! mean something else to it than to kubectl, and so do keys (`yes: 1`), merge keys and blocks at the end of a file. So the
//! reader here is our own, over the same parser.

mod read;
mod scalar;
mod write;

pub use read::{SyntaxError, line_of, parse};
pub use write::to_string;
