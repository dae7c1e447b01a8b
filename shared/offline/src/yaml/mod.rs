//! YAML as Kubernetes' own tools read it. A value has the same meaning as for kubectl, and the output has the same meaning in YAML 1.1
//! and 1.2.
//!
//! kubectl, Helm and the API server read YAML with sigs.k8s.io/yaml, that is go-yaml v2: mostly YAML 1.1 (`yes` is a
//! boolean, `010` is eight), with exceptions of its own.
//!
//! The writer is serde-saphyr's. Its reader implements YAML 1.2 with parts of 1.1: of 10,000 plain scalars that the tests generate, 361
//! have another value than for kubectl, and so have keys (`yes: 1`), merge keys and blocks at the end of a file. So the reader is our own,
//! over the same parser.

mod read;
mod scalar;
mod write;

pub use read::{SyntaxError, line_of, parse};
pub use write::to_string;
