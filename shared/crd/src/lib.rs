//! `CustomResourceDefinition`s from Rust types.
//!
//! The types of `spec` and `status` derive [`JsonSchema`](schemars::JsonSchema); their doc comments are the descriptions, and CEL rules are
//! extensions of the schema. A [`CustomResource`] puts the definition around them. The files in `crds/` are generated:
//! `UPDATE_CRDS=1 cargo test -p podshaper-crd` writes them, and without the variable the same test compares.
#![forbid(unsafe_code)]

mod condition;
mod definition;
mod schema;

pub use condition::{Condition, ConditionStatus, Conditions, NewCondition};
pub use definition::{CustomResource, PrinterColumn, ResourceScope};
pub use schema::{rule, rule_at};
