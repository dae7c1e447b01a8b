//! The webhook `custom-scheduler-annotations`: what knows the cluster, and its commands.
#![forbid(unsafe_code)]

pub mod cluster;
mod options;
pub mod plan;

pub use options::{Offline, Options, Supposed};
