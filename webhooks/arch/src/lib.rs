//! The webhook `arch`: what asks registries and the cluster, and its commands.
#![forbid(unsafe_code)]

mod cache;
mod cluster;
pub mod credentials;
pub mod explain;
pub mod known;
mod metrics;
mod mounted;
pub mod name;
mod options;
mod program;
mod registry;
pub mod report;
pub mod secrets;
mod shares;

pub use program::ArchCommand;
