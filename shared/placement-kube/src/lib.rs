//! Placement against the Kubernetes API: the ledgers, the owners of pods, and metrics.
#![forbid(unsafe_code)]

pub mod ledgers;
pub mod owners;
pub mod placing;
