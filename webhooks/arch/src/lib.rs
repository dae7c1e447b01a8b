//! Pods on nodes whose CPU architecture all their images run on.
//!
//! ```text
//! pod ──▶ its images ──▶ what registries know of each ──▶ nodes that run all ──▶ affinity, tolerations
//! ```
//!
//! The decision is a pure function of the pod and of what is known of its images; without the feature `serve` there is
//! nothing that asks registries.
#![forbid(unsafe_code)]

pub mod affinity;
pub mod config;
pub mod decide;
pub mod duration;
pub mod gate;
pub mod images;
mod listed;
pub mod platform;
pub mod table;
mod tolerations;
pub mod treated;
mod webhook;

#[cfg(feature = "serve")]
mod cache;
#[cfg(feature = "serve")]
mod cluster;
#[cfg(feature = "serve")]
pub mod credentials;
#[cfg(feature = "serve")]
pub mod explain;
#[cfg(feature = "serve")]
pub mod known;
#[cfg(feature = "serve")]
mod metrics;
#[cfg(feature = "serve")]
mod mounted;
#[cfg(feature = "serve")]
pub mod name;
#[cfg(feature = "serve")]
mod options;
#[cfg(feature = "serve")]
mod registry;
#[cfg(feature = "serve")]
pub mod report;
#[cfg(feature = "serve")]
pub mod secrets;
#[cfg(feature = "serve")]
mod shares;

#[cfg(feature = "serve")]
pub use options::{Offline, Options};
pub use webhook::Arch;
