//! The decision of `arch`: restricts pods to nodes with a CPU architecture that all of their images support.
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
pub mod exempt;
pub mod gate;
pub mod images;
pub mod platform;
pub mod table;
pub mod tolerations;
pub mod truncate;
pub mod webhook;

pub use webhook::Arch;
