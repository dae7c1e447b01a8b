//! The webhook `flexdaemonset` in a cluster, and its commands.
#![forbid(unsafe_code)]

pub mod cluster;
mod options;
mod plan;
mod program;

pub use program::FlexDaemonsetCommand;
