//! The webhook `distributor`: what knows the cluster, and its commands.
#![forbid(unsafe_code)]

pub mod cluster;
mod options;
pub mod page;
mod plan;
mod program;

pub use program::DistributorCommand;
