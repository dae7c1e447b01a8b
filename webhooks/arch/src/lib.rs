//! The webhook `arch`: what asks registries and the cluster, and its commands.
#![forbid(unsafe_code)]

mod cluster;
pub mod credentials;
mod docker_config_watch;
pub mod explain;
mod fair_queue;
mod image_cache;
pub mod image_resolver;
mod metrics;
mod options;
mod program;
pub mod reference;
pub mod registry;
pub mod report;
pub mod secrets;

pub use arch_decision::name;
pub use program::ArchCommand;
