//! The webhook `custom-scheduler-annotations`: what knows the cluster, and its commands.
#![forbid(unsafe_code)]

pub mod cluster;
mod options;
mod plan;
mod program;

pub use program::CustomSchedulerCommand;
