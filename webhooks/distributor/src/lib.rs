//! The webhook `distributor`: what knows the cluster, and its commands.
#![forbid(unsafe_code)]

pub mod cluster;
mod options;
pub mod page;
pub mod plan;

pub use options::{Offline as OfflineOptions, Options, Supposed};
